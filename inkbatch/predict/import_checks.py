"""Does an imported network answer at all? Constant answers, and parts that no training has ever changed.

Both are found in published files. Such a bundle is imported, and its warnings stay with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import inkbatch
from inkbatch.errors import ConfigError
from inkbatch.models.base import InkModel
from inkbatch.models.bundle import Contract
from inkbatch.predict.reference import network_input, probe_px

PAPYRUS = Path(inkbatch.__file__).parent / "demo" / "layers"
"""The shipped crop of a papyrus, the only real data that is always at hand."""

STILL_LOGITS = 0.01
"""Logits that move by less between papyrus, noise and nothing say the same of all of them."""

FEWEST_NORMS = 2


def import_warnings(model: InkModel, contract: Contract) -> tuple[str, ...]:
    """Look for signs that a network says nothing.

    Args:
        model: The network, in evaluation mode on the CPU.
        contract: What it must be fed.

    Returns:
        Warnings in words; none for a network that shows no such sign. That is no proof that it finds ink.
    """
    found = []
    moved = largest_move(model, contract)
    if not moved >= STILL_LOGITS:  # NaN as well
        found.append(
            "its answers do not move: papyrus, the same papyrus with its layers shuffled, noise and nothing get logits "
            f"within {moved:.2g} of each other"
        )
    if parts := untrained_parts(model):
        found.append(f"no training has changed {', '.join(parts)}: every norm in there is as a new network has it")
    return tuple(found)


def largest_move(model: InkModel, contract: Contract) -> float:
    """Measure the largest difference of a logit between any two of papyrus, shuffled papyrus, noise and nothing."""
    device = torch.device("cpu")
    with torch.inference_mode():
        tiles = probe_tiles(contract, probe_px(model, contract))
        together = torch.cat([model(network_input(tile, contract, device)).float() for tile in tiles])
    return float((together.amax(dim=0) - together.amin(dim=0)).max())


def probe_tiles(contract: Contract, tile_px: int) -> Iterator[NDArray[Any]]:
    """Yield papyrus, the same with layers shuffled, noise and zeros: (Z, tile_px, tile_px), the contract's dtype."""
    papyrus = papyrus_tile(contract.layers.count, tile_px)
    random = np.random.default_rng(0)
    shuffled = papyrus[random.permutation(len(papyrus))]
    noise = random.integers(0, 256, papyrus.shape, dtype=np.uint8)
    for tile in (papyrus, shuffled, noise, np.zeros_like(papyrus)):
        yield tile if contract.dtype == "uint8" else tile.astype(np.uint16) * np.uint16(257)


def papyrus_tile(layers: int, tile_px: int) -> NDArray[np.uint8]:
    """Cut a piece of the shipped crop, uint8 (layers, tile_px, tile_px), its layers repeated and its borders mirrored.

    Raises:
        ConfigError: The crop is not installed.
    """
    files = sorted(PAPYRUS.glob("*.tif"))
    if not files:
        raise ConfigError(
            f"{PAPYRUS}: the demo's layers are not installed; install inkbatch again, or state --no-check"
        )
    chosen = np.linspace(0, len(files) - 1, layers).round().astype(int)
    read = {index: tifffile.imread(files[index]) for index in sorted(set(chosen.tolist()))}
    stack = np.stack([read[index] for index in chosen.tolist()])
    spare = [max(tile_px - edge, 0) for edge in stack.shape[1:]]
    stack = np.pad(stack, ((0, 0), *((0, more) for more in spare)), mode="reflect")
    y, x = ((edge - tile_px) // 2 for edge in stack.shape[1:])
    return np.ascontiguousarray(stack[:, y : y + tile_px, x : x + tile_px])


def untrained_parts(model: nn.Module) -> list[str]:
    """Name the parts of a network, at most two names deep, whose norms are all as initialisation leaves them.

    A norm that has been trained has unlike weights and biases other than zero. Parts with fewer than two norms tell
    nothing, and neither does a part that trains with everything frozen.
    """
    paths = [path for path, _ in model.named_modules() if path and path.count(".") < 2]
    found: list[str] = []
    for path in paths:
        norms = [module for module in model.get_submodule(path).modules() if _is_norm(module)]
        if len(norms) >= FEWEST_NORMS and all(_is_initial(norm) for norm in norms):
            found.append(path)
    return [path for path in found if path.rpartition(".")[0] not in found]


def _is_norm(module: nn.Module) -> bool:
    """Tell whether a module is a norm with weight and bias of its own, over more than one channel."""
    kinds = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
    return isinstance(module, kinds) and isinstance(module.weight, Tensor) and module.weight.numel() > 1


def _is_initial(norm: nn.Module) -> bool:
    weight, bias = norm.weight, norm.bias
    still = isinstance(weight, Tensor) and bool((weight == weight.flatten()[0]).all())
    return still and (not isinstance(bias, Tensor) or not bias.any())

"""A bundle's reference tile: what its network answered where it was made, asked again on every new device.

A wrong driver, a damaged GPU or a bad compile must not give maps. The tile is synthetic; it shows nothing scanned.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from inkbatch.errors import CorruptDataError, DataError
from inkbatch.io.store.location import Location
from inkbatch.models.base import InkModel
from inkbatch.models.bundle import Bundle, Contract
from inkbatch.predict.device import TOLERANCE, autocast, spread_of
from inkbatch.predict.normalise import normalise_tiles
from inkbatch.predict.passes import cpu_threads
from inkbatch.predict.segment_statistics import array_statistics

REFERENCE_FILE = "reference.safetensors"

LEAST_PX = 64
COARSE_PX = 8
SEED = 1

_checked: set[tuple[str, str, str, torch.dtype]] = set()
"""Bundle (its folder and weights), device and precision that this process has already compared."""


def probe_px(model: InkModel, contract: Contract) -> int:
    """Choose the edge of a tile that is cheap to ask: the contract's, or a smaller one that the network takes."""
    if model.fixed_tile_px is not None:
        return model.fixed_tile_px
    multiple = math.lcm(model.tile_multiple, model.output_scale)
    least = max(LEAST_PX, model.smallest_tile_px)
    return min(contract.tile_px, -(-least // multiple) * multiple)


def network_input(stored: NDArray[Any], contract: Contract, device: torch.device) -> Tensor:
    """Normalise a tile as the network sees it.

    Args:
        stored: (Z, Y, X) in the contract's dtype, depth order as the network expects it.
        contract: What the network must be fed.
        device: Where the result lies.

    Returns:
        float32 (1, 1, Z, Y, X).
    """
    tiles = torch.from_numpy(stored)[None].to(device)
    return normalise_tiles(tiles, contract, array_statistics(contract, stored, device))[:, None]


def made_up_tile(contract: Contract, tile_px: int) -> NDArray[Any]:
    """Make coarse and fine noise, (Z, tile_px, tile_px) in the contract's dtype; the same for equal arguments."""
    noise = np.random.default_rng(SEED)
    layers, side = contract.layers.count, -(-tile_px // COARSE_PX)
    coarse = noise.integers(0, 156, (-(-layers // COARSE_PX), side, side)).repeat(COARSE_PX, axis=0)[:layers]
    coarse = coarse.repeat(COARSE_PX, axis=1).repeat(COARSE_PX, axis=2)[:, :tile_px, :tile_px]
    grey = coarse + noise.integers(0, 100, coarse.shape)
    return grey.astype(np.uint8) if contract.dtype == "uint8" else (257 * grey).astype(np.uint16)


def keep_reference(location: Location, model: InkModel, contract: Contract) -> dict[str, Any]:
    """Ask a network on the CPU in float32, and store tile and answer in its bundle's folder.

    One thread makes the pass, which rounds the same however many there are.

    Args:
        location: The bundle's folder.
        model: The network, in evaluation mode on the CPU.
        contract: What it must be fed.

    Returns:
        What ``bundle.json`` says of it: ``tile_px`` and the file's ``sha256``.
    """
    tile = made_up_tile(contract, probe_px(model, contract))
    with cpu_threads(1), torch.inference_mode():
        expected = model(network_input(tile, contract, torch.device("cpu"))).float().contiguous()
    data = safetensors.torch.save({"tile": torch.from_numpy(tile), "expected": expected})
    (location / REFERENCE_FILE).write_bytes(data)
    return {"tile_px": tile.shape[-1], "sha256": hashlib.sha256(data).hexdigest()}


def check_reference(
    network: InkModel, bundle: Bundle, device: torch.device, dtype: torch.dtype = torch.float32
) -> float | None:
    """Ask a network its bundle's reference tile, once per process, device and precision.

    Overrides of the contract play no part: the tile is fed as the bundle was imported.

    Args:
        network: The bundle's network, in evaluation mode on `device`.
        bundle: The bundle.
        device: Where it computes.
        dtype: Precision of the pass.

    Returns:
        The largest difference found, in standard deviations of the expected logits; None where the bundle has no
        reference, or was asked already.

    Raises:
        CorruptDataError: The reference is missing, of another shape, or not the one that ``bundle.json`` names.
        DataError: The answer is another one than `TOLERANCE` allows.
    """
    document = bundle.document
    key = (bundle.location.uri, document.weights_sha256, str(device), dtype)
    if not document.reference or key in _checked:
        return None
    tile, expected = _read(bundle)
    threads = cpu_threads(1) if device.type == "cpu" else contextlib.nullcontext()  # as at import: equal to the bit
    with threads, torch.inference_mode(), autocast(device, dtype):
        given = network_input(tile.numpy(), document.contract, device)
        found = network.forward(given).float().cpu()
    if found.shape != expected.shape:
        raise CorruptDataError(
            f"{bundle.location / REFERENCE_FILE}: cannot be read: expected logits {list(found.shape)}, got "
            f"{list(expected.shape)}; copy the whole bundle again"
        )
    difference = float((found - expected).abs().max()) / spread_of(expected)
    if not difference <= TOLERANCE[dtype]:  # NaN differs too
        raise DataError(
            f"bundle {document.name} on {device}: its reference tile gives other logits here than at import: "
            f"expected logits within {TOLERANCE[dtype]:g} standard deviations, got {difference:.3g}; check "
            "driver and torch (inkbatch doctor), try --precision fp32, or import the bundle again"
        )
    _checked.add(key)
    return difference


def _read(bundle: Bundle) -> tuple[Tensor, Tensor]:
    place = bundle.location / REFERENCE_FILE
    try:
        data = place.read_bytes()
        if hashlib.sha256(data).hexdigest() != bundle.document.reference.get("sha256"):
            raise CorruptDataError(f"{place}: not the reference that bundle.json names; copy the bundle again")
        tensors = safetensors.torch.load(data)
        return tensors["tile"], tensors["expected"]
    except (FileNotFoundError, KeyError, SafetensorError) as error:
        raise CorruptDataError(f"{place}: cannot be read: {error}; copy the whole bundle again") from error

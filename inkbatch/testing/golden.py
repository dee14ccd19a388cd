"""Golden tensors of published networks: weights that any machine can make again, an input, and the logits they gave.

Every weight is a pure function of its state-dict key, shape and dtype, so a network with the right keys and shapes
gets the weights of the reference run without a checkpoint. The first rule that matches decides (N: unit-variance
noise of that key):

| tensor | values |
|---|---|
| ``…num_batches_tracked`` | 1 |
| ``…frame_rot_emb.inv_freqs``, length n | 10000 ** (-i / n) |
| ``…image_rot_emb.scales``, length n | n values, spaced evenly in log2 from 1 to 5 |
| ``…running_mean`` | 0.1 N |
| ``…running_var`` | 1 + 0.1 abs(N) |
| ``…cls_token``, ``…position_embeddings`` | 0.5 N |
| two or more axes | N * sqrt(2 / product of all axes but the first) |
| ``…bias`` | 0.1 N |
| ``….bn3.weight`` | 0.1 (1 + 0.1 N); keeps activations of order one through 50 residual blocks |
| any other vector (scales of norms) | 1 + 0.1 N |
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

TOLERANCE = 1e-4
"""Largest difference allowed, in standard deviations of the golden logits; threads and kernels move it by 1.5e-5."""

PROBE_TOLERANCE = 1e-3
"""The same for inner activations, which only help to find the place."""

UNIFORM_SUM_MEAN = 4 * 65535 / 2
UNIFORM_SUM_STD = math.sqrt(4 * (65536**2 - 1) / 12)

PLAIN = ("seed", "input_shape", "output", "output_step")
"""Arrays that every fixture may hold; all others are extra."""

Manifest = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape and dtype by state-dict key."""


def noise(key: str, shape: Iterable[int]) -> NDArray[np.float64]:
    """Make unit-variance noise that depends on `key` and `shape` only.

    PCG64 seeded with the CRC-32 of the key; one raw 64-bit word per element in C order; the sum of its four 16-bit
    quarters, centred and scaled. numpy promises the raw stream, so no version of numpy changes it.
    """
    shape = tuple(shape)
    words = np.atleast_1d(np.asarray(np.random.PCG64(zlib.crc32(key.encode())).random_raw(math.prod(shape)), np.uint64))
    sums = words.astype("<u8").view("<u2").reshape(-1, 4).sum(axis=1, dtype=np.int64)
    return np.asarray((sums - UNIFORM_SUM_MEAN) / UNIFORM_SUM_STD).reshape(shape)


def fill_state_dict(manifest: Manifest) -> dict[str, Tensor]:
    """Make the weights of every key of a manifest. Keys count as spelled, without a checkpoint's prefix."""
    return {key: _fill(key, shape, dtype) for key, (shape, dtype) in manifest.items()}


def _fill(key: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return torch.ones(shape, dtype=dtype)
    if not dtype.is_floating_point:
        raise ValueError(f"golden weights: no rule for {key!r}, which is {dtype}")
    return torch.from_numpy(np.asarray(_values(key, leaf, shape), dtype=np.float32)).to(dtype)


def _values(key: str, leaf: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    if key.endswith("frame_rot_emb.inv_freqs"):
        return np.asarray(10000.0 ** (-np.arange(shape[0]) / shape[0]))
    if key.endswith("image_rot_emb.scales"):
        return np.asarray(2.0 ** np.linspace(0.0, math.log2(5.0), shape[0]))
    random = noise(key, shape)
    if leaf == "running_mean":
        return 0.1 * random
    if leaf == "running_var":
        return 1.0 + 0.1 * np.abs(random)
    if leaf in ("cls_token", "position_embeddings"):
        return 0.5 * random
    if len(shape) >= 2:
        return random * math.sqrt(2.0 / math.prod(shape[1:]))
    if leaf == "bias":
        return 0.1 * random
    return (0.1 if key.endswith(".bn3.weight") else 1.0) * (1.0 + 0.1 * random)


def make_input(seed: int, shape: Iterable[int]) -> Tensor:
    """Make uniform float32 in [0, 1), in C order: the top 24 bits of the raw PCG64 words of `seed`, over 2**24."""
    shape = tuple(shape)
    words = np.asarray(np.random.PCG64(seed).random_raw(math.prod(shape)), np.uint64)
    return torch.from_numpy(((words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)).reshape(shape))


def _dtype(key: str) -> torch.dtype:
    return torch.int64 if key.endswith("num_batches_tracked") else torch.float32


@dataclass(frozen=True)
class Golden:
    """One golden fixture.

    Attributes:
        name: Its name, for messages.
        manifest: Keys of the published checkpoint, with shapes and dtypes.
        probes: By module path: ``shape``, ``std`` and, at the flat indices ``at``, some ``values`` of that module's
            output in the reference run.
        seed: Seed of the input.
        input_shape: (B, 1, Z, Y, X).
        output: Golden logits, float32, before any sigmoid, in the shape that the original code returned.
        step: `output` holds every step-th row and column.
        std: Standard deviation of the full output; None takes that of `output`.
        tolerance: Largest difference allowed, in standard deviations.
        extra: Further arrays of the reference run, by name.
    """

    name: str
    manifest: Manifest
    probes: Mapping[str, Mapping[str, Any]]
    seed: int
    input_shape: tuple[int, ...]
    output: Tensor
    step: int = 1
    std: float | None = None
    tolerance: float = TOLERANCE
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def read(folder: Path, name: str) -> Golden:
        """Read ``{name}.json`` and ``{name}.npz`` of a folder.

        The JSON holds ``keys`` (shape by key; all float32 but ``num_batches_tracked``, int64) and ``probes``; it may
        hold ``tolerance`` and ``output_std``.
        """
        facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        with np.load(folder / f"{name}.npz") as arrays:
            seed, shape = int(arrays["seed"]), tuple(int(edge) for edge in arrays["input_shape"])
            output, step = torch.from_numpy(arrays["output"]), int(arrays.get("output_step", 1))
            extra = {key: torch.from_numpy(arrays[key]) for key in arrays if key not in PLAIN}
        manifest = {key: (tuple(axes), _dtype(key)) for key, axes in facts["keys"].items()}
        std, tolerance = facts.get("output_std"), facts.get("tolerance", TOLERANCE)
        return Golden(name, manifest, facts["probes"], seed, shape, output, step, std, tolerance, extra)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape by key, as importers see a checkpoint."""
        return {key: shape for key, (shape, _) in self.manifest.items()}

    def subvolume(self) -> Tensor:
        """Return the input of the reference run."""
        return make_input(self.seed, self.input_shape)

    def fill(self, model: nn.Module) -> None:
        """Load the golden weights under the published keys.

        Raises:
            RuntimeError: A key or shape of `model` is not that of the published checkpoint.
        """
        model.load_state_dict(fill_state_dict(self.manifest), strict=True)

    def difference(self, found: Tensor, expected: Tensor) -> float:
        """Return the largest difference of two answers, in standard deviations of the golden logits."""
        return float((found - expected).abs().max() / (self.output.std() if self.std is None else self.std))

    def require_match(self, model: nn.Module) -> None:
        """Check that `model`, filled and run in evaluation mode, gives the golden logits.

        Raises:
            AssertionError: It does not; the message names the difference, and the first probed module that differs.
        """
        self.fill(model)
        differences: dict[str, float] = {}
        modules = dict(model.named_modules())
        hooks = [
            modules[path].register_forward_hook(partial(_compare, differences, path, probe))
            for path, probe in self.probes.items()
            if path in modules
        ]
        with torch.inference_mode():
            logits = model.eval()(self.subvolume())
        for hook in hooks:
            hook.remove()
        kept = logits[..., :: self.step, :: self.step].reshape(self.output.shape)
        difference = self.difference(kept, self.output)
        if not difference < self.tolerance:  # NaN differs too
            wrong = next((path for path, by in differences.items() if not by < PROBE_TOLERANCE), "none")
            raise AssertionError(
                f"{self.name}: logits differ by {difference:.2e} standard deviations, {self.tolerance:.0e} is allowed; "
                f"the first probed module that differs: {wrong}"
            )


def _compare(
    differences: dict[str, float], path: str, probe: Mapping[str, Any], _module: nn.Module, _args: Any, out: Any
) -> None:
    """Note how far a module's output is from its probe, before anything changes it in place; a forward hook."""
    if not isinstance(out, Tensor) or list(out.shape) != probe["shape"]:
        return
    found = out.flatten()[torch.tensor(probe["at"])]
    differences[path] = float((found - torch.tensor(probe["values"])).abs().max() / probe["std"])

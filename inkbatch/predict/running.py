"""Statistics over the depths of a sweep, kept running: memory does not grow with the number of depths.

A pixel's values are those that `infer` would store: float16 from 0 to 1. Mean and deviation are taken of their
differences from the first one, which float32 holds exactly, so equal values have that mean and a deviation of 0.
Counts are whole numbers: their sums do not depend on how a surface is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from inkbatch.data.maps.depth_agreement import AGREEMENT_STEPS, DepthAgreement, scored_pairs
from inkbatch.data.maps.sweep import BLOCK_PX, CODES, GRID
from inkbatch.io.half_floats import to_half
from inkbatch.predict.normalise import bincount_without_waiting

BITS = 1 << 15  # codes of half floats without a sign; those from `CODES` on are above 1, infinite or no numbers


@dataclass(frozen=True)
class DepthStatistics:
    """Statistics of one series in one unit.

    Attributes:
        mean: float16 (height, width).
        deviation: float16, the standard deviation over depths.
        best: float16, the largest value.
        best_depth: uint8, 1 + the place of the first depth that has it; 0 where there is no value.
        histogram: (CODES,) int64: how often each float16 code occurs.
        block_sum: (depths, rows, columns) int64: sums of blocks of `BLOCK_PX`, in units of ``1 / GRID``.
        depths: uint8 (depths, height, width), value times 255, or None.
        bounds: Smallest and largest value before it was clipped to 0 to 1.
        is_finite: False if a value was NaN or infinite.
    """

    mean: NDArray[np.float16]
    deviation: NDArray[np.float16]
    best: NDArray[np.float16]
    best_depth: NDArray[np.uint8]
    histogram: NDArray[np.int64]
    block_sum: NDArray[np.int64]
    depths: NDArray[np.uint8] | None
    bounds: tuple[float, float]
    is_finite: bool


def block_sums(whole: Tensor) -> Tensor:
    """Add up blocks of `BLOCK_PX` of whole numbers, (height, width) int32 to (rows, columns) int64."""
    height, width = whole.shape
    rows, columns = -(-height // BLOCK_PX), -(-width // BLOCK_PX)
    padded = functional.pad(whole, (0, columns * BLOCK_PX - width, 0, rows * BLOCK_PX - height))
    return padded.view(rows, BLOCK_PX, columns, BLOCK_PX).sum((1, 3), dtype=torch.int64)


class RunningAgreement:
    """Sums for the agreement of all bundles in one series, depth by depth.

    Args:
        common: Boolean (height, width) on the device: every bundle has a value.
        bundles: Their number.
        depths: How many maps of each will come.
    """

    def __init__(self, common: Tensor, bundles: int, depths: int) -> None:
        self._common, self._count = common, 0
        rows, columns = (-(-side // BLOCK_PX) for side in common.shape)
        self._sums, self._products = (
            torch.zeros((number, depths, rows, columns), dtype=torch.int64, device=common.device)
            for number in (bundles, len(scored_pairs(bundles)))
        )

    def add(self, maps: Sequence[Tensor]) -> None:
        """Add the maps of all bundles at the next depth, float16 (height, width)."""
        steps = [(one.float() * AGREEMENT_STEPS).round_().to(torch.int32) * self._common for one in maps]
        for bundle, one in enumerate(steps):
            self._sums[bundle, self._count] = block_sums(one)
        for pair, (a, b) in enumerate(scored_pairs(len(steps))):
            self._products[pair, self._count] = block_sums(steps[a] * steps[b])
        self._count += 1

    def result(self) -> DepthAgreement:
        """Return the sums of all maps that came."""
        pixels = block_sums(self._common.to(torch.int32))
        return DepthAgreement(*(part.cpu().numpy() for part in (pixels, self._sums, self._products)))


class RunningStatistics:
    """Statistics of one series, depth by depth.

    Args:
        has_value: Boolean (height, width) on the device: papyrus that some tile covers; all else is 0.
        depths: How many maps will come.
        keep: Keep each map as 8 bits, too.
    """

    def __init__(self, has_value: Tensor, depths: int, *, keep: bool = False) -> None:
        self._has_value, self._count, self._keep = has_value, 0, keep
        self._index = has_value.flatten().nonzero()[:, 0]
        self._bounds = torch.tensor([torch.inf, -torch.inf], device=has_value.device)
        self._histogram = torch.zeros(BITS, dtype=torch.int64, device=has_value.device)
        rows, columns = (-(-side // BLOCK_PX) for side in has_value.shape)
        self._blocks = torch.zeros((depths, rows, columns), dtype=torch.int64, device=has_value.device)
        self._kept: list[NDArray[np.uint8]] = []

    def add(self, found: Tensor) -> Tensor:
        """Add the map of the next depth, float32 (height, width); returns it as it is counted, float16."""
        low, high = torch.aminmax(torch.where(self._has_value, found, 0))
        self._bounds = torch.stack([torch.minimum(self._bounds[0], low), torch.maximum(self._bounds[1], high)])
        half = torch.where(self._has_value, found.clamp(0, 1), 0).half().abs_()
        self._update(half.float())
        self._tally(half)
        if self._keep:
            self._kept.append((half.float() * 255).round_().to(torch.uint8).cpu().numpy())
        self._count += 1
        return half

    def _update(self, value: Tensor) -> None:
        if not self._count:
            self._first, self._best = value, value.clone()
            self._sum, self._square = torch.zeros_like(value), torch.zeros_like(value)
            self._place = self._has_value.to(torch.uint8)
            return
        step = value - self._first
        self._sum += step
        self._square += step.square_()
        self._place = torch.where(value > self._best, self._has_value.to(torch.uint8) * (self._count + 1), self._place)
        torch.maximum(self._best, value, out=self._best)

    def _tally(self, half: Tensor) -> None:
        codes = half.view(torch.int16).flatten()[self._index].to(torch.int64)
        on_cpu = half.device.type == "cpu"
        self._histogram += (torch.bincount if on_cpu else bincount_without_waiting)(codes, minlength=BITS)
        self._blocks[self._count] = block_sums((half.float() * GRID).to(torch.int32))

    def result(self) -> DepthStatistics:
        """Return the statistics of all maps that came; one at least."""
        shift = self._sum.div_(self._count)
        variance = self._square.div_(self._count).sub_(shift * shift).clamp_(min=0).cpu().numpy()
        histogram = self._histogram.cpu().numpy()
        low, high = self._bounds.tolist()
        return DepthStatistics(
            mean=(self._first + shift).half().cpu().numpy(),
            deviation=to_half(np.sqrt(variance)),  # torch rounds square roots by their place in the tensor
            best=self._best.half().cpu().numpy(),
            best_depth=self._place.cpu().numpy(),
            histogram=histogram[:CODES],
            block_sum=self._blocks.cpu().numpy(),
            depths=np.stack(self._kept) if self._keep else None,
            bounds=(low, high),
            is_finite=not histogram[CODES:].any(),
        )

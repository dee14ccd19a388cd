"""Zones: areas of segments that validate or test, each with a gap to what trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.counting import BoxCounts
from inkbatch.data.datasets.index import SplitName
from inkbatch.data.datasets.leakage import touching
from inkbatch.errors import ConfigError


@dataclass(frozen=True)
class HeldOut:
    """Held-out pixels of a segment that count.

    Attributes:
        pixels: On papyrus, not ignored.
        near: Those of them that one sample would show together with a pixel that trains, if there were no moat.
    """

    pixels: int
    near: int

    @property
    def leak(self) -> float:
        """Share of `near`; 0 without held-out pixels."""
        return self.near / self.pixels if self.pixels else 0.0


class SegmentZones(Protocol):
    """Zones of one segment."""

    def home(self, boxes: NDArray[np.int64]) -> list[SplitName | int | None]:
        """Find the split or fold that each box belongs to; None where it belongs nowhere."""

    def near(self, boxes: NDArray[np.int64], fold: int) -> NDArray[np.bool_]:
        """Find the boxes too near to a fold to train while it validates."""

    def scored(self, places: BoxCounts) -> BoxCounts:
        """Count what scores of places that validate."""


@dataclass(frozen=True)
class Zones:
    """The blocks of one segment that validate or test; everything else trains, away from them.

    Attributes:
        shape_px: Edge of a block.
        blocks: By (row, column) of the block grid: the split, or the fold.
        buffer_px: Smallest gap between a training sample and a foreign block.
    """

    shape_px: int
    blocks: Mapping[tuple[int, int], SplitName | int]
    buffer_px: int

    def home(self, boxes: NDArray[np.int64]) -> list[SplitName | int | None]:
        """Find the split or fold that each box belongs to.

        Returns:
            The split or fold of the one block that holds it wholly; else ``train`` where it is clear of all validation
            and test blocks (with folds, `near` says when it may not); None where it belongs nowhere.
        """
        found: list[SplitName | int | None] = []
        fixed = self._boxes_of([name for name in ("validation", "test") if name in self.blocks.values()])
        clear = ~touching(boxes, fixed, self.buffer_px)
        edge = self.shape_px
        for (y0, x0, y1, x1), is_clear in zip(boxes.tolist(), clear, strict=True):
            row, column = y0 // edge, x0 // edge
            own = self.blocks.get((row, column)) if ((y1 - 1) // edge, (x1 - 1) // edge) == (row, column) else None
            if own is not None and own != "train" and (is_clear or not isinstance(own, int)):
                found.append(own)
            else:
                found.append("train" if is_clear else None)
        return found

    def near(self, boxes: NDArray[np.int64], fold: int) -> NDArray[np.bool_]:
        """Find the boxes too near to a block of a fold to train while that fold validates."""
        return touching(boxes, self._boxes_of([fold]), self.buffer_px)

    def _boxes_of(self, wanted: Sequence[SplitName | int]) -> NDArray[np.int64]:
        edge = self.shape_px
        rows = [
            (y * edge, x * edge, (y + 1) * edge, (x + 1) * edge) for (y, x), to in self.blocks.items() if to in wanted
        ]
        return np.array(rows, np.int64).reshape(-1, 4)

    def scored(self, places: BoxCounts) -> BoxCounts:
        """Return the places that validate as they are: a block holds them wholly."""
        return places


def zone_buffer_px(block_px: int, buffer_px: int | None, sample_px: int, context_px: int) -> int:
    """Return the buffer around blocks; None asks for the least one.

    Raises:
        ConfigError: A block smaller than a sample, or a buffer smaller than a sample with its context.
    """
    least = sample_px + context_px
    chosen = least if buffer_px is None else buffer_px
    if block_px < sample_px:
        raise ConfigError(f"splits: block_px {block_px} is smaller than sample_px {sample_px}; no sample fits in")
    if chosen < least:
        raise ConfigError(
            f"splits: buffer_px {chosen} is smaller than a sample with its context ({sample_px} + {context_px} px); "
            f"give at least {least}, or leave it out"
        )
    return chosen

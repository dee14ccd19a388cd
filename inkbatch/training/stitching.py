"""Stitching for validation: overlapping tiles become one map, row band by row band, whose pixels count once.

Tiles come with ascending first rows; rows above the newest tile are final and handed on, so memory is a few tile
heights of the area's width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.geometry import Box
from inkbatch.predict.blend import add_tile, divided


@dataclass(frozen=True)
class Rows:
    """Finished rows of an area.

    Attributes:
        y0: Number of the first row.
        probability: (rows, width) float32; 0 where no tile lay.
        labels: (rows, width) float32 in [0, 1].
        counted: Boolean (rows, width): covered by a tile and not ignored.
    """

    y0: int
    probability: NDArray[np.float32]
    labels: NDArray[np.float32]
    counted: NDArray[np.bool_]


class RowStitcher:
    """Blend of tiles of the columns ``[x0, x1)`` that hands finished rows to `on_rows`."""

    def __init__(self, x0: int, x1: int, on_rows: Callable[[Rows], None]) -> None:
        self.x0, self.width, self.on_rows = x0, x1 - x0, on_rows
        self._y0: int | None = None
        self._planes = self._blank(0)

    def add(
        self,
        box: Box,
        probability: NDArray[np.float32],
        weights: NDArray[np.float32],
        labels: NDArray[np.float32],
        counted: NDArray[np.bool_],
    ) -> None:
        """Add one tile.

        Args:
            box: Its place; its first row is not above that of the tile before.
            probability: (height, width) of the box.
            weights: Blending weights, same shape, strictly positive.
            labels: Same shape.
            counted: Same shape.

        Raises:
            ValueError: The tile lies above rows that were handed on.
        """
        if self._y0 is None:
            self._y0 = box.y0
        if box.y0 < self._y0:
            raise ValueError(f"tile at row {box.y0} comes after rows up to {self._y0} were handed on")
        self._hand_on(self._y0, box.y0)
        missing = box.y1 - box.y0 - self._planes.shape[1]
        if missing > 0:
            self._planes = np.concatenate([self._planes, self._blank(missing)], axis=1)
        where = (slice(0, box.height), slice(box.x0 - self.x0, box.x1 - self.x0))
        add_tile(self._planes, where, probability, weights, weights)
        _, _, truth, count = self._planes
        truth[where] = labels
        count[where] = counted

    def close(self) -> None:
        """Hand on the remaining rows."""
        if self._y0 is not None:
            self._hand_on(self._y0, self._y0 + self._planes.shape[1])

    def _blank(self, rows: int) -> NDArray[Any]:
        return np.zeros((4, rows, self.width), np.float32)

    def _hand_on(self, start: int, stop: int) -> None:
        done = min(stop - start, self._planes.shape[1])
        if done > 0:
            _, weight, truth, count = planes = self._planes[:, :done]
            self.on_rows(Rows(start, divided(planes), truth.copy(), (count > 0) & (weight > 0)))
            self._planes = self._planes[:, done:]
        self._y0 = stop

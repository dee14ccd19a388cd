"""Tiles of a unit: their choice, their order, and gathering them from memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inkbatch.geometry import Box, TileGrid


@dataclass(frozen=True)
class TileRun:
    """Consecutive tiles of one row whose origins are `step` pixels apart: gathered by one strided copy.

    Attributes:
        row: Index of the tile row on the global grid.
        column: Global index of the first tile.
        count: Number of tiles.
        y0: First pixel of the row.
        x0: First pixel of the first tile.
        step: Pixels between origins.
    """

    row: int
    column: int
    count: int
    y0: int
    x0: int
    step: int

    def head(self, count: int) -> TileRun:
        """Return the first `count` tiles."""
        return TileRun(self.row, self.column, count, self.y0, self.x0, self.step)

    def tail(self, start: int) -> TileRun:
        """Return the tiles from `start` on."""
        return TileRun(
            self.row, self.column + start, self.count - start, self.y0, self.x0 + start * self.step, self.step
        )


@dataclass(frozen=True)
class UnitTiles:
    """The tiles of one unit.

    Attributes:
        grid: The global grid.
        rows: Global indices of the tile rows that touch the unit's write box.
        columns: Global indices of the tile columns.
        wanted: Boolean (rows, columns): True if the tile holds papyrus and is computed.
    """

    grid: TileGrid
    rows: range
    columns: range
    wanted: NDArray[np.bool_]

    def touching(self, box: Box) -> UnitTiles:
        """Leave out the tiles that do not touch a box."""
        edge = self.grid.tile_px
        y0 = np.array([self.grid.rows.origin(row) for row in self.rows], np.intp)
        x0 = np.array([self.grid.columns.origin(column) for column in self.columns], np.intp)
        rows, columns = (y0 < box.y1) & (y0 + edge > box.y0), (x0 < box.x1) & (x0 + edge > box.x0)
        return replace(self, wanted=self.wanted & rows[:, None] & columns)

    @property
    def count(self) -> int:
        """Tiles that are computed."""
        return int(np.count_nonzero(self.wanted))

    def runs(self, row: int) -> Iterator[TileRun]:
        """List the runs of tiles to compute in one row, left to right; the moved-in last tile is a run of its own."""
        flags = self.wanted[row - self.rows.start]
        axis = self.grid.columns
        regular = max(0, min(len(flags), axis.regular_count - self.columns.start))
        edges = np.flatnonzero(np.diff(np.concatenate(([False], flags[:regular], [False])).astype(np.int8)))
        y0 = self.grid.rows.origin(row)
        for first, last in edges.reshape(-1, 2).tolist():
            column = self.columns.start + first
            yield TileRun(row, column, last - first, y0, axis.origin(column), axis.stride)
        if regular < len(flags) and flags[regular]:
            column = self.columns.start + regular
            yield TileRun(row, column, 1, y0, axis.origin(column), axis.stride)


def tiles_of(
    grid: TileGrid, write_box: Box, mask: NDArray[np.bool_], mask_box: Box, *, whole: bool = False
) -> UnitTiles:
    """Find the tiles that touch a write box, and which of them hold papyrus.

    Args:
        grid: The global grid.
        write_box: The unit's write box.
        mask: Segment mask in `mask_box`, (height, width).
        mask_box: The unit's read box; holds all its tiles.
        whole: Take tiles alone that lie on papyrus with every pixel.
    """
    rows, columns = grid.touching(write_box)
    counted = np.int32 if mask.size < 2**31 else np.int64
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), counted)
    np.cumsum(mask, axis=0, dtype=counted, out=sums[1:, 1:])
    np.cumsum(sums[1:, 1:], axis=1, out=sums[1:, 1:])
    y0 = np.array([grid.rows.origin(row) - mask_box.y0 for row in rows], np.intp)
    x0 = np.array([grid.columns.origin(column) - mask_box.x0 for column in columns], np.intp)
    y1, x1 = y0 + grid.tile_px, x0 + grid.tile_px
    inside = sums[np.ix_(y1, x1)] - sums[np.ix_(y0, x1)] - sums[np.ix_(y1, x0)] + sums[np.ix_(y0, x0)]
    return UnitTiles(grid, rows, columns, inside == grid.tile_px**2 if whole else inside > 0)


def gather(run: TileRun, source: Tensor, origin_yx: tuple[int, int], tile_px: int, out: Tensor) -> None:
    """Copy a run of tiles out of a volume, in one strided copy; on a CPU by the calling thread alone.

    Args:
        run: The tiles.
        source: Contiguous (Z, Y, X).
        origin_yx: Full-resolution pixel of ``source[0, 0, 0]``.
        tile_px: Tile edge.
        out: (run.count, Z, tile_px, tile_px), filled.
    """
    depth, height, width = source.shape
    offset = (run.y0 - origin_yx[0]) * width + run.x0 - origin_yx[1]
    shape = (run.count, depth, tile_px, tile_px)
    strides = (run.step, height * width, width, 1)
    if source.device.type != "cpu":
        out.copy_(torch.as_strided(source, shape, strides, source.storage_offset() + offset))
        return
    values = source.numpy()
    size = values.itemsize
    out.numpy()[...] = np.ndarray(shape, values.dtype, values, offset * size, [step * size for step in strides])

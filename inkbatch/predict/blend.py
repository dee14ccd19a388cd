"""Blending overlapping tiles: strictly positive windows, summed in one fixed order.

Order of the sums, per output pixel: within a tile row first by the tile's column index modulo ``ceil(tile / stride)``
(tiles of one residue do not overlap and are added in one operation), the moved-in last tile after them; then rows
from top to bottom. It depends on the global grid alone, so a pixel's value does not depend on how units are cut.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inkbatch.geometry import Box
from inkbatch.predict.tiles import UnitTiles

WindowName = Literal["hann", "gaussian", "uniform"]

WINDOW_FLOOR = 1e-3  # of the peak: a pixel seen by one tile's border alone still has a weight


def window_1d(name: WindowName, tile_px: int, sigma: float = 0.25) -> NDArray[np.float32]:
    """Blending weights along one axis of a tile; the window of a tile is their outer product.

    ``hann`` is ``sin²`` at pixel centres, floored; ``gaussian`` has a standard deviation of `sigma` tile edges and is
    cut off by the tile's border; ``uniform`` is one.

    Returns:
        float32 (tile_px,), strictly positive, symmetric, peak at most 1.
    """
    centres = (np.arange(tile_px) + 0.5) / tile_px
    if name == "hann":
        weights = np.maximum(np.sin(math.pi * centres) ** 2, WINDOW_FLOOR)
    elif name == "gaussian":
        weights = np.exp(-0.5 * ((centres - 0.5) / sigma) ** 2)
    else:
        weights = np.ones(tile_px)
    symmetric: NDArray[np.float32] = ((weights + weights[::-1]) / 2).astype(np.float32)
    return symmetric


class Blender:
    """Accumulates the tile rows of one unit and hands out the weighted mean.

    Args:
        tiles: The unit's tiles.
        hull: The box that holds them all; arrays here cover it.
        axis: Blending weights along one axis of a tile, from `window_1d`.
        device: Where sums are kept, in float32.
    """

    def __init__(self, tiles: UnitTiles, hull: Box, axis: NDArray[np.float32], device: torch.device) -> None:
        self.tiles = tiles
        self.hull = hull
        self.window = torch.from_numpy(axis[:, None] * axis[None, :]).to(device)
        self._axis = torch.from_numpy(axis).to(device)
        self._sum = torch.zeros(hull.shape, dtype=torch.float32, device=device)
        self._weight = torch.zeros(hull.shape, dtype=torch.float32, device=device)
        column_weights = _add_rows(tiles, hull, torch.from_numpy(axis)[None, None, :])
        self._column_weights = column_weights.to(device)

    def add_row(self, row: int, weighted: Tensor) -> None:
        """Add one tile row.

        Args:
            row: Global index of the row; rows must come from top to bottom.
            weighted: (columns, tile, tile) float32, already multiplied by `window`, zero where a tile was not wanted.
        """
        tiles, edge = self.tiles, self.tiles.grid.tile_px
        top = tiles.grid.rows.origin(row) - self.hull.y0
        strip = self._sum[top : top + edge]
        for first, step, count, x0 in _phases(tiles, self.hull):
            part = weighted[first::step][:count]
            target = torch.as_strided(
                strip,
                (edge, count, edge),
                (self.hull.width, step * tiles.grid.stride_px, 1),
                strip.storage_offset() + x0,
            )
            target.add_(part.transpose(0, 1))
        weights = self._column_weights[row - tiles.rows.start]
        self._weight[top : top + edge].add_(self._axis[:, None] * weights[None, :])

    def result(self, box: Box) -> Tensor:
        """Weighted mean in `box` (inside the hull), float32 (height, width); 0 where no tile was computed.

        It is made in place, once: the sums are gone afterwards.
        """
        where = box.within(self.hull)
        return self._sum[where].div_(self._weight[where].clamp_(min=torch.finfo(torch.float32).tiny))


def _phases(tiles: UnitTiles, hull: Box) -> list[tuple[int, int, int, int]]:
    """Groups of tiles that do not overlap: (first index, step, count, first pixel in the hull), in summing order."""
    grid = tiles.grid
    cycle = -(-grid.tile_px // grid.stride_px)
    regular = max(0, min(len(tiles.columns), grid.columns.regular_count - tiles.columns.start))
    groups = []
    for residue in range(cycle):
        first = (residue - tiles.columns.start) % cycle
        if first < regular:
            count = -(-(regular - first) // cycle)
            groups.append((first, cycle, count, grid.columns.origin(tiles.columns.start + first) - hull.x0))
    if regular < len(tiles.columns):
        groups.append((regular, 1, 1, grid.columns.origin(tiles.columns.start + regular) - hull.x0))
    return groups


def _add_rows(tiles: UnitTiles, hull: Box, axis: Tensor) -> Tensor:
    """Sum of one axis' weights over the wanted tiles of each row: (rows, hull.width), in the order of `add_row`."""
    flags = torch.from_numpy(tiles.wanted.astype(np.float32))
    sums = torch.zeros((len(tiles.rows), hull.width), dtype=torch.float32)
    edge = tiles.grid.tile_px
    for first, step, count, x0 in _phases(tiles, hull):
        part = flags[:, first::step][:, :count, None] * axis
        shape = (len(tiles.rows), count, edge)
        torch.as_strided(sums, shape, (hull.width, step * tiles.grid.stride_px, 1), x0).add_(part)
    return sums

"""Blending overlapping tiles: strictly positive windows, summed in one fixed order, divided by what they add up to.

Inference adds the rows of a unit's tiles with `Blender`, on the device; validation adds tile after tile with
`add_tile`, since its tiles come one by one and its maps may follow no grid. Sums of floats depend on their order.

Order of `Blender`'s sums, per output pixel: within a tile row first by the tile's column index modulo
``ceil(tile / stride)`` (tiles of one residue do not overlap and are added in one operation), the moved-in last tile
after them; then rows from top to bottom. It depends on the global grid alone, so a pixel's value does not depend on
how units are cut.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inkbatch.geometry import Box
from inkbatch.models.rules import Stitching
from inkbatch.predict.tiles import UnitTiles
from inkbatch.predict.windows import TileWindow, divisor_of

DEFAULT_RULES = Stitching()

Floats = NDArray[np.float32]


def add_tile(sums: Floats, where: tuple[slice, slice], tile: Floats, window: Floats, divisor: Floats) -> None:
    """Add one tile's probabilities, times its window, and its divisor.

    Args:
        sums: (2 or more, height, width): weighted probabilities and divisors are its first planes.
        where: The tile's place in the planes.
        tile: (tile, tile) or any shape of `where`, as `window` and `divisor`.
        window: Blending weights.
        divisor: See `divisor_of`.
    """
    total, weight = sums[:2]
    total[where] += tile * window
    weight[where] += divisor


def divided(sums: NDArray[Any]) -> Floats:
    """Return the map of what `add_tile` summed, (height, width); 0 where no tile lay."""
    total, weight = sums[:2]
    blended: Floats = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
    return blended


class Blender:
    """Accumulates the tile rows of one unit and hands out what they say together.

    The divisor of a pixel is the sum of windows, or the number of tiles; of the computed tiles, or of all.

    Args:
        tiles: The unit's tiles.
        hull: The box that holds them all; arrays here cover it.
        window: Blending weights of a tile.
        device: Where sums are kept, in float32.
        rules: What sums are divided by.
    """

    def __init__(
        self, tiles: UnitTiles, hull: Box, window: TileWindow, device: torch.device, rules: Stitching = DEFAULT_RULES
    ) -> None:
        self.tiles = tiles
        self.hull = hull
        self.window = torch.from_numpy(window.full).to(device)
        self._sum = torch.zeros(hull.shape, dtype=torch.float32, device=device)
        self._weight = torch.zeros(hull.shape, dtype=torch.float32, device=device)
        self._counted = np.ones_like(tiles.wanted) if rules.empty_tiles == "count" else tiles.wanted
        self._weighed = tiles.rows.start  # the first row whose weights are not in yet
        divisor = divisor_of(window, rules)
        self._divisor = torch.from_numpy(divisor.full).to(device)
        self._axis = None if divisor.axis is None else torch.from_numpy(divisor.axis).to(device)
        if divisor.axis is not None:
            column_weights = _add_rows(tiles, self._counted, hull, torch.from_numpy(divisor.axis)[None, None, :])
            self._column_weights = column_weights.to(device)
        self._strip: tuple[bytes, Tensor] | None = None

    def add_row(self, row: int, weighted: Tensor) -> None:
        """Add one tile row.

        Args:
            row: Global index of the row; rows must come from top to bottom.
            weighted: (columns, tile, tile) float32, already multiplied by `window`, zero where a tile is not computed.
        """
        top = self.tiles.grid.rows.origin(row) - self.hull.y0
        self._add(self._sum[top : top + self.tiles.grid.tile_px], weighted)
        self._weigh(row + 1)

    def _add(self, strip: Tensor, parts: Tensor) -> None:
        """Add the tiles of a row, (columns, tile, tile), to a strip of the hull's width."""
        edge = self.tiles.grid.tile_px
        for first, step, count, x0 in _phases(self.tiles, self.hull):
            target = torch.as_strided(
                strip,
                (edge, count, edge),
                (self.hull.width, step * self.tiles.grid.stride_px, 1),
                strip.storage_offset() + x0,
            )
            target.add_(parts[first::step][:count].transpose(0, 1))

    def _weigh(self, stop: int) -> None:
        """Add the weights of all rows above row `stop` that are not in yet."""
        for row in range(self._weighed, stop):
            flags = self._counted[row - self.tiles.rows.start]
            if flags.any():
                top = self.tiles.grid.rows.origin(row) - self.hull.y0
                self._weight[top : top + self.tiles.grid.tile_px].add_(self._row_weights(row, flags))
        self._weighed = max(self._weighed, stop)

    def _row_weights(self, row: int, flags: NDArray[np.bool_]) -> Tensor:
        """Sum the divisors that one row adds: (tile, hull.width)."""
        if self._axis is not None:
            return self._axis[:, None] * self._column_weights[row - self.tiles.rows.start][None, :]
        key = flags.tobytes()
        if self._strip is None or self._strip[0] != key:  # neighbouring rows mostly hold the same tiles
            edge, device = len(self._divisor), self._divisor.device
            strip = torch.zeros((edge, self.hull.width), dtype=torch.float32, device=device)
            parts = torch.from_numpy(flags.astype(np.float32)).to(device)[:, None, None] * self._divisor
            self._add(strip, parts)
            self._strip = key, strip
        return self._strip[1]

    def sums(self, box: Box) -> tuple[Tensor, Tensor]:
        """Return sums and divisors in `box` (inside the hull), float32 (height, width) each; views, not copies."""
        self._weigh(self.tiles.rows.stop)
        where = box.within(self.hull)
        return self._sum[where], self._weight[where]


def map_of(total: Tensor, weight: Tensor) -> Tensor:
    """Divide sums by their divisors, in place; 0 where there are none."""
    return total.div_(weight.clamp_(min=torch.finfo(torch.float32).tiny))


def _phases(tiles: UnitTiles, hull: Box) -> list[tuple[int, int, int, int]]:
    """List groups of tiles that do not overlap: (first index, step, count, first hull pixel), in summing order."""
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


def _add_rows(tiles: UnitTiles, counted: NDArray[np.bool_], hull: Box, axis: Tensor) -> Tensor:
    """Sum one axis' weights over the counted tiles of each row: (rows, hull.width), in the order of `add_row`."""
    flags = torch.from_numpy(counted.astype(np.float32))
    sums = torch.zeros((len(tiles.rows), hull.width), dtype=torch.float32)
    edge = tiles.grid.tile_px
    for first, step, count, x0 in _phases(tiles, hull):
        part = flags[:, first::step][:, :count, None] * axis
        shape = (len(tiles.rows), count, edge)
        torch.as_strided(sums, shape, (hull.width, step * tiles.grid.stride_px, 1), x0).add_(part)
    return sums

"""Choice of the tiles of a unit that are computed, by the contract's rules on papyrus."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.geometry import Box, TileGrid
from inkbatch.models.bundle import Contract
from inkbatch.predict.tiles import UnitTiles, tiles_of

LARGE_TILE_PX = 64  # larger tiles get larger units: the share of tiles computed twice stays small
UNIT_PX, LARGE_UNIT_PX = 1024, 4096

Mask = NDArray[np.bool_]


def usual_unit_px(tile_px: int) -> int:
    """Return the edge of a unit for tiles of this edge."""
    return UNIT_PX if tile_px <= LARGE_TILE_PX else LARGE_UNIT_PX


def grid_of(contract: Contract, shape_yx: tuple[int, int]) -> TileGrid:
    """Lay the global tile grid over a surface."""
    flush = contract.stitching.last_tile == "flush"
    return TileGrid(shape_yx, contract.tile_px, contract.stride_px, flush)


def covered_tiles(
    contract: Contract, grid: TileGrid, write_box: Box, read_mask: Callable[[Box], Mask], only: Box | None = None
) -> tuple[Mask, UnitTiles]:
    """Read a unit's mask and choose its tiles.

    The mask is closed, where the contract says so, with as much of it around as the result depends on: the tiles do
    not depend on how units are cut.

    Args:
        contract: The bundle's contract.
        grid: The global grid.
        write_box: The unit's write box.
        read_mask: The segment mask in any box, False outside the surface.
        only: Choose tiles alone that touch this box, and mask all beside it; None takes all.

    Returns:
        (mask as stored, in the grid's read box of `write_box`; the unit's tiles).
    """
    rules, read_box = contract.stitching, grid.read_box(write_box)
    if only is not None and not write_box.intersect(only).area:
        empty = np.zeros(read_box.shape, bool)
        return empty, tiles_of(grid, write_box, empty, read_box)
    mask = ground = read_mask(read_box)
    if rules.closing_px:
        around = read_box.grow(rules.closing_px - 1).intersect(Box(0, 0, *grid.shape_yx))
        inside = read_box.intersect(around)
        ground = np.zeros_like(mask)
        ground[inside.within(read_box)] = closed(read_mask(around), rules.closing_px)[inside.within(around)]
    tiles = tiles_of(grid, write_box, ground, read_box, whole=rules.tiles == "whole")
    if only is None:
        return mask, tiles
    looked_at = np.zeros_like(mask)
    part = read_box.intersect(only).within(read_box)
    looked_at[part] = mask[part]
    return looked_at, tiles.touching(only)


def closed(mask: Mask, diameter_px: int) -> Mask:
    """Dilate, then erode by an ellipse; beyond the array's border neither papyrus nor its absence counts."""
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter_px, diameter_px))
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, ellipse) > 0

"""Phases of the tile grid: the plain grid and grids that are shifted by parts of a stride, summed as one.

A shifted grid is the plain grid of the surface without its first rows and columns. Its tiles see no pixel beyond the
border that the plain grid's tiles do not see, and add nothing to the strip that it leaves out; the plain grid covers
that, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import ConfigError
from inkbatch.geometry import Box, TileGrid, Unit
from inkbatch.models.bundle import Contract
from inkbatch.predict.coverage import covered_tiles, grid_of
from inkbatch.predict.tiles import UnitTiles


@dataclass(frozen=True)
class Phase:
    """A tile grid on a surface.

    Attributes:
        shift_yx: Surface pixel where the grid begins.
        grid: The grid, in pixels from there.
    """

    shift_yx: tuple[int, int]
    grid: TileGrid


@dataclass(frozen=True)
class PhaseTiles:
    """Tiles of one phase in a unit.

    Attributes:
        unit: The part of the unit that the phase covers, in pixels of the phase's grid.
        tiles: The tiles.
        write_box: That part's write box in pixels of the surface.
        read_box: Its read box in pixels of the surface.
    """

    unit: Unit
    tiles: UnitTiles
    write_box: Box
    read_box: Box


def phases_of(contract: Contract, shape_yx: tuple[int, int], count: int) -> tuple[Phase, ...]:
    """Lay `count` grids over a surface: the plain one, and others shifted by k / count of a stride along both axes.

    An axis on which no whole tile would be left is not shifted; grids that are the same are laid once.

    Raises:
        ConfigError: More phases than a stride has pixels.
    """
    if count > contract.stride_px:
        raise ConfigError(
            f"phases: expected at most the stride's {contract.stride_px} (a shift of one pixel each), got {count}"
        )
    found: dict[tuple[int, int], Phase] = {}
    for number in range(count):
        shift = number * contract.stride_px // count
        y, x = (shift if length - shift >= contract.tile_px else 0 for length in shape_yx)
        found[y, x] = Phase((y, x), grid_of(contract, (shape_yx[0] - y, shape_yx[1] - x)))
    return tuple(found.values())


def phase_boxes(phase: Phase, write_box: Box) -> tuple[Box, Box] | None:
    """Return write and read box of a phase in a unit, in pixels of the surface; None where it covers nothing of it."""
    y, x = phase.shift_yx
    height, width = phase.grid.shape_yx
    own = write_box.intersect(Box(y, x, y + height, x + width))
    if not own.area:
        return None
    return own, phase.grid.read_box(own.shift(-y, -x)).shift(y, x)


def read_box_of(phases: Iterable[Phase], write_box: Box) -> Box:
    """Return the smallest box that holds a write box and the tiles of all phases that touch it."""
    whole = write_box
    for phase in phases:
        boxes = phase_boxes(phase, write_box)
        if boxes is not None:
            whole = whole.union(boxes[1])
    return whole


def phase_tiles(
    contract: Contract,
    phases: Sequence[Phase],
    write_box: Box,
    read_mask: Callable[[Box], NDArray[np.bool_]],
) -> tuple[PhaseTiles, ...]:
    """Choose the tiles of each phase in a unit, those of the plain grid first; phases without tiles are left out.

    Args:
        contract: The bundle's contract.
        phases: The grids.
        write_box: The unit's write box.
        read_mask: The segment mask in any box of the surface, False outside.
    """
    found = []
    for phase in phases:
        boxes = phase_boxes(phase, write_box)
        if boxes is None:
            continue
        y, x = phase.shift_yx
        own, read = (box.shift(-y, -x) for box in boxes)

        def shifted(box: Box, y: int = y, x: int = x) -> NDArray[np.bool_]:
            return read_mask(box.shift(y, x))

        _, tiles = covered_tiles(contract, phase.grid, own, shifted)
        if tiles.count:
            found.append(PhaseTiles(Unit(0, own, read), tiles, *boxes))
    return tuple(found)

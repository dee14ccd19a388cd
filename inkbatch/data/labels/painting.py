"""Painted labels: four layers of marks as bits of one code per pixel, cut into tiles.

*Ink* and *not ink* exclude each other: marking one takes the other away. *Ignore* and the *supervision area* are
independent of both. A pixel without ink, not ink and ignore is unlabelled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.labels.components import Bools
from inkbatch.data.labels.ignore import IGNORED
from inkbatch.data.labels.ink import LABEL_MAX
from inkbatch.geometry import Box, cells

TILE_PX = 256  # edge of a tile of codes, of a stored chunk and of what the page draws

Codes = NDArray[np.uint8]
Tile = tuple[int, int]
"""Row and column of a tile of full resolution."""

LayerName = Literal["ink", "not_ink", "ignore", "supervision"]


@dataclass(frozen=True)
class PaintLayer:
    """One layer of marks.

    Attributes:
        bit: Its bit in a code.
        excludes: Bits that a mark takes away.
        array: Name of its stored array, without ``.zarr``.
        value: Stored value of a mark.
    """

    bit: int
    excludes: int
    array: str
    value: int


LAYERS: Mapping[LayerName, PaintLayer] = {
    "ink": PaintLayer(1, 2, "ink_labels", LABEL_MAX),
    "not_ink": PaintLayer(2, 1, "not_ink", IGNORED),
    "ignore": PaintLayer(4, 0, "ignore_mask", IGNORED),
    "supervision": PaintLayer(8, 0, "supervision_mask", IGNORED),
}
INK, NOT_INK, IGNORE, SUPERVISION = (layer.bit for layer in LAYERS.values())
LABELLED = INK | NOT_INK | IGNORE


@dataclass(frozen=True)
class Marks:
    """Pixels to be marked or erased.

    Attributes:
        box: Where they lie, inside the segment.
        mask: (box.height, box.width), True where something changes.
        layer: The layer.
        erase: Take the mark away instead.
    """

    box: Box
    mask: Bools
    layer: LayerName
    erase: bool = False

    def tiles(self) -> Iterator[tuple[Tile, tuple[slice, slice], Bools]]:
        """Cut the pixels by tiles: the tile, their place in it, and the pixels; tiles without any are left out."""
        for cell in cells(self.box, TILE_PX, TILE_PX):
            part = self.mask[cell.within(self.box)]
            if part.any():
                y, x = cell.y0 // TILE_PX, cell.x0 // TILE_PX
                yield (y, x), cell.within(Box(y * TILE_PX, x * TILE_PX, (y + 1) * TILE_PX, (x + 1) * TILE_PX)), part


def paint(codes: Codes, marks: Bools, layer: LayerName, *, erase: bool) -> None:
    """Mark or erase pixels in place.

    Args:
        codes: (height, width) of codes.
        marks: Pixels of the same shape.
        layer: The layer.
        erase: Take the mark away instead.
    """
    kind = LAYERS[layer]
    if erase:
        codes[marks] &= np.uint8(255 ^ kind.bit)
    else:
        codes[marks] = (codes[marks] & np.uint8(255 ^ kind.excludes)) | np.uint8(kind.bit)


def exclusion_broken(codes: Codes) -> bool:
    """Tell if a pixel has marks that exclude each other."""
    return any(bool(((codes & kind.bit != 0) & (codes & kind.excludes != 0)).any()) for kind in LAYERS.values())


def count_marks(codes: Codes) -> dict[LayerName, int]:
    """Count the pixels of each layer."""
    histogram = np.bincount(codes.reshape(-1), minlength=16)
    return {
        name: int(sum(count for code, count in enumerate(histogram) if code & layer.bit))
        for name, layer in LAYERS.items()
    }


def halved_codes(codes: Codes, times: int = 1) -> Codes:
    """Halve codes along both axes; a pixel has the marks of all that it covers. Odd borders are filled with zeros."""
    for _ in range(times):
        height, width = codes.shape
        if height % 2 or width % 2:
            codes = np.pad(codes, ((0, height % 2), (0, width % 2)))
        rows = codes[::2] | codes[1::2]
        codes = rows[:, ::2] | rows[:, 1::2]
    return codes


def tile_box(tile: Tile, shape_yx: tuple[int, int]) -> Box:
    """Return the pixels of a tile, clipped to the segment."""
    y0, x0 = tile[0] * TILE_PX, tile[1] * TILE_PX
    return Box(y0, x0, y0 + TILE_PX, x0 + TILE_PX).intersect(Box(0, 0, *shape_yx))

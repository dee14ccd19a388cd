"""Connected components of one unit, told apart into those that are whole and those that a seam cuts.

Ink is joined over edges and corners (8 neighbours), bare surface over edges alone (4 neighbours): with this pair every
bare area that does not reach the border is a hole of exactly one ink component, and what is left when a component is
taken away is one bare area again.

A component that touches no seam is *closed*: its size is final, and its unit alone decides about it. An *open* one
goes on in the next unit; `data.labels.seams` joins it from facts (`data.labels.component_facts`) whose size follows
from the unit's circumference and not from its area, so that memory stays bounded even for noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.geometry import Box

INK_NEIGHBOURS: Literal[8] = 8
BARE_NEIGHBOURS: Literal[4] = 4

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class BlockComponents:
    """Connected components of a block.

    Attributes:
        labels: (height, width) int32; 0 elsewhere, components from 1.
        areas: Pixels per label; entry 0 means nothing.
        boxes: (labels, 4): y0, x0, y1, x1 within the block.
    """

    labels: NDArray[np.int32]
    areas: Ints
    boxes: Ints

    def touched(self, pixels: Bools) -> Bools:
        """Find the labels that have a pixel among `pixels` (height, width)."""
        found = np.zeros(len(self.areas), bool)
        found[self.labels[pixels]] = True
        found[0] = False
        return found

    def seed(self, number: int) -> tuple[int, int]:
        """Return (y, x) of a component's first pixel in row-major order, within the block."""
        y0, x0, _, x1 = (int(value) for value in self.boxes[number])
        return y0, x0 + int(np.argmax(self.labels[y0, x0:x1] == number))


def label(mask: Bools, neighbours: Literal[4, 8]) -> BlockComponents:
    """Label the connected components of a block (height, width)."""
    picture = np.ascontiguousarray(mask).view(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(picture, connectivity=neighbours, ltype=cv2.CV_32S)
    x0, y0, width, height, areas = stats.astype(np.int64).T
    boxes = np.stack([y0, x0, y0 + height, x0 + width], axis=1)
    areas[0] = 0
    boxes[0] = 0
    return BlockComponents(np.asarray(labels, np.int32), areas, boxes)


def without(parts: BlockComponents, dropped: Bools) -> BlockComponents:
    """Remove the `dropped` components (per label); the others are renumbered in the same order."""
    stays = ~dropped
    stays[0] = True
    renumbered = np.where(stays, np.cumsum(stays) - 1, 0).astype(np.int32)
    return BlockComponents(renumbered[parts.labels], parts.areas[stays], parts.boxes[stays])


@dataclass(frozen=True)
class UnitComponents:
    """The components of one unit, the closed ones that are too small already taken away.

    Attributes:
        box: Write box.
        ink: Ink components.
        ink_open: Per ink label, whether a seam cuts it.
        ink_border: Per ink label, whether it touches the border that the caller gave.
        ink_outside: Per ink label, whether it reaches the border of the surface.
        bare: Bare areas, or None where holes are not looked for.
        bare_open: Per bare label, whether a seam cuts it.
        bare_outside: Per bare label, whether it reaches the border of the surface.
        pairs: (n, 2): ink label and bare label that share an edge of a pixel, each pair once.
        removed: Areas of the components that were taken away.
    """

    box: Box
    ink: BlockComponents
    ink_open: Bools
    ink_border: Bools
    ink_outside: Bools
    bare: BlockComponents | None
    bare_open: Bools
    bare_outside: Bools
    pairs: Ints
    removed: Ints

    @property
    def bare_closed(self) -> Bools:
        """Per bare label, whether it is a hole that lies in this unit."""
        found = ~self.bare_open & ~self.bare_outside
        if len(found):
            found[0] = False
        return found

    @property
    def bare_at_border(self) -> Bools:
        """Per bare label, whether a closed ink component in or around it touches the border."""
        flagged = self.ink_border & ~self.ink_open
        found = np.zeros(len(self.bare_open), bool)
        found[self.pairs[flagged[self.pairs[:, 0]], 1]] = True
        return found


def unit_components(
    mask: Bools, box: Box, shape_yx: tuple[int, int], *, border: Bools, min_area_px: int, holes: bool
) -> UnitComponents:
    """Label one unit and take away the closed components under `min_area_px`.

    Args:
        mask: (box.height, box.width): True where there is ink.
        box: Write box of the unit.
        shape_yx: Size of the surface.
        border: (box.height, box.width): pixels that make a component one that touches the border.
        min_area_px: Smallest area that is kept.
        holes: Label bare areas too.
    """
    surface = Box(0, 0, *shape_yx)
    seams, edge = _frame(box, surface, at_border=False), _frame(box, surface, at_border=True)
    ink = label(mask, INK_NEIGHBOURS)
    is_open = ink.touched(seams)
    small = ~is_open & (ink.areas < min_area_px)
    small[0] = False
    removed = ink.areas[small]
    if removed.size:
        ink, is_open = without(ink, small), is_open[~small]
    of_ink = (ink, is_open, ink.touched(border), ink.touched(edge))
    if not holes:
        none = np.zeros(0, bool)
        return UnitComponents(box, *of_ink, None, none, none, np.zeros((0, 2), np.int64), removed)
    bare = label(ink.labels == 0, BARE_NEIGHBOURS)
    return UnitComponents(box, *of_ink, bare, bare.touched(seams), bare.touched(edge), _neighbours(ink, bare), removed)


def border_pixels(box: Box, shape_yx: tuple[int, int], papyrus: Bools | None = None) -> Bools:
    """Mark pixels at the border of the surface and, where `papyrus` is given, at the border of the papyrus.

    Args:
        box: Pixels to return.
        shape_yx: Size of the surface.
        papyrus: Segment mask of `box` grown by one pixel on each side (False outside the surface), or None.

    Returns:
        (box.height, box.width): True at the surface's outermost pixels, outside the papyrus, and where one of the 8
        neighbours lies outside it.
    """
    pixels = _frame(box, Box(0, 0, *shape_yx), at_border=True)
    if papyrus is None:
        return pixels
    bare = (~papyrus).astype(np.uint8)
    grown = cv2.dilate(bare, np.ones((3, 3), np.uint8))[1:-1, 1:-1]
    result: Bools = pixels | (grown != 0)
    return result


def _frame(box: Box, surface: Box, *, at_border: bool) -> Bools:
    """Mark a box's outermost pixels on sides at the surface's border, or on sides that are seams."""
    pixels = np.zeros(box.shape, bool)
    pixels[0] |= (box.y0 == surface.y0) == at_border
    pixels[-1] |= (box.y1 == surface.y1) == at_border
    pixels[:, 0] |= (box.x0 == surface.x0) == at_border
    pixels[:, -1] |= (box.x1 == surface.x1) == at_border
    return pixels


def _neighbours(ink: BlockComponents, bare: BlockComponents) -> Ints:
    """Find the pairs (ink label, bare label) that share an edge of a pixel; unique, sorted."""
    keys = [np.zeros(0, np.int64)]
    count = len(bare.areas)
    for here, there in (((slice(1, None),), (slice(None, -1),)), ((..., slice(1, None)), (..., slice(None, -1)))):
        for first, second in ((here, there), (there, here)):
            a, b = ink.labels[first], bare.labels[second]
            meet = (a != 0) & (b != 0)
            keys.append(np.unique(a[meet].astype(np.int64) * count + b[meet]))
    joined = np.unique(np.concatenate(keys))
    return np.stack([joined // count, joined % count], axis=1)

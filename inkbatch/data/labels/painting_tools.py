"""Tools that look before they mark: fill, take from a map, smart stroke, removal of specks. Memory is bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.data.labels.components import INK_NEIGHBOURS, Bools, label
from inkbatch.data.labels.painting import LABELLED, LAYERS, TILE_PX, Codes, LayerName, Marks, Tile
from inkbatch.data.labels.painting_shapes import Shape
from inkbatch.errors import DataError
from inkbatch.geometry import Box, cells

LARGEST_FILL_PX = 4096  # edge of the window around the pointer
FIRST_FILL_PX = 1024
CLEAN_PX = 2048  # edge of the blocks that specks are looked for in
LONGEST_SPECK_PX = 1024

ReadCodes = Callable[[Box], Codes]
ReadMap = Callable[[Box], NDArray[np.floating]]
"""Reads a box of a map as shares from 0 to 1; NaN where it is not computed."""


def component_at(inside: Callable[[Box], Bools], at: tuple[int, int], shape_yx: tuple[int, int]) -> tuple[Box, Bools]:
    """Find the pixels that are joined to one over edges.

    Args:
        inside: Tells for a box which pixels could belong to it.
        at: y and x of the pixel.
        shape_yx: (height, width) of the segment.

    Returns:
        A box and its pixels.

    Raises:
        DataError: `at` lies outside, or the component is larger than `LARGEST_FILL_PX` around it.
    """
    y, x = at
    whole = Box(0, 0, *shape_yx)
    if not (0 <= y < shape_yx[0] and 0 <= x < shape_yx[1]):
        raise DataError(f"fill: expected a pixel of the segment, got y {y}, x {x}; choose one inside")
    edge = FIRST_FILL_PX
    while True:
        box = Box(y, x, y, x).grow(edge // 2).intersect(whole)
        picture = np.ascontiguousarray(inside(box)).astype(np.uint8)
        found = np.zeros((box.height + 2, box.width + 2), np.uint8)
        if picture[y - box.y0, x - box.x0]:
            cv2.floodFill(picture, found, (x - box.x0, y - box.y0), 1, flags=4 | cv2.FLOODFILL_MASK_ONLY | 255 << 8)
        mask: Bools = found[1:-1, 1:-1] > 0
        if not _leaves(mask, box, whole):
            return box, mask
        edge *= 2
        if edge > LARGEST_FILL_PX:
            raise DataError(
                f"fill: expected an area of at most {LARGEST_FILL_PX} px around the pointer, got a larger one; close "
                "its outline, or draw a polygon"
            )


def _leaves(mask: Bools, box: Box, whole: Box) -> bool:
    """Tell if marked pixels touch an edge of a box that is none of the segment's."""
    sides = (
        (box.y0 > whole.y0, mask[:1]),
        (box.y1 < whole.y1, mask[-1:]),
        (box.x0 > whole.x0, mask[:, :1]),
        (box.x1 < whole.x1, mask[:, -1:]),
    )
    return any(is_inner and pixels.any() for is_inner, pixels in sides)


def fill(
    read: ReadCodes, at: tuple[int, int], shape_yx: tuple[int, int], layer: LayerName, *, erase: bool
) -> Iterator[Marks]:
    """Mark all that is joined to a pixel and labelled as it is (ink, not ink, ignored, or none of them)."""
    y, x = at
    own = int(read(Box(y, x, y + 1, x + 1))[0, 0]) & LABELLED
    box, mask = component_at(lambda box: (read(box) & LABELLED) == own, at, shape_yx)
    yield Marks(box, mask, layer, erase)


def take(
    areas: Iterable[tuple[Box, Bools]], read_map: ReadMap, threshold: float, band: tuple[float, float] | None
) -> Iterator[Marks]:
    """Accept a map: ink where it reaches the threshold; what lies in the band (low, high) is ignored.

    Args:
        areas: Boxes and their pixels.
        read_map: Reads the map.
        threshold: Least share that is ink.
        band: Lowest share, and the share from which on (exclusive) pixels are no longer uncertain; None: none are.
    """
    for box, mask in areas:
        for cell in cells(box, TILE_PX * 4, TILE_PX * 4):
            values = read_map(cell)
            part = mask[cell.within(box)]
            yield Marks(cell, part & (values >= threshold), "ink")
            if band is not None:
                yield Marks(cell, part & (values >= band[0]) & (values < band[1]), "ignore")


def smart(shape: Shape, core: Shape, shape_yx: tuple[int, int], read_map: ReadMap) -> tuple[Box, Bools]:
    """Snap a stroke to a map's edge: the stroke's pixels on the centre line's side of it, joined to the centre line.

    The edge is the value at which the map is steepest: its mean below the stroke, weighted by the gradient.

    Args:
        shape: The stroke.
        core: Its centre line, thin.
        shape_yx: (height, width) of the segment.
        read_map: Reads the map.

    Raises:
        DataError: The stroke is longer than `LARGEST_FILL_PX`.
    """
    box, mask = gathered(shape, shape_yx)
    if not box.area:  # off the segment
        return box, mask
    values = np.nan_to_num(read_map(box)).astype(np.float32)
    slope = np.hypot(cv2.Sobel(values, cv2.CV_32F, 1, 0), cv2.Sobel(values, cv2.CV_32F, 0, 1))
    weights = np.where(mask, slope, 0).astype(np.float64)
    if not weights.any():
        return box, mask
    edge = float((weights * values).sum() / weights.sum())
    centre = np.zeros(box.shape, bool)
    for strip, part in core.strips(shape_yx):
        inner = strip.intersect(box)
        if inner.area:
            centre[inner.within(box)] |= part[inner.within(strip)]
    centre &= mask
    is_above = not centre.any() or float(values[centre].mean()) >= edge
    side = mask & ((values >= edge) if is_above else (values < edge))
    joined = label(side, INK_NEIGHBOURS)
    return box, side & joined.touched(side & centre)[joined.labels]


def gathered(shape: Shape, shape_yx: tuple[int, int]) -> tuple[Box, Bools]:
    """Draw a whole shape into one box.

    Raises:
        DataError: It is longer than `LARGEST_FILL_PX`.
    """
    strips = list(shape.strips(shape_yx))
    if not strips:
        return Box(0, 0, 0, 0), np.zeros((0, 0), bool)
    box = strips[0][0]
    for strip, _ in strips[1:]:
        box = box.union(strip)
    if max(box.shape) > LARGEST_FILL_PX:
        raise DataError(
            f"smart stroke: expected at most {LARGEST_FILL_PX} px, got {max(box.shape)}; draw it in several parts"
        )
    mask = np.zeros(box.shape, bool)
    for strip, part in strips:
        mask[strip.within(box)] |= part
    return box, mask


def specks(
    read: ReadCodes,
    marked: Iterable[Tile],
    box: Box,
    shape_yx: tuple[int, int],
    below_px: int,
    layer: LayerName,
) -> Iterator[Marks]:
    """Erase components (joined over edges and corners) of fewer than `below_px` pixels that lie wholly in a box.

    Longer ones than `LONGEST_SPECK_PX` stay.

    Args:
        read: Reads codes.
        marked: Tiles with marks of the layer.
        box: Where to look.
        shape_yx: (height, width) of the segment.
        below_px: Least pixels of what stays.
        layer: The layer.
    """
    whole, bit = Box(0, 0, *shape_yx), LAYERS[layer].bit
    step = CLEAN_PX // TILE_PX
    blocks = {(y // step, x // step) for y, x in marked}
    for block in cells(box, CLEAN_PX, CLEAN_PX):
        if (block.y0 // CLEAN_PX, block.x0 // CLEAN_PX) not in blocks:
            continue
        window = block.grow(min(below_px, LONGEST_SPECK_PX)).intersect(whole)
        found = label((read(window) & bit) > 0, INK_NEIGHBOURS)
        small = found.areas < below_px
        small[0] = False
        for number in np.flatnonzero(small):
            y0, x0, y1, x1 = (int(side) for side in found.boxes[number])
            place = Box(y0, x0, y1, x1).shift(window.y0, window.x0)
            first = found.seed(int(number))
            is_own = block.contains(Box(first[0], first[1], first[0] + 1, first[1] + 1).shift(window.y0, window.x0))
            pixels = found.labels[y0:y1, x0:x1] == number
            if is_own and box.contains(place) and not _cut(place, window, whole):
                yield Marks(place, pixels, layer, erase=True)


def _cut(place: Box, window: Box, whole: Box) -> bool:
    """Tell if a box touches an edge of a window that is none of the segment's."""
    return (
        (place.y0 == window.y0 > whole.y0)
        or (place.x0 == window.x0 > whole.x0)
        or (place.y1 == window.y1 < whole.y1)
        or (place.x1 == window.x1 < whole.x1)
    )

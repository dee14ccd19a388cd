"""Rendering of stored blocks: index pictures with a palette for tiles, colours for saved pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.data.labels.ink import INK_LABEL
from inkbatch.errors import CorruptDataError, LayerRangeError
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.pictures.palettes import (
    IGNORE_MASK,
    INK_LABELS,
    NO_DIFFERENCE,
    NOT_YET,
    OUTLINE_COLOURS,
    difference_palette,
    palette,
)
from inkbatch.view.blocks import (
    TILE_PX,
    BoundedCache,
    level_count,
    level_shape,
    read_level,
    read_what_is_there,
    tile_box,
)
from inkbatch.view.look import MapLook, OutlineLook, PapyrusLook
from inkbatch.view.objects import ShownObjects, draw, read_labels, row_of
from inkbatch.view.scene import Group, ShownMap

Rgba = NDArray[np.uint8]
HATCH_PX = 16


class UnknownNameError(KeyError):
    """Request for a segment or prediction that is not shown here."""


@dataclass(frozen=True)
class Layer:
    """Picture of indices, and their colours.

    Attributes:
        indices: (height, width), uint8.
        colours: (256, 4), red, green, blue and opacity.
    """

    indices: NDArray[np.uint8]
    colours: Rgba


class Renderer:
    """Renderer of one group's tiles.

    Args:
        group: Group to draw.
        blocks: Decoded pieces, shared by all groups.
        key: Sets this group apart in the cache.
    """

    def __init__(self, group: Group, blocks: BoundedCache[Any], key: str) -> None:
        self.group, self._blocks, self.key = group, blocks, key

    @property
    def levels(self) -> int:
        """Levels that can be shown."""
        return level_count(self.group.shape_yx, self._pyramids())

    def _pyramids(self) -> list[Multiscale]:
        group = self.group
        below = [] if group.surface is None else [group.surface.volume, group.surface.mask]
        shown = [*(one.pyramid for one in group.maps.values()), *(one.labels for one in group.objects.values())]
        return [*below, *shown, *group.overlays.values()]

    def papyrus_block(self, layers: tuple[int, int], level: int, row: int, column: int) -> NDArray[Any]:
        """Read a tile of one layer or of the mean of several, in the stored dtype.

        Raises:
            LayerRangeError: The range leaves the volume.
            UnknownNameError: There is no surface.
        """
        surface = self.group.surface
        if surface is None:
            raise UnknownNameError("this prediction is shown without its surface")
        if layers[1] > surface.layer_count:
            raise LayerRangeError(
                f"segment {self.group.segment}: expected layers within 0:{surface.layer_count}, got "
                f"{layers[0]}:{layers[1]}"
            )
        box = tile_box(self.group.shape_yx, level, row, column)
        key = (self.key, "papyrus", layers, level, row, column)
        block: NDArray[Any] = self._blocks.get(
            key, lambda: read_level(surface.volume, level, box, _mean, slice(*layers))
        )
        return block

    def map_block(
        self, name: str, level: int, row: int, column: int
    ) -> tuple[NDArray[np.float16], NDArray[np.bool_] | None]:
        """Read a tile of a map as shares from 0 to 1, and the mask of pixels that are not computed yet.

        Raises:
            UnknownNameError: No prediction of this name is shown.
            CorruptDataError: A stored object is damaged, or holds something else than probabilities.
        """
        shown = self._map(name)
        box = tile_box(self.group.shape_yx, level, row, column)

        def read() -> tuple[NDArray[np.float16], NDArray[np.bool_] | None]:
            if shown.complete:
                block, missing = read_level(shown.pyramid, level, box, lambda found: found), None
            else:
                block, missing = read_what_is_there(shown.pyramid, level, box)
            block = shown.scale.shares(block)
            if not (block.min() >= 0 and block.max() <= 1):
                raise CorruptDataError(
                    f"{shown.pyramid.location}: expected probabilities from 0 to 1, got {block.min()} to "
                    f"{block.max()}; run inkbatch infer again"
                )
            return block, missing

        found: tuple[NDArray[np.float16], NDArray[np.bool_] | None] = self._blocks.get(
            (self.key, "map", shown.name, shown.version, level, row, column), read
        )
        return found

    def _map(self, name: str) -> ShownMap:
        try:
            return self.group.maps[name]
        except KeyError as error:
            raise UnknownNameError(f"no prediction {name!r} of {self.group.segment} is shown here") from error

    def objects(self, name: str) -> ShownObjects:
        """Return a result of instances.

        Raises:
            UnknownNameError: None of this name is shown.
        """
        try:
            return self.group.objects[name]
        except KeyError as error:
            raise UnknownNameError(f"no objects {name!r} of {self.group.segment} are shown here") from error

    def row(self, shown: ShownObjects, label: int) -> dict[str, Any] | None:
        """Return the table's row of an object; None where there is no table."""
        return row_of(self._blocks.get((self.key, "table", shown.name, shown.version), shown.table), label)

    def papyrus(self, look: PapyrusLook, level: int, row: int, column: int) -> NDArray[np.uint8]:
        """Render a tile of papyrus, uint8 grey; of a photograph (height, width, 3), as it is."""
        photograph = self.group.photograph
        if photograph is not None:
            box = tile_box(self.group.shape_yx, level, row, column)
            shown: NDArray[np.uint8] = self._blocks.get(
                (self.key, "photograph", level), lambda: photograph.halved(level, self._blocks.limit_bytes)
            )
            return shown[box.slices]
        block = self.papyrus_block(look.range, level, row, column)
        if block.dtype == np.uint8 and (look.low, look.high) == (0, 255):
            return np.asarray(block, np.uint8)
        grey = (block.astype(np.float64) - look.low) * 255 / (look.high - look.low)
        return np.asarray(np.rint(np.clip(grey, 0, 255)), np.uint8)

    def map(self, look: MapLook, level: int, row: int, column: int) -> Layer:
        """Render a tile of predictions."""
        value, missing = self.combined(look, level, row, column)
        if look.minus is not None:
            other, more = self.map_block(look.minus, level, row, column)
            missing = _either(missing, more)
            return Layer(_difference_indices(value - other, look, missing), difference_colours(look))
        if look.invert:
            value = 1 - value
            if self.group.surface is not None:
                value *= self._papyrus_here(level, row, column)
        reached = value >= look.threshold if look.threshold > 0 else None
        if look.solid:
            value = np.ones_like(value) if reached is None else reached.astype(np.float64)
        else:
            value = np.minimum(value * look.boost, 1)
            if reached is not None:
                value *= reached
        indices = np.rint(value * 255).astype(np.uint8)
        if missing is not None:
            indices[missing] = 0
        return Layer(indices, map_colours(look))

    def combined(
        self, look: MapLook, level: int, row: int, column: int
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
        """Combine the named predictions by mean or maximum, and mark pixels where one of them is missing."""
        total: NDArray[np.float64] | None = None
        missing: NDArray[np.bool_] | None = None
        for name in look.maps:
            block, gaps = self.map_block(name, level, row, column)
            missing = _either(missing, gaps)
            if total is None:
                total = block.astype(np.float64)
            elif look.combine == "max":
                np.maximum(total, block, out=total)
            else:
                total += block
        if total is None:
            raise UnknownNameError("no prediction was named")
        if look.combine == "mean" and len(look.maps) > 1:
            total /= len(look.maps)
        return total, missing

    def reader(self, look: MapLook) -> Callable[[Box], NDArray[np.float64]]:
        """Return a function that reads a box, full size, of combined predictions; NaN where they are not computed."""
        for name in look.maps:
            self._map(name)

        def read(box: Box) -> NDArray[np.float64]:
            out = np.full(box.shape, np.nan)
            for row, column, tile in self.tile_grid(0, box):
                value, missing = self.combined(look, 0, row, column)
                value = 1 - value if look.invert else value
                part = tile.intersect(box)
                out[part.within(box)] = np.where(False if missing is None else missing, np.nan, value)[
                    part.within(tile)
                ]
            return out

        return read

    def _papyrus_here(self, level: int, row: int, column: int) -> NDArray[np.bool_]:
        surface = self.group.surface
        if surface is None:
            raise UnknownNameError("this prediction is shown without its surface")
        box = tile_box(self.group.shape_yx, level, row, column)
        key = (self.key, "mask", level, row, column)
        block: NDArray[Any] = self._blocks.get(key, lambda: read_level(surface.mask, level, box, _as_it_is))
        return np.asarray(block != 0)

    def outlines(self, look: OutlineLook, maps: Sequence[str], level: int, row: int, column: int) -> Layer:
        """Render a tile of outlines, hatched where one of the named predictions is not computed yet."""
        box = tile_box(self.group.shape_yx, level, row, column)
        indices = np.zeros(box.shape, np.uint8)
        for name in maps:
            missing = self.map_block(name, level, row, column)[1]
            if missing is not None:
                indices[missing & _hatching(box)] = NOT_YET
        for index, name in ((IGNORE_MASK, "ignore_mask"), (INK_LABELS, "ink_labels")):
            pyramid = self.group.overlays.get(name)
            if getattr(look, name) and pyramid is not None:
                indices[_edge_of(pyramid, level, box, name, self.group.shape_yx)] = index
        if look.objects is not None:
            grown = box.grow(1).intersect(Box(0, 0, *level_shape(self.group.shape_yx, level)))
            labels = self.objects(look.objects).labels
            draw(read_labels(labels, self.group.shape_yx, level, grown), look.picked, indices, box.within(grown))
        return Layer(indices, outline_colours())

    def tile_grid(self, level: int, box: Box) -> list[tuple[int, int, Box]]:
        """List the tiles that touch a box of a level: row, column, and their pixels."""
        rows = range(box.y0 // TILE_PX, -(-box.y1 // TILE_PX))
        columns = range(box.x0 // TILE_PX, -(-box.x1 // TILE_PX))
        return [(row, column, tile_box(self.group.shape_yx, level, row, column)) for row in rows for column in columns]


def map_colours(look: MapLook) -> Rgba:
    """Return the colours of a map's indices, opacity included."""
    alpha = np.arange(256) if look.blend == "ink" else np.full(256, 255)
    return np.column_stack([palette(look.colours), alpha]).astype(np.uint8)


def difference_colours(look: MapLook) -> Rgba:
    """Return the colours of a difference's indices, opacity included."""
    alpha = np.full(256, 255)
    if look.blend == "ink":
        alpha = np.minimum(np.abs(np.arange(256) - NO_DIFFERENCE) * 2, 255)
    return np.column_stack([difference_palette(), alpha]).astype(np.uint8)


def outline_colours() -> Rgba:
    """Return the colours of an outline tile's indices."""
    colours = np.zeros((256, 4), np.uint8)
    for index, colour in OUTLINE_COLOURS.items():
        colours[index] = colour
    return colours


def _difference_indices(
    difference: NDArray[np.float64], look: MapLook, missing: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    steps = np.rint(np.clip(difference * look.boost, -1, 1) * (NO_DIFFERENCE - 1))
    steps[np.abs(difference) < look.threshold] = 0
    if missing is not None:
        steps[missing] = 0
    return (steps + NO_DIFFERENCE).astype(np.uint8)


def _edge_of(pyramid: Multiscale, level: int, box: Box, name: str, shape_yx: tuple[int, int]) -> NDArray[np.bool_]:
    """Find the outline of what is marked; two pixels wide at coarser levels, where one would be lost."""
    height, width = level_shape(shape_yx, level)
    grown = Box(max(0, box.y0 - 1), max(0, box.x0 - 1), min(height, box.y1 + 1), min(width, box.x1 + 1))
    least = INK_LABEL if name == "ink_labels" else 1
    marked = (read_level(pyramid, level, grown, _as_it_is) >= least).astype(np.uint8)
    square = np.ones((3, 3), np.uint8)
    inner = cv2.erode(marked, square, borderType=cv2.BORDER_REPLICATE)
    outer = cv2.dilate(marked, square, borderType=cv2.BORDER_REPLICATE) if level else marked
    return np.asarray((outer > inner)[box.within(grown)])


def _hatching(box: Box) -> NDArray[np.bool_]:
    y, x = np.ogrid[box.y0 : box.y1, box.x0 : box.x1]
    return np.asarray((x + y) % HATCH_PX < HATCH_PX // 4)


def _either(one: NDArray[np.bool_] | None, other: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    if one is None or other is None:
        return one if other is None else other
    return one | other


def _as_it_is(block: NDArray[Any]) -> NDArray[Any]:
    return block


def _mean(block: NDArray[Any]) -> NDArray[Any]:
    """Average layers, rounded to the stored dtype."""
    if len(block) == 1:
        return np.asarray(block[0])
    total = np.zeros(block.shape[1:], np.uint32)
    for layer in block:
        total += layer
    return np.asarray((total + len(block) // 2) // len(block), block.dtype)

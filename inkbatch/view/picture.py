"""Saved pictures: all that is shown, of any box at any level, as a PNG in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.maps.area import area_box
from inkbatch.errors import ConfigError
from inkbatch.geometry import Box
from inkbatch.io.pictures.png import LONGEST_PX, write_png
from inkbatch.view.blocks import TILE_PX
from inkbatch.view.look import MapLook, OutlineLook, PictureLook
from inkbatch.view.render import Layer, Renderer

GAP_PX = 8  # between two maps side by side


class SavedPicture:
    """Picture to save; made of the same tiles as the page shows, opacity included."""

    def __init__(self, renderer: Renderer, look: PictureLook) -> None:
        """Check the box and choose size and kind; nothing is read.

        Raises:
            ConfigError: The box is empty or leaves the segment, or the level is not there.
        """
        box = area_box(look.box, renderer.group.shape_yx, "view: box")
        if look.level >= renderer.levels:
            raise ConfigError(f"view: expected a level from 0 to {renderer.levels - 1}, got {look.level}")
        if look.beside is not None and look.map is None:
            raise ConfigError("view: a second map needs a first one")
        self._renderer, self._look = renderer, look
        self._box = box.downscale(2**look.level)
        if max(self.shape[:2]) > LONGEST_PX:
            raise ConfigError(f"view: a PNG ends at {LONGEST_PX} px; save a smaller part")

    @property
    def is_grey(self) -> bool:
        """True if one grey value per pixel is enough."""
        look = self._look
        coloured = [shown for shown in (look.map, look.beside) if shown is not None]
        if look.outlines != OutlineLook() or self._renderer.group.photograph or self._unfinished():
            return False
        return all(shown.colours == "grey" and shown.minus is None for shown in coloured)

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width) of a grey picture, (height, width, 3) of one in colours."""
        width = self._box.width if self._look.beside is None else 2 * self._box.width + GAP_PX
        return (self._box.height, width) if self.is_grey else (self._box.height, width, 3)

    @property
    def name(self) -> str:
        """File name with segment, maps and place."""
        box, look = self._look.box, self._look
        shown = "papyrus" if look.map is None else "-".join(look.map.maps[:2])
        against = f"-minus-{look.map.minus}" if look.map is not None and look.map.minus else ""
        level = f"-level{look.level}" if look.level else ""
        flip = "-flip_x" if look.flip else ""
        where = f"y{box[0]}-x{box[1]}-{box[2] - box[0]}x{box[3] - box[1]}"
        return f"{self._renderer.group.segment}-{shown}{against}-{where}{level}{flip}.png"

    def write(self, handle: BinaryIO) -> None:
        """Write the PNG from front to back.

        Raises:
            InkbatchError: A stored object is damaged, or storage gave up.
        """
        note = json.dumps({"segment": self._renderer.group.segment, **self._look.model_dump(mode="json")})
        write_png(handle, self.shape, np.dtype(np.uint8), self._rows(), note)  # type: ignore[arg-type]

    def _rows(self) -> Iterator[NDArray[np.uint8]]:
        box = self._box
        first = box.y0 // TILE_PX
        for row in range(first, -(-box.y1 // TILE_PX)):
            band = Box(max(box.y0, row * TILE_PX), box.x0, min(box.y1, (row + 1) * TILE_PX), box.x1)
            parts = [self._band(band, self._look.map)]
            if self._look.beside is not None:
                gap = np.zeros((band.height, GAP_PX, *self.shape[2:]), np.uint8)
                parts += [gap, self._band(band, self._look.beside)]
            yield np.ascontiguousarray(np.concatenate(parts, axis=1))

    def _band(self, band: Box, look: MapLook | None) -> NDArray[np.uint8]:
        out = np.empty((*band.shape, *self.shape[2:]), np.uint8)
        for row, column, tile in self._renderer.tile_grid(self._look.level, band):
            part = tile.intersect(band)
            out[part.within(band)] = self._tile(look, row, column)[part.within(tile)]
        return out[:, ::-1] if self._look.flip else out

    def _tile(self, look: MapLook | None, row: int, column: int) -> NDArray[np.uint8]:
        """Compose one tile as it is seen; (height, width) or (height, width, 3)."""
        renderer, level, papyrus = self._renderer, self._look.level, self._look.papyrus
        layers = [] if look is None else [(renderer.map(look, level, row, column), self._look.opacity)]
        if not self.is_grey:
            names = [] if look is None else [*look.maps, *([look.minus] if look.minus else [])]
            outlines: OutlineLook = self._look.outlines
            layers.append((renderer.outlines(outlines, names, level, row, column), 1.0))
        channels = 1 if self.is_grey else 3
        if papyrus is not None:
            base = renderer.papyrus(papyrus, level, row, column)
        else:
            base = np.zeros(layers[0][0].indices.shape if layers else self._shape_of(row, column), np.uint8)
        seen = base if base.ndim == 3 else np.repeat(base[..., None], channels, axis=2)
        for layer, opacity in layers:
            seen = over(seen, layer, opacity)
        return seen[..., 0] if self.is_grey else seen

    def _shape_of(self, row: int, column: int) -> tuple[int, int]:
        for number, number_x, tile in self._renderer.tile_grid(self._look.level, self._box):
            if (number, number_x) == (row, column):
                return tile.shape
        raise ConfigError("view: the tile lies outside the picture")

    def _unfinished(self) -> bool:
        shown = [look for look in (self._look.map, self._look.beside) if look is not None]
        names = {name for look in shown for name in (*look.maps, look.minus) if name is not None}
        maps = self._renderer.group.maps
        return any(name in maps and not maps[name].complete for name in names)


def over(below: NDArray[np.uint8], layer: Layer, opacity: float) -> NDArray[np.uint8]:
    """Lay a layer over a picture.

    Args:
        below: (height, width, channels); one channel takes the layer's red.
        layer: The layer.
        opacity: Of the whole layer, 0 to 1.
    """
    channels = below.shape[2]
    table: NDArray[Any] = layer.colours.astype(np.float32)
    alpha = table[:, 3] * np.float32(opacity / 255)
    added = (table[:, :channels] * alpha[:, None])[layer.indices]
    return np.asarray(np.rint(below * (1 - alpha)[layer.indices][..., None] + added), np.uint8)

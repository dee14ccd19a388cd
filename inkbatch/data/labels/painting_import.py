"""Labels made elsewhere as a label version: pictures and arrays of the segment's size, one per layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from inkbatch.data.labels.components import Bools
from inkbatch.data.labels.ink import INK_SHARE
from inkbatch.data.labels.painting import TILE_PX, Codes, LayerName, Tile, paint
from inkbatch.data.labels.painting_version import PaintedVersion, create_version
from inkbatch.data.maps.label_source import PictureLabels
from inkbatch.errors import ConfigError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.layers.base import LayerSource
from inkbatch.io.layers.one_plane import Plane, open_plane
from inkbatch.io.layers.single import read_mask
from inkbatch.io.store.location import Location

CURE = "state the plane"


def import_version(
    folder: Location,
    segment: str,
    shape_yx: tuple[int, int],
    voxel_size_um: float,
    pictures: Mapping[LayerName, str],
    *,
    author: str,
    plane: Plane | None = None,
    surface: str | None = None,
) -> PaintedVersion:
    """Make a version of pictures or arrays.

    Args:
        folder: Folder of the segment's versions.
        segment: Segment id.
        shape_yx: (height, width) of the segment.
        voxel_size_um: Edge of a pixel.
        pictures: Place of each layer that there is. Ink is what reaches half of the full scale; of other layers, all
            that is not 0.
        author: Who painted.
        plane: Plane of label volumes; None: the one with marks.
        surface: Content digest of the prepared segment, for the version.

    Raises:
        ConfigError: There are none.
        DataError: One cannot be read, or is of another size.
    """
    if not pictures:
        raise ConfigError(f"import {segment}: expected a picture of ink or of another layer, got none; give one")
    opened: dict[LayerName, PictureLabels | LayerSource] = {}
    try:
        for layer, uri in pictures.items():
            if layer == "ink":
                opened[layer] = ink = PictureLabels(uri, plane=plane, cure=CURE)
                found = ink.shape_yx
            else:
                opened[layer] = mask = open_plane(uri, plane, None, CURE)
                found = mask.shape_zyx[1:]
            if found != shape_yx:
                raise MismatchError(
                    f"import {segment}: expected {uri} to have {shape_yx} px (height, width) like the segment, got "
                    f"{found}; give labels of this very surface"
                )
        started = ", ".join(f"{layer}: {Location.parse(uri).name}" for layer, uri in pictures.items())
        tiles = _tiles(opened, shape_yx)
        place = create_version(
            folder,
            segment,
            shape_yx,
            voxel_size_um,
            author=author,
            started_from=started,
            surface=surface,
            tiles=tiles,
        )
        return PaintedVersion.open(place)
    finally:
        for labels in opened.values():
            labels.close()


def _tiles(
    opened: Mapping[LayerName, PictureLabels | LayerSource], shape_yx: tuple[int, int]
) -> Iterator[tuple[Tile, Codes]]:
    height, width = shape_yx
    for y in range(0, height, TILE_PX):
        row = Box(y, 0, min(height, y + TILE_PX), width)
        strip = np.zeros((TILE_PX, -(-width // TILE_PX) * TILE_PX), np.uint8)
        for layer in sorted(opened, key=lambda layer: layer == "ink"):  # ink last: it wins over not ink
            paint(strip[: row.height, :width], _marks(opened[layer], row), layer, erase=False)
        for x in range(strip.shape[1] // TILE_PX):
            codes = np.ascontiguousarray(strip[:, x * TILE_PX : (x + 1) * TILE_PX])
            if codes.any():
                yield (y // TILE_PX, x), codes


def _marks(source: PictureLabels | LayerSource, box: Box) -> Bools:
    if isinstance(source, PictureLabels):
        return np.asarray(source.read(box) >= INK_SHARE)
    return read_mask(source, box)

"""A label version for other programs: a picture of one layer, the field's label volume, or COCO; in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.labels.components import Bools
from inkbatch.data.labels.ink import LABEL_MAX
from inkbatch.data.labels.painting import LAYERS, TILE_PX, LayerName, halved_codes
from inkbatch.data.labels.painting_version import PaintedVersion
from inkbatch.errors import ConfigError
from inkbatch.geometry import Box
from inkbatch.io.multiscale import OVERVIEW_PX
from inkbatch.io.pictures.ome_zarr_v2 import LevelValues, write_ome_zarr_v2
from inkbatch.io.pictures.png import write_png
from inkbatch.io.pictures.rle import runs
from inkbatch.io.pictures.writers import write_tiff
from inkbatch.io.store.location import Location

ExportFormat = Literal["png", "tiff", "coco"]
CATEGORIES = {"ink": "ink", "not_ink": "not ink", "ignore": "ignore", "supervision": "supervision area"}
MEDIA = {"png": "image/png", "tiff": "image/tiff", "coco": "application/json"}
ENDINGS = {"png": ".png", "tiff": ".tif", "coco": ".json"}


def export_name(version: PaintedVersion, layer: LayerName, kind: ExportFormat) -> str:
    """Return a file name."""
    what = "labels" if kind == "coco" else LAYERS[layer].array
    return f"{version.facts['segment']}-{version.name}-{what}{ENDINGS[kind]}"


def write_export(version: PaintedVersion, layer: LayerName, kind: ExportFormat, handle: BinaryIO) -> None:
    """Write a picture of one layer (0 or 255), or all layers as COCO.

    Args:
        version: The version.
        layer: The layer; COCO holds all of them.
        kind: ``png``, ``tiff`` or ``coco``.
        handle: Open for writing; for ``tiff`` also for seeking.
    """
    note = f"{version.facts['segment']} {version.name}, stroke {version.revision}: {LAYERS[layer].array}"
    dtype = np.dtype(np.uint8)
    if kind == "png":
        write_png(handle, version.shape_yx, dtype, _rows(version, layer), note)
    elif kind == "tiff":
        pixel_um = float(version.facts["voxel_size_um"])
        write_tiff(handle, version.shape_yx, dtype, _rows(version, layer), pixel_um=pixel_um, note=note)
    else:
        handle.write(json.dumps(coco_labels(version), ensure_ascii=False).encode())


def _rows(version: PaintedVersion, layer: LayerName) -> Iterator[NDArray[np.uint8]]:
    height, width = version.shape_yx
    for y in range(0, height, TILE_PX):
        codes = version.tiles.read(Box(y, 0, min(height, y + TILE_PX), width))
        yield np.where(codes & LAYERS[layer].bit, np.uint8(LABEL_MAX), np.uint8(0))


def coco_labels(version: PaintedVersion) -> dict[str, object]:
    """Make a COCO document: one annotation per layer, as run lengths column by column, exact to the pixel."""
    height, width = version.shape_yx
    annotations = []
    for number, (layer, kind) in enumerate(LAYERS.items(), start=1):
        tiles = version.tiles.marked_tiles(kind.bit)
        if not tiles:
            continue
        counts = _column_runs(_columns(version, kind.bit), height * width)
        rows, columns = [y for y, _ in tiles], [x for _, x in tiles]
        box = Box(min(rows), min(columns), max(rows) + 1, max(columns) + 1)
        x0, y0 = box.x0 * TILE_PX, box.y0 * TILE_PX
        size = [min(width, box.x1 * TILE_PX) - x0, min(height, box.y1 * TILE_PX) - y0]
        annotations.append(
            {
                "id": number,
                "image_id": 1,
                "category_id": number,
                "bbox": [x0, y0, *size],
                "area": version.counts[layer],
                "iscrowd": 1,
                "segmentation": {"size": [height, width], "counts": counts},
            }
        )
    categories = [{"id": number, "name": CATEGORIES[layer]} for number, layer in enumerate(LAYERS, start=1)]
    image = {"id": 1, "file_name": f"{version.facts['segment']}.png", "height": height, "width": width}
    about = {"description": f"{version.facts['segment']} {version.name}, stroke {version.revision}"}
    return {"info": about, "images": [image], "categories": categories, "annotations": annotations}


def _columns(version: PaintedVersion, bit: int) -> Iterator[Bools]:
    height, width = version.shape_yx
    for x in range(0, width, TILE_PX):
        codes = version.tiles.read(Box(0, x, height, min(width, x + TILE_PX)))
        yield (codes & bit).T > 0


def _column_runs(columns: Iterator[Bools], total: int) -> list[int]:
    counts, done = [], 0
    for found in runs(columns):
        for start, length in found.tolist():
            counts += [start - 1 - done, length]
            done = start - 1 + length
    return [*counts, total - done]


def write_label_volume(version: PaintedVersion, layer: LayerName, place: Location, planes: int, plane: int) -> int:
    """Write one layer as the field's label volume: OME-Zarr with as many planes as the surface, marks on one of them.

    Args:
        version: The version.
        layer: The layer.
        place: Folder of the group.
        planes: Layers of the surface.
        plane: The one that holds the marks.

    Returns:
        Bytes stored.

    Raises:
        ConfigError: The plane lies outside.
    """
    if not 0 <= plane < planes:
        raise ConfigError(f"export: expected a plane from 0 to {planes - 1}, got {plane}; give one of these")
    bit, shape = LAYERS[layer].bit, version.shape_yx

    def level(number: int) -> LevelValues:
        def read(box: Box) -> NDArray[np.uint8]:
            factor = 2**number
            fine = Box(box.y0 * factor, box.x0 * factor, box.y1 * factor, box.x1 * factor)
            out = np.zeros((planes, *box.shape), np.uint8)
            marked = halved_codes(version.tiles.read(fine), number) & bit
            out[plane][marked > 0] = LABEL_MAX
            return out

        height, width = (-(-size // 2**number) for size in shape)
        return LevelValues((planes, height, width), np.dtype(np.uint8), read)

    count = 1
    while max(shape) > OVERVIEW_PX * 2 ** (count - 1):
        count += 1
    spacing = float(version.facts["voxel_size_um"])
    facts = {"segment": version.facts["segment"], "version": version.name, "stroke": version.revision}
    return write_ome_zarr_v2(place, [level(number) for number in range(count)], (spacing, spacing, spacing), facts)

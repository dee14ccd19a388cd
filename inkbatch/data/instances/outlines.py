"""Outlines of instances: polygons in pixels, GeoJSON features, and COCO annotations as polygons or run lengths."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from skimage.measure import find_contours

from inkbatch.data.datasets.polygons import packed_runs
from inkbatch.geometry import Box

Bools = NDArray[np.bool_]

DIGITS = 2  # of coordinates


def outline(mask: Bools, box: Box) -> shapely.Geometry:
    """Trace a mask as a polygon, or several where it is in pieces.

    The contour at one half runs through the middles of pixel edges, so a corner pixel loses an eighth of its area.
    Coordinates are x, y in pixels with the picture's corner at (0, 0): the centre of its first pixel is at (0.5, 0.5).

    Args:
        mask: (box.height, box.width).
        box: Its box in the picture.
    """
    rings = find_contours(np.pad(mask, 1).astype(np.float32), 0.5, fully_connected="low")  # type: ignore[no-untyped-call]
    shells: list[Any] = []
    holes: list[Any] = []
    for ring in rings:
        points = ring[:, ::-1] - 0.5 + (box.x0, box.y0)
        polygon = shapely.Polygon(points)
        (shells if shapely.is_ccw(polygon.exterior) else holes).append(polygon)
    found = shapely.union_all(shells) if len(shells) > 1 else shells[0]
    if holes:
        found = found.difference(shapely.union_all(holes))
    return found.simplify(0)


def rings_of(shape: shapely.Geometry) -> list[list[list[list[float]]]]:
    """List polygons as their rings, the outer one first; coordinates are rounded to `DIGITS`."""
    return [
        [[[round(x, DIGITS), round(y, DIGITS)] for x, y in ring.coords] for ring in (part.exterior, *part.interiors)]
        for part in shapely.get_parts(shape)
    ]


def feature_text(rings: Sequence[Any], row: Mapping[str, Any]) -> str:
    """Write one GeoJSON feature as text; its properties are the row's."""
    single = len(rings) == 1
    geometry = {"type": "Polygon" if single else "MultiPolygon", "coordinates": rings[0] if single else rings}
    return json.dumps({"type": "Feature", "id": row["label"], "geometry": geometry, "properties": row})


def collection(features: Iterable[str]) -> Iterator[bytes]:
    """Join features to a GeoJSON document, part by part; the order is theirs."""
    return _joined('{"type": "FeatureCollection", "features": [\n', features, "\n]}\n")


def _joined(head: str, texts: Iterable[str], foot: str) -> Iterator[bytes]:
    yield head.encode()
    for number, text in enumerate(texts):
        yield (",\n" if number else "").encode() + text.encode()
    yield foot.encode()


def svg(
    objects: Iterable[tuple[int, Sequence[Sequence[Sequence[Sequence[float]]]]]],
    shape_yx: tuple[int, int],
    pixel_um: float | None,
) -> Iterator[bytes]:
    """Draw outlines as an SVG, a path per object, part by part; millimetres are its units, or pixels without a scale.

    Args:
        objects: Label and polygons of each, see `rings_of`.
        shape_yx: (height, width) of the picture.
        pixel_um: Edge of a pixel, None where it is not known.
    """
    scale, unit = (1.0, "") if pixel_um is None else (pixel_um / 1000, "mm")
    height, width = (f"{side * scale:.6g}" for side in shape_yx)

    def ring(points: Sequence[Sequence[float]]) -> str:
        return "M" + " ".join(f"{x * scale:.6g},{y * scale:.6g}" for x, y in points[:-1]) + "Z"

    size = f'width="{width}{unit}" height="{height}{unit}" viewBox="0 0 {width} {height}"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n'.encode()
    yield f'<g fill="none" fill-rule="evenodd" stroke="black" stroke-width="{scale:.6g}">\n'.encode()
    for label, polygons in objects:
        path = "".join(ring(one) for polygon in polygons for one in polygon)
        yield f'<path id="object-{label}" d="{path}"/>\n'.encode()
    yield b"</g>\n</svg>\n"


def runs_text(mask: Bools, box: Box, shape_yx: tuple[int, int]) -> str:
    """Encode a mask as COCO's compressed run lengths of the whole picture, column by column.

    Args:
        mask: (box.height, box.width).
        box: Its box in the picture.
        shape_yx: Size of the picture.
    """
    columns = np.pad(mask, ((1, 1), (0, 0))).T.astype(np.int8)
    change = np.diff(columns, axis=1)
    column, start = np.nonzero(change == 1)
    stop = np.nonzero(change == -1)[1]
    base = (box.x0 + column) * shape_yx[0] + box.y0
    edges = np.stack([base + start, base + stop], axis=1).ravel()
    bounds = np.concatenate([[0], edges, [shape_yx[0] * shape_yx[1]]])
    runs = np.diff(bounds)
    touching = np.flatnonzero((runs == 0) & (np.arange(len(runs)) > 0) & (np.arange(len(runs)) < len(runs) - 1))
    kept = np.delete(bounds, np.concatenate([touching, touching + 1])) if len(touching) else bounds
    lengths = np.diff(kept).tolist()
    return packed_runs(lengths[:-1] if lengths[-1] == 0 else lengths)


def coco_annotation(image: int, row: Mapping[str, Any], segmentation: Any, *, crowd: bool = False) -> str:
    """Write one annotation as text; its id is missing, see `coco_document`.

    Args:
        image: Id of its picture.
        row: Its properties.
        segmentation: Polygons as COCO has them (flat lists x, y, …), or run lengths with their size.
        crowd: COCO's name for run lengths that stand for one region.
    """
    found = {
        "image_id": image,
        "category_id": 1,
        "bbox": [row["x0"], row["y0"], row["x1"] - row["x0"], row["y1"] - row["y0"]],
        "area": row["area_px"],
        "iscrowd": int(crowd),
        "segmentation": segmentation,
        "score": row["predicted_iou"] if row["predicted_iou"] is not None else row["mean_probability"],
    }
    return json.dumps(found)


def coco_document(images: Sequence[tuple[str, tuple[int, int]]], annotations: Iterable[str]) -> Iterator[bytes]:
    """Join annotations to a COCO document, part by part; ids count from 1, the only category is ``object``."""
    head = {
        "images": [
            {"id": number, "file_name": name, "height": shape[0], "width": shape[1]}
            for number, (name, shape) in enumerate(images, start=1)
        ],
        "categories": [{"id": 1, "name": "object"}],
    }
    numbered = (f'{{"id": {number}, {text[1:]}' for number, text in enumerate(annotations, start=1))
    return _joined(json.dumps(head)[:-1] + ', "annotations": [\n', numbered, "\n]}\n")


def edges(numbers: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Mark the pixels of objects that touch another one or none: (height, width)."""
    padded = np.pad(numbers, 1, mode="edge")
    found = np.zeros(numbers.shape, bool)
    for y, x in ((0, 1), (2, 1), (1, 0), (1, 2)):
        found |= padded[y : y + numbers.shape[0], x : x + numbers.shape[1]] != numbers
    return found & (numbers > 0)

"""Boxes as files: COCO JSON (written and read), a text list, and a picture with the boxes drawn.

COCO states a box as ``[x, y, width, height]`` in pixels, measured from the upper left corner of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inkbatch.data.datasets.ink_boxes import InkBox
from inkbatch.errors import DataError
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.pictures.decoding import MOST_PIXELS
from inkbatch.io.pictures.png import png_bytes
from inkbatch.io.pictures.preview import preview_level
from inkbatch.io.store.location import Location
from inkbatch.redaction import shown
from inkbatch.validation import in_words

CATEGORY = "ink"
PREVIEW_PX = 2_000
BOX_BGR = (0, 96, 255)
_TOLERANCE_PX = 0.5  # annotation tools round boxes at the border


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class _ImageEntry(_Entry):
    id: int
    file_name: str
    height: int = Field(ge=1)
    width: int = Field(ge=1)


class _CategoryEntry(_Entry):
    id: int
    name: str


class _AnnotationEntry(_Entry):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    segmentation: Any = None


class _Document(_Entry):
    images: tuple[_ImageEntry, ...]
    categories: tuple[_CategoryEntry, ...]
    annotations: tuple[_AnnotationEntry, ...] = ()


@dataclass(frozen=True)
class CocoAnnotation:
    """One annotation.

    Attributes:
        id: Its number in the file.
        category: Name of its category.
        box: All pixels that it touches.
        segmentation: As in the file: polygons ``[[x, y, x, y, …], …]``, a run-length mask, or None.
    """

    id: int
    category: str
    box: Box
    segmentation: Any


@dataclass(frozen=True)
class CocoImage:
    """One picture and what is annotated in it.

    Attributes:
        file_name: As in the file.
        shape_yx: (height, width) in pixels.
        annotations: In the file's order.
    """

    file_name: str
    shape_yx: tuple[int, int]
    annotations: tuple[CocoAnnotation, ...]


def read_coco(place: Location) -> tuple[CocoImage, ...]:
    """Read a COCO file.

    Raises:
        DataError: It is no COCO file, an annotation names a picture or category that is not there, or its box is empty
            or leaves the picture.
    """
    return parse_coco(place.read_json(), str(place))


def parse_coco(document: Any, place: str) -> tuple[CocoImage, ...]:
    """Read the content of a COCO file; `place` opens the message of a failure. See `read_coco`."""
    try:
        found = _Document.model_validate(document)
    except ValidationError as error:
        raise DataError(
            f"{place}: not a COCO file (images, categories, annotations): {in_words(error, document, most=1)}; "
            "export it again"
        ) from error
    _require_once((image.id for image in found.images), "image id", place)
    _require_once((category.id for category in found.categories), "category id", place)
    _require_once((category.name for category in found.categories), "category", place)
    images = {image.id: image for image in found.images}
    for image in found.images:
        if image.height * image.width > MOST_PIXELS:
            raise DataError(
                f"{place}: image {image.id}: expected at most {MOST_PIXELS:,} pixels, got {image.height} x "
                f"{image.width} (height x width); correct it"
            )
    names = {category.id: category.name for category in found.categories}
    by_image: dict[int, list[CocoAnnotation]] = {number: [] for number in images}
    for entry in found.annotations:
        if entry.image_id not in images or entry.category_id not in names:
            raise DataError(
                f"{place}: annotation {entry.id} names image {entry.image_id} and category {entry.category_id}, which "
                "are not both listed; export it again"
            )
        box = _box(entry, images[entry.image_id], place)
        annotation = CocoAnnotation(entry.id, names[entry.category_id], box, entry.segmentation)
        by_image[entry.image_id].append(annotation)
    return tuple(
        CocoImage(image.file_name, (image.height, image.width), tuple(by_image[image.id])) for image in found.images
    )


def _require_once(values: Iterable[int | str], what: str, place: str) -> None:
    seen: set[int | str] = set()
    for value in values:
        if value in seen:
            raise DataError(
                f"{place}: {what} {shown(value)} stands twice, so annotations of the one would count for the other; "
                "give each its own"
            )
        seen.add(value)


def coco_document(file_name: str, shape_yx: tuple[int, int], boxes: Sequence[InkBox]) -> dict[str, Any]:
    """Return the content of a COCO file with one picture; ``attributes`` hold curvature and turns.

    Args:
        file_name: Name of the picture that the boxes belong to.
        shape_yx: Its (height, width).
        boxes: The boxes; their numbers become the annotations' ids.
    """
    annotations = []
    for entry in boxes:
        y0, x0, y1, x1 = entry.box
        annotations.append(
            {
                "id": entry.number,
                "image_id": 1,
                "category_id": 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": entry.area,
                "iscrowd": 0,
                "segmentation": [],
                "attributes": {"curvature": entry.curvature, "turns": entry.turns},
            }
        )
    return {
        "info": {"description": "boxes around ink components; area counts the component's pixels"},
        "images": [{"id": 1, "file_name": file_name, "height": shape_yx[0], "width": shape_yx[1]}],
        "categories": [{"id": 1, "name": CATEGORY, "supercategory": ""}],
        "annotations": annotations,
    }


def write_coco(place: Location, file_name: str, shape_yx: tuple[int, int], boxes: Sequence[InkBox]) -> None:
    """Write a COCO file with one picture; see `coco_document`."""
    place.write_json(coco_document(file_name, shape_yx, boxes))


def write_box_list(place: Location, boxes: Sequence[InkBox]) -> None:
    """Write the boxes as a table: one line each, values separated by tabs, half-open boxes in pixels."""
    rows = ["number\ty0\tx0\ty1\tx1\tarea_px\tcurvature_per_px\tturns"]
    rows += [
        "\t".join(str(value) for value in (entry.number, *entry.box, entry.area, entry.curvature, entry.turns))
        for entry in boxes
    ]
    place.write_bytes(("\n".join(rows) + "\n").encode())


def draw_boxes(place: Location, labels: Multiscale, boxes: Sequence[InkBox], longest_px: int = PREVIEW_PX) -> None:
    """Write a PNG of the labels with the boxes and their numbers drawn.

    Args:
        place: The file to write.
        labels: ``ink_labels.zarr``, (Y, X) uint8.
        boxes: In full-resolution pixels.
        longest_px: The finest level that fits this along both axes is taken, else the coarsest.
    """
    level = preview_level(labels, longest_px)
    array = labels.levels[level]
    grey = array.read(Box(0, 0, *array.layout.shape).slices)
    picture = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    for entry in boxes:
        box = Box(*entry.box).downscale(2**level)
        cv2.rectangle(picture, (box.x0, box.y0), (box.x1 - 1, box.y1 - 1), BOX_BGR, 1)
        cv2.putText(picture, str(entry.number), (box.x0 + 2, box.y0 + 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, BOX_BGR)
    place.write_bytes(png_bytes(picture[..., ::-1]))


def _box(entry: _AnnotationEntry, image: _ImageEntry, place: str) -> Box:
    """Return the pixels that an annotation's box touches; half a pixel beyond the border is rounding."""
    x, y, width, height = entry.bbox
    inside = min(x, y) >= -_TOLERANCE_PX
    inside &= x + width <= image.width + _TOLERANCE_PX and y + height <= image.height + _TOLERANCE_PX
    if width <= 0 or height <= 0 or not inside:
        raise DataError(
            f"{place}: annotation {entry.id}: its box x {x:g}, y {y:g}, {width:g} x {height:g} px (width x height) is "
            f"empty or leaves {image.file_name} of {image.width} x {image.height} px; correct it"
        )
    whole = Box(0, 0, image.height, image.width)
    touched = Box(max(0, math.floor(y)), max(0, math.floor(x)), math.ceil(y + height), math.ceil(x + width))
    return touched.intersect(whole)

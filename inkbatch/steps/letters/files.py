"""Files about letters: tables, boxes as COCO, cut-outs, and a picture with numbered rows and a 1 cm bar."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.data.instances.letters import Writing, letter_rows
from inkbatch.data.maps.stored import StoredMap
from inkbatch.errors import ConfigError
from inkbatch.geometry import Box
from inkbatch.io.pictures.bands import MapView
from inkbatch.io.pictures.png import png_bytes
from inkbatch.io.pictures.preview import preview_level
from inkbatch.io.pictures.scale_bar import FONT, ScaleBar
from inkbatch.io.store.location import Location

PICTURE_PX = 4000  # longest side of the picture of rows
AMBER, GREEN = (255, 176, 0), (80, 200, 120)


@dataclass(frozen=True, eq=False)
class Page:
    """Writing as it was found.

    Attributes:
        source: The map.
        writing: Its letters and lines.
        areas: (strokes,): pixels of each stroke.
    """

    source: StoredMap
    writing: Writing
    areas: NDArray[np.int64]


def write_files(folder: Location, found: Page, margin_px: int | None) -> None:
    """Write tables, boxes and pictures of letters.

    Args:
        folder: Where they go.
        found: The letters.
        margin_px: Pixels around a letter in its cut-out; None: no cut-outs.
    """
    source, writing = found.source, found.writing
    (folder / "letters.csv").write_bytes(_csv(letter_rows(writing, source.pixel_um)))
    (folder / "lines.csv").write_bytes(_csv(_line_rows(writing, source.pixel_um)))
    (folder / "coco.json").write_bytes(_coco(source, writing, found.areas))
    (folder / "rows.png").write_bytes(png_bytes(rows_picture(source, writing)))
    if margin_px is not None:
        _write_cutouts(folder, source, writing, margin_px)
    pitch = writing.pitch_px
    facts = {"slope": round(writing.slope, 5), "pitch_px": None if pitch is None else round(pitch, 3)}
    facts |= {"pixel_um": source.pixel_um, "height_px": writing.height_px, "strokes": len(found.areas)}
    (folder / "letters.json").write_json({**facts, "letters": len(writing.letters), "lines": len(writing.lines)})


def rows_picture(found: StoredMap, writing: Writing) -> NDArray[np.uint8]:
    """Draw the map with a box per letter, a line and a number per row, and a bar of 1 cm where it fits: (Y, X, 3)."""
    view = MapView.of(found.prediction.pyramid, preview_level(found.prediction.pyramid, PICTURE_PX))
    values = np.concatenate(list(view.bands(view.chunk_rows)))
    picture = np.repeat(np.rint(values.astype(np.float32).clip(0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)
    zoom = picture.shape[0] / found.shape_yx[0]
    size = max(0.4, writing.height_px * zoom / 40)
    pen, thin = max(1, round(size)), max(1, round(size / 2))
    for line in writing.lines:
        ends = [(0, line.y0), (found.shape_yx[1], line.y0 + writing.slope * found.shape_yx[1])]
        (x0, y0), (x1, y1) = ((round(x * zoom), round(y * zoom)) for x, y in ends)
        cv2.line(picture, (x0, y0), (x1, y1), AMBER, thin)
        high = cv2.getTextSize(str(line.number), FONT, size, pen)[0][1]
        cv2.putText(picture, str(line.number), (2, max(high + 2, y0 - 2)), FONT, size, AMBER, pen, cv2.LINE_AA)
    for letter in writing.letters:
        box = letter.box
        (x0, y0), (x1, y1) = ((round(x * zoom), round(y * zoom)) for x, y in ((box.x0, box.y0), (box.x1, box.y1)))
        cv2.rectangle(picture, (x0, y0), (x1, y1), GREEN, thin)
    return _with_bar(picture, found.pixel_um / zoom)


def _with_bar(picture: NDArray[np.uint8], pixel_um: float) -> NDArray[np.uint8]:
    """Draw a bar of 1 cm; of 1 mm in a picture that is too narrow, and none where neither fits."""
    for length in ("1cm", "1mm"):
        try:
            bar = ScaleBar.fitting("1cm" if length == "1cm" else "1mm", pixel_um, (picture.shape[0], picture.shape[1]))
        except ConfigError:
            continue
        height, width = bar.ink.shape
        shown = np.rint(bar.ink * 255).astype(np.uint8)
        picture[bar.y0 : bar.y0 + height, bar.x0 : bar.x0 + width] = shown[..., None]
        break
    return picture


def _write_cutouts(folder: Location, found: StoredMap, writing: Writing, margin_px: int) -> None:
    whole = Box(0, 0, *found.shape_yx)
    for letter in writing.letters:
        box = letter.box.grow(margin_px).intersect(whole)
        values = found.prediction.read(box).astype(np.float32)
        name = f"line-{letter.line:02d}-{letter.place:03d}.png"
        (folder / "letters" / name).write_bytes(png_bytes(np.rint(values.clip(0, 1) * 255).astype(np.uint8)))


def _line_rows(writing: Writing, pixel_um: float) -> list[dict[str, Any]]:
    return [
        {
            "line": line.number,
            "y_px": round(line.y0, 2),
            "letters": line.letters,
            "height_px": line.height_px,
            "height_mm": round(line.height_px * pixel_um / 1000, 4),
        }
        for line in writing.lines
    ]


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _coco(found: StoredMap, writing: Writing, areas: NDArray[np.int64]) -> bytes:
    """Write letters as COCO's boxes (x, y, width, height) of one category, by line and place."""
    height, width = found.shape_yx
    image = {"id": 1, "file_name": f"{found.segment}.png", "height": height, "width": width}
    annotations = [
        {
            "id": number,
            "image_id": 1,
            "category_id": 1,
            "bbox": [one.box.x0, one.box.y0, one.box.width, one.box.height],
            "area": int(areas[list(one.strokes)].sum()),
            "iscrowd": 0,
            "line": one.line,
            "place": one.place,
        }
        for number, one in enumerate(writing.letters, start=1)
    ]
    document = {"images": [image], "categories": [{"id": 1, "name": "letter"}], "annotations": annotations}
    return (json.dumps(document, indent=1) + "\n").encode()

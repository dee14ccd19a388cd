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

from inkbatch.data.instances.letters import Writing, letter_rows, turned
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
        writing: Its letters and lines, in the map as it was turned to be read.
        areas: (strokes,): pixels of each stroke.
        turn: Degrees by which it was turned against the clock.
    """

    source: StoredMap
    writing: Writing
    areas: NDArray[np.int64]
    turn: int = 0

    @property
    def shape_yx(self) -> tuple[int, int]:
        """(height, width) of the map as it was read."""
        height, width = self.source.shape_yx
        return (width, height) if self.turn % 180 else (height, width)

    def stored(self, boxes: Sequence[Box]) -> list[Box]:
        """Return where boxes of the map as it was read lie in the map as it is stored."""
        corners = np.array([(box.y0, box.x0, box.y1, box.x1) for box in boxes], np.int64).reshape(-1, 4)
        return [Box(*row) for row in turned(corners, self.shape_yx, 360 - self.turn).tolist()]


def write_files(folder: Location, found: Page, margin_px: int | None) -> None:
    """Write tables, boxes and pictures of letters.

    Args:
        folder: Where they go.
        found: The letters.
        margin_px: Pixels around a letter in its cut-out; None: no cut-outs.
    """
    source, writing = found.source, found.writing
    boxes = found.stored([letter.box for letter in writing.letters])
    (folder / "letters.csv").write_bytes(_csv(letter_rows(writing, boxes, source.pixel_um)))
    (folder / "lines.csv").write_bytes(_csv(_line_rows(writing, source.pixel_um)))
    (folder / "coco.json").write_bytes(_coco(source, writing, boxes, found.areas))
    (folder / "rows.png").write_bytes(png_bytes(rows_picture(found)))
    if margin_px is not None:
        _write_cutouts(folder, found, margin_px)
    pitch = writing.pitch_px
    facts = {"slope": round(writing.slope, 5), "pitch_px": None if pitch is None else round(pitch, 3)}
    facts |= {"pixel_um": source.pixel_um, "height_px": writing.height_px, "strokes": len(found.areas)}
    (folder / "letters.json").write_json({**facts, "letters": len(writing.letters), "lines": len(writing.lines)})


def rows_picture(found: Page) -> NDArray[np.uint8]:
    """Draw the map as it was read with a box per letter, a line and a number per row, and a bar of 1 cm: (Y, X, 3)."""
    source, writing, (height, width) = found.source, found.writing, found.shape_yx
    pyramid = source.prediction.pyramid
    view = MapView.of(pyramid, preview_level(pyramid, PICTURE_PX))
    values = np.concatenate(list(view.bands(view.chunk_rows)))
    shades = np.rint(np.rot90(values, found.turn // 90).astype(np.float32).clip(0, 1) * 255).astype(np.uint8)
    picture = np.repeat(shades[..., None], 3, axis=2)
    zoom = picture.shape[0] / height
    size = max(0.4, writing.height_px * zoom / 40)
    pen, thin = max(1, round(size)), max(1, round(size / 2))
    for line in writing.lines:
        ends = [(0, line.y0), (width, line.y0 + writing.slope * width)]
        (x0, y0), (x1, y1) = ((round(x * zoom), round(y * zoom)) for x, y in ends)
        cv2.line(picture, (x0, y0), (x1, y1), AMBER, thin)
        high = cv2.getTextSize(str(line.number), FONT, size, pen)[0][1]
        cv2.putText(picture, str(line.number), (2, max(high + 2, y0 - 2)), FONT, size, AMBER, pen, cv2.LINE_AA)
    for letter in writing.letters:
        box = letter.box
        (x0, y0), (x1, y1) = ((round(x * zoom), round(y * zoom)) for x, y in ((box.x0, box.y0), (box.x1, box.y1)))
        cv2.rectangle(picture, (x0, y0), (x1, y1), GREEN, thin)
    return _with_bar(picture, source.pixel_um / zoom)


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


def _write_cutouts(folder: Location, found: Page, margin_px: int) -> None:
    """Cut every letter out of the map, upright."""
    whole = Box(0, 0, *found.shape_yx)
    shown = [letter.box.grow(margin_px).intersect(whole) for letter in found.writing.letters]
    for letter, box in zip(found.writing.letters, found.stored(shown), strict=True):
        values = np.rot90(found.source.prediction.read(box), found.turn // 90).astype(np.float32)
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


def _coco(found: StoredMap, writing: Writing, boxes: Sequence[Box], areas: NDArray[np.int64]) -> bytes:
    """Write letters as COCO's boxes (x, y, width, height) of one category, by line and place."""
    height, width = found.shape_yx
    image = {"id": 1, "file_name": f"{found.segment}.png", "height": height, "width": width}
    annotations = [
        {
            "id": number,
            "image_id": 1,
            "category_id": 1,
            "bbox": [box.x0, box.y0, box.width, box.height],
            "area": int(areas[list(one.strokes)].sum()),
            "iscrowd": 0,
            "line": one.line,
            "place": one.place,
        }
        for number, (one, box) in enumerate(zip(writing.letters, boxes, strict=True), start=1)
    ]
    document = {"images": [image], "categories": [{"id": 1, "name": "letter"}], "annotations": annotations}
    return (json.dumps(document, indent=1) + "\n").encode()

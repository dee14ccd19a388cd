"""Letters of a segment's ink map: tables, boxes as COCO, cut-outs, and a picture with numbered rows and a 1 cm bar.

The map is read in parts; what is kept of it is a box and an area per stroke, so that memory does not follow from its
size, nor letters from how it is cut.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from inkbatch.config import JobConfig
from inkbatch.data.instances.ascent import Evidence, first_pass
from inkbatch.data.instances.joining import join
from inkbatch.data.instances.letters import LetterRules, Writing, letter_rows, read_letters
from inkbatch.data.instances.proposals import limits_of
from inkbatch.data.instances.settings import ProposalRules
from inkbatch.data.instances.unit_facts import BasinFacts, facts_of
from inkbatch.data.maps.stored import StoredMap, open_map
from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.geometry import Box, cut
from inkbatch.io.pictures.bands import MapView
from inkbatch.io.pictures.png import png_bytes
from inkbatch.io.pictures.preview import preview_level
from inkbatch.io.pictures.scale_bar import FONT, ScaleBar
from inkbatch.io.store.location import Location
from inkbatch.text import count_text

PART_PX = 2048  # of the map that are read at a time
PICTURE_PX = 4000  # longest side of the picture of rows
AMBER, GREEN = (255, 176, 0), (80, 200, 120)


class LettersConfig(JobConfig):
    """Settings of letters.

    Attributes:
        segment: Segment id.
        name: Name or address of the prediction; None takes the only one.
        to: Folder of the result; None is ``ROOT/instances/{segment}/{prediction}-letters``.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        rules: Rules from strokes to letters.
        cutouts: Write a picture of each letter, of the ink map.
        margin: Pixels around a letter in its cut-out, as a share of the height of letters.
    """

    segment: str
    name: str | None = None
    to: str | None = None
    root: str = "root"
    rules: LetterRules = LetterRules()
    cutouts: bool = True
    margin: float = Field(0.15, ge=0, le=1)


def run(config: LettersConfig) -> list[str]:
    """Find the letters of a segment and write everything about them; equal maps give equal bytes.

    Returns:
        Lines for people.

    Raises:
        ConfigError: A rule in micrometres without a scale.
        DataError: No prediction, or one that is not complete; no stroke in it.
        MismatchError: A prediction that holds ranks.
    """
    found = open_map(config.root, config.segment, config.name)
    if found.holds_ranks:
        raise MismatchError(
            f"prediction {config.segment}/{found.name}: expected probabilities, got ranks; take another method of "
            "ensemble"
        )
    boxes, areas = strokes_of(found, config.rules)
    writing = read_letters(boxes, areas, config.rules, found.pixel_um)
    if not writing.letters:
        raise DataError(
            f"letters {config.segment}: expected strokes of at least {config.rules.min_stroke} px where the "
            f"probability reaches {config.rules.ink_from:g}, got none; lower rules.ink_from or rules.min_stroke"
        )
    to = config.to or f"{config.root}/instances/{config.segment}/{found.name}-letters"
    folder = Location.parse(to)
    rows = letter_rows(writing, found.pixel_um)
    (folder / "letters.csv").write_bytes(_csv(rows))
    (folder / "lines.csv").write_bytes(_csv(_line_rows(writing, found.pixel_um)))
    (folder / "coco.json").write_bytes(_coco(found, writing, areas))
    (folder / "rows.png").write_bytes(png_bytes(rows_picture(found, writing)))
    if config.cutouts:
        _write_cutouts(folder, found, writing, round(config.margin * writing.height_px))
    pitch = writing.pitch_px
    facts = {"slope": round(writing.slope, 5), "pitch_px": None if pitch is None else round(pitch, 3)}
    facts |= {"pixel_um": found.pixel_um, "height_px": writing.height_px, "strokes": len(areas)}
    (folder / "letters.json").write_json({**facts, "letters": len(writing.letters), "lines": len(writing.lines)})
    high = f"{writing.height_px:g} px ({writing.height_px * found.pixel_um / 1000:.2f} mm) high"
    lines = count_text(len(writing.lines), "line")
    return [f"letters: {count_text(len(writing.letters), 'letter')} in {lines}, {high} · {folder}"]


def strokes_of(found: StoredMap, rules: LetterRules) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the strokes of a map, part by part: their boxes (n, 4) and areas (n,), by their first pixels."""
    shape = found.shape_yx
    limits = limits_of(
        ProposalRules(object_from=rules.ink_from, min_area=rules.min_stroke, reach=1.0, cluster=0.0), found.pixel_um
    )
    facts: list[BasinFacts] = []
    for box in cut(shape, PART_PX, PART_PX):
        read = box.grow(limits.halo_px).intersect(Box(0, 0, *shape))
        evidence = Evidence.of(found.prediction.read(read).astype(np.float32))
        sides = box.y0 > 0, box.y1 < shape[0], box.x0 > 0, box.x1 < shape[1]
        inner = box.within(read)
        own = Evidence(evidence.object[inner], None, evidence.background[inner])
        facts.append(facts_of(first_pass(evidence, (box.y0, box.x0), inner, sides, limits), box, own))
    parts = join(facts, limits.neck).components
    return parts.extent, parts.area


def rows_picture(found: StoredMap, writing: Writing) -> NDArray[np.uint8]:
    """Draw the map with a box per letter, a line and a number per row, and a bar of 1 cm where it fits: (Y, X, 3)."""
    view = MapView.of(found.prediction.pyramid, preview_level(found.prediction.pyramid, PICTURE_PX))
    values = np.concatenate(list(view.bands(view.chunk_rows)))
    picture = np.repeat(np.rint(values.astype(np.float32).clip(0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)
    zoom = picture.shape[0] / found.shape_yx[0]
    size = max(0.4, writing.height_px * zoom / 40)
    for line in writing.lines:
        ends = [(0, line.y0), (found.shape_yx[1], line.y0 + writing.slope * found.shape_yx[1])]
        (x0, y0), (x1, y1) = ((round(x * zoom), round(y * zoom)) for x, y in ends)
        cv2.line(picture, (x0, y0), (x1, y1), AMBER, 1)
        at, pen = (2, max(12, y0 - 2)), max(1, round(size))
        cv2.putText(picture, str(line.number), at, FONT, size, AMBER, pen, cv2.LINE_AA)
    for letter in writing.letters:
        box = letter.box
        (x0, y0), (x1, y1) = ((round(x * zoom), round(y * zoom)) for x, y in ((box.x0, box.y0), (box.x1, box.y1)))
        cv2.rectangle(picture, (x0, y0), (x1, y1), GREEN, 1)
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

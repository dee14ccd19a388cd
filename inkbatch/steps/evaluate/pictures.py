"""Pictures of a map's agreement with its labels: the whole area, and the regions in which most pixels are wrong.

Units keep every n-th label of every n-th row (`label_picks`), so that the picture of a large segment needs no second
reading of its labels. ``pictures.json`` says what was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import CorruptDataError
from inkbatch.geometry import Box
from inkbatch.io.half_floats import to_single
from inkbatch.io.pictures.png import png_bytes
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.io.threads import CODEC_THREADS

DOCUMENT = "pictures.json"
LONGEST_PX = 1400
WORST, WORST_PX, GAP_PX = 6, 480, 8
NOT_COUNTED, BARE, INK = 0, 1, 2  # of a picked label
# Red, green, blue: blue and orange keep apart for every kind of colour-blindness, white and black do so anyway.
COLOURS = {
    "found": (242, 242, 238),
    "missed": (64, 150, 230),
    "false alarm": (236, 132, 28),
    "bare": (22, 22, 26),
    "not counted": (92, 96, 104),
}

Codes = NDArray[np.uint8]
Bools = NDArray[np.bool_]


def picture_level(maps: Sequence[Prediction], area: Box) -> int:
    """Choose the finest level on which the area fits `LONGEST_PX`, else the coarsest that all maps have.

    For an area so narrow that none of its rows or columns is on that level, choose a finer one.
    """
    count = min(len(stored.pyramid.levels) for stored in maps)
    fitting = [number for number in range(count) if max(area.shape) <= LONGEST_PX << number]
    level = fitting[0] if fitting else count - 1
    while level and not _on_level(area, level).area:
        level -= 1
    return level


def label_picks(box: Box, ink: Bools, counted: Bools, level: int) -> Codes:
    """Pick the labels of a box's pixels whose row and column are multiples of ``2**level``.

    Args:
        box: In pixels of the segment.
        ink: (height, width).
        counted: (height, width); False where pixels count in no score.
        level: See `picture_level`.

    Returns:
        `NOT_COUNTED`, `BARE` or `INK` of each pick.
    """
    step = 1 << level
    picked = (slice(-box.y0 % step, None, step), slice(-box.x0 % step, None, step))
    picks: Codes = ink[picked].astype(np.uint8) + np.uint8(BARE)  # INK is the next number
    picks *= counted[picked]
    return picks


def no_picks(box: Box, level: int) -> Codes:
    """Make an empty array for the `label_picks` of a box."""
    return np.full(_on_level(box, level).shape, NOT_COUNTED, np.uint8)


def fill_picks(picks: Codes, box: Box, part: Box, ink: Bools, counted: Bools, level: int) -> None:
    """Fill in the picks of a part of a box.

    Args:
        picks: From `no_picks`.
        box: In pixels of the segment.
        part: The part.
        ink: Of the part, see `label_picks`.
        counted: Of the part.
        level: See `picture_level`.
    """
    place = _on_level(part, level)
    if place.area:
        picks[place.within(_on_level(box, level))] = label_picks(part, ink, counted, level)


def encode(picture: NDArray[np.uint8]) -> bytes:
    """Encode grey values (Y, X) or red, green, blue (Y, X, 3) as PNG; equal pictures give equal bytes."""
    return png_bytes(picture)


def agreement(found: Bools, codes: Codes) -> NDArray[np.uint8]:
    """Draw found ink against labels, (Y, X, 3) in `COLOURS`."""
    table = np.zeros((1, 256, 3), np.uint8)
    for number, names in enumerate((("not counted", "bare", "missed"), ("not counted", "false alarm", "found"))):
        for code, name in zip((NOT_COUNTED, BARE, INK), names, strict=True):
            table[0, number << 2 | code] = COLOURS[name]
    keys = found.astype(np.uint8) << 2 | codes
    return np.asarray(cv2.LUT(cv2.merge([keys, keys, keys]), table), np.uint8)


def write_pictures(
    folder: Location,
    maps: Sequence[tuple[str, Prediction, float]],
    area: Box,
    picks: Sequence[tuple[Box, Location]],
    regions: Sequence[Mapping[str, Any]],
    read_truth: Callable[[Box], tuple[Bools, Bools]],
    pixel_um: float,
) -> None:
    """Write ``map.png`` and ``agreement.png`` of each map, ``worst-1.png`` and so on of the first, ``pictures.json``.

    Args:
        folder: Where they go.
        maps: (name, map, threshold from which its pixels are ink).
        area: The part that counts.
        picks: Boxes that fill the area, and the paths of their `label_picks`.
        regions: Rows of ``regions.csv``.
        read_truth: Reads (ink, counted) of a box.
        pixel_um: Edge of a pixel of the maps.

    Raises:
        CorruptDataError: Picked labels that cannot be decoded.
    """
    level = picture_level([stored for _, stored, _ in maps], area)
    whole = _on_level(area, level)
    codes = np.zeros(whole.shape, np.uint8)
    for box, place in picks:
        part = _on_level(box, level)
        if part.area:
            codes[part.within(whole)] = _decoded(place, part.shape)
    shown = []
    for number, (name, stored, threshold) in enumerate(maps, start=1):
        tail = "" if number == 1 else f"-{number}"
        values = to_single(stored.pyramid.levels[level].read(whole.slices))
        (folder / f"map{tail}.png").write_bytes(encode(_tones(values)))
        (folder / f"agreement{tail}.png").write_bytes(encode(agreement(values >= threshold, codes)))
        shown.append(
            {"name": name, "map": f"map{tail}.png", "agreement": f"agreement{tail}.png", "threshold": threshold}
        )
    worst = _write_worst(folder, maps[0], regions, read_truth)
    kept = {"reduced_by": 1 << level, "pixel_um": pixel_um * (1 << level), "colours": COLOURS}
    (folder / DOCUMENT).write_json({"maps": shown, "worst": worst, **kept})


def _write_worst(
    folder: Location,
    first: tuple[str, Prediction, float],
    regions: Sequence[Mapping[str, Any]],
    read_truth: Callable[[Box], tuple[Bools, Bools]],
) -> list[dict[str, Any]]:
    name, stored, threshold = first
    own = [{**row, **_wrong(row)} for row in regions if row["map"] == name]
    own.sort(key=lambda row: (-row["wrong_px"], row["y0"], row["x0"]))

    def drawn(rank: int, row: Mapping[str, Any]) -> dict[str, Any]:
        box = Box(row["y0"], row["x0"], row["y1"], row["x1"])
        values = to_single(stored.read(box))
        codes = label_picks(box, *read_truth(box), 0)
        grey = np.repeat(_tones(values)[..., None], 3, axis=2)
        gap = np.full((GAP_PX, 3), 128, np.uint8)[None]
        panels = [_fitted(panel) for panel in (grey, agreement(values >= threshold, codes))]
        picture = f"worst-{rank}.png"
        gaps = np.repeat(gap, len(panels[0]), axis=0)
        (folder / picture).write_bytes(encode(np.concatenate([panels[0], gaps, panels[1]], axis=1)))
        kept = ("y0", "x0", "y1", "x1", "counted_px", "ink_px", "missed_px", "false_px", "wrong_px")
        return {"picture": picture, **{key: int(row[key]) for key in kept}}

    wrong = [row for row in own[:WORST] if row["wrong_px"]]
    with ThreadPoolExecutor(min(WORST, CODEC_THREADS)) as threads:
        return list(threads.map(drawn, range(1, len(wrong) + 1), wrong))


def _wrong(row: Mapping[str, Any]) -> dict[str, int]:
    """Count missed ink and false alarms of a region, from its counts and its recall."""
    ink, found = int(row["ink_px"]), int(row["found_px"])
    hits = round(ink * float(row["recall"])) if ink else 0
    return {"missed_px": ink - hits, "false_px": found - hits, "wrong_px": ink + found - 2 * hits}


def _on_level(box: Box, level: int) -> Box:
    """Return the box of the picks on the level's own grid."""
    step = 1 << level
    return Box(-(-box.y0 // step), -(-box.x0 // step), -(-box.y1 // step), -(-box.x1 // step))


def _fitted(panel: NDArray[np.uint8]) -> NDArray[np.uint8]:
    factor = WORST_PX / max(panel.shape[:2])
    if factor >= 1:
        return panel
    size = (max(1, round(panel.shape[1] * factor)), max(1, round(panel.shape[0] * factor)))
    return cv2.resize(panel, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def _tones(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _decoded(place: Location, shape: tuple[int, int]) -> Codes:
    try:
        codes = cv2.imdecode(np.frombuffer(place.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
    except (FileNotFoundError, cv2.error):
        codes = None
    if codes is None or codes.shape != shape or codes.max(initial=0) > INK:
        raise CorruptDataError(f"{place}: these labels are damaged; remove the folder and evaluate again")
    return codes.astype(np.uint8)

"""Letters of an ink map: strokes joined by distance and line of text; the lines by their periodicity.

What is needed of a stroke (a component of ink) is its box and area, so that letters follow from a table, however large
the map is and in whatever parts it was read. Heights of rows mean places along the columns' axis once the slope of the
lines is taken out: ``y - slope * x``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from inkbatch.config import JobConfig
from inkbatch.data.instances.settings import Area, Length, area_px, length_px
from inkbatch.geometry import Box

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SLOPES = 81  # that are tried for the lines of text
LEAST_PERIODIC = 0.25  # correlation of a profile with itself, one pitch further, from which lines are a grid
NEAR_BEST = 0.85  # a shorter pitch is taken if it correlates so well, as a share of the best
FINER = np.linspace(0.96, 1.04, 81)  # around a pitch in whole pixels
TALL = 0.5  # a stroke of this share of the tall ones' height counts for the height of letters


class LetterRules(JobConfig):
    """Rules from strokes to letters.

    Attributes:
        ink_from: Probability of ink from which (inclusive) a pixel belongs to a stroke.
        min_stroke: Smallest area of a stroke.
        join: Strokes of one line whose boxes are at most this far apart may be one letter; None: 0.15 of the height of
            letters.
        widest: A letter is at most this many times as wide as letters are high; wider ones stay apart.
        pitch: Distance from line to line; None finds it.
        slope: Largest rise of the lines, y per x, that is looked for.
        turn: Degrees by which the map is turned against the clock before it is read; lines have to run from left to
            right.
    """

    ink_from: float = Field(0.5, gt=0, le=1)
    min_stroke: Area = 50.0
    join: Length | None = None
    widest: float = Field(1.6, gt=0)
    pitch: Length | None = None
    slope: float = Field(0.1, ge=0, le=1)
    turn: Literal[0, 90, 180, 270] = 0


@dataclass(frozen=True)
class Letter:
    """A letter.

    Attributes:
        line: Line of text, from 1 at the top.
        place: Place in its line, from 1 at the left.
        strokes: Indices of its strokes.
        box: Box around them.
    """

    line: int
    place: int
    strokes: tuple[int, ...]
    box: Box


@dataclass(frozen=True)
class Line:
    """A line of text.

    Attributes:
        number: From 1 at the top.
        y0: Its middle at column 0, in pixels.
        height_px: Median height of its letters.
        letters: Number of its letters.
    """

    number: int
    y0: float
    height_px: float
    letters: int


@dataclass(frozen=True)
class Writing:
    """Letters in their lines.

    Attributes:
        letters: By line and place.
        lines: From top to bottom.
        slope: Rise of the lines, y per x.
        pitch_px: Distance from line to line; None where the map shows too few lines to tell.
        height_px: Height of letters: the median over all lines; NaN without letters.
    """

    letters: tuple[Letter, ...]
    lines: tuple[Line, ...]
    slope: float
    pitch_px: float | None
    height_px: float


def read_letters(boxes: Ints, areas: Ints, rules: LetterRules, pixel_um: float | None = None) -> Writing:
    """Join strokes to letters, line by line.

    Args:
        boxes: (n, 4): y0, x0, y1, x1 of each stroke, half-open.
        areas: (n,): pixels of each.
        rules: The rules.
        pixel_um: Edge of a pixel in micrometres, for rules in micrometres.

    Raises:
        ConfigError: A rule is in micrometres, and the edge of a pixel is not known.
    """
    large = np.flatnonzero(areas >= area_px(rules.min_stroke, pixel_um))
    if not large.size:
        return Writing((), (), 0.0, None, float("nan"))
    chosen, weights = boxes[large].astype(np.float64), areas[large].astype(np.float64)
    height = _height(chosen)
    slope = _slope(chosen, weights, rules.slope)
    pitch = None if rules.pitch is None else length_px(rules.pitch, pixel_um)
    lines, pitch = _lines_of(chosen, weights, slope, height, pitch)
    join = 0.15 * height if rules.join is None else length_px(rules.join, pixel_um)
    letters: list[Letter] = []
    found: list[Line] = []
    for number in np.unique(lines):
        members = np.flatnonzero(lines == number)
        groups = _joined(chosen[members], join, rules.widest * height)
        own = [(Box(*_hull(chosen[members[group]])), group) for group in groups]
        own.sort(key=lambda one: (one[0].x0, one[0].y0))
        line = len(found) + 1
        letters += [
            Letter(line, place, tuple(int(i) for i in large[members[group]]), box)
            for place, (box, group) in enumerate(own, start=1)
        ]
        middle = float(np.average(_middles(chosen[members], slope), weights=weights[members]))
        found.append(Line(line, middle, float(np.median([box.height for box, _ in own])), len(own)))
    return Writing(
        tuple(letters), tuple(found), slope, pitch, float(np.median([letter.box.height for letter in letters]))
    )


def turned(boxes: Ints, shape_yx: tuple[int, int], turn: int) -> Ints:
    """Return where boxes lie once their map is turned against the clock, as `numpy.rot90` does.

    Args:
        boxes: (n, 4): y0, x0, y1, x1, half-open.
        shape_yx: (height, width) of the map.
        turn: Degrees, a multiple of 90.
    """
    height, width = shape_yx
    for _ in range(turn // 90 % 4):
        y0, x0, y1, x1 = boxes.T
        boxes = np.stack([width - x1, y0, width - x0, y1], axis=1)
        height, width = width, height
    return boxes


def _height(boxes: Floats) -> float:
    """Estimate the height of letters: the median of strokes that are tall; pieces of letters are not."""
    heights = boxes[:, 2] - boxes[:, 0]
    tall = float(np.quantile(heights, 0.9))
    return float(np.median(heights[heights >= TALL * tall]))


def _middles(boxes: Floats, slope: float) -> Floats:
    middles: Floats = (boxes[:, 0] + boxes[:, 2]) / 2 - slope * (boxes[:, 1] + boxes[:, 3]) / 2
    return middles


def _profile(boxes: Floats, weights: Floats, slope: float) -> tuple[Floats, int]:
    """Spread the ink of each stroke over the rows of its box: (ink per row, number of the first row)."""
    half = (boxes[:, 2] - boxes[:, 0]) / 2
    middles = _middles(boxes, slope)
    first, last = np.floor(middles - half).astype(np.int64), np.ceil(middles + half).astype(np.int64)
    start = int(first.min())
    change = np.zeros(int(last.max()) - start + 1)
    each = weights / (last - first)
    np.add.at(change, first - start, each)
    np.add.at(change, last - start, -each)
    return np.cumsum(change)[:-1], start


def _slope(boxes: Floats, weights: Floats, largest: float) -> float:
    """Find the rise at which ink gathers in the fewest rows; of equal ones the flattest."""
    if largest == 0 or len(boxes) < 3:
        return 0.0
    tried = sorted(np.linspace(-largest, largest, SLOPES).tolist(), key=abs)
    gathered = [float(np.square(_profile(boxes, weights, slope)[0]).sum()) for slope in tried]
    return float(tried[int(np.argmax(gathered))])


def _lines_of(
    boxes: Floats, weights: Floats, slope: float, height: float, pitch: float | None
) -> tuple[Ints, float | None]:
    """Assign every stroke to a line: the nearest of a grid, or where there is none the run of inked rows it lies in.

    Returns:
        (line of each stroke, ascending from top to bottom; the pitch, or None).
    """
    profile, start = _profile(boxes, weights, slope)
    pitch = _pitch(profile, height) if pitch is None else pitch
    middles = _middles(boxes, slope)
    if pitch is None:
        runs = np.cumsum(np.diff(profile > 0, prepend=False) & (profile > 0))
        return runs[np.clip(middles.astype(np.int64) - start, 0, len(profile) - 1)].astype(np.int64), None
    rows = np.arange(len(profile)) + start + 0.5
    finer = pitch * FINER
    waves = np.exp(-2j * np.pi * rows[None] / finer[:, None]) @ profile
    best = int(np.argmax(np.abs(waves)))
    pitch = float(finer[best])
    offset = -np.angle(waves[best]) / (2 * np.pi) * pitch
    lines = np.rint((middles - offset) / pitch).astype(np.int64)
    if lines.min() < lines.max():
        pitch = float(np.polyfit(lines, middles, 1, w=np.sqrt(weights))[0])
    return lines, pitch


def _pitch(profile: Floats, height: float) -> float | None:
    """Find the distance from line to line: the lag at which the profile is most like itself."""
    centred = profile - profile.mean()
    lags = np.arange(max(2, int(1.15 * height)), len(profile) * 2 // 3)
    if not lags.size:
        return None
    like = np.array([_correlation(centred[:-lag], centred[lag:]) for lag in lags])
    best = float(like.max())
    if best < LEAST_PERIODIC:
        return None
    peaks = np.flatnonzero((like >= NEAR_BEST * best) & _is_peak(like))
    return float(lags[peaks[0] if peaks.size else int(like.argmax())])


def _correlation(one: Floats, other: Floats) -> float:
    scale = float(np.sqrt(np.square(one).sum() * np.square(other).sum()))
    return float((one * other).sum()) / scale if scale > 0 else 0.0


def _is_peak(values: Floats) -> NDArray[np.bool_]:
    padded = np.pad(values, 1, constant_values=-np.inf)
    peaks: NDArray[np.bool_] = (values >= padded[:-2]) & (values > padded[2:])
    return peaks


def _joined(boxes: Floats, within_px: float, widest_px: float) -> list[Ints]:
    """Group the strokes of a line: nearest pairs first, as long as no group is wider than a letter."""
    group = list(range(len(boxes)))
    hulls = {i: tuple(boxes[i].tolist()) for i in group}

    def root(i: int) -> int:
        while group[i] != i:
            i = group[i]
        return i

    for _, i, j in _near(boxes, within_px):
        one, other = root(i), root(j)
        if one == other:
            continue
        hull = _hull(np.array([hulls[one], hulls[other]]))
        if hull[3] - hull[1] <= widest_px:
            group[max(one, other)] = min(one, other)
            hulls[min(one, other)] = tuple(float(value) for value in hull)
    roots = np.array([root(i) for i in range(len(boxes))])
    return [np.flatnonzero(roots == one) for one in np.unique(roots)]


def _near(boxes: Floats, within_px: float) -> list[tuple[float, int, int]]:
    """List pairs of boxes at most so far apart, nearest first."""
    order = np.argsort(boxes[:, 1], kind="stable")
    pairs = []
    for at, i in enumerate(order):
        for j in order[at + 1 :]:
            across = boxes[j, 1] - boxes[:, 3][i]
            if across > within_px:
                if boxes[j, 1] - boxes[order[: at + 1], 3].max() > within_px:
                    break
                continue
            down = max(boxes[j, 0] - boxes[i, 2], boxes[i, 0] - boxes[j, 2], 0.0)
            apart = float(np.hypot(max(across, 0.0), down))
            if apart <= within_px:
                pairs.append((apart, int(min(i, j)), int(max(i, j))))
    return sorted(pairs)


def _hull(boxes: Floats) -> tuple[int, int, int, int]:
    y0, x0 = boxes[:, :2].min(axis=0)
    y1, x1 = boxes[:, 2:].max(axis=0)
    return int(y0), int(x0), int(y1), int(x1)


def letter_rows(
    writing: Writing, boxes: Sequence[Box], pixel_um: float | None
) -> Sequence[dict[str, float | int | None]]:
    """Describe letters as rows: line, place, box, height and width in px and mm (None without a scale).

    Args:
        writing: The letters, in the map as it was read.
        boxes: The box of each in the map as it is stored.
        pixel_um: Edge of a pixel.
    """
    mm = None if pixel_um is None else pixel_um / 1000
    return [
        {
            "line": one.line,
            "place": one.place,
            "y0": box.y0,
            "x0": box.x0,
            "y1": box.y1,
            "x1": box.x1,
            "height_px": one.box.height,
            "width_px": one.box.width,
            "height_mm": None if mm is None else round(one.box.height * mm, 4),
            "width_mm": None if mm is None else round(one.box.width * mm, 4),
            "strokes": len(one.strokes),
        }
        for one, box in zip(writing.letters, boxes, strict=True)
    ]

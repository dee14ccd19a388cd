"""Writing told from a map alone: distance of rows, height of letters, width of marks.

Rows of letters are bands: each of their rows of pixels holds some bright pixels, the rows between them none. So a row's
*brightness* is the mean of its brightest tenth, in an area wide enough for several letters. Its correlation with itself
tells the distance of rows; the band that parts one period of it best into bright and dark (the largest variance between
the two) tells how high letters are. Writing runs along x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.maps.evidence import SMALL_PX
from inkbatch.geometry import Box

REACH_MM = 6.0  # above, below and beside a window, where rows are looked for
ROW_MM = (2.0, 9.0)  # distances of rows that are looked for
BRIGHTEST = 0.1  # of a row's pixels
LEAST_PERIODIC = 0.5  # correlation from which on there are rows
NEAR_BEST = 0.85  # a shorter distance is taken if it correlates so well, as a share of the best
LEAST_PARTED = 0.4  # of the variance lies between bright and dark: letters have a height
PHASES = 48  # parts of a period that a band's edges lie on

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
NAN = float("nan")
HALF = 0.5


@dataclass(frozen=True)
class Rhythm:
    """Regularity of a map around a window.

    Attributes:
        row_mm: Distance of rows; NaN where there are none.
        row_strength: Correlation of the rows with themselves, moved by one row.
        letter_mm: Height of letters; NaN where rows are none or have no edges.
        mark_mm: Size of a mark: width at half height of the correlation of the map with itself.
    """

    row_mm: float
    row_strength: float
    letter_mm: float
    mark_mm: float


def rhythms_of(small: Floats, boxes: Sequence[Box], pixel_um: float) -> list[Rhythm]:
    """Measure rows, letters and marks around windows.

    Args:
        small: Mean z values in squares of `SMALL_PX`.
        boxes: The windows, in pixels of the maps.
        pixel_um: Edge of a pixel of the maps.
    """
    mm = pixel_um * SMALL_PX / 1000
    reach = round(REACH_MM / mm)
    height, width = small.shape

    @cache
    def brightness(start: int, stop: int) -> Doubles:
        return _brightness(small[:, max(0, start - reach) : min(width, stop + reach)])

    found = []
    for box in boxes:
        y0, x0, y1, x1 = (edge // SMALL_PX for edge in (box.y0, box.x0, box.y1, box.x1))
        tall = slice(max(0, y0 - reach), min(height, y1 + reach))
        row_mm, strength, letter_mm = _rows(brightness(x0, x1)[tall], mm)
        found.append(Rhythm(row_mm, strength, letter_mm, _mark_mm(small[tall, x0:x1], mm)))
    return found


def _brightness(part: Floats) -> Doubles:
    """Average the brightest pixels of each row."""
    width = part.shape[1]
    count = max(1, round(BRIGHTEST * width))
    found: Doubles = np.partition(part, width - count, axis=1)[:, -count:].mean(axis=1, dtype=np.float64)
    return found


def _rows(bright: Doubles, mm: float) -> tuple[float, float, float]:
    """Tell the distance of rows, how strongly they repeat, and the height of letters."""
    count = len(bright)
    first, stop = max(2, round(ROW_MM[0] / mm)), min(round(ROW_MM[1] / mm) + 1, count * 2 // 3)
    if first >= stop:
        return NAN, 0.0, NAN
    ascending = np.sort(bright)
    clipped = np.clip(bright, ascending[count // 10], ascending[-1 - count // 10])
    like = _likeness(clipped)
    middle = like[first:stop]
    peaks = np.flatnonzero((middle >= like[first - 1 : stop - 1]) & (middle > like[first + 1 : stop + 1]))
    best = float(middle[peaks].max(initial=0.0))
    if best < LEAST_PERIODIC:
        return NAN, best, NAN
    lag = first + int(peaks[middle[peaks] >= NEAR_BEST * best][0])
    before, here, after = like[lag - 1 : lag + 2]
    bend = before - 2 * here + after
    period = lag + (0.5 * (before - after) / bend if bend < 0 else 0.0)  # top of the parabola through three points
    return float(period * mm), float(here), _band(clipped, period) * mm


def _likeness(values: Doubles) -> Doubles:
    """Correlate values with themselves, moved by 0 to n - 1 places, each by what overlaps."""
    centred = values - values.mean()
    size = len(centred)
    products = np.correlate(centred, centred, "full")[size - 1 :]
    squares = np.concatenate([[0.0], np.cumsum(centred**2)])
    moved = np.arange(size)
    scale = np.sqrt(squares[size - moved] * (squares[size] - squares[moved]))
    found: Doubles = products / np.maximum(scale, 1e-12)
    return found


def _band(bright: Doubles, period: float) -> float:
    """Find the band that parts a period best into bright and dark; its height in rows of pixels, NaN if none does."""
    phase = ((np.arange(len(bright)) + 0.5) / period % 1 * PHASES).astype(np.intp)
    count, total = (np.bincount(phase, weights, PHASES) for weights in (np.ones(len(bright)), bright))
    counts, totals = (np.concatenate([[0.0], np.cumsum(np.tile(one, 2))]) for one in (count, total))
    start, length = np.arange(PHASES)[:, None], np.arange(1, PHASES)[None]
    inside, sums = counts[start + length] - counts[start], totals[start + length] - totals[start]
    outside = len(bright) - inside
    step = sums / np.maximum(inside, 1) - (bright.sum() - sums) / np.maximum(outside, 1)
    between = np.where(step > 0, inside * outside * step**2, 0.0)
    best = int(between.argmax())
    if between.flat[best] < LEAST_PARTED * len(bright) ** 2 * bright.var():
        return NAN
    return float((best % (PHASES - 1) + 1) / PHASES * period)


def _mark_mm(part: Floats, mm: float) -> float:
    """Measure the width at half height of the correlation of the map with itself, along x."""
    centred = part.astype(np.float64)
    centred -= centred.mean()
    products = centred.T @ centred  # of columns
    size, total = len(products), float(products.trace())
    before = 1.0
    for lag in range(1, size if total > 0 else 0):
        across = float(products.trace(lag)) / (size - lag) * size / total
        if across < HALF:
            return 2 * mm * (lag - 1 + (before - HALF) / (before - across))
        before = across
    return NAN

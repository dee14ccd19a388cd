"""Shapes of a person's strokes as pixels: a pixel is inside when its centre, at (y + 0.5, x + 0.5), is.

Every shape becomes events along rows of the whole segment, so that a stroke gives the same pixels however it is cut
into tiles and at whatever zoom it was drawn. Drawing libraries round where their canvas ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.labels.components import Bools
from inkbatch.data.labels.painting import TILE_PX
from inkbatch.geometry import Box

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Shape:
    """Pixels between events along rows.

    Attributes:
        rows: (N,), row of each event.
        columns: (N,), first column that it concerns.
        steps: (N,), what is added from there on; a pixel is inside where the sum is above zero, or odd.
        odd: Inside is where the sum is odd.
    """

    rows: Ints
    columns: Ints
    steps: Ints
    odd: bool = False

    def strips(self, shape_yx: tuple[int, int]) -> Iterator[tuple[Box, Bools]]:
        """Draw the shape, one row of tiles after the other.

        Args:
            shape_yx: (height, width) of the segment; what lies outside is left out.

        Yields:
            A box inside the segment, and its pixels (height, width), some of them True.
        """
        height, width = shape_yx
        order = np.argsort(self.rows, kind="stable")
        rows, columns, steps = self.rows[order], np.clip(self.columns[order], 0, width), self.steps[order]
        inside = rows[(rows >= 0) & (rows < height)]
        for number in np.unique(inside // TILE_PX):
            y0 = int(number) * TILE_PX
            first, last = np.searchsorted(rows, [y0, min(y0 + TILE_PX, height)])
            part, across = rows[first:last], columns[first:last]
            box = Box(int(part[0]), int(across.min()), int(part[-1]) + 1, int(across.max()))
            if not box.area:
                continue
            sums = np.zeros((box.height, box.width + 1), np.int32)
            np.add.at(sums, (part - box.y0, across - box.x0), steps[first:last])
            np.cumsum(sums, axis=1, out=sums)
            mask = (sums[:, :-1] & 1 if self.odd else sums[:, :-1]) > 0
            if mask.any():
                yield box, mask


def rectangle(box: Box) -> Shape:
    """Return the shape of a box."""
    rows = np.arange(box.y0, box.y1).repeat(2)
    count = box.height
    return Shape(rows, np.tile([box.x0, box.x1], count), np.tile([1, -1], count))


def polygon(points: Sequence[tuple[float, float]]) -> Shape:
    """Return the shape of a closed polygon (y, x), by the even-odd rule."""
    corners = np.asarray(points, np.float64)
    y0, x0 = corners.T
    y1, x1 = np.roll(corners, -1, axis=0).T
    rows, edge = _rows_between(np.minimum(y0, y1), np.maximum(y0, y1))
    share = (rows + 0.5 - y0[edge]) / (y1 - y0)[edge]
    crossing = x0[edge] + share * (x1 - x0)[edge]
    columns = np.ceil(crossing - 0.5).astype(np.int64)
    return Shape(rows, columns, np.ones_like(rows), odd=True)


def stroke(points: Sequence[tuple[float, float, float]]) -> Shape:
    """Return the shape that a round brush paints along a line.

    Args:
        points: y, x and radius at each point; between two points the brush is the hull of both discs.
    """
    line: Floats = np.asarray(points, np.float64)
    start: Floats = line[:-1] if len(line) > 1 else line
    stop: Floats = line[-len(start) :]
    radius = np.maximum(start[:, 2], stop[:, 2])
    highest = np.maximum(start[:, 0], stop[:, 0]) + radius
    rows, part = _rows_between(np.minimum(start[:, 0], stop[:, 0]) - radius, np.nextafter(highest, np.inf))
    y = rows + 0.5
    low, high = _disc(y, start[part])
    for more_low, more_high in (_disc(y, stop[part]), *_tangents(y, start[part], stop[part])):
        low, high = np.fmin(low, more_low), np.fmax(high, more_high)
    first, last = np.ceil(low - 0.5), np.floor(high - 0.5) + 1
    there = last > first  # not where both are NaN
    rows = rows[there]
    columns = np.concatenate([first[there], last[there]]).astype(np.int64)
    ones = np.ones(len(rows), np.int64)
    return Shape(np.concatenate([rows, rows]), columns, np.concatenate([ones, -ones]))


def _rows_between(low: Floats, high: Floats) -> tuple[Ints, Ints]:
    """List the rows whose centres lie in each of some half-open ranges: rows, and the number of the range."""
    first = np.ceil(low - 0.5).astype(np.int64)
    count = np.maximum(np.ceil(high - 0.5).astype(np.int64) - first, 0)
    number = np.repeat(np.arange(len(first)), count)
    before = np.cumsum(count) - count
    return np.arange(len(number)) - before[number] + first[number], number


def _disc(y: Floats, centre: Floats) -> tuple[Floats, Floats]:
    """Cut discs (y, x, radius) by rows: lowest and highest x; NaN where a row misses one."""
    square = centre[:, 2] ** 2 - (y - centre[:, 0]) ** 2
    half = np.sqrt(np.where(square >= 0, square, np.nan))
    return centre[:, 1] - half, centre[:, 1] + half


def _tangents(y: Floats, start: Floats, stop: Floats) -> Iterator[tuple[Floats, Floats]]:
    """Cut the two outer tangents of pairs of discs by rows; NaN where a row misses one, or one disc holds the other."""
    along = stop[:, :2] - start[:, :2]
    length = np.hypot(*along.T)
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = along / length[:, None]
        sine = (start[:, 2] - stop[:, 2]) / length
        cosine = np.sqrt(np.where(np.abs(sine) < 1, 1 - sine**2, np.nan))
        across = np.stack([-unit[:, 1], unit[:, 0]], axis=1)
        for side in (1, -1):
            normal = unit * sine[:, None] + side * across * cosine[:, None]
            one = start[:, :2] + start[:, 2:] * normal
            other = stop[:, :2] + stop[:, 2:] * normal
            share = (y - one[:, 0]) / (other[:, 0] - one[:, 0])
            x = one[:, 1] + share * (other[:, 1] - one[:, 1])
            x = np.where((share >= 0) & (share <= 1), x, np.nan)
            yield x, x

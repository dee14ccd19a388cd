"""Charts as SVG text: lines told apart by dash, colour and name; their colours are the page's, light or dark."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 480, 270  # narrow, so that a phone need not make the letters smaller by much
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 30, 44
LEGEND_ROW = 20
STYLES = 5  # l1 … l5 of the page's style
LETTER_PX = 7.2


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        name: For the legend; empty leaves it out.
        x: Places.
        y: Values; NaN leaves a gap.
        dots: Mark the places.
        style: 1 … 5; None takes the next one. 5 is faint, for references.
    """

    name: str
    x: Sequence[float] | NDArray[np.float64]
    y: Sequence[float] | NDArray[np.float64]
    dots: bool = False
    style: int | None = None


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        name: What it measures, with the unit.
        low: Smallest value.
        high: Largest value.
        whole: Ticks at whole numbers only.
    """

    name: str
    low: float
    high: float
    whole: bool = False

    @staticmethod
    def around(name: str, values: Sequence[float] | NDArray[np.float64], zero: bool = False) -> Axis:
        """An axis that holds all finite values (and zero)."""
        found = [float(value) for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min([*found, 0.0] if zero else found), max(found)
        return Axis(name, low, high if high > low else low + (abs(low) or 1.0))

    def share(self, value: float) -> float:
        """Where a value lies, 0 … 1."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """About five round values inside the axis."""
        step = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(step))
        step = power * min(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * 0.999)
        if self.whole:
            step = max(1.0, float(round(step)))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [float(f"{number * step:.6g}") for number in range(first, last + 1)]


@dataclass(frozen=True)
class Mark:
    """A place on the x axis, or a point, that is pointed at.

    Attributes:
        name: What is there.
        x: Where.
        y: None draws an upright line.
    """

    name: str
    x: float
    y: float | None = None


def lines(x_axis: Axis, y_axis: Axis, drawn: Sequence[Line], marks: Sequence[Mark] = ()) -> str:
    """Lines over two axes, with a legend below, and marks above them."""
    styles = itertools.cycle(range(1, STYLES))
    parts, legend = [], []
    for line in drawn:
        style = line.style or next(styles)
        places = [_place(x_axis, y_axis, float(x), float(y)) for x, y in zip(line.x, line.y, strict=True)]
        for run in _unbroken(places):
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in run)
            if len(run) > 1:
                parts.append(f'<polyline class="l{style}" points="{points}"/>')
            if line.dots or len(run) == 1:
                parts += [f'<circle class="f{style}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in run]
        if line.name:
            legend.append((style, line.name))
    parts += [_mark(x_axis, y_axis, mark) for mark in marks]
    return _frame(x_axis, y_axis, "".join(parts), legend)


def bars(y_axis: Axis, names: Sequence[str], series: Mapping[str, Sequence[float]]) -> str:
    """Groups of bars, with a legend below where there are several series.

    Args:
        y_axis: Beside the bars.
        names: Below each group.
        series: By name: one value per group; NaN draws none.
    """
    step = (WIDTH - LEFT - RIGHT) / max(1, len(names))
    width = min(46.0, step * 0.8 / max(1, len(series)))
    long = max((len(name) for name in names), default=1) * LETTER_PX > step  # then it takes two rows
    letters = max(1, int(step / LETTER_PX))
    longest = max((len(word) for name in names for word in (name.split(" ") if long else [name])), default=1)
    skip = max(1, math.ceil(longest * LETTER_PX / step))
    parts = []
    for place, name in enumerate(names):
        middle = LEFT + step * (place + 0.5)
        if place % skip == 0:
            for row, words in enumerate(textwrap.wrap(name, letters, break_long_words=False) if long else [name]):
                y = HEIGHT - BOTTOM + 17 + 14 * row
                parts.append(f'<text x="{middle:.1f}" y="{y}" text-anchor="middle">{escape(words)}</text>')
        for number, values in enumerate(series.values()):
            if math.isfinite(values[place]):
                top = _height(y_axis, values[place])
                size = f'width="{width - 2:.1f}" height="{HEIGHT - BOTTOM - top:.1f}"'
                x = middle + width * (number - len(series) / 2) + 1
                parts.append(f'<rect class="f{number % STYLES + 1}" x="{x:.1f}" y="{top:.1f}" {size}/>')
    legend = list(enumerate(series, start=1)) if len(series) > 1 else []
    return _frame(Axis("", 0, 1, whole=True), y_axis, "".join(parts), legend, places=False)


def histogram(counts: NDArray[np.int64], x_axis: Axis, second: Axis | None = None) -> str:
    """Counts of equal bins over an axis, as a filled curve.

    Args:
        counts: Per bin, from the axis's low to its high.
        x_axis: Below the curve.
        second: The same places in other units, above it.
    """
    shares = counts / max(int(counts.sum()), 1)
    y_axis = Axis("share of voxels, %", 0.0, max(float(shares.max()) * 100, 1e-6))
    middles = x_axis.low + (np.arange(len(counts)) + 0.5) * (x_axis.high - x_axis.low) / len(counts)
    places = [_place(x_axis, y_axis, float(x), float(y) * 100) for x, y in zip(middles, shares, strict=True)]
    points = [place for place in places if place is not None]
    curve = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    floor = HEIGHT - BOTTOM
    area = f"{points[0][0]:.1f},{floor} {curve} {points[-1][0]:.1f},{floor}"
    drawn = f'<polygon class="area" points="{area}"/><polyline class="l1" points="{curve}"/>'
    return _frame(x_axis, y_axis, drawn, [], second)


def _place(x_axis: Axis, y_axis: Axis, x: float, y: float) -> tuple[float, float] | None:
    if not (math.isfinite(x) and math.isfinite(y)):
        return None
    return LEFT + (WIDTH - LEFT - RIGHT) * x_axis.share(x), _height(y_axis, y)


def _height(y_axis: Axis, y: float) -> float:
    """Where a value is drawn; what leaves the axis is drawn at its end."""
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(max(y_axis.share(y), 0.0), 1.0))


def _mark(x_axis: Axis, y_axis: Axis, mark: Mark) -> str:
    place = _place(x_axis, y_axis, mark.x, y_axis.low if mark.y is None else mark.y)
    if place is None:
        return ""
    x, y = place
    anchor, start = ("start", x + 7) if x < (LEFT + WIDTH - RIGHT) / 2 else ("end", x - 7)
    if mark.y is None:
        shape = f'<line class="l5" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        row = TOP + 13.0
    else:
        shape = f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="8"/>'
        row = y - 12 if y > TOP + 26 else y + 23
    return f'{shape}<text class="name" x="{start:.1f}" y="{row:.1f}" text-anchor="{anchor}">{escape(mark.name)}</text>'


def _unbroken(places: Sequence[tuple[float, float] | None]) -> list[list[tuple[float, float]]]:
    groups = itertools.groupby(places, key=lambda place: place is not None)
    return [[place for place in group if place is not None] for there, group in groups if there]


def _frame(
    x_axis: Axis,
    y_axis: Axis,
    drawn: str,
    legend: Sequence[tuple[int, str]],
    second: Axis | None = None,
    places: bool = True,
) -> str:
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for value in y_axis.ticks():
        y = TOP + (floor - TOP) * (1 - y_axis.share(value))
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in x_axis.ticks() if places else ():
        x = LEFT + (right - LEFT) * x_axis.share(value)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 4}"/>')
        parts.append(f'<text x="{x:.1f}" y="{floor + 17}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{floor + 35}" text-anchor="middle">{escape(x_axis.name)}</text>')
    if second is not None:
        for value in second.ticks():
            x = LEFT + (right - LEFT) * second.share(value)
            parts.append(f'<text x="{x:.1f}" y="{TOP - 4}" text-anchor="middle">{value:g}</text>')
        parts.append(f'<text x="{right}" y="11" text-anchor="end">{escape(second.name)}</text>')
    parts.append(f'<text class="name" x="4" y="11">{escape(y_axis.name)}</text>')
    height = HEIGHT
    for number, (style, name) in enumerate(legend):
        column, row = number % 2, number // 2
        x, y = 8 + column * WIDTH // 2, HEIGHT + 8 + row * LEGEND_ROW
        sign = f'<line class="l{style}" x1="{x}" x2="{x + 34}" y1="{y}" y2="{y}"/>'
        parts.append(sign if places else f'<rect class="f{style}" x="{x + 10}" y="{y - 7}" width="14" height="14"/>')
        parts.append(f'<text x="{x + 42}" y="{y + 4}">{escape(name)}</text>')
        height = y + LEGEND_ROW
    body = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height}" aria-hidden="true" focusable="false">{body}{drawn}</svg>'

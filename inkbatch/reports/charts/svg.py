"""Charts of report pages as SVG: lines differ in dash, colour and name; their style is the page's, light or dark."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from inkbatch.reports.charts.shapes import Axis, Line, Mark, Scale
from inkbatch.reports.page import Chart

WIDTH, HEIGHT = 480, 270  # narrow, so that a phone need not make the letters smaller by much
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 30, 44
LEGEND_ROW = 20
STYLES = 5  # f1 … f5 of the page's style; the last one is faint
REFERENCE = 5
LINES = (1, 2, 3, 4, 6, 7)  # l1 … l7 without the faint one
LETTER_PX = 7.2


@dataclass(frozen=True)
class _Plane:
    """Both axes of a chart, with the pixels that their values fall on."""

    x: Scale
    y: Scale

    def place(self, x: float, y: float) -> tuple[float, float] | None:
        """Return the pixel (x, y) of a point, or None for one that is not finite."""
        if not (math.isfinite(x) and math.isfinite(y)):
            return None
        return LEFT + (WIDTH - LEFT - RIGHT) * self.x.share(x), self.height(y)

    def height(self, y: float) -> float:
        """Return the pixel row of a value; values outside the axis are drawn at its end."""
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(max(self.y.share(y), 0.0), 1.0))


def line_chart(title: str, alt: str, x: Axis, y: Axis, lines: Sequence[Line], marks: Sequence[Mark] = ()) -> Chart:
    """Draw lines over two axes, with marks above them and a legend below.

    Args:
        title: Caption below the chart.
        alt: The chart in words, for those who do not see it.
        x: Horizontal axis.
        y: Vertical axis.
        lines: Lines, the first one lowest.
        marks: Named places.
    """
    plane = _Plane(
        x.scale([across for line in lines for across, _ in line.points]),
        y.scale([up for line in lines for _, up in line.points]),
    )
    styles = itertools.cycle(LINES)
    drawn, legend = [], []
    for line in lines:
        style = REFERENCE if line.is_reference else next(styles)
        drawn += _strokes(plane, line, style)
        if not line.is_reference:
            legend.append((style, line.name))
    drawn += [_mark(plane, mark) for mark in marks]
    return Chart(_frame([*_y_ticks(y.name, plane.y), *_x_ticks(x.name, plane.x)], drawn, legend), alt, title)


def bar_chart(title: str, alt: str, y: Axis, names: Sequence[str], series: Mapping[str, Sequence[float]]) -> Chart:
    """Draw groups of bars, with a legend below where there are several series.

    Args:
        title: Caption below the chart.
        alt: The chart in words, for those who do not see it.
        y: Vertical axis.
        names: Name of each group, below it.
        series: By name: one value per group; NaN draws no bar.
    """
    plane = _Plane(Scale(0, 1), y.scale([0.0, *(value for row in series.values() for value in row)]))
    step = (WIDTH - LEFT - RIGHT) / max(1, len(names))
    width = min(46.0, step * 0.8 / max(1, len(series)))
    drawn = _group_names(names, step)
    for place in range(len(names)):
        middle = LEFT + step * (place + 0.5)
        for number, values in enumerate(series.values()):
            if math.isfinite(values[place]):
                top = plane.height(values[place])
                size = f'width="{width - 2:.1f}" height="{HEIGHT - BOTTOM - top:.1f}"'
                x = middle + width * (number - len(series) / 2) + 1
                drawn.append(f'<rect class="f{number % STYLES + 1}" x="{x:.1f}" y="{top:.1f}" {size}/>')
    legend = list(enumerate(series, start=1)) if len(series) > 1 else []
    return Chart(_frame([*_y_ticks(y.name, plane.y), *_x_name("")], drawn, legend, bars=True), alt, title)


def histogram_chart(title: str, alt: str, counts: NDArray[np.int64], x: Axis, second: Axis | None = None) -> Chart:
    """Draw counts of equal bins over an axis, as a filled curve.

    Args:
        title: Caption below the chart.
        alt: The chart in words, for those who do not see it.
        counts: Per bin, from the axis's low to its high.
        x: Horizontal axis; both ends are stated.
        second: The same places in other units, above the curve; both ends are stated.
    """
    across = x.scale()
    shares = counts / max(int(counts.sum()), 1) * 100
    height = Axis("share of voxels, %", 0.0, max(float(shares.max()), 1e-6))
    plane = _Plane(across, height.scale())
    middles = across.low + (np.arange(len(counts)) + 0.5) * (across.high - across.low) / len(counts)
    places = [plane.place(float(x), float(y)) for x, y in zip(middles, shares, strict=True)]
    points = [place for place in places if place is not None]
    curve = _points(points)
    floor = HEIGHT - BOTTOM
    area = f"{points[0][0]:.1f},{floor} {curve} {points[-1][0]:.1f},{floor}"
    drawn = [f'<polygon class="area" points="{area}"/><polyline class="l1" points="{curve}"/>']
    ticks = [*_y_ticks(height.name, plane.y), *_x_ticks(x.name, plane.x)]
    if second is not None:
        ticks += _upper_ticks(second)
    return Chart(_frame(ticks, drawn, []), alt, title)


def _strokes(plane: _Plane, line: Line, style: int) -> list[str]:
    """Draw a line, in as many pieces as its gaps leave."""
    drawn = []
    for piece in _unbroken([plane.place(float(x), float(y)) for x, y in line.points]):
        if len(piece) > 1:
            drawn.append(f'<polyline class="l{style}" points="{_points(piece)}"/>')
        if line.dots or len(piece) == 1:
            drawn += [f'<circle class="f{style}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in piece]
    return drawn


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _group_names(names: Sequence[str], step: float) -> list[str]:
    """Write names below groups of bars: over two rows where they are long, and only some of them where they collide."""
    long = max((len(name) for name in names), default=1) * LETTER_PX > step
    letters = max(1, int(step / LETTER_PX))
    longest = max((len(word) for name in names for word in (name.split(" ") if long else [name])), default=1)
    skip = max(1, math.ceil(longest * LETTER_PX / step))
    drawn = []
    for place, name in list(enumerate(names))[::skip]:
        middle = LEFT + step * (place + 0.5)
        for row, words in enumerate(textwrap.wrap(name, letters, break_long_words=False) if long else [name]):
            y = HEIGHT - BOTTOM + 17 + 14 * row
            drawn.append(f'<text x="{middle:.1f}" y="{y}" text-anchor="middle">{escape(words)}</text>')
    return drawn


def _mark(plane: _Plane, mark: Mark) -> str:
    place = plane.place(mark.x, plane.y.low if mark.y is None else mark.y)
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


def _y_ticks(name: str, scale: Scale) -> list[str]:
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    drawn = []
    for value in scale.ticks():
        y = TOP + (floor - TOP) * (1 - scale.share(value))
        drawn.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    return [*drawn, f'<text class="name" x="4" y="11">{escape(name)}</text>']


def _x_ticks(name: str, scale: Scale) -> list[str]:
    floor = HEIGHT - BOTTOM
    drawn = []
    for value in scale.ticks():
        x = LEFT + (WIDTH - RIGHT - LEFT) * scale.share(value)
        drawn.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 4}"/>')
        drawn.append(f'<text x="{x:.1f}" y="{floor + 17}" text-anchor="middle">{value:g}</text>')
    return [*drawn, *_x_name(name)]


def _x_name(name: str) -> list[str]:
    middle, row = (LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 35
    return [f'<text x="{middle}" y="{row}" text-anchor="middle">{escape(name)}</text>'] if name else []


def _upper_ticks(axis: Axis) -> list[str]:
    scale, right = axis.scale(), WIDTH - RIGHT
    drawn = []
    for value in scale.ticks():
        x = LEFT + (right - LEFT) * scale.share(value)
        drawn.append(f'<text x="{x:.1f}" y="{TOP - 4}" text-anchor="middle">{value:g}</text>')
    return [*drawn, f'<text x="{right}" y="11" text-anchor="end">{escape(axis.name)}</text>']


def _frame(ticks: Sequence[str], drawn: Sequence[str], legend: Sequence[tuple[int, str]], bars: bool = False) -> str:
    """Put a chart together: ticks, legend in two columns below, and on top what is drawn."""
    rows = []
    height = HEIGHT
    for number, (style, name) in enumerate(legend):
        column, row = number % 2, number // 2
        x, y = 8 + column * WIDTH // 2, HEIGHT + 8 + row * LEGEND_ROW
        sign = f'<line class="l{style}" x1="{x}" x2="{x + 34}" y1="{y}" y2="{y}"/>'
        rows.append(f'<rect class="f{style}" x="{x + 10}" y="{y - 7}" width="14" height="14"/>' if bars else sign)
        rows.append(f'<text x="{x + 42}" y="{y + 4}">{escape(name)}</text>')
        height = y + LEGEND_ROW
    body = "".join([*ticks, *rows, *drawn])
    return f'<svg viewBox="0 0 {WIDTH} {height}" aria-hidden="true" focusable="false">{body}</svg>'

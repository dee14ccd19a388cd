"""Charts from points: axes that fit what is drawn, and curves that say which point matters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inkbatch.reports import charts
from inkbatch.reports.page import Chart

Points = Sequence[tuple[float, float]]
REFERENCE = 5  # the faint style


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        name: For the legend; empty keeps it out, and draws it faint, as a reference.
        points: (x, y); NaN leaves a gap.
        dots: Mark the points.
    """

    name: str
    points: Points
    dots: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        name: What it counts.
        low: Its start; None is what the values ask for.
        high: Its end.
        whole: Ticks at whole numbers only.
    """

    name: str
    low: float | None = None
    high: float | None = None
    whole: bool = False

    def around(self, values: Sequence[float]) -> charts.Axis:
        """The axis with both ends."""
        known = [value for value in values if math.isfinite(value)] or [0.0]
        room = 0.0 if self.whole else 0.05 * (max(known) - min(known))
        low = min(known) - room if self.low is None else self.low
        high = max(known) + room if self.high is None else self.high
        if high - low <= 1e-9:
            low, high = (low - 0.5, low + 0.5) if self.low is None else (low, low + 1)
        return charts.Axis(self.name, low, high, self.whole)


def line_chart(
    title: str, alt: str, x: Axis, y: Axis, lines: Sequence[Line], marks: Sequence[charts.Mark] = ()
) -> Chart:
    """Draw curves.

    Args:
        title: Stands below the chart.
        alt: What it shows, in words, for those who do not see it.
        x: Horizontal axis.
        y: Vertical axis.
        lines: Curves.
        marks: What is pointed at.
    """
    points = [point for line in lines for point in line.points]
    drawn = [
        charts.Line(
            line.name,
            [across for across, _ in line.points],
            [up for _, up in line.points],
            line.dots,
            None if line.name else REFERENCE,
        )
        for line in lines
    ]
    axes = x.around([across for across, _ in points]), y.around([up for _, up in points])
    return Chart(charts.lines(*axes, drawn, marks), alt, title)


def bar_chart(title: str, alt: str, y: Axis, names: Sequence[str], series: Mapping[str, Sequence[float]]) -> Chart:
    """Draw groups of bars.

    Args:
        title: Stands below the chart.
        alt: What it shows, in words.
        y: Vertical axis.
        names: What stands below each group.
        series: By name: one value per group.
    """
    axis = y.around([0.0, *(value for row in series.values() for value in row)])
    return Chart(charts.bars(axis, names, series), alt, title)

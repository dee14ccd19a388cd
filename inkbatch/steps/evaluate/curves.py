"""Curves of `inkbatch evaluate`: computed once from the counts, stored as CSV, drawn as PNG and on the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.maps.scoring import VALUES, Reliability, ScoreHistogram
from inkbatch.io.store.location import Location
from inkbatch.reports.charts.raster import beside, curves, png
from inkbatch.reports.charts.shapes import Line
from inkbatch.reports.stored import number, table

CURVE_STEPS = 100
CURVE_COLUMNS = ("map", "threshold", "precision", "recall", "f_beta")
CALIBRATION_COLUMNS = ("map", "from", "to", "pixels", "mean_probability", "ink_share")
PERFECT = Line("", [(0, 0), (1, 1)])


@dataclass(frozen=True)
class MapCurves:
    """Curves of one map.

    Attributes:
        name: The map's name.
        precision: At each of the stored values, ascending (`VALUES`).
        recall: Same shape.
        f_beta: Same shape.
        reliability: Share of ink by probability.
    """

    name: str
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f_beta: NDArray[np.float64]
    reliability: Reliability


@dataclass(frozen=True)
class CurveLines:
    """Lines of the three charts, one per map; `reliability` begins with the diagonal."""

    trade_off: list[Line]
    reliability: list[Line]
    threshold: list[Line]


def curves_of(names: Sequence[str], totals: Sequence[ScoreHistogram], beta: float, bins: int) -> list[MapCurves]:
    """Compute the curves of every map from all its counts."""
    return [
        MapCurves(name, *total.precision_recall(), total.f_beta_curve(beta), total.reliability(bins))
        for name, total in zip(names, totals, strict=True)
    ]


def curve_rows(found: Sequence[MapCurves]) -> Iterator[dict[str, Any]]:
    """Yield the rows of ``curves.csv``: the stored values nearest to equal steps from 0 to 1."""
    for one in found:
        for pick in _picks():
            values = (one.name, VALUES[pick], one.precision[pick], one.recall[pick], one.f_beta[pick])
            yield dict(zip(CURVE_COLUMNS, values, strict=True))


def calibration_rows(found: Sequence[MapCurves]) -> Iterator[dict[str, Any]]:
    """Yield the rows of ``calibration.csv``, one per bin of probability."""
    for one in found:
        bins = one.reliability
        edges = np.linspace(0, 1, len(bins.pixels) + 1)
        columns = (edges[:-1], edges[1:], bins.pixels.tolist(), bins.confidence, bins.share)
        for values in zip(*columns, strict=True):
            yield dict(zip(CALIBRATION_COLUMNS, (one.name, *values), strict=True))


def curve_plots(found: Sequence[MapCurves], beta: float) -> bytes:
    """Draw the content of ``curves.png``; precision and recall at every stored value, unlike the table."""
    lines = CurveLines([], [PERFECT], [])
    picks = _picks()
    for one in found:
        filled = one.reliability.pixels > 0
        confidence, share = one.reliability.confidence[filled], one.reliability.share[filled]
        lines.reliability.append(Line.of(one.name, confidence, share, dots=True))
        shown = np.flatnonzero(np.diff(one.recall, append=-1.0))
        lines.trade_off.append(Line.of(one.name, one.recall[shown], one.precision[shown]))
        lines.threshold.append(Line.of(one.name, VALUES[picks], one.f_beta[picks]))
    plots = [
        curves("Reliability", "mean probability", "share of ink", lines.reliability),
        curves("Trade-off", "recall", "precision", lines.trade_off),
        curves("Threshold", "threshold", f"F{beta:g}", lines.threshold),
    ]
    return png(beside(plots))


def stored_lines(folder: Location, names: Sequence[str]) -> CurveLines:
    """Read the lines back from ``curves.csv`` and ``calibration.csv``."""
    rows, bins = table(folder / "curves.csv"), table(folder / "calibration.csv")
    return CurveLines(
        [_line(rows, name, "recall", "precision") for name in names],
        [PERFECT, *(_line(bins, name, "mean_probability", "ink_share", dots=True) for name in names)],
        [_line(rows, name, "threshold", "f_beta") for name in names],
    )


def _line(rows: Sequence[Mapping[str, str]], name: str, x: str, y: str, *, dots: bool = False) -> Line:
    return Line(name, [(number(row[x]), number(row[y])) for row in rows if row["map"] == name and row[x] != ""], dots)


def _picks() -> list[int]:
    return [int(np.abs(VALUES - step / CURVE_STEPS).argmin()) for step in range(CURVE_STEPS + 1)]

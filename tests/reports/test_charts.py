"""Curves are drawn where they have values."""

from __future__ import annotations

import re

import numpy as np

from inkbatch.reports.charts.raster import curves
from inkbatch.reports.charts.shapes import Axis, Line
from inkbatch.reports.charts.svg import line_chart


def pixels(x, y, **more):
    canvas = curves("t", "x", "y", [Line("c", list(zip(x, y, strict=True)), **more)])
    empty = curves("t", "x", "y", [Line("c", [])])
    assert canvas.shape == empty.shape
    return int((canvas != empty).any(axis=2).sum())


def test_a_curve_breaks_off_where_it_has_no_value():
    whole = pixels([0.1, 0.5, 0.9], [0.2, 0.5, 0.8])
    assert 0 < pixels([0.1, 0.2, np.nan, 0.8, 0.9], [0.2, 0.3, np.nan, 0.7, 0.8]) < whole
    assert pixels([0.1, np.nan], [0.2, np.nan]) == 0


def test_points_on_one_pixel_are_drawn_once():
    fine = np.linspace(0, 1, 5000)
    assert pixels(fine, fine) > 0
    assert pixels([0.5, 0.5, 0.5], [0.5, 0.5, 0.5], dots=True) == pixels([0.5], [0.5], dots=True) > 0


def test_lines_of_one_chart_differ_in_style_and_none_is_drawn_as_a_reference():
    lines = [Line(f"line {number}", [(0, number), (1, number)]) for number in range(6)]
    svg = line_chart("t", "words", Axis("x"), Axis("y"), lines).svg
    styles = re.findall(r'<polyline class="(l\d)"', svg)
    assert len(set(styles)) == len(styles) == 6
    assert "l5" not in styles

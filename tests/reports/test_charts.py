"""Curves are drawn where they have values."""

from __future__ import annotations

import numpy as np

from inkbatch.reports.charts.raster import curves
from inkbatch.reports.charts.shapes import Line


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

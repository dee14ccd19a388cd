"""Panels of a plot as PNG: lines by colour with a reference and a chosen point, and bars side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from inkbatch.reports.charts.raster import BLACK, Canvas, Colour, text

WIDTH, PANEL, LEFT, RIGHT, TOP, BOTTOM = 900, 240, 60, 190, 34, 34
GREY, MIDDLE, DARK, GREEN = (205, 205, 205), (140, 140, 140), (60, 60, 60), (60, 140, 40)
TEXT_SIZE, TITLE_SIZE = 0.43, 0.65
BAR_PX, BAR_STEP_PX = 34, 42

Points = Sequence[tuple[float, float]]


def headline(words: str) -> Canvas:
    """Write a headline over panels."""
    canvas = np.full((44, WIDTH, 3), 255, np.uint8)
    text(canvas, words, (12, 30), DARK, TITLE_SIZE)
    return canvas


def line_panel(
    title: str,
    lines: Mapping[str, Points],
    colours: Mapping[str, Colour],
    reference: tuple[float, str] | None = None,
    chosen: tuple[float, float, str] | None = None,
) -> Canvas:
    """Draw lines over a whole-numbered axis, from 0 up, their names beside them.

    Args:
        title: Above the panel.
        lines: Points (x, y) by name.
        colours: By name.
        reference: Place on the horizontal axis to mark, and its name.
        chosen: Point to circle, and its name.
    """
    canvas = _frame(title)
    places = [x for points in lines.values() for x, _ in points]
    low, high = min(places), max(places)
    top = max([0.01, *(y for points in lines.values() for _, y in points)]) * 1.1
    span = max(high - low, 1)

    def at(x: float, y: float) -> tuple[int, int]:
        middle = 0.5 if low == high else (x - low) / span
        return (
            round(LEFT + 14 + (WIDTH - LEFT - RIGHT - 28) * middle),
            round(PANEL - BOTTOM - (PANEL - TOP - BOTTOM) * max(y, 0.0) / top),
        )

    for x in sorted({low, high, *np.linspace(low, high, 7).round().tolist()}):
        _text(canvas, f"{x:g}", (at(x, 0)[0] - 5, PANEL - 14), DARK)
    for value in (0.0, top / 1.1):
        _text(canvas, f"{value:.2f}", (14, at(low, value)[1] + 4), DARK)
    if reference is not None:
        place, words = reference
        cv2.line(canvas, at(place, 0), at(place, top), GREY, 1)
        _text(canvas, words, (at(place, top)[0] + 4, TOP + 12), MIDDLE)
    for number, (name, points) in enumerate(lines.items()):
        corners = np.array([at(x, y) for x, y in points], np.int32)
        cv2.polylines(canvas, [corners], False, colours[name], 2, cv2.LINE_AA)
        for corner in corners.tolist():
            cv2.circle(canvas, corner, 3, colours[name], -1, cv2.LINE_AA)
        _text(canvas, name, (WIDTH - RIGHT + 14, TOP + 14 + 20 * number), colours[name])
    if chosen is not None:
        x, y, words = chosen
        cv2.circle(canvas, at(x, y), 9, GREEN, 2, cv2.LINE_AA)
        _text(canvas, words, (WIDTH - RIGHT + 14, TOP + 14 + 20 * len(lines)), GREEN)
    return canvas


def bar_panel(
    title: str,
    bars: Mapping[str, Sequence[float]],
    colours: Sequence[Colour],
    reference: float,
    reference_name: Sequence[str],
) -> Canvas:
    """Draw groups of bars from 0 up, with a level across.

    Args:
        title: Above the panel.
        bars: Values of each group, by its name.
        colours: Of the values of a group, in order.
        reference: Height of the level.
        reference_name: Its name, in lines.
    """
    canvas = _frame(title)
    top = max([0.01, reference, *(max(values) for values in bars.values())]) * 1.1
    height = PANEL - TOP - BOTTOM
    step = (WIDTH - LEFT - RIGHT) // len(bars)
    for number, (name, values) in enumerate(bars.items()):
        left = LEFT + 30 + number * step
        for x, value, colour in zip(range(left, WIDTH, BAR_STEP_PX), values, colours, strict=False):
            y = PANEL - BOTTOM - round(height * max(value, 0.0) / top)
            cv2.rectangle(canvas, (x, y), (x + BAR_PX, PANEL - BOTTOM), colour, -1)
            _text(canvas, f"{value:.2f}", (x, y - 4), DARK)
        _text(canvas, name, (left, PANEL - 14), DARK)
    y = PANEL - BOTTOM - round(height * reference / top)
    cv2.line(canvas, (LEFT, y), (WIDTH - RIGHT, y), DARK, 1, cv2.LINE_AA)
    for number, words in enumerate(reference_name):
        _text(canvas, words, (WIDTH - RIGHT + 8, y - 4 + 16 * number), DARK)
    return canvas


def _frame(title: str) -> Canvas:
    canvas = np.full((PANEL, WIDTH, 3), 255, np.uint8)
    cv2.rectangle(canvas, (LEFT, TOP), (WIDTH - RIGHT, PANEL - BOTTOM), GREY, 1)
    _text(canvas, title, (LEFT, TOP - 10), BLACK)
    return canvas


def _text(canvas: Canvas, words: str, place: tuple[int, int], colour: Colour) -> None:
    text(canvas, words, place, colour, TEXT_SIZE)

"""The picture beside a probe's verdict: answers of all readings, lift of planted ink by depth, and null inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from inkbatch.reports.charts.raster import BLACK, Canvas, Colour, png, text
from inkbatch.steps.probe.evidence import Scene
from inkbatch.steps.probe.verdict import Verdict

WIDTH, PANEL, LEFT, RIGHT, TOP, BOTTOM = 900, 240, 60, 190, 34, 34
ORDER_COLOURS = {"forward": (170, 90, 20), "reversed": (40, 80, 220)}  # blue, orange; OpenCV's channel order
GREY, DARK, GREEN = (205, 205, 205), (60, 60, 60), (60, 140, 40)

TEXT_SIZE, TITLE_SIZE = 0.43, 0.65

Points = Sequence[tuple[float, float]]


def draw_probe(verdict: Verdict, scene: Scene) -> bytes:
    """Draw a verdict; equal verdicts give equal bytes.

    Returns:
        A PNG.
    """
    numbers = verdict.numbers
    answers = {
        order: [(float(start), value) for start, value in row.items()] for order, row in numbers["answers"].items()
    }
    lifts = {order: list(enumerate(map(float, curve))) for order, curve in numbers["lift"].items()}
    headline = f"{verdict.words}: {verdict.order} order from layer {verdict.start}, confidence {verdict.confidence:.2f}"
    chosen = (float(verdict.start), verdict.numbers["answers"][verdict.order][str(verdict.start)])
    canvas = np.vstack(
        [
            _title(headline),
            _lines("own answer (mean of the map), by first layer of the window", answers, scene.usual[1], chosen),
            _lines("lift of planted ink, by its place among the layers that the network is given", lifts, None, None),
            _bars("null inputs: answer (grey), lift of ink planted into them (green)", numbers["nulls"], chosen[1]),
        ]
    )
    return png(canvas)


def _title(words: str) -> Canvas:
    canvas = np.full((44, WIDTH, 3), 255, np.uint8)
    text(canvas, words, (12, 30), DARK, TITLE_SIZE)
    return canvas


def _lines(title: str, lines: Mapping[str, Points], usual: int | None, chosen: tuple[float, float] | None) -> Canvas:
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
    if usual is not None:
        cv2.line(canvas, at(usual, 0), at(usual, top), GREY, 1)
        _text(canvas, "usual", (at(usual, top)[0] + 4, TOP + 12), (140, 140, 140))
    for number, (name, points) in enumerate(lines.items()):
        corners = np.array([at(x, y) for x, y in points], np.int32)
        cv2.polylines(canvas, [corners], False, ORDER_COLOURS[name], 2, cv2.LINE_AA)
        for corner in corners.tolist():
            cv2.circle(canvas, corner, 3, ORDER_COLOURS[name], -1, cv2.LINE_AA)
        _text(canvas, name, (WIDTH - RIGHT + 14, TOP + 14 + 20 * number), ORDER_COLOURS[name])
    if chosen is not None:
        cv2.circle(canvas, at(*chosen), 9, GREEN, 2, cv2.LINE_AA)
        _text(canvas, "best reading", (WIDTH - RIGHT + 14, TOP + 14 + 20 * len(lines)), GREEN)
    return canvas


def _bars(title: str, nulls: Mapping[str, Mapping[str, float]], best: float) -> Canvas:
    canvas = _frame(title)
    top = max([0.01, best, *(max(row["answer"], row["lift"]) for row in nulls.values())]) * 1.1
    height = PANEL - TOP - BOTTOM
    step = (WIDTH - LEFT - RIGHT) // len(nulls)
    for number, (name, row) in enumerate(nulls.items()):
        x = LEFT + 30 + number * step
        for offset, key, colour in ((0, "answer", (140, 140, 140)), (42, "lift", GREEN)):
            y = PANEL - BOTTOM - round(height * max(row[key], 0.0) / top)
            cv2.rectangle(canvas, (x + offset, y), (x + offset + 34, PANEL - BOTTOM), colour, -1)
            _text(canvas, f"{row[key]:.2f}", (x + offset, y - 4), DARK)
        _text(canvas, name, (x, PANEL - 14), DARK)
    y = PANEL - BOTTOM - round(height * best / top)
    cv2.line(canvas, (LEFT, y), (WIDTH - RIGHT, y), DARK, 1, cv2.LINE_AA)
    _text(canvas, "answer of the best", (WIDTH - RIGHT + 8, y - 4), DARK)
    _text(canvas, "reading", (WIDTH - RIGHT + 8, y + 12), DARK)
    return canvas


def _frame(title: str) -> Canvas:
    canvas = np.full((PANEL, WIDTH, 3), 255, np.uint8)
    cv2.rectangle(canvas, (LEFT, TOP), (WIDTH - RIGHT, PANEL - BOTTOM), GREY, 1)
    _text(canvas, title, (LEFT, TOP - 10), BLACK)
    return canvas


def _text(canvas: Canvas, words: str, place: tuple[int, int], colour: Colour) -> None:
    text(canvas, words, place, colour, TEXT_SIZE)

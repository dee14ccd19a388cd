"""Plots as PNG files beside a run: lines over two axes, values over epochs, and a grid of values as shades."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.io.pictures.png import png_bytes
from inkbatch.reports.charts.shapes import Line

Canvas = NDArray[np.uint8]  # (Y, X, 3), blue, green, red
Colour = tuple[int, int, int]

# Stored plots are compared byte by byte when a run is repeated, so sizes and colours stay as they are.
PLOT_PX, MARGIN, LINE_PX = 330, 46, 18
PANEL_HEIGHT, PANEL_WIDTH, PANEL_MARGIN = 260, 900, 48
COLOURS: tuple[Colour, ...] = ((180, 90, 20), (40, 60, 200), (60, 140, 40), (160, 60, 160))
EPOCH_COLOURS: tuple[Colour, ...] = ((40, 40, 200), (200, 90, 30), (60, 140, 40), (20, 150, 200), (160, 60, 160))
GREY, FRAME, TICK, BLACK, WHITE = (150, 150, 150), (200, 200, 200), (90, 90, 90), (0, 0, 0), (255, 255, 255)
CELL_PX = 64


class _Area(NamedTuple):
    """Pixels between the axes of a plot."""

    left: int
    top: int
    right: int
    bottom: int


def curves(title: str, x_label: str, y_label: str, lines: Sequence[Line]) -> Canvas:
    """Draw lines over the unit square, their names below.

    Args:
        title: Text above, before `y_label`.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis.
        lines: Points in [0, 1] along both axes; values outside are drawn at the border.
    """
    area = _Area(MARGIN, 30, MARGIN + PLOT_PX, 30 + PLOT_PX * 3 // 4)
    names = [line.name for line in lines if not line.is_reference]
    width = max([area.right + 14, *(area.left + 9 * len(name) for name in names)])
    canvas = np.full((area.bottom + 40 + LINE_PX * len(names), width, 3), 255, np.uint8)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = _at(share, area.left, area.right), _at(share, area.bottom, area.top)
        cv2.line(canvas, (x, area.top), (x, area.bottom), FRAME, 1)
        cv2.line(canvas, (area.left, y), (area.right, y), FRAME, 1)
        text(canvas, f"{share:g}", (x - 8, area.bottom + 14), TICK)
        text(canvas, f"{share:g}", (6, y + 4), TICK)
    text(canvas, f"{title}: {y_label}", (area.left, 18), BLACK)
    middle = area.left + (area.right - area.left) // 2
    text(canvas, x_label, (middle - 4 * len(x_label), area.bottom + 32), BLACK)
    named = 0
    for line in lines:
        colour = GREY if line.is_reference else COLOURS[named % len(COLOURS)]
        _stroke(canvas, _pixels(line, area), colour, 1 if line.is_reference else 2, 4 if line.dots else 0)
        if not line.is_reference:
            text(canvas, line.name, (area.left, area.bottom + 50 + LINE_PX * named), colour)
            named += 1
    return canvas


def epochs(groups: Mapping[str, Mapping[str, Sequence[float]]]) -> Canvas:
    """Draw values over the epochs of a training, one panel per group, their names beside them.

    Args:
        groups: Per panel, per line: one value per epoch; values that are not finite are passed over.
    """
    return np.concatenate([_epoch_panel(title, lines) for title, lines in groups.items()], axis=0)


def _epoch_panel(title: str, lines: Mapping[str, Sequence[float]]) -> Canvas:
    canvas = np.full((PANEL_HEIGHT, PANEL_WIDTH, 3), 255, np.uint8)
    half = PANEL_MARGIN // 2
    area = _Area(PANEL_MARGIN, half, PANEL_WIDTH - PANEL_MARGIN * 3, PANEL_HEIGHT - half)
    values = np.array([value for line in lines.values() for value in line if np.isfinite(value)] or [0.0])
    low, high = float(values.min()), float(values.max())
    high = high if high > low else low + 1
    cv2.rectangle(canvas, (area.left, area.top), (area.right, area.bottom), FRAME, 1)
    for value, y in ((high, area.top + 10), (low, area.bottom)):
        text(canvas, f"{value:.3g}", (2, y), TICK)
    last = str(max((len(line) for line in lines.values()), default=1))
    text(canvas, "epoch 1", (area.left, area.bottom + 16), TICK)
    text(canvas, last, (area.right - 8 * len(last), area.bottom + 16), TICK)
    text(canvas, title, (area.left + 6, area.top - 6), BLACK)
    for number, (name, line) in enumerate(lines.items()):
        colour = EPOCH_COLOURS[number % len(EPOCH_COLOURS)]
        text(canvas, name, (area.right + 8, area.top + 16 + LINE_PX * number), colour)
        span = max(1, len(line) - 1)
        places = [
            (
                area.left + round((area.right - area.left) * epoch / span),
                area.bottom - round((area.bottom - area.top) * (value - low) / (high - low)),
            )
            for epoch, value in enumerate(line)
            if np.isfinite(value)
        ]
        _stroke(canvas, places, colour, 2, 3)
    return canvas


def shades(title: str, values: NDArray[np.float64], low: float, high: float, signed: bool = False) -> Canvas:
    """Draw a grid of values: dark is low, bright is high; cells without a value are hatched.

    Args:
        title: Above the grid.
        values: (rows, columns); NaN where there is nothing.
        low: Value of the darkest shade.
        high: Value of the brightest shade.
        signed: Blue below 0, red above, white at 0, instead of shades from dark to bright.
    """
    rows, columns = values.shape
    cell = max(6, min(CELL_PX, 1200 // max(rows, columns)))
    share = np.clip((np.nan_to_num(values, nan=low) - low) / (high - low), 0, 1)
    if signed:
        colours = np.stack([1 - np.clip(2 * share - 1, 0, 1), 1 - np.abs(2 * share - 1), np.clip(2 * share, 0, 1)], -1)
        tones = np.rint(colours * 255).astype(np.uint8)
    else:
        tones = cv2.applyColorMap(np.rint(share * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS).reshape(rows, columns, 3)
    grid = tones.repeat(cell, axis=0).repeat(cell, axis=1)
    width = max(grid.shape[1], 9 * len(title), 200)
    canvas = np.full((grid.shape[0] + 60, width + 12, 3), 255, np.uint8)
    canvas[28 : 28 + grid.shape[0], 6 : 6 + grid.shape[1]] = grid
    for row, column in np.argwhere(np.isnan(values)):
        y, x = 28 + row * cell, 6 + column * cell
        canvas[y : y + cell, x : x + cell] = 235
        cv2.line(canvas, (x, y + cell - 1), (x + cell - 1, y), GREY, 1)
    if cell >= 40:
        for row, column in np.argwhere(~np.isnan(values)):
            dark = int(tones[row, column].astype(int) @ (29, 150, 77)) < 128 << 8
            place = (6 + int(column) * cell + 6, 28 + int(row) * cell + cell // 2 + 4)
            text(canvas, f"{values[row, column]:.2f}", place, WHITE if dark else BLACK)
    text(canvas, title, (6, 18), BLACK)
    text(
        canvas,
        f"{low:g} (dark) to {high:g} (bright)" if not signed else f"{low:g} (blue) to {high:g} (red)",
        (6, canvas.shape[0] - 10),
        (90, 90, 90),
    )
    return canvas


def beside(parts: Sequence[Canvas]) -> Canvas:
    """Set plots side by side, aligned at the top."""
    height = max(part.shape[0] for part in parts)
    return np.concatenate([_filled(part, height, part.shape[1]) for part in parts], axis=1)


def text(canvas: Canvas, words: str, place: tuple[int, int], colour: Colour, size: float = 0.42) -> None:
    """Write a line; `place` is its lower left corner (x, y)."""
    cv2.putText(canvas, words, place, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def png(canvas: Canvas) -> bytes:
    """Encode a plot as PNG; equal plots give equal bytes."""
    return png_bytes(canvas[..., ::-1])


def _stroke(
    canvas: Canvas, places: Sequence[tuple[int, int] | None], colour: Colour, thickness: int, dot_px: int
) -> None:
    """Draw a line through pixels, broken off at None, and dots of a radius where it is not 0."""
    for start, stop in itertools.pairwise(places):
        if start is not None and stop is not None:
            cv2.line(canvas, start, stop, colour, thickness, cv2.LINE_AA)
    for place in places if dot_px else ():
        if place is not None:
            cv2.circle(canvas, place, dot_px, colour, -1, cv2.LINE_AA)


def _pixels(line: Line, area: _Area) -> list[tuple[int, int] | None]:
    """Return the pixels of a line in order, None where it breaks off; points that fall on one pixel are one."""
    x, y = np.array(line.points, np.float64).reshape(-1, 2).T
    whole = np.isfinite(x) & np.isfinite(y)
    across = np.rint(area.left + (area.right - area.left) * np.clip(np.where(whole, x, 0), 0, 1)).astype(int)
    down = np.rint(area.bottom + (area.top - area.bottom) * np.clip(np.where(whole, y, 0), 0, 1)).astype(int)
    same = np.zeros(len(x), bool)
    same[1:] = (np.diff(across) == 0) & (np.diff(down) == 0) & (whole[1:] == whole[:-1])
    rows = zip(across[~same].tolist(), down[~same].tolist(), whole[~same].tolist(), strict=True)
    return [(i, j) if there else None for i, j, there in rows]


def _at(share: float, start: int, stop: int) -> int:
    return round(start + (stop - start) * min(max(share, 0.0), 1.0))


def _filled(part: Canvas, height: int, width: int) -> Canvas:
    out = np.full((height, width, 3), 255, np.uint8)
    out[: part.shape[0], : part.shape[1]] = part
    return out

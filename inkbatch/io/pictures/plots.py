"""Small plots drawn without a plotting library: curves over two axes, and a grid of values as shades."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.io.pictures.png import png_bytes

Canvas = NDArray[np.uint8]
Colour = tuple[int, int, int]

PLOT_PX, MARGIN, LINE_PX = 330, 46, 18
COLOURS: tuple[Colour, ...] = ((180, 90, 20), (40, 60, 200), (60, 140, 40), (160, 60, 160))  # blue, green, red
GREY, FRAME, BLACK, WHITE = (150, 150, 150), (200, 200, 200), (0, 0, 0), (255, 255, 255)
CELL_PX = 64


@dataclass(frozen=True)
class Curve:
    """One curve of a plot.

    Attributes:
        name: For the legend; empty keeps it out.
        x: Places, in [0, 1].
        y: Values, in [0, 1]; NaN leaves a gap.
        dots: Mark the places.
        faint: Draw it thin and grey, as a reference.
    """

    name: str
    x: Sequence[float] | NDArray[np.float64]
    y: Sequence[float] | NDArray[np.float64]
    dots: bool = False
    faint: bool = False


def curves(title: str, x_label: str, y_label: str, lines: Sequence[Curve]) -> Canvas:
    """Draw curves over the unit square, their names below."""
    left, top = MARGIN, 30
    right, bottom = left + PLOT_PX, top + PLOT_PX * 3 // 4
    names = [line.name for line in lines if line.name]
    width = max(right + 14, *(left + 9 * len(name) for name in names)) if names else right + 14
    canvas = np.full((bottom + 40 + LINE_PX * len(names), width, 3), 255, np.uint8)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = _at(share, left, right), _at(share, bottom, top)
        cv2.line(canvas, (x, top), (x, bottom), FRAME, 1)
        cv2.line(canvas, (left, y), (right, y), FRAME, 1)
        text(canvas, f"{share:g}", (x - 8, bottom + 14), (90, 90, 90))
        text(canvas, f"{share:g}", (6, y + 4), (90, 90, 90))
    text(canvas, f"{title}: {y_label}", (left, 18), BLACK)
    text(canvas, x_label, (left + (right - left) // 2 - 4 * len(x_label), bottom + 32), BLACK)
    named = 0
    for line in lines:
        colour = GREY if line.faint else COLOURS[named % len(COLOURS)]
        points = _points(line, left, top, right, bottom)
        for start, stop in itertools.pairwise(points):
            if start is not None and stop is not None:
                cv2.line(canvas, start, stop, colour, 1 if line.faint else 2, cv2.LINE_AA)
        if line.dots:
            for point in points:
                if point is not None:
                    cv2.circle(canvas, point, 4, colour, -1, cv2.LINE_AA)
        if line.name:
            text(canvas, line.name, (left, bottom + 50 + LINE_PX * named), colour)
            named += 1
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
        coloured = cv2.applyColorMap(np.rint(share * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
        tones = np.asarray(coloured, np.uint8).reshape(rows, columns, 3)
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
    """Put plots side by side, aligned at the top."""
    height = max(part.shape[0] for part in parts)
    return np.concatenate([_filled(part, height, part.shape[1]) for part in parts], axis=1)


def text(canvas: Canvas, words: str, place: tuple[int, int], colour: Colour) -> None:
    """Write a line; `place` is its lower left corner (x, y)."""
    cv2.putText(canvas, words, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)


def png(canvas: Canvas) -> bytes:
    """Encode a plot as PNG; equal plots are equal bytes."""
    return png_bytes(canvas[..., ::-1])


def _points(line: Curve, left: int, top: int, right: int, bottom: int) -> list[tuple[int, int] | None]:
    """Return the pixels of a curve in order, None where it breaks off; points that fall on one pixel are one."""
    x, y = np.asarray(line.x, np.float64), np.asarray(line.y, np.float64)
    whole = np.isfinite(x) & np.isfinite(y)
    across = np.rint(left + (right - left) * np.clip(np.where(whole, x, 0), 0, 1)).astype(int)
    down = np.rint(bottom + (top - bottom) * np.clip(np.where(whole, y, 0), 0, 1)).astype(int)
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

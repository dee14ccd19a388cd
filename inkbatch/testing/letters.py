"""Columns of Greek capitals whose letters and lines are known; some are in several strokes, as worn ink leaves them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.geometry import Box

STROKES: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "Γ": (((0, 1), (0, 0), (0.8, 0)),),
    "Ε": (((0.8, 0), (0, 0), (0, 1), (0.8, 1)), ((0.25, 0.5), (0.7, 0.5))),
    "Η": (((0, 0), (0, 1)), ((0.14, 0.5), (0.66, 0.5)), ((0.8, 0), (0.8, 1))),
    "Λ": (((0, 1), (0.45, 0), (0.9, 1)),),
    "Ο": (((0.4, 0), (0.8, 0.3), (0.8, 0.7), (0.4, 1), (0, 0.7), (0, 0.3), (0.4, 0)),),
    "Π": (((0, 1), (0, 0), (0.8, 0), (0.8, 1)),),
    "Τ": (((0, 0), (0.9, 0)), ((0.45, 0.16), (0.45, 1))),
    "Υ": (((0, 0), (0.4, 0.5), (0.8, 0)), ((0.4, 0.66), (0.4, 1))),
}
"""Strokes of letters as lines of points (x, y), 0 to 1, y downwards."""


@dataclass(frozen=True)
class Column:
    """A written column.

    Attributes:
        ink: (Y, X) float32, 1 on ink.
        letters: Line from 1, letter and box of each, by line and from left to right.
        pitch_px: Distance from line to line.
    """

    ink: NDArray[np.float32]
    letters: tuple[tuple[int, str, Box], ...]
    pitch_px: int


def write_column(
    lines: int = 5, letters: int = 9, height_px: int = 40, pitch_px: int = 72, slope: float = 0.0, seed: int = 0
) -> Column:
    """Write a column of letters drawn by chance."""
    rng = np.random.default_rng(seed)
    step, rim = round(1.25 * height_px), pitch_px
    shape = 2 * rim + lines * pitch_px, 2 * rim + letters * step
    ink = np.zeros(shape, np.uint8)
    found = []
    for line in range(lines):
        for place in range(letters):
            name = str(rng.choice(list(STROKES)))
            x = rim + place * step
            y = rim + line * pitch_px + slope * x
            own = np.zeros(shape, np.uint8)
            for stroke in STROKES[name]:
                points = np.array([(x + px * height_px, y + py * height_px) for px, py in stroke])
                cv2.polylines(own, [np.rint(points).astype(np.int32)], False, 1, thickness=3)
            ys, xs = np.nonzero(own)
            found.append((line + 1, name, Box(int(ys.min()), int(xs.min()), int(ys.max()) + 1, int(xs.max()) + 1)))
            ink |= own
    return Column(ink.astype(np.float32), tuple(found), pitch_px)

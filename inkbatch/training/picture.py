"""Small pictures: a validated area beside its labels, and curves over the epochs; drawn without a plotting library."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.geometry import Box
from inkbatch.io.pictures.png import png_bytes
from inkbatch.training.stitching import Rows

LONGEST_PX = 900
GAP_PX = 8
PLOT_HEIGHT, PLOT_WIDTH, MARGIN = 260, 900, 48
INKS = ((40, 40, 200), (200, 90, 30), (60, 140, 40), (20, 150, 200), (160, 60, 160))  # blue, green, red


@dataclass
class Overview:
    """A map of an area, shrunk by a whole factor while its rows come in.

    Attributes:
        bounds: The area.
        factor: Pixels per picture pixel.
        sums: (3, height, width): probability, labels and counted pixels, summed.
    """

    bounds: Box
    factor: int
    sums: NDArray[np.float64]

    @staticmethod
    def of(bounds: Box) -> Overview:
        """An empty one."""
        factor = max(1, -(-max(bounds.shape) // LONGEST_PX))
        small = -(-bounds.height // factor), -(-bounds.width // factor)
        return Overview(bounds, factor, np.zeros((3, *small)))

    def add(self, rows: Rows) -> None:
        """Take finished rows in."""
        planes = np.stack([rows.probability * rows.counted, rows.labels * rows.counted, rows.counted])
        starts = np.arange(0, planes.shape[2], self.factor)
        shrunk = np.add.reduceat(planes, starts, axis=2, dtype=np.float64)
        targets = (np.arange(planes.shape[1]) + rows.y0 - self.bounds.y0) // self.factor
        for plane, sums in zip(shrunk, self.sums, strict=True):
            np.add.at(sums[:, : len(starts)], targets, plane)

    def png(self) -> bytes:
        """The map on the left, the labels on the right; pixels that do not count are dark blue."""
        probability, labels, counted = self.sums
        share = np.maximum(counted, 1e-9)
        panels = []
        for values in (probability, labels):
            grey = np.where(counted > 0, np.clip(values / share, 0, 1) * 255, 0)
            colour = np.repeat(grey[..., None], 3, axis=2)
            colour[counted == 0] = (60, 30, 20)
            panels.append(colour)
        gap = np.full((len(probability), GAP_PX, 3), 255.0)
        return _encoded(np.concatenate([panels[0], gap, panels[1]], axis=1))


def plot(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> bytes:
    """Draw curves over the epochs, one panel per group.

    Args:
        curves: Per panel, per curve: one value per epoch; NaN leaves a gap.

    Returns:
        A PNG.
    """
    return _encoded(np.concatenate([_panel(title, lines) for title, lines in curves.items()], axis=0))


def _panel(title: str, lines: Mapping[str, Sequence[float]]) -> NDArray[np.float64]:
    canvas = np.full((PLOT_HEIGHT, PLOT_WIDTH, 3), 255, np.uint8)
    values = np.array([value for line in lines.values() for value in line if np.isfinite(value)] or [0.0])
    low, high = float(values.min()), float(values.max())
    high = high if high > low else low + 1
    bottom, right = PLOT_HEIGHT - MARGIN // 2, PLOT_WIDTH - MARGIN * 3
    cv2.rectangle(canvas, (MARGIN, MARGIN // 2), (right, bottom), (200, 200, 200), 1)
    for value, y in ((high, MARGIN // 2 + 10), (low, bottom)):
        _text(canvas, f"{value:.3g}", (2, y), (90, 90, 90))
    last = max((len(line) for line in lines.values()), default=1) - 1
    _text(canvas, "epoch 0", (MARGIN, bottom + 16), (90, 90, 90))
    _text(canvas, str(last), (right - 8 * len(str(last)), bottom + 16), (90, 90, 90))
    _text(canvas, title, (MARGIN + 6, MARGIN // 2 - 6), (0, 0, 0))
    for number, (name, line) in enumerate(lines.items()):
        ink = INKS[number % len(INKS)]
        _text(canvas, name, (right + 8, MARGIN // 2 + 16 + 18 * number), ink)
        span = max(1, len(line) - 1)
        points = [
            (
                MARGIN + round((right - MARGIN) * place / span),
                bottom - round((bottom - MARGIN // 2) * (value - low) / (high - low)),
            )
            for place, value in enumerate(line)
            if np.isfinite(value)
        ]
        for start, stop in itertools.pairwise(points):
            cv2.line(canvas, start, stop, ink, 2, cv2.LINE_AA)
        for point in points:
            cv2.circle(canvas, point, 3, ink, -1, cv2.LINE_AA)
    return canvas.astype(np.float64)


def _text(canvas: NDArray[np.uint8], text: str, place: tuple[int, int], ink: tuple[int, int, int]) -> None:
    cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, ink, 1, cv2.LINE_AA)


def _encoded(colour: NDArray[Any]) -> bytes:
    return png_bytes(np.rint(colour).astype(np.uint8)[..., ::-1])

"""Curvature of an ink component's outline: letters bend, fibres and cracks run straight."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SMOOTHING_PX = 5.0  # pixel stairs add 5 % to a disc of 400 px; a disc of 15 px gains 8 %
SHORTEST_PX = 8  # shorter outlines get curvature 0


@dataclass(frozen=True)
class ContourShape:
    """The outer contour of a component.

    Attributes:
        length_px: Its length after smoothing.
        curvature: Mean of the absolute curvature along it, per pixel; 1 / radius for a disc.
        turns: Full turns of its tangent, all turning counted as positive: 1 for convex outlines, more for others.
    """

    length_px: float
    curvature: float
    turns: float


def outer_contour(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the outer contour of the largest outline in a mask (height, width).

    Returns:
        (points, 2): centres of the outermost pixels in order, as (y, x); closed, the first point is not repeated.
    """
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not found:
        return np.zeros((0, 2))
    longest = max(found, key=len)
    points: NDArray[np.float64] = longest[:, 0, ::-1].astype(np.float64)
    return points


def contour_shape(mask: NDArray[np.bool_], smoothing_px: float = SMOOTHING_PX) -> ContourShape:
    """Measure the outer contour of the component in a mask.

    The contour is resampled at steps of one pixel and smoothed by a Gaussian along its length, which takes away the
    stairs of the pixel grid. Its curvature is the angle between successive steps over their length.

    Args:
        mask: (height, width), one component.
        smoothing_px: Standard deviation of the Gaussian, in pixels along the contour.
    """
    points = _resampled(outer_contour(mask))
    if len(points) < SHORTEST_PX:
        return ContourShape(float(len(points)), 0.0, 0.0)
    smooth = _smoothed(points, smoothing_px)
    steps = np.roll(smooth, -1, axis=0) - smooth
    angles = np.arctan2(steps[:, 0], steps[:, 1])
    turning = np.abs((np.roll(angles, -1) - angles + math.pi) % (2 * math.pi) - math.pi)
    length = float(np.hypot(*steps.T).sum())
    total = float(turning.sum())
    return ContourShape(length, total / length, total / (2 * math.pi))


def _resampled(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Resample a closed contour at equal distances of about one pixel."""
    if len(points) < 2:
        return points
    closed = np.concatenate([points, points[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    places = np.linspace(0, along[-1], max(2, round(along[-1])), endpoint=False)
    return np.stack([np.interp(places, along, closed[:, axis]) for axis in (0, 1)], axis=1)


def _smoothed(points: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Smooth a closed contour with a circular Gaussian, by its Fourier series."""
    frequencies = np.fft.rfftfreq(len(points))
    damping = np.exp(-2 * (math.pi * sigma * frequencies) ** 2)
    spectrum = np.fft.rfft(points, axis=0) * damping[:, None]
    smooth: NDArray[np.float64] = np.fft.irfft(spectrum, len(points), axis=0)
    return smooth

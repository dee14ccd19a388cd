"""Planted strokes: curved marks of one width, anywhere, for controls whose right answer is known."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.data.synthetic.phantom import InkConfig, crackle_noise, depth_weight, plant_layer
from inkbatch.geometry import Box

Slab = NDArray[Any]  # (Z, Y, X), depth order of the surface, uint8 or uint16

INK_SHARE = 0.2  # of a window that gets planted strokes
STROKE_PITCH = 5  # wavelength of the noise in stroke widths; its level line is drawn as a stroke


def strokes(box: Box, stroke_px: float, edge_px: float, seed: int) -> NDArray[np.float32]:
    """Draw curved strokes of one rough width on `INK_SHARE` of a window: bands around a level line of smooth noise.

    Args:
        box: The window's place on the surface.
        stroke_px: Width of a stroke.
        edge_px: Standard deviation of the softened edges; 0 keeps them sharp.
        seed: Same seed and box, same strokes.

    Returns:
        Mask in [0, 1] of the box's shape, float32.
    """
    noise = np.abs(crackle_noise(box, STROKE_PITCH * stroke_px, seed))
    mask: NDArray[np.float32] = (noise <= np.quantile(noise, INK_SHARE)).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), edge_px), np.float32) if edge_px > 0 else mask


def with_ink(slab: Slab, plane: NDArray[np.float32], ink: InkConfig) -> Slab:
    """Copy a slab and plant ink in it.

    Args:
        slab: (Z, Y, X).
        plane: Signal at the ink's centre in grey values of 255, (Y, X).
        ink: Its `depth_layer` counts layers of the slab from 0.
    """
    planted: Slab = np.stack([plant_layer(layer, plane, depth_weight(z, ink)) for z, layer in enumerate(slab)])
    return planted

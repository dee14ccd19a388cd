"""Shapes of labels that losses weigh pixels by: distance to the outline, and the middle of strokes.

They are found on the CPU, tile by tile, from labels taken as yes or no; ignored pixels are neither ink nor bare.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inkbatch.data.labels.ink import INK_SHARE

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]

TUBE_STEPS = 2  # dilations of the skeleton by a cross of 3 x 3 px, as published
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


def signed_distance(ink: Bools, bare: Bools) -> Floats:
    """Measure how far each pixel lies outside the ink, in px (Kervadec et al. 2019).

    Args:
        ink: (Y, X), counted pixels of ink.
        bare: (Y, X), counted pixels without.

    Returns:
        (Y, X) float32: in bare pixels the Euclidean distance to the nearest pixel of ink; in ink 1 minus the distance
        to the nearest bare pixel, so 0 at its rim; 0 in ignored pixels, and everywhere where a kind is missing.
    """
    if not ink.any() or not bare.any():
        return np.zeros(ink.shape, np.float32)
    found = np.where(bare, _distance_to(ink), np.float32(0))
    return np.where(ink, 1 - _distance_to(bare), found).astype(np.float32)


def _distance_to(which: Bools) -> Floats:
    """Return the distance of each pixel to the nearest one of `which`, exact but for rounding."""
    found = cv2.distanceTransform((~which).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(found, np.float32)


def skeleton_tube(ink: Bools, bare: Bools) -> Floats:
    """Find the middle of strokes: the skeleton of the ink, a few pixels wide, within the ink (Kirchhoff et al. 2024).

    Args:
        ink: (Y, X), counted pixels of ink.
        bare: (Y, X); plays no part.

    Returns:
        (Y, X) float32, 0 or 1.
    """
    if not ink.any():
        return np.zeros(ink.shape, np.float32)
    from skimage import morphology  # imported late: other losses need not wait for it

    skeleton = np.asarray(morphology.skeletonize(ink), np.uint8)  # type: ignore[no-untyped-call]
    middle = cv2.dilate(skeleton, CROSS, iterations=TUBE_STEPS)
    return np.where(ink, middle, 0).astype(np.float32)


def shapes_of(target: Tensor, weight: Tensor, shape: Callable[[Bools, Bools], Floats]) -> Tensor:
    """Find the shape of each label of a batch.

    Args:
        target: (B, 1, Y, X) in [0, 1].
        weight: (B, 1, Y, X), 0 where a pixel is ignored.
        shape: `signed_distance` or `skeleton_tube`.

    Returns:
        (B, 1, Y, X) float32 on the device of `target`.
    """
    ink = (target >= INK_SHARE).cpu().numpy()
    counted = (weight > 0).cpu().numpy()
    tiles = [shape(one & some, ~one & some) for one, some in zip(ink[:, 0], counted[:, 0], strict=True)]
    return torch.from_numpy(np.stack(tiles)[:, None]).to(target.device)

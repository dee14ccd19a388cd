"""Made maps of grains for the tests of instances."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def grain_map(
    shape_yx: tuple[int, int] = (160, 190),
    grains: int = 40,
    seed: int = 0,
    sizes: tuple[int, int] = (4, 12),
    noise: float = 0.05,
) -> NDArray[np.float32]:
    """Draw ellipses, some of which touch; blurred and noisy probability (height, width)."""
    random = np.random.default_rng(seed)
    mask = np.zeros(shape_yx, np.uint8)
    for _ in range(grains):
        centre = int(random.integers(0, shape_yx[1])), int(random.integers(0, shape_yx[0]))
        axes = int(random.integers(*sizes)), int(random.integers(*sizes))
        cv2.ellipse(mask, centre, axes, float(random.integers(0, 180)), 0, 360, (255,), -1)
    blurred = cv2.GaussianBlur(mask, (0, 0), 1.2).astype(np.float32) / 255
    return np.clip(blurred + random.normal(0, noise, shape_yx), 0, 1).astype(np.float32)


def three_classes(labels: NDArray[Any], seed: int = 0) -> NDArray[np.float32]:
    """Make the map (3, height, width) of a picture of labels: boundaries are the outermost pixels of each label."""
    same = np.ones(labels.shape, bool)
    for axis in (0, 1):
        for step in (-1, 1):
            same &= np.roll(labels, step, axis) == labels
    inside = labels > 0
    classes = np.stack([~inside, inside & same, inside & ~same])
    shares = np.exp(classes * 4 + np.random.default_rng(seed).normal(0, 0.3, classes.shape))
    found: NDArray[np.float32] = (shares / shares.sum(axis=0)).astype(np.float32)
    return found


def parted_map(shape_yx: tuple[int, int], grains: int, seed: int = 0) -> NDArray[np.float32]:
    """Make a map (3, height, width) of grains that touch, each ringed by boundary; many too small to be proposed."""
    random = np.random.default_rng(seed)
    marks = np.zeros(shape_yx, np.int32)
    marks[random.integers(0, shape_yx[0], grains), random.integers(0, shape_yx[1], grains)] = np.arange(1, grains + 1)
    _, nearest = cv2.distanceTransformWithLabels(
        (marks == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    values = three_classes(nearest, seed)
    values[2] = cv2.dilate(values[2], np.ones((3, 3), np.uint8))
    values[:, grain_map(shape_yx, grains, seed) < 0.1] = np.array([[1], [0], [0]], np.float32)
    found: NDArray[np.float32] = (values / values.sum(axis=0)).astype(np.float32)
    return found


def write_maps(folder: Path, shapes: Mapping[str, tuple[int, int]], grains: int = 14) -> None:
    """Write ``maps/NAME.npy`` with grains and ``pictures/NAME.png`` to `folder`."""
    for part in ("maps", "pictures"):
        (folder / part).mkdir(parents=True)
    for seed, (name, shape) in enumerate(shapes.items()):
        values = grain_map(shape, grains, seed)
        np.save(folder / f"maps/{name}.npy", values)
        cv2.imwrite(str(folder / f"pictures/{name}.png"), np.rint(40 + 180 * values).astype(np.uint8))

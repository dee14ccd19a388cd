"""A segment with ink labels and two maps of it, a good and a poor one, for tests of what compares them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.testing.maps import store_map, store_picture

SHAPE = (150, 210)
RNG = np.random.default_rng(0)
INK = cv2.GaussianBlur(RNG.standard_normal(SHAPE), (0, 0), 5) > 0.02
MASK = np.ones(SHAPE, bool)
MASK[:, 170:] = False
IGNORED = np.zeros(SHAPE, bool)
IGNORED[60:90, 40:90] = True
COUNTED = MASK & ~IGNORED


def _map(strength: float, seed: int) -> NDArray[np.float16]:
    noise = np.random.default_rng(seed).standard_normal(SHAPE)
    values = np.clip(0.5 + strength * (INK - 0.5) + 0.2 * noise, 0.01, 0.99)
    return np.where(MASK, values, 0).astype(np.float16)


GOOD, POOR = _map(0.4, 1), _map(0.2, 2)


def store_judged(root: str | Path, segment: str = "s") -> None:
    """Store mask, labels, ignore mask, and the predictions ``good`` (which states a threshold of 0.6) and ``poor``."""
    store_map(root, segment, "good", GOOD, contract={"threshold": 0.6})
    store_map(root, segment, "poor", POOR, unit_px=128)
    store_picture(root, segment, "mask", MASK * 255, pooling="max")
    store_picture(root, segment, "ink_labels", INK * 255)
    store_picture(root, segment, "ignore_mask", IGNORED, pooling="max")

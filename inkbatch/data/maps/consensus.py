"""Marks of several maps that a second map confirms.

A map marks a pixel where it reaches its threshold. A mark is confirmed if it hangs together with a pixel that another
map marks, too: through marks of its own map, by neighbours (also diagonal ones), in at most so many steps. With steps
counted, a pixel depends on those around it alone, so that cutting a map into units changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
_NEIGHBOURS = np.ones((3, 3), np.uint8)


def confirmed(marks: Sequence[Bools], steps: int) -> Bools:
    """Find the marks of any map that a second one confirms.

    Args:
        marks: Of two maps at least, (height, width).
        steps: Neighbours that a mark may be away from a pixel that two maps mark.

    Returns:
        (height, width).
    """
    count = np.zeros(marks[0].shape, np.uint8)
    for one in marks:
        count += one
    found = np.zeros(count.shape, np.uint8)
    for one in marks:
        own = one.view(np.uint8)
        np.maximum(found, _reached(own & (count > 1), own, steps), out=found)
    return found.view(np.bool_)


def _reached(seeds: NDArray[np.uint8], within: NDArray[np.uint8], steps: int) -> NDArray[np.uint8]:
    """Spread seeds over what they hang together with, so many steps."""
    spread, before = seeds, int(seeds.sum())
    for _ in range(steps):
        spread = np.asarray(cv2.dilate(spread, _NEIGHBOURS), np.uint8) & within
        now = int(cv2.countNonZero(spread))
        if now == before:
            break
        before = now
    return spread

"""Colour maps that survive colour-blindness, as 256 colours each."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

ColourMap = Literal["inferno", "cividis", "viridis", "amber", "grey"]
Palette = NDArray[np.uint8]  # (256, 3), red, green, blue

NO_DIFFERENCE = 128  # index of a difference of 0; 0 is left out, so that both sides have 127 steps
INK_LABELS, IGNORE_MASK, NOT_YET, OBJECT, PICKED, PICKED_INSIDE = range(1, 7)  # indices in outline tiles
OUTLINE_COLOURS = {
    INK_LABELS: (64, 224, 255, 255),
    IGNORE_MASK: (255, 94, 190, 255),
    NOT_YET: (120, 128, 144, 110),  # what is not computed yet
    OBJECT: (255, 176, 0, 255),  # separate objects, and the one that is picked
    PICKED: (255, 255, 255, 255),
    PICKED_INSIDE: (255, 255, 255, 70),
}

_OPENCV = {"inferno": cv2.COLORMAP_INFERNO, "cividis": cv2.COLORMAP_CIVIDIS, "viridis": cv2.COLORMAP_VIRIDIS}
_AMBER = [(0.0, (0, 0, 0)), (0.35, (140, 62, 0)), (0.7, (255, 150, 20)), (1.0, (255, 240, 190))]
# Blue and orange keep apart for every kind of colour-blindness.
_DIFFERENCE = [
    (0.0, (105, 215, 255)),
    (0.25, (20, 120, 215)),
    (NO_DIFFERENCE / 255, (16, 16, 20)),
    (0.75, (215, 100, 10)),
    (1.0, (255, 205, 90)),
]


@lru_cache(maxsize=16)
def palette(name: ColourMap) -> Palette:
    """Return the 256 colours of a map; index 0 is no ink."""
    steps = np.arange(256, dtype=np.uint8)
    if name in _OPENCV:
        return np.ascontiguousarray(cv2.applyColorMap(steps[:, None], _OPENCV[name])[:, 0, ::-1])
    if name == "amber":
        return _between(_AMBER)
    return np.repeat(steps[:, None], 3, axis=1)


@lru_cache(maxsize=1)
def difference_palette() -> Palette:
    """Return blue where the second map is higher, orange where the first is, dark where they agree."""
    return _between(_DIFFERENCE)


def _between(points: list[tuple[float, tuple[int, int, int]]]) -> Palette:
    steps = np.linspace(0, 1, 256)
    places = [place for place, _ in points]
    channels = [np.interp(steps, places, [colour[number] for _, colour in points]) for number in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)

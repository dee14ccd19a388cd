"""Contrast of papyrus at each layer: a rough layer answers like ink, all over a segment, and shows here.

Ink fills a few blocks of a surface, a layer that is rougher than those beside it nearly all. So contrast is measured in
the quieter quarter of blocks, and one layer is held against the louder side beside it: a sheet's edge is louder than
one side alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

QUIETER = 0.25  # of blocks
AROUND, FLANK = 1, (3, 6)  # layers either way that are looked at, and that they are held against
ROUGH = 1.2  # times as much: ink of contrast 60 over half of a segment makes 1.1 at most, a rough layer 1.3 and more


def contrasts(layers: NDArray[np.unsignedinteger]) -> NDArray[np.float64]:
    """Return the deviation of grey values of one block at each layer, (Z, Y, X) to (Z,)."""
    found: NDArray[np.float64] = layers.std(axis=(1, 2), dtype=np.float64)
    return found


def quieter(blocks: Sequence[NDArray[np.float64]]) -> list[float]:
    """Return the contrast that the quieter quarter of blocks stays below, by layer; empty without any block."""
    return [round(float(one), 3) for one in np.quantile(blocks, QUIETER, axis=0)] if blocks else []


def times_rougher(profile: Sequence[float], layer: int) -> float | None:
    """Return how many times as much contrast a layer has as the louder side beside it; None where there is none.

    Args:
        profile: Contrast by layer.
        layer: Place in it.
    """
    near, (first, last) = profile[max(0, layer - AROUND) : layer + AROUND + 1], FLANK
    sides = [profile[max(0, layer - last) : max(0, layer - first + 1)], profile[layer + first : layer + last + 1]]
    beside = max((float(np.median(side)) for side in sides if len(side)), default=0.0)
    return max(near) / beside if near and beside else None

"""Inputs of a depth probe besides the segment: null inputs; choice of windows.

Nothing here knows a network. All choices follow from a seed and the window's place, so equal probes are equal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.synthetic.strokes import Slab as Slab
from inkbatch.errors import ConfigError, DataError
from inkbatch.geometry import Box, cut
from inkbatch.io.surface import SurfaceVolume

MAX_CANDIDATES = 64  # windows that are looked at
FULL_PAPYRUS = 0.9  # share of a window that must be papyrus, where there are such windows
NULLS = ("layers shuffled", "one layer repeated", "voxels shuffled")


def null_input(name: str, window: Slab, depth: int, seed: int) -> Slab:
    """Make an input that looks like papyrus in part and in which no ink can be read.

    Args:
        name: One of `NULLS`: the layers in a random order that moves every one of them by two at least; the layer at
            `depth` repeated; all voxels in a random order.
        window: (Z, Y, X), as many layers as the network takes.
        depth: Index of the layer that is repeated.
        seed: Of the random order.
    """
    rng = np.random.default_rng(seed)
    if name == "layers shuffled":
        return np.ascontiguousarray(window[_disorder(len(window), rng)])
    if name == "one layer repeated":
        return np.repeat(window[depth : depth + 1], len(window), axis=0)
    shuffled: Slab = rng.permutation(window.reshape(-1)).reshape(window.shape)
    return shuffled


def _disorder(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw a permutation that keeps no layer near its place, if the count allows that."""
    tried = [rng.permutation(count) for _ in range(50)]
    return max(tried, key=lambda order: int(np.abs(order - np.arange(count)).min()))


def sheet_faces(profile: NDArray[np.float64]) -> tuple[int, int]:
    """Find the two faces of the sheet: first and last layer brighter than halfway between darkest and brightest.

    Args:
        profile: Mean grey value of each layer, depth order.
    """
    halfway = (profile.min() + profile.max()) / 2
    bright = np.flatnonzero(profile >= halfway)
    return int(bright[0]), int(bright[-1])


def choose_windows(volume: SurfaceVolume, count: int, window_px: int) -> list[Box]:
    """Choose windows to probe: whole papyrus first, then the strongest contrast in the middle layer.

    At most `MAX_CANDIDATES` windows of a regular grid are looked at, spread evenly over those that hold papyrus.

    Returns:
        At most `count` boxes inside the surface, row-major.

    Raises:
        DataError: No window holds papyrus.
    """
    boxes = [box for box in _grid(volume.shape_yx, window_px) if box.area]
    share = {box: float(volume.read_mask(box).mean()) for box in _spread(boxes, 16 * MAX_CANDIDATES)}
    papyrus = [box for box in share if share[box] >= FULL_PAPYRUS] or [box for box in share if share[box] > 0]
    if not papyrus:
        raise DataError(f"segment {volume.provenance.segment}: no window holds papyrus; check its mask")
    middle = volume.layer_count // 2
    looked = _spread(papyrus, MAX_CANDIDATES)
    contrast = {
        box: float(volume.read(range(middle, middle + 1), box)[volume.read_mask(box)[None]].std()) for box in looked
    }
    best = sorted(looked, key=lambda box: (-share[box] * contrast[box], box))
    return sorted(best[:count])


def given_windows(volume: SurfaceVolume, corners: tuple[tuple[int, int], ...], window_px: int) -> list[Box]:
    """Make the windows whose upper left corners (y, x) the user gave.

    Raises:
        ConfigError: One leaves the surface, holds no papyrus, or is given twice.
    """
    height, width = volume.shape_yx
    boxes = []
    for y, x in corners:
        box = Box(y, x, y + min(window_px, height), x + min(window_px, width))
        if not Box(0, 0, height, width).contains(box):
            raise ConfigError(
                f"probe at [{y}, {x}]: a window of {box.height} x {box.width} px leaves the surface of "
                f"{height} x {width} px; move it, or make window_px smaller"
            )
        if not volume.read_mask(box).any():
            raise ConfigError(f"probe at [{y}, {x}]: there is no papyrus in that window; move it")
        boxes.append(box)
    if len(set(boxes)) < len(boxes):
        raise ConfigError("probe: a window is given twice; give each corner once")
    return boxes


def _grid(shape_yx: tuple[int, int], window_px: int) -> list[Box]:
    """List whole windows anchored at (0, 0); one clipped window along an axis that is shorter than a window."""
    height, width = shape_yx
    whole = (box for box in cut(shape_yx, min(window_px, height), min(window_px, width)))
    return [box for box in whole if box.height == min(window_px, height) and box.width == min(window_px, width)]


def _spread(boxes: list[Box], most: int) -> list[Box]:
    if len(boxes) <= most:
        return boxes
    return [boxes[round(place)] for place in np.linspace(0, len(boxes) - 1, most)]

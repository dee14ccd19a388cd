"""Numbers about one tile of a surface, from its layers alone; one pass over them.

Grey values are those of 255, whatever is stored. `verdict` weighs the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Slab = NDArray[Any]  # (Z, Y, X), depth order, uint8 or uint16

LOOKED_AT = 16  # layers of the sheet whose pixels are compared with their neighbours; the profile has all layers
LAGS = (2, 4, 8, 12, 16, 24, 32, 48, 64)  # pixels
BLOCK_PX = 8  # of JPG, and of most video codecs
LEAST_PX = 128  # smaller tiles have no codec, seam or grain
POOL_PX = 4  # pixels of a line's width
ANGLES = 96  # directions in which lines are looked for
LONG = 0.6  # of a tile's edge: shorter lines are no seams
BESIDE = 3  # lines' widths between a line and those that it is compared with


@dataclass(frozen=True, eq=False)
class TileMeasures:
    """Measures of a tile.

    Attributes:
        inside: Share of its pixels that are non-zero in any layer.
        missing: Share of the voxels of those pixels that are zero.
        structure: Standard deviation of what neighbours four pixels apart have in common, grey values.
        profile: Mean grey value of each layer.
        grain_px: Distance at which neighbours have half of that in common; NaN where it is not known.
        seam: How many times as sharp as elsewhere the steps across the strongest straight line are.
        blocks: How much larger steps across the lines of a grid of `BLOCK_PX` are than beside them, a share.
        blocks_sure: The weaker axis's sureness of that, in standard errors.
    """

    inside: float
    missing: float
    structure: float
    profile: Floats
    grain_px: float
    seam: float
    blocks: float
    blocks_sure: float


def measure(tile: Slab) -> TileMeasures:
    """Measure a tile.

    Args:
        tile: (Z, Y, X); at the surface's border it may be smaller than others.
    """
    depth, height, width = tile.shape
    seen = np.maximum.reduce(tile, axis=0) != 0
    inside = float(seen.mean())
    if inside == 0:
        return TileMeasures(0.0, 0.0, 0.0, np.zeros(depth, np.float32), np.nan, 1.0, 0.0, 0.0)
    whole = inside == 1
    unit = 1.0 if tile.dtype == np.uint8 else 1 / 257
    filled = np.array([cv2.countNonZero(layer) for layer in tile], np.int64)
    missing = 1 - float(filled.sum()) / (inside * tile.size)
    profile = np.array([cv2.mean(layer)[0] for layer in tile]) * unit / inside
    weight = np.ones((height, width), np.float32)
    if not whole:
        weight = cv2.erode(seen.astype(np.float32), np.ones((3, 3), np.float32), borderValue=1.0)  # type: ignore[assignment]
    texture = _Texture(weight, whole)
    for z in _looked_at(profile, filled):
        few = slice(max(0, z - 1), z + 2)  # texture goes on in depth, noise does not
        total = np.add.reduce(tile[few], axis=0, dtype=np.float32)
        total *= np.float32(unit / len(tile[few]))
        total -= np.float32(profile[few].mean())
        texture.add(total)
    grain = seam = blocks = sure = 0.0
    if min(height, width) >= LEAST_PX and weight.mean() >= 0.5:
        grain, seam = texture.grain_px(), texture.seam()
        blocks, sure = texture.blocks()
    else:
        grain, seam = float("nan"), 1.0
    return TileMeasures(inside, missing, texture.structure(), profile.astype(np.float32), grain, seam, blocks, sure)


def _looked_at(profile: NDArray[np.float64], filled: NDArray[np.int64]) -> NDArray[np.int64]:
    """Choose layers of the sheet: brighter than halfway between darkest and brightest, spread evenly."""
    there = np.flatnonzero(filled)
    halfway = (profile[there].min() + profile[there].max()) / 2
    bright: NDArray[np.int64] = there[profile[there] >= halfway]
    return np.unique(bright[np.linspace(0, len(bright) - 1, LOOKED_AT).round().astype(int)])


class _Texture:
    """Sums over some layers of a tile: products of neighbours, squares of steps, sizes of steps."""

    def __init__(self, weight: Floats, whole: bool) -> None:
        self._weight, self._whole, self._count = weight, whole, 0
        height, width = weight.shape
        self._lags = [lag for lag in LAGS if 2 * lag < min(height, width)]
        self._common = np.zeros(len(self._lags))
        self._squares = np.zeros((height - 1, width), np.float32), np.zeros((height, width - 1), np.float32)
        self._down, self._right = np.zeros(height - 1), np.zeros(width - 1)

    def add(self, layer: Floats) -> None:
        """Add a layer whose mean is 0."""
        if not self._whole:
            layer = layer * self._weight
        self._count += 1
        for number, lag in enumerate(self._lags):
            down = cv2.mean(cv2.multiply(layer[:-lag], layer[lag:]))[0]
            right = cv2.mean(cv2.multiply(layer[:, :-lag], layer[:, lag:]))[0]
            self._common[number] += (down + right) / 2
        below = np.asarray(cv2.absdiff(layer[1:], layer[:-1]), np.float32)
        aside = np.asarray(cv2.absdiff(layer[:, 1:], layer[:, :-1]), np.float32)
        if not self._whole:
            below *= self._weight[1:] * self._weight[:-1]
            aside *= self._weight[:, 1:] * self._weight[:, :-1]
        self._down += cv2.reduce(below, 1, cv2.REDUCE_SUM, dtype=cv2.CV_64F)[:, 0]
        self._right += cv2.reduce(aside, 0, cv2.REDUCE_SUM, dtype=cv2.CV_64F)[0]
        for steps, squares in zip((below, aside), self._squares, strict=True):
            cv2.accumulateSquare(steps, squares)

    def structure(self) -> float:
        """See `TileMeasures.structure`."""
        if len(self._lags) < 2 or not self._count:
            return 0.0
        return float(np.sqrt(max(0.0, self._common[1] / self._count / max(float(self._weight.mean()), 1e-6))))

    def grain_px(self) -> float:
        """See `TileMeasures.grain_px`."""
        common = self._common / max(self._common[0], 1e-9)
        below = np.flatnonzero(common < 0.5)
        if not self._common[0] > 0:
            return float("nan")
        if not below.size:
            return float(self._lags[-1])
        first = int(below[0])
        low, high = self._lags[first - 1], self._lags[first]
        share = (common[first - 1] - 0.5) / (common[first - 1] - common[first])
        return float(low + (high - low) * share)

    def blocks(self) -> tuple[float, float]:
        """See `TileMeasures.blocks` and `blocks_sure`."""
        found = [_blocks(steps) for steps in (self._down, self._right)]
        return min(share for share, _ in found), min(sure for _, sure in found)

    def seam(self) -> float:
        """See `TileMeasures.seam`."""
        down, right = (squares + np.float32(self._count) for squares in self._squares)
        sharp_down = down[2:-2] / ((down[:-4] + down[4:]) / 2)
        sharp_right = right[:, 2:-2] / ((right[:, :-4] + right[:, 4:]) / 2)
        sharp = np.maximum(sharp_down[:, 2:-3], sharp_right[2:-3])
        widest = cv2.dilate(sharp, np.ones((POOL_PX, POOL_PX), np.uint8))
        return _strongest_line(np.log(widest[POOL_PX // 2 :: POOL_PX, POOL_PX // 2 :: POOL_PX]))


def _blocks(steps: NDArray[np.float64]) -> tuple[float, float]:
    """Compare steps across every eighth line with their neighbours; (share, standard errors) of the best phase."""
    logs = np.log(np.maximum(steps, 1e-6))
    apart = logs[2:-2] - (logs[:-4] + logs[1:-3] + logs[3:-1] + logs[4:]) / 4
    spread = 1.4826 * float(np.median(np.abs(apart - np.median(apart)))) + 1e-9
    best = (0.0, 0.0)
    for phase in range(BLOCK_PX):
        lines = apart[phase::BLOCK_PX]
        share = float(np.median(lines))
        best = max(best, (share, share / (1.2533 * spread / np.sqrt(len(lines)))))
    return best


def _strongest_line(logs: Floats) -> float:
    """Find the straight line across a small picture of log sharpness that stands out most from the lines beside it."""
    index, counts = _lines(logs.shape[0], logs.shape[1])
    values = (logs - np.median(logs)).ravel()
    least = LONG * min(logs.shape)
    best = 0.0
    for places, count in zip(index, counts, strict=True):
        mean = np.bincount(places, weights=values, minlength=len(count)) / np.maximum(count, 1)
        mean[count < least] = np.nan
        beside = np.fmax(mean[: -2 * BESIDE], mean[2 * BESIDE :])
        rise = mean[BESIDE:-BESIDE] - np.maximum(beside, 0)
        if not np.isnan(rise).all():
            best = max(best, float(np.nanmax(rise)))
    return float(np.exp(best))


@cache
def _lines(height: int, width: int) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Number the line of each pixel for every direction, and count the pixels of each line."""
    y, x = np.mgrid[:height, :width] - np.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
    index, counts = [], []
    for angle in np.arange(ANGLES) * np.pi / ANGLES:
        away = np.rint(y * np.sin(angle) + x * np.cos(angle)).astype(np.int64).ravel()
        away -= away.min()
        index.append(away)
        counts.append(np.bincount(away))
    return index, counts

"""Evidence of a sweep in windows: loudness, agreement, depth and void, real maps and nulls side by side.

All of it follows from *moments*: means over blocks of `BLOCK_PX` of products of z values. They are made in one pass
over the maps, block by block, so that neither order nor cutting of the pass changes them; windows are whole blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.data.maps.depth_agreement import pairs_of
from inkbatch.data.maps.sweep import BLOCK_PX as BLOCK_PX
from inkbatch.geometry import Box
from inkbatch.io.half_floats import to_single_plus

SMALL_PX = 16  # pixels of the map that rows and marks are measured in

Halves = NDArray[np.float16]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """Means over blocks of one series, (rows, columns) of blocks; pixels without a value count as 0.

    Attributes:
        filled: Share of pixels at which every bundle has a value.
        covered: The same in squares of `SMALL_PX`.
        z: Mean z value of the bundles.
        own: Mean z value, (bundles, rows, columns).
        square: Mean of its square, likewise.
        product: Mean of ``z_a * z_b``, (pairs, rows, columns); none for one bundle.
        small: Mean z value of the bundles in squares of `SMALL_PX`.
    """

    filled: Doubles
    covered: Floats
    z: Doubles
    own: Doubles
    square: Doubles
    product: Doubles
    small: Floats


class MomentSums:
    """Moments of one series, filled stripe by stripe.

    Args:
        shape_yx: Size of the maps.
        bundles: Number of bundles.
    """

    def __init__(self, shape_yx: tuple[int, int], bundles: int) -> None:
        blocks, small = (tuple(-(-side // edge) for side in shape_yx) for edge in (BLOCK_PX, SMALL_PX))
        pairs = len(pairs_of(bundles))
        self.moments = Moments(
            np.zeros(blocks),
            np.zeros(small, np.float32),
            np.zeros(blocks),
            np.zeros((bundles, *blocks)),
            np.zeros((bundles, *blocks)),
            np.zeros((pairs, *blocks)),
            np.zeros(small, np.float32),
        )

    def add(
        self,
        box: Box,
        means: Sequence[Halves],
        stretches: Sequence[tuple[float, float]],
        filled: Floats | None = None,
    ) -> None:
        """Add one part of the maps.

        Args:
            box: Its place; its upper left corner lies on a block's, and so does its lower right one, or on the border.
            means: Map of each bundle, (height, width) float16.
            stretches: Mean and standard deviation that become z values of 0 and 1, by bundle.
            filled: 1 where every bundle has a value and 0 elsewhere, (height, width); None: all do everywhere.
        """
        found = self.moments
        here, near = ((_edges(box.y0, box.y1, edge), _edges(box.x0, box.x1, edge)) for edge in (BLOCK_PX, SMALL_PX))
        sums = _column_sums(means, [-mean for mean, _ in stretches], filled)
        scales = [1 / deviation if deviation > 0 else 0.0 for _, deviation in stretches]
        small = [_squares(bands) * np.float32(scale) for bands, scale in zip(sums.bands, scales, strict=True)]
        covered = _shares(box) if filled is None else _squares(_bands(filled))
        found.covered[near], found.filled[here] = covered, _of_blocks(covered)
        for number, (squares, scale) in enumerate(zip(small, scales, strict=True)):
            found.own[number][here] = _of_blocks(squares)
            found.square[number][here] = _blocks(sums.squares[number]) * scale**2
        found.z[here] = found.own[:, here[0], here[1]].mean(axis=0)
        found.small[near] = np.mean(small, axis=0)
        for number, (a, b) in enumerate(pairs_of(len(means))):
            found.product[number][here] = _blocks(sums.products[number]) * (scales[a] * scales[b])


@dataclass(frozen=True, eq=False)
class _ColumnSums:
    """Sums over the rows of blocks, column by column, of one part of the maps.

    Attributes:
        bands: Values in rows of `SMALL_PX`, (bundles, rows, width).
        squares: Their squares in rows of `BLOCK_PX`, (bundles, rows, width).
        products: Products of two bundles' values there, (pairs, rows, width).
    """

    bands: Floats
    squares: Floats
    products: Floats


def _column_sums(means: Sequence[Halves], constants: Sequence[float], filled: Floats | None) -> _ColumnSums:
    """Add a constant to each map, and add up its columns, strip by strip: strips stay in the cache."""
    (height, width), pairs = means[0].shape, pairs_of(len(means))
    rows, bands = (-(-height // edge) for edge in (BLOCK_PX, SMALL_PX))
    found = _ColumnSums(
        np.empty((len(means), bands, width), np.float32),
        np.empty((len(means), rows, width), np.float32),
        np.empty((len(pairs), rows, width), np.float32),
    )
    for row, top in enumerate(range(0, height, BLOCK_PX)):
        strip = slice(top, top + BLOCK_PX)
        values = [to_single_plus(one[strip], constant) for one, constant in zip(means, constants, strict=True)]
        for number, one in enumerate(values):
            if filled is not None:
                one *= filled[strip]
            found.bands[number, top // SMALL_PX : (top + BLOCK_PX) // SMALL_PX] = _bands(one)
            found.squares[number, row] = cv2.reduce(one, 0, cv2.REDUCE_SUM2)[0]
        for number, (a, b) in enumerate(pairs):
            found.products[number, row] = cv2.reduce(values[a] * values[b], 0, cv2.REDUCE_SUM)[0]
    return found


def _bands(values: Floats) -> Floats:
    """Add up columns in rows of `SMALL_PX`; what the last one lacks counts as 0."""
    missing = -len(values) % SMALL_PX
    if missing:
        values = np.pad(values, ((0, missing), (0, 0)))
    found: Floats = np.add.reduce(values.reshape(-1, SMALL_PX, values.shape[1]), axis=1)
    return found


def _squares(bands: Floats) -> Floats:
    """Average over squares of `SMALL_PX` from sums of their columns; what one lacks at the border counts as 0."""
    missing = -bands.shape[1] % SMALL_PX
    if missing:
        bands = np.pad(bands, ((0, 0), (0, missing)))
    found: Floats = np.add.reduce(bands.reshape(len(bands), -1, SMALL_PX), axis=2) / np.float32(SMALL_PX**2)
    return found


def _blocks(columns: Floats) -> Doubles:
    """Average over blocks from sums of their columns; what one lacks at the border counts as 0."""
    starts = np.arange(0, columns.shape[1], BLOCK_PX)
    found: Doubles = np.add.reduceat(columns, starts, axis=1, dtype=np.float64) / BLOCK_PX**2
    return found


def _of_blocks(squares: Floats) -> Doubles:
    """Average squares of `SMALL_PX` over blocks; those that a block lacks at the border count as 0."""
    edge, found = BLOCK_PX // SMALL_PX, squares.astype(np.float64)
    for axis, side in enumerate(squares.shape):
        found = np.add.reduceat(found, np.arange(0, side, edge), axis=axis)
    whole: Doubles = found / edge**2
    return whole


def _shares(box: Box) -> Floats:
    """Return how much of each square of `SMALL_PX` of a box there is; at the border they are cut."""
    rows, columns = (np.minimum(side - np.arange(0, side, SMALL_PX), SMALL_PX) / SMALL_PX for side in box.shape)
    return np.outer(rows, columns).astype(np.float32)


def _edges(start: int, stop: int, edge: int) -> slice:
    return slice(start // edge, -(-stop // edge))


@dataclass(frozen=True)
class WindowGrid:
    """Windows of whole blocks, side by side from the upper left corner; the last ones are clipped to the border.

    Attributes:
        shape_yx: Size of the maps.
        edge_blocks: Edge of a window in blocks.
    """

    shape_yx: tuple[int, int]
    edge_blocks: int

    @staticmethod
    def of(shape_yx: tuple[int, int], window_mm: float, voxel_um: float) -> WindowGrid:
        """Choose the whole number of blocks that is nearest to an edge in millimetres, one at least."""
        return WindowGrid(shape_yx, max(1, round(window_mm * 1000 / voxel_um / BLOCK_PX)))

    @property
    def window_px(self) -> int:
        """Edge of a window in pixels."""
        return self.edge_blocks * BLOCK_PX

    @cached_property
    def boxes(self) -> tuple[Box, ...]:
        """Windows in pixels, row-major."""
        height, width = self.shape_yx
        edge = self.window_px
        return tuple(
            Box(y, x, min(y + edge, height), min(x + edge, width))
            for y in range(0, height, edge)
            for x in range(0, width, edge)
        )

    def sums(self, blocks: Doubles) -> Doubles:
        """Add up block values over windows: (…, rows, columns) of blocks to (…, windows)."""
        found = np.add.reduceat(blocks, np.arange(0, blocks.shape[-2], self.edge_blocks), axis=-2)
        found = np.add.reduceat(found, np.arange(0, blocks.shape[-1], self.edge_blocks), axis=-1)
        flat: Doubles = found.reshape(*found.shape[:-2], -1)
        return flat


@dataclass(frozen=True, eq=False)
class WindowNumbers:
    """Numbers of every window of one series, row-major.

    Attributes:
        filled: Share of the window's pixels that have a value.
        z: Mean z value there.
        agreement: Mean correlation of two bundles over all pairs; NaN for one bundle, or where a map is flat.
    """

    filled: Doubles
    z: Doubles
    agreement: Doubles


def window_numbers(found: Moments, grid: WindowGrid) -> WindowNumbers:
    """Gather moments in windows."""
    area = np.array([box.area for box in grid.boxes], np.float64) / BLOCK_PX**2
    filled = grid.sums(found.filled)
    there = np.maximum(filled, 1e-12)
    own, square = grid.sums(found.own) / there, grid.sums(found.square) / there
    variance = np.maximum(square - own**2, 0)
    correlations = []
    for number, (a, b) in enumerate(pairs_of(len(own))):
        common = grid.sums(found.product[number]) / there - own[a] * own[b]
        with np.errstate(invalid="ignore", divide="ignore"):
            correlations.append(
                np.where((variance[a] > 0) & (variance[b] > 0), common / np.sqrt(variance[a] * variance[b]), np.nan)
            )
    agreement = np.mean(correlations, axis=0) if correlations else np.full(len(filled), np.nan)
    return WindowNumbers(filled / area, grid.sums(found.z) / there, np.asarray(agreement, np.float64))


@dataclass(frozen=True)
class Peak:
    """Place of the loudest depth in a window.

    Attributes:
        depth: Centre of gravity of the peak above half of its height, in layers.
        width: Its width at half of its height, in layers.
        height: How far it rises above the faintest depth, in z values.
    """

    depth: float
    width: float
    height: float


def peak_of(profile: Doubles, depths: Sequence[int], top: int | None = None) -> Peak:
    """Find a peak of a depth profile.

    Args:
        profile: A height at each depth.
        depths: The depths, ascending, evenly spaced.
        top: Place of the depth at which it is expected: the peak that holds the highest of it and its two neighbours;
            None: the highest one.
    """
    step = depths[1] - depths[0] if len(depths) > 1 else 1
    first, last = (0, len(profile) - 1) if top is None else (max(top - 1, 0), min(top + 1, len(profile) - 1))
    low, top = float(profile.min()), first + int(np.argmax(profile[first : last + 1]))
    height = float(profile[top]) - low
    if height <= 0:
        return Peak(float(depths[top]), float(step * len(depths)), 0.0)
    above = profile - (low + height / 2)
    first = last = top
    while first > 0 and above[first - 1] > 0:
        first -= 1
    while last < len(profile) - 1 and above[last + 1] > 0:
        last += 1
    weight = above[first : last + 1]
    places = np.array(depths[first : last + 1], np.float64)
    return Peak(float((weight * places).sum() / weight.sum()), float(step * len(places)), height)


def border_px(covered: Floats, grid: WindowGrid) -> Doubles:
    """Measure how far every window's edge is from the nearest square that lacks papyrus, or from the surface's border.

    Args:
        covered: Share of each square of `SMALL_PX` that has a value.
        grid: The windows.
    """
    whole, edge = np.pad((covered >= 0.5).astype(np.uint8), 1), grid.window_px // SMALL_PX
    reach = cv2.distanceTransform(whole, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    for axis in (0, 1):
        reach = np.minimum.reduceat(reach, np.arange(0, reach.shape[axis], edge), axis=axis)
    return np.maximum(reach.astype(np.float64).ravel() - 1, 0) * SMALL_PX

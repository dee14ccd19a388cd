"""Layers brought to another spacing: area average in the plane, mean or linear between layers.

Every output value follows from its own place alone: its taps and their weights come from the whole grid, and taps are
added in ascending order, one rounded operation each. So a box holds the same bytes however a surface is cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import ConfigError, DataError
from inkbatch.geometry import Box, cells
from inkbatch.io.layers.base import CheckedLayerSource, LayerSource

DepthRule = Literal["mean", "linear"]
STRIP_BYTES = 64 << 20  # of source values as float32 in memory beside the output
BLOCKS = 2  # of the source that a piece is high at least, so that few are decoded twice
SAME = 1e-3  # spacings closer than this, relatively, are one spacing

# The field's pooling of 2.4 µm renderings for 9.6 µm networks (tag of its prepared volumes): level 2 in the plane,
# untouched, and in depth the mean of 4 over 84 centred planes. Values are checked in tests.
POOLING_RULES = {"level2-zmean4-21slice-v1": (84, 4)}


@dataclass(frozen=True)
class Taps:
    """Weighted sources of each output index along one axis.

    Attributes:
        index: (taps, outputs) int64, source indices; repeated where the weight is 0.
        weight: (taps, outputs) float32; each column sums up to one.
    """

    index: NDArray[np.int64]
    weight: NDArray[np.float32]

    @property
    def count(self) -> int:
        """Number of outputs."""
        return int(self.index.shape[1])

    def source(self, start: int, stop: int) -> range:
        """Source indices that the outputs start:stop need."""
        part = self.index[:, start:stop]
        return range(int(part.min()), int(part.max()) + 1)


def area_taps(length: int, factor: float) -> Taps:
    """Average source cells over the interval that each output covers; a cut last one averages what is there.

    Args:
        length: Source cells.
        factor: Source cells per output, at least 1.
    """
    count = max(1, math.ceil(length / factor - SAME))
    low = np.arange(count) * factor
    high = np.minimum(low + factor, length)
    first = np.minimum(np.floor(low + 1e-9).astype(np.int64), length - 1)
    index = first + np.arange(math.ceil(factor) + 1)[:, None]
    weight = np.clip(np.minimum(index + 1, high) - np.maximum(index, low), 0, None)
    weight[weight < 1e-9] = 0
    return Taps(np.minimum(index, length - 1), (weight / weight.sum(axis=0)).astype(np.float32))


def linear_taps(length: int, factor: float) -> Taps:
    """Interpolate between the two source cells around each output's centre; beyond the outer centres the edge holds.

    Args:
        length: Source cells.
        factor: Source cells per output; below 1 there are more outputs than cells.
    """
    count = max(1, math.ceil(length / factor - SAME))
    centre = np.clip((np.arange(count) + 0.5) * factor - 0.5, 0, length - 1)
    first = np.minimum(np.floor(centre).astype(np.int64), max(length - 2, 0))
    share = (centre - first).astype(np.float32)
    return Taps(np.stack([first, np.minimum(first + 1, length - 1)]), np.stack([1 - share, share]))


def pooled_taps(length: int, planes: int, each: int) -> Taps:
    """Average groups of `each` planes over the `planes` central ones, from ceil((length - planes) / 2) on.

    Raises:
        DataError: Fewer planes than that.
    """
    if length < planes:
        raise DataError(f"pooling: expected at least {planes} layers, got {length}; name another range of layers")
    start = -(-(length - planes) // 2)
    index = start + np.arange(planes).reshape(-1, each).T
    return Taps(index.astype(np.int64), np.full(index.shape, 1 / each, np.float32))


@dataclass(frozen=True)
class Resampling:
    """Taps along z, y and x, and a name that says what was done.

    Attributes:
        depth: Along the chosen layers.
        rows: Along y.
        columns: Along x.
        rule: For the provenance.
    """

    depth: Taps
    rows: Taps
    columns: Taps
    rule: str


def resampling_to(
    shape_zyx: tuple[int, int, int],
    spacing_zyx: tuple[float, float, float],
    target_zyx: tuple[float, float, float],
    depth_rule: DepthRule = "mean",
    allow_finer: bool = False,
) -> Resampling:
    """Plan the way from one spacing to another.

    Args:
        shape_zyx: Layers, height and width of what is read.
        spacing_zyx: Its spacing in micrometres.
        target_zyx: The spacing to reach in micrometres.
        depth_rule: ``mean`` averages the layers that an output layer covers, ``linear`` interpolates at its centre.
        allow_finer: Interpolate where the target is finer than the source.

    Raises:
        ConfigError: A target finer than the source that was not asked for.
    """
    taps = []
    for axis, length, spacing, target in zip("zyx", shape_zyx, spacing_zyx, target_zyx, strict=True):
        factor = 1.0 if math.isclose(target, spacing, rel_tol=SAME) else target / spacing
        if factor < 1 and not allow_finer:
            raise ConfigError(
                f"resample: expected at least the source's {spacing:g} µm along {axis}, got {target:g} µm; "
                "choose a coarser one, read a finer level, or allow interpolation with resample_finer=true"
            )
        linear = factor < 1 or (axis == "z" and depth_rule == "linear")
        taps.append(linear_taps(length, factor) if linear else area_taps(length, factor))
    between = "x".join(f"{value:g}" for value in target_zyx)
    return Resampling(taps[0], taps[1], taps[2], f"{between} um, area in the plane, {depth_rule} between layers")


def pooling_named(name: str, shape_zyx: tuple[int, int, int]) -> Resampling:
    """Plan one of the field's pooling rules: planes are averaged in depth, the plane is left as it is.

    Raises:
        ConfigError: An unknown name.
        DataError: Too few layers.
    """
    if name not in POOLING_RULES:
        raise ConfigError(f"resample: expected a spacing in µm or one of {', '.join(POOLING_RULES)}, got {name!r}")
    planes, each = POOLING_RULES[name]
    depth, height, width = shape_zyx
    return Resampling(pooled_taps(depth, planes, each), area_taps(height, 1.0), area_taps(width, 1.0), name)


class ResampledSource(CheckedLayerSource):
    """A range of another source's layers at another spacing; its layers count from 0.

    Attributes:
        source: What is read; closed with this one.
        resampling: See `Resampling`.
    """

    def __init__(self, source: LayerSource, layers: range, resampling: Resampling) -> None:
        self.source, self.layers, self.resampling = source, layers, resampling
        self.uri, self.axes, self.fingerprint = source.uri, source.axes, source.fingerprint
        self.notes = source.notes
        self.dtype, self.whole_layers = source.dtype, source.whole_layers
        self.resident_bytes = source.resident_bytes + 3 * STRIP_BYTES  # what is read, and two terms in float32
        rows, columns = resampling.rows, resampling.columns
        self.shape_zyx = (resampling.depth.count, rows.count, columns.count)
        _, height, width = source.shape_zyx
        self.block_yx = (
            max(1, round(source.block_yx[0] * rows.count / height)),
            max(1, round(source.block_yx[1] * columns.count / width)),
        )
        self.block_layers = self.shape_zyx[0]  # a block of the source is read once for all layers

    def _fill(self, indices: range, box: Box, out: NDArray[np.generic]) -> None:
        depth, rows, columns = self.resampling.depth, self.resampling.rows, self.resampling.columns
        needed = depth.source(indices.start, indices.stop)
        layers = range(self.layers.start + needed.start, self.layers.start + needed.stop)
        for piece in self._pieces(box, max(len(needed), len(indices))):
            strip, span = range(piece.y0, piece.y1), range(piece.x0, piece.x1)
            down, across = rows.source(strip.start, strip.stop), columns.source(span.start, span.stop)
            block = self.source.read(layers, Box(down.start, across.start, down.stop, across.stop))
            values = _along(block, 0, depth, indices, needed.start)
            values = _along(values, 1, rows, strip, down.start)
            values = _along(values, 2, columns, span, across.start)
            out[(slice(None), *piece.within(box))] = _stored(values, self.dtype)

    def _pieces(self, box: Box, layers: int) -> Iterator[Box]:
        """Cut a box so that the source values of a piece stay below `STRIP_BYTES`, a few of its blocks high.

        A source that is stored in strips over its whole width is cut along y alone.
        """
        rows, columns = self.resampling.rows, self.resampling.columns
        down = len(rows.source(box.y0, box.y1)) / box.height
        over = len(columns.source(box.x0, box.x1)) / box.width
        pixels = STRIP_BYTES / (4 * layers * down * over)  # of the output
        tall, wide = int(pixels / box.width), box.width
        lowest = min(box.height, math.ceil(BLOCKS * self.source.block_yx[0] / down))
        if tall < lowest and self.source.block_yx[1] < self.source.shape_zyx[2]:
            tall, wide = lowest, int(pixels / lowest)
        yield from cells(box, max(1, tall), max(1, wide))

    def close(self) -> None:
        """Close the source."""
        self.source.close()


def _along(values: NDArray[Any], axis: int, taps: Taps, outputs: range, offset: int) -> NDArray[Any]:
    """Add weighted source planes along one axis in float32; the array itself where every output has one tap of 1."""
    index = taps.index[:, outputs.start : outputs.stop] - offset
    weight = taps.weight[:, outputs.start : outputs.stop]
    if bool((weight[0] == 1).all()):
        same: NDArray[Any] = np.take(values, index[0], axis=axis)
        return same
    shape = [1, 1, 1]
    shape[axis] = -1
    total: NDArray[np.float32] | None = None
    for places, share in zip(index, weight, strict=True):
        if not share.any():
            continue
        term = np.take(values, places, axis=axis).astype(np.float32)
        term *= share.reshape(shape)
        if total is None:
            total = term
        else:
            total += term
    assert total is not None  # weights of an output sum up to one
    return total


def _stored(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Round to the stored dtype, half to even; floats stay."""
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    rounded: NDArray[Any] = np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
    return rounded

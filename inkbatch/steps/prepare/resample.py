"""`prepare --resample`: the nearest finer level of a source, at the wished spacing or pooled by a named rule."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.segments.catalog import SegmentEntry
from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.layers.base import CheckedLayerSource, LayerSource
from inkbatch.io.layers.resampled import (
    POOLING_RULES,
    SAME,
    ResampledSource,
    Resampling,
    area_taps,
    pooling_named,
    resampling_to,
)
from inkbatch.io.layers.zarr_nodes import choose_array, find_node, level_count
from inkbatch.io.lossy import marked
from inkbatch.io.ome import Spacing, is_plausible
from inkbatch.io.store.location import Location
from inkbatch.io.surface import ResampledFrom
from inkbatch.steps.prepare.opened import OpenedLayers
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.steps.prepare.source import open_source
from inkbatch.steps.prepare.spacing import SurfaceSpacing, source_spacing

POOLED_LEVEL = 2  # of the field's rules: pixels 4 times as far apart as layers
POOLED_RATIO = 2**POOLED_LEVEL
RATIO_TOLERANCE = 0.05


def wished(config: PrepareConfig, entry: SegmentEntry) -> str | None:
    """Read what ``resample`` asks for; None where layers are taken as they are."""
    return config.resample or entry.resample


def target_of(text: str) -> tuple[float, float, float] | None:
    """Parse a spacing: one number for all axes, or z, y and x; None for the name of a rule.

    Raises:
        ConfigError: Neither; a spacing that is implausible.
    """
    if text in POOLING_RULES:
        return None
    try:
        numbers = [float(part) for part in text.strip("[]() ").split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3):
        raise ConfigError(
            f"resample: expected a spacing in µm (9.6), three of them (z,y,x), or one of {', '.join(POOLING_RULES)}, "
            f"got {text!r}"
        )
    for number in numbers:
        if not is_plausible(number):
            raise ConfigError(f"resample: expected 0.1 to 200 µm, got {number:g}")
    z, y, x = numbers * 3 if len(numbers) == 1 else numbers
    if not math.isclose(y, x, rel_tol=SAME):
        raise ConfigError(f"resample: expected the same spacing along y and x, got {y:g} and {x:g}")
    return z, y, x


def open_resampled(config: PrepareConfig, entry: SegmentEntry, memory: int) -> tuple[OpenedLayers, SurfaceSpacing]:
    """Open the level of a source to read, and decide its spacing: the nearest that is not coarser than the target.

    A level that is stated is taken. Where none is, statements of sizes hold for level 0.

    Raises:
        ConfigError: A rendering, which has any spacing by itself; a box without a level.
        DataError: See `open_source` and `source_spacing`.
    """
    text = wished(config, entry)
    assert text is not None
    if config.volume or entry.volume:
        raise ConfigError(
            f"segment {config.segment}: rendered layers take any spacing as they are; drop resample, and give "
            "--voxel-size-um for pixels and --step-um for layers"
        )
    target = target_of(text)
    opened = open_source(config, entry, memory)
    spacing = source_spacing(config, entry, opened.source)
    if config.level is not None or entry.level is not None:
        return opened, spacing
    level, factors = _nearest_finer(config, entry, spacing, target)
    if not level:
        return opened, spacing
    if config.box is not None:
        raise ConfigError(f"segment {config.segment}: a box counts pixels of one level; say which: --set level={level}")
    opened.source.close()
    z, plane = factors
    read = open_source(config.model_copy(update={"level": level}), entry, memory)
    return read, dataclasses.replace(spacing, z=spacing.z * z, y=spacing.y * plane, x=spacing.x * plane)


def _nearest_finer(
    config: PrepareConfig, entry: SegmentEntry, spacing: SurfaceSpacing, target: tuple[float, float, float] | None
) -> tuple[int, tuple[float, float]]:
    """Choose the coarsest level that is not coarser than the target along any axis, or the pooling rule's own.

    Returns:
        Its number, and its spacing over that of level 0: between layers, and in the plane.
    """
    assert entry.source is not None
    node = find_node(Location.parse(entry.source))
    if node is None or node.is_array:
        return 0, (1.0, 1.0)
    found, first = (0, (1.0, 1.0)), choose_array(node, config.axes or entry.axes, 0).spacing
    for level in range(1, level_count(node)):
        own = choose_array(node, config.axes or entry.axes, level).spacing
        depth, plane = own.depth_factor / first.depth_factor, own.plane_factor / first.plane_factor
        here = (spacing.z * depth, spacing.y * plane, spacing.x * plane)
        if target is None:
            fits = math.isclose(here[1], POOLED_RATIO * here[0], rel_tol=RATIO_TOLERANCE)
        else:
            fits = all(size <= wish * (1 + SAME) for size, wish in zip(here, target, strict=True))
        if fits:
            found = level, (depth, plane)
    return found


def resampled(
    config: PrepareConfig, entry: SegmentEntry, opened: OpenedLayers, layers: range, spacing: SurfaceSpacing
) -> tuple[OpenedLayers, SurfaceSpacing, ResampledFrom]:
    """Bring a range of a source's layers to the wished spacing.

    Returns:
        The layers, the spacing that it has, and what the provenance says.

    Raises:
        ConfigError: A target that is finer than the source and was not asked for.
        DataError: Too few layers, or another level than the pooling rule's.
    """
    text, source = wished(config, entry), opened.read
    assert text is not None
    shape = (len(layers), *source.shape_zyx[1:])
    target = target_of(text)
    if target is None:
        way = _pooling(config.segment, text, shape, spacing)
        _, each = POOLING_RULES[text]
        reached = (spacing.z * each, spacing.y, spacing.x)
    else:
        finer = bool(config.resample_finer or entry.resample_finer)
        way = resampling_to(shape, spacing.zyx, target, config.resample_depth or entry.resample_depth or "mean", finer)
        reached = _reached(spacing.zyx, target)
    found = ResampledSource(source, layers, way)
    found.spacing = Spacing(*reached)
    said = ResampledFrom(rule=way.rule, layers=(layers.start, layers.stop), uri=source.uri, spacing_zyx_um=spacing.zyx)
    spacing = dataclasses.replace(spacing, z=reached[0], y=reached[1], x=reached[2])
    return dataclasses.replace(opened, resampled=found), spacing, said


def _reached(spacing: tuple[float, float, float], target: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return the spacing of the result: an axis that is as wished already keeps its own."""
    kept = [a if math.isclose(a, b, rel_tol=SAME) else b for a, b in zip(spacing, target, strict=True)]
    return kept[0], kept[1], kept[2]


def _pooling(segment: str, name: str, shape: tuple[int, int, int], spacing: SurfaceSpacing) -> Resampling:
    if not math.isclose(spacing.y, POOLED_RATIO * spacing.z, rel_tol=RATIO_TOLERANCE):
        raise MismatchError(
            f"segment {segment}: {name} expects pixels {POOLED_RATIO} times as far apart as layers (level "
            f"{POOLED_LEVEL} of a rendering), got {spacing.y:g} µm in the plane and {spacing.z:g} between layers; "
            f"choose that level (--set level={POOLED_LEVEL}), or state --z-spacing-um"
        )
    return pooling_named(name, shape)


class ResampledMask(CheckedLayerSource):
    """A mask at another size: papyrus where at least half of a pixel is."""

    def __init__(self, mask: LayerSource, resampling: Resampling) -> None:
        flat = dataclasses.replace(resampling, depth=area_taps(1, 1.0))
        self._whole = ResampledSource(_Ones(mask), range(mask.first_layer, mask.first_layer + 1), flat)
        self.uri, self.fingerprint, self.dtype = mask.uri, mask.fingerprint, np.dtype(np.uint8)
        self.shape_zyx, self.block_yx = self._whole.shape_zyx, self._whole.block_yx
        self.resident_bytes = mask.resident_bytes

    def _fill(self, indices: range, box: Box, out: NDArray[Any]) -> None:
        share: NDArray[Any] = self._whole.read(indices, box)
        out[...] = np.where(share >= 128, 255, 0)

    def close(self) -> None:
        """Close the mask."""
        self._whole.close()


class _Ones(CheckedLayerSource):
    """Another mask with 255 where it is marked."""

    def __init__(self, mask: LayerSource) -> None:
        self.inner, self.uri, self.shape_zyx, self.block_yx = mask, mask.uri, mask.shape_zyx, mask.block_yx
        self.first_layer, self.dtype = mask.first_layer, np.dtype(np.uint8)

    def _fill(self, indices: range, box: Box, out: NDArray[Any]) -> None:
        layers = range(self.first_layer + indices.start, self.first_layer + indices.stop)
        out[...] = np.where(marked(self.inner.read(layers, box), lossy=self.inner.lossy), 255, 0)

    def close(self) -> None:
        self.inner.close()


def require_mask_size(segment: str, mask: LayerSource, source: ResampledSource) -> LayerSource:
    """Open a mask of the surface's size: as it is, or resampled where it has the size of what is read.

    Raises:
        DataError: It has neither.
    """
    if mask.shape_zyx[1:] == source.shape_zyx[1:]:
        return mask
    if mask.shape_zyx[1:] == source.source.shape_zyx[1:]:
        return ResampledMask(mask, source.resampling)
    raise DataError(
        f"segment {segment}: mask {mask.uri}: expected the size of the layers that are read "
        f"{source.source.shape_zyx[1:]}, or of the surface {source.shape_zyx[1:]}, got {mask.shape_zyx[1:]} (height, "
        "width); give the mask of this level"
    )

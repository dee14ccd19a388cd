"""Facts that `prepare` never guesses: layers, depth order, voxel size, mask; from user, catalog or source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.segments.catalog import SegmentEntry
from inkbatch.data.segments.reversed_segments import known_reversed
from inkbatch.errors import ConfigError, DataError, InkbatchError, LayerRangeError
from inkbatch.geometry import Box
from inkbatch.io.layers.base import LayerSource
from inkbatch.io.layers.single import open_flat
from inkbatch.io.layers.zarr_holes import Holes, counted_holes
from inkbatch.io.surface import DepthOrder
from inkbatch.steps.prepare.opened import OpenedLayers
from inkbatch.steps.prepare.resample import require_mask_size

if TYPE_CHECKING:
    from inkbatch.steps.prepare.settings import PrepareConfig

SAMPLE_SQUARES = 16
SAMPLE_PX = 256


def layer_range(config: PrepareConfig, entry: SegmentEntry, source: LayerSource) -> range:
    """Choose the half-open range of layer numbers: the user's, the catalog's, or all.

    Raises:
        LayerRangeError: It leaves the source.
    """
    first, last = source.first_layer, source.first_layer + source.shape_zyx[0]
    asked = config.layers or entry.layers or (first, last)
    if not first <= asked[0] < asked[1] <= last:
        raise LayerRangeError(
            f"segment {config.segment}: expected layers inside {first}:{last} (all of {source.uri}), got "
            f"{asked[0]}:{asked[1]}; "
            "choose a range inside that"
        )
    return range(*asked)


def required_order(config: PrepareConfig, entry: SegmentEntry) -> DepthOrder:
    """Return the depth order that the user or the catalog states.

    Raises:
        ConfigError: Neither does.
    """
    order = config.depth_order or entry.depth_order
    if order is None:
        known = known_reversed(config.segment, entry.sample)
        hint = f" (published tools read it reversed: {'; '.join(known.said_by)})" if known else ""
        raise ConfigError(
            f"segment {config.segment}: depth order is unknown and is never guessed{hint}; "
            "give --depth-order forward (or reversed), or write it into the catalog"
        )
    return order


def open_mask(config: PrepareConfig, uri: str, opened: OpenedLayers, memory: int) -> LayerSource:
    """Open the given mask; it may keep half of the memory that the layers leave.

    Raises:
        DataError: It cannot be read, is no single 2-D picture, or differs in size from the layers.
    """
    try:
        mask = open_flat(uri, memory_bytes=max(1, memory - opened.source.resident_bytes) // 2, scratch=config.scratch)
    except InkbatchError as error:
        raise type(error)(f"segment {config.segment}: the mask cannot be opened: {error}") from error
    if mask.shape_zyx[0] != 1:
        raise DataError(
            f"segment {config.segment}: mask {mask.uri}: expected one 2-D picture, got {mask.shape_zyx[0]} layers or "
            "pages; save the one you mean by itself"
        )
    if opened.resampled is not None:
        return require_mask_size(config.segment, mask, opened.resampled)
    if mask.shape_zyx[1:] != opened.whole.shape_zyx[1:]:
        raise DataError(
            f"segment {config.segment}: mask {mask.uri}: expected the layers' size {opened.whole.shape_zyx[1:]}, got "
            f"{mask.shape_zyx[1:]} (height, width); give the mask of this segment"
        )
    return OpenedLayers.of(mask, opened.box).read


def missing_chunks(config: PrepareConfig, sources: Sequence[LayerSource | None]) -> tuple[Holes, ...]:
    """Count the chunks of zarr sources that are not stored.

    Raises:
        DataError: Their share is larger than `max_missing`, or all are missing.
    """
    places = [source.uri for source in sources if source is not None]
    return counted_holes(f"segment {config.segment}", places, config.max_missing)


def sampled(source: LayerSource, layers: range) -> NDArray[Any]:
    """Sample grey values on a fixed grid of squares, in the middle layer and two others; the same on every machine."""
    _, height, width = source.shape_zyx
    side = int(SAMPLE_SQUARES**0.5)
    picks = sorted({layers[len(layers) // 4], layers[len(layers) // 2], layers[3 * len(layers) // 4]})
    found = []
    for i in range(side):
        for j in range(side):
            y = max(0, (2 * i + 1) * height // (2 * side) - SAMPLE_PX // 2)
            x = max(0, (2 * j + 1) * width // (2 * side) - SAMPLE_PX // 2)
            box = Box(y, x, min(height, y + SAMPLE_PX), min(width, x + SAMPLE_PX))
            found += [source.read(range(layer, layer + 1), box).ravel() for layer in picks]
    return np.concatenate(found)

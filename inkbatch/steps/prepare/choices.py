"""What `prepare` must know and never guesses: layers, depth order, voxel size, mask; from user, catalog or source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.segments.catalog import SegmentEntry
from inkbatch.data.segments.reversed_segments import reversed_segments
from inkbatch.errors import ConfigError, DataError, InkbatchError, LayerRangeError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.layers import open_layer_source
from inkbatch.io.layers.base import LayerSource
from inkbatch.io.surface import DepthOrder

if TYPE_CHECKING:
    from inkbatch.steps.prepare.settings import PrepareConfig

SAMPLE_WINDOWS = 16
SAMPLE_PX = 256
STATED_VOXEL_TOLERANCE = 0.01  # between the stated voxel size and the source's own


def layer_range(config: PrepareConfig, entry: SegmentEntry, source: LayerSource) -> range:
    """The half-open range of layer numbers: the user's, the catalog's, or all.

    Raises:
        LayerRangeError: It leaves the source.
    """
    first, last = source.first_layer, source.first_layer + source.shape_zyx[0]
    wanted = config.layers or entry.layers or (first, last)
    if not first <= wanted[0] < wanted[1] <= last:
        raise LayerRangeError(
            f"segment {config.segment}: layers {wanted[0]}:{wanted[1]} are wanted, {source.uri} holds {first}:{last}; "
            "choose a range inside that"
        )
    return range(*wanted)


def required_order(config: PrepareConfig, entry: SegmentEntry) -> DepthOrder:
    """The depth order that the user or the catalog states.

    Raises:
        ConfigError: Nobody does.
    """
    order = config.depth_order or entry.depth_order
    if order is None:
        known = reversed_segments().get(config.segment)
        hint = f" (published tools read it reversed: {'; '.join(known.said_by)})" if known else ""
        raise ConfigError(
            f"segment {config.segment}: nobody states its depth order, and it is never guessed{hint}; "
            "give --depth-order forward (or reversed), or write it into the catalog"
        )
    return order


def required_voxel_size(config: PrepareConfig, entry: SegmentEntry, source: LayerSource) -> float:
    """The voxel edge in micrometres, of the user, the catalog or the source.

    Raises:
        ConfigError: Nobody states it.
        MismatchError: It is stated otherwise than the source says.
    """
    stated = config.voxel_size_um or entry.voxel_size_um
    own = source.voxel_size_um
    if stated and own and abs(stated - own) > STATED_VOXEL_TOLERANCE * own:
        raise MismatchError(
            f"segment {config.segment}: voxel_size_um {stated:g} is stated, {source.uri} says {own:g} at level "
            f"{config.level or entry.level or 0}; choose the level that has the size you mean, or leave the size out"
        )
    size = stated or own
    if size is None:
        raise ConfigError(
            f"segment {config.segment}: nobody states its voxel size; "
            "give --voxel-size-um 7.91, or write it into the catalog"
        )
    return size


def open_mask(config: PrepareConfig, uri: str, source: LayerSource, memory: int) -> LayerSource:
    """Open the given mask; what is decoded of it and kept comes out of the memory that the layers leave.

    Raises:
        DataError: It cannot be read, is no single 2-D picture, or has not the size of the layers.
    """
    try:
        mask = open_layer_source(uri, memory_bytes=max(1, memory - source.resident_bytes) // 2, scratch=config.scratch)
    except InkbatchError as error:
        raise type(error)(f"segment {config.segment}: the mask cannot be opened: {error}") from error
    if mask.shape_zyx[0] != 1:
        raise DataError(
            f"segment {config.segment}: mask {mask.uri}: one 2-D picture is wanted, this one has {mask.shape_zyx[0]} "
            "layers or channels; save it as plain grey, or name the picture that is meant"
        )
    if mask.shape_zyx[1:] != source.shape_zyx[1:]:
        raise DataError(
            f"segment {config.segment}: mask {mask.uri} is {mask.shape_zyx[1:]}, the layers are {source.shape_zyx[1:]} "
            "(height, width); give the mask of this very surface"
        )
    return mask


def sampled(source: LayerSource, layers: range) -> NDArray[Any]:
    """Grey values on a fixed grid of windows, in the middle layer and two others; the same on every machine."""
    _, height, width = source.shape_zyx
    side = int(SAMPLE_WINDOWS**0.5)
    picks = sorted({layers[len(layers) // 4], layers[len(layers) // 2], layers[3 * len(layers) // 4]})
    found = []
    for i in range(side):
        for j in range(side):
            y = max(0, (2 * i + 1) * height // (2 * side) - SAMPLE_PX // 2)
            x = max(0, (2 * j + 1) * width // (2 * side) - SAMPLE_PX // 2)
            box = Box(y, x, min(height, y + SAMPLE_PX), min(width, x + SAMPLE_PX))
            found += [source.read(range(layer, layer + 1), box).ravel() for layer in picks]
    return np.concatenate(found)

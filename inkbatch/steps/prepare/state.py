"""State of what `prepare` reads: the layers (or mesh and volume) and the mask."""

from __future__ import annotations

import math

from inkbatch.io.layers import FILE_SUFFIXES
from inkbatch.io.layers.base import LayerSource
from inkbatch.io.store.location import Location
from inkbatch.io.store.versions import METADATA_NAMES, MOST_LISTED, State, quick_look, state_of
from inkbatch.steps.prepare.opened import OpenedLayers


def input_states(opened: OpenedLayers, mask_source: LayerSource | None) -> dict[str, State]:
    """Take the states of the opened inputs, by the name that messages use.

    Of the volume that layers are rendered from only the metadata count: it has millions of chunks.
    """
    states = {"layers" if opened.rendered is None else "mesh": layers_state(opened.source)}
    if opened.rendered is not None:
        states["volume"] = state_of(Location.parse(opened.rendered.volume.uri), chunks=MOST_LISTED + 1)
    if mask_source is not None:
        states["mask"] = layers_state(mask_source)
    return states


def look_at(source: LayerSource, mask_source: LayerSource | None) -> list[dict[str, str]]:
    """Take a quick look at the opened inputs, see `quick_look`."""
    return [_look(one) for one in (source, mask_source) if one is not None]


def _look(source: LayerSource) -> dict[str, str]:
    place = Location.parse(source.uri)
    if any((place / name).exists() for name in METADATA_NAMES):
        return quick_look(place, chunks=_chunks(source))
    return quick_look(place, only=_is_layer_file)


def layers_state(source: LayerSource) -> State:
    """Take the state of one opened source: its file, the layer files of its folder, or its zarr array."""
    place = Location.parse(source.uri)
    if any((place / name).exists() for name in METADATA_NAMES):
        return state_of(place, chunks=_chunks(source))
    return state_of(place, only=_is_layer_file)


def _is_layer_file(path: str) -> bool:
    return "/" not in path and (path.lower().endswith((*FILE_SUFFIXES, ".json")))


def _chunks(source: LayerSource) -> int:
    edges = (source.block_layers, *source.block_yx)
    return math.prod(-(-size // edge) for size, edge in zip(source.shape_zyx, edges, strict=True))

"""State of layers: the versions of the files, or of the chunks, that a source is read from."""

from __future__ import annotations

import math

from inkbatch.io.layers import FILE_SUFFIXES
from inkbatch.io.layers.base import LayerSource
from inkbatch.io.store.location import Location
from inkbatch.io.store.versions import METADATA_NAMES, State, quick_look, state_of


def layers_state(source: LayerSource) -> State:
    """Take the state of one opened source: its file, the layer files of its folder, or its zarr array."""
    place = Location.parse(source.uri)
    if any((place / name).exists() for name in METADATA_NAMES):
        return state_of(place, chunks=_chunks(source))
    return state_of(place, only=_is_layer_file)


def layers_look(source: LayerSource) -> dict[str, str]:
    """Take a quick look at one opened source, see `quick_look`."""
    place = Location.parse(source.uri)
    if any((place / name).exists() for name in METADATA_NAMES):
        return quick_look(place, chunks=_chunks(source))
    return quick_look(place, only=_is_layer_file)


def _is_layer_file(path: str) -> bool:
    return "/" not in path and (path.lower().endswith((*FILE_SUFFIXES, ".json")))


def _chunks(source: LayerSource) -> int:
    edges = (source.block_layers, *source.block_yx)
    return math.prod(-(-size // edge) for size, edge in zip(source.shape_zyx, edges, strict=True))

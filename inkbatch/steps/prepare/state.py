"""State of what `prepare` reads: the layers (or mesh and volume) and the mask."""

from __future__ import annotations

from inkbatch.io.layers.base import LayerSource
from inkbatch.io.layers.state import layers_look, layers_state
from inkbatch.io.store.location import Location
from inkbatch.io.store.versions import MOST_LISTED, State, state_of
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
    return [layers_look(one) for one in (source, mask_source) if one is not None]

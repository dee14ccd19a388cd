"""Maps of one layer: pictures of any common kind, ``.npy`` files and zarr arrays, read as grey values by box.

A picture saved as black and white, with a palette, or in three equal channels gives the values of the grey one.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.config import digest
from inkbatch.errors import DataError
from inkbatch.geometry import Box
from inkbatch.io.layers import DEFAULT_MEMORY_BYTES, may_be_file, open_layer_source
from inkbatch.io.layers.base import LayerSource
from inkbatch.io.layers.grey import EqualChannels, open_grey_picture
from inkbatch.io.layers.numbered import MAGIC_BYTES, Keeping
from inkbatch.io.lossy import marked
from inkbatch.io.store.faults import MissingObjectError
from inkbatch.io.store.listing import objects_below
from inkbatch.io.store.location import Location

DIGESTED_BYTES = 64 << 20  # larger files are known by name and size


def open_one_layer(uri: str, *, memory_bytes: int = DEFAULT_MEMORY_BYTES, scratch: str | None = None) -> LayerSource:
    """Open a map of one layer.

    Raises:
        DataError: It has several layers or pages, colours, transparent pixels, or cannot be read.
    """
    source = open_flat(uri, memory_bytes=memory_bytes, scratch=scratch)
    if source.shape_zyx[0] != 1:
        count = source.shape_zyx[0]
        source.close()
        raise DataError(
            f"{uri}: expected one 2-D picture, got {count} layers or pages; save the one you mean by itself"
        )
    source.fingerprint = content_digest(Location.parse(uri)) or source.fingerprint
    return source


def open_flat(
    uri: str, *, level: int | None = None, memory_bytes: int = DEFAULT_MEMORY_BYTES, scratch: str | None = None
) -> LayerSource:
    """Open a map of one layer, or a volume of which one layer is meant; only headers are read.

    Args:
        uri: A picture, a ``.npy`` file (2-D, or layers first), a zarr array (the same) or an OME-Zarr group.
        level: Level of an OME-Zarr group; None: full resolution.
        memory_bytes: Budget for pictures that are decoded whole.
        scratch: Folder for those that do not fit it.

    Raises:
        DataError: Colours, transparent pixels, or it cannot be read.
    """
    place = Location.parse(uri)
    keeping = Keeping(memory_bytes, scratch)
    source = _open_file(place, keeping) if level is None else None
    if source is None:
        source = _open_array(place, level, keeping)
    return source


def _open_file(place: Location, keeping: Keeping) -> LayerSource | None:
    """Open a file; None for a folder, and where there is none."""
    from inkbatch.io.layers.npy import NPY_MAGIC, open_npy

    if not may_be_file(place):
        return None
    try:
        start = place.read_range(0, min(place.size(), MAGIC_BYTES))
    except (MissingObjectError, IsADirectoryError):
        return None
    return open_npy(place, None, flat=True) if start.startswith(NPY_MAGIC) else open_grey_picture(place, keeping)


def _open_array(place: Location, level: int | None, keeping: Keeping) -> LayerSource:
    """Open a zarr array or group, or whatever else there is, such as a folder of numbered layers."""
    from inkbatch.io.layers.zarr_nodes import choose_array, find_node, usual_axes

    node = find_node(place)
    if node is None:
        return EqualChannels.of(open_layer_source(place.uri, level=level, memory_bytes=keeping.memory_bytes))
    from inkbatch.io.layers.zarr_layers import open_zarr

    return open_zarr(choose_array(node, usual_axes(node), level), keeping, flags=True)


def content_digest(place: Location) -> str:
    """Compute the SHA-256 of a file, or of all files of a folder; empty for what is too large to read for it."""
    is_web = place.protocol in ("http", "https")  # of which nothing is listed
    if may_be_file(place) or not (is_web or place.is_folder()):
        return sha256(place.read_bytes()).hexdigest() if place.size() <= DIGESTED_BYTES else ""
    rows = [] if is_web else objects_below(place)
    if not rows or sum(row.bytes for row in rows) > DIGESTED_BYTES:
        return ""
    return digest({row.path: sha256((place / row.path).read_bytes()).hexdigest() for row in rows})


def read_one_layer(source: LayerSource, box: Box) -> NDArray[Any]:
    """Read a box of a map of one layer, stored dtype."""
    first = source.first_layer
    values: NDArray[Any] = source.read(range(first, first + 1), box)[0]
    return values


def read_mask(source: LayerSource, box: Box) -> NDArray[np.bool_]:
    """Read a box of a mask of one layer, see `marked`."""
    return marked(read_one_layer(source, box), lossy=source.lossy)

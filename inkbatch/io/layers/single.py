"""Sources of one layer: a 2-D picture, a ``.npy`` file or a zarr array."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from numpy.typing import NDArray

from inkbatch.errors import DataError
from inkbatch.geometry import Box
from inkbatch.io.layers import open_layer_source
from inkbatch.io.layers.base import LayerSource
from inkbatch.io.store.location import Location

DIGESTED_BYTES = 64 << 20  # larger pictures are known by name and size


def open_one_layer(uri: str) -> LayerSource:
    """Open a 2-D picture.

    Raises:
        DataError: It has several layers, or cannot be read.
    """
    source = open_layer_source(uri)
    if source.shape_zyx[0] != 1:
        count = source.shape_zyx[0]
        source.close()
        raise DataError(f"labels {uri}: expected one 2-D picture, found {count} layers; name one of them")
    source.fingerprint = _content(Location.parse(uri)) or source.fingerprint
    return source


def _content(place: Location) -> str:
    """Compute the digest of one file's bytes; empty for a folder or a file that is too large to read for it."""
    if place.is_folder() or place.size() > DIGESTED_BYTES:
        return ""
    return sha256(place.read_bytes()).hexdigest()


def read_one_layer(source: LayerSource, box: Box) -> NDArray[Any]:
    """Read a window of a 2-D picture, stored dtype."""
    first = source.first_layer
    values: NDArray[Any] = source.read(range(first, first + 1), box)[0]
    return values

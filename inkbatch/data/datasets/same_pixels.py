"""Segments that show the same pixels under different names: one source, or copies of it at another address.

A leak does not need two boxes of one id. One scan may be prepared twice, from a copied folder or through a link, and a
picture may lie in ``train`` and in ``val``. So segments count as one surface where they name one source, or where a few
windows, compared layer by layer, hold equal values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.index import DatasetSegment
from inkbatch.geometry import Box
from inkbatch.io.surface import SurfaceVolume

WINDOW_PX = 32
WINDOWS = 3  # along each axis
DISTINCT_VALUES = 8  # flatter windows (no papyrus, clipped values) are alike without being copies


def surfaces_of(
    segments: Sequence[DatasetSegment], surfaces: Mapping[str, SurfaceVolume], pictures: Mapping[str, str]
) -> dict[str, str]:
    """Name each segment's surface; segments that share pixels get one name.

    Copies are found where they are as large as the original and hold at least one layer of it, in any order and under
    any layer number. Copies that were cropped, scaled or stored with losses are not.

    Args:
        segments: Of one dataset, hence prepared alike.
        surfaces: By segment id, those that are prepared.
        pictures: By segment id: digest of the decoded pixels of those that are pictures.

    Returns:
        By segment id: the id of the first segment that shows the same surface.
    """
    first_with: dict[str, str] = {}
    names: dict[str, str] = {}
    for segment in segments:
        keys = list(_keys(segment, surfaces.get(segment.id), pictures))
        known = sorted({names[first_with[key]] for key in keys if key in first_with})
        own = known[0] if known else segment.id
        for other in known[1:]:
            names = {name: own if to == other else to for name, to in names.items()}
        names[segment.id] = own
        for key in keys:
            first_with.setdefault(key, segment.id)
    return names


def pixel_digest(array: NDArray[Any]) -> str:
    """Return the digest of an array's shape and values."""
    found = hashlib.sha256(f"{array.shape} {array.dtype}".encode())
    found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _keys(segment: DatasetSegment, surface: SurfaceVolume | None, pictures: Mapping[str, str]) -> Iterator[str]:
    """Yield keys of a segment; segments with a key in common share pixels."""
    if surface is None:
        yield f"address {segment.surface}"
        if segment.id in pictures:
            yield f"pixels {pictures[segment.id]}"
        return
    yield f"address {surface.provenance.source}"
    yield from window_keys(surface)


def window_keys(surface: SurfaceVolume) -> Iterator[str]:
    """Yield size, place and digest of some windows of a surface, layer by layer; flat ones are left out."""
    height, width = surface.shape_yx
    for y0 in _starts(height):
        for x0 in _starts(width):
            box = Box(y0, x0, min(y0 + WINDOW_PX, height), min(x0 + WINDOW_PX, width))
            for layer in surface.read(range(surface.layer_count), box):
                if len(np.unique(layer)) >= DISTINCT_VALUES:
                    yield f"window {height} {width} {y0} {x0} {pixel_digest(layer)}"


def _starts(size: int) -> list[int]:
    """List the first rows (or columns) of the windows: in the middle of equal parts."""
    return [max(0, (2 * part + 1) * size // (2 * WINDOWS) - WINDOW_PX // 2) for part in range(WINDOWS)]

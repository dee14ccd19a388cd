"""One plane of a volume as a map of one layer: label volumes have as many planes as their surface, and ink on one."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from inkbatch.errors import DataError
from inkbatch.geometry import Box
from inkbatch.io.layers.base import CheckedLayerSource, LayerSource
from inkbatch.io.layers.single import open_flat

Plane = Literal["middle", "max"] | Annotated[int, Field(ge=0)]
"""A plane's number, the middle one (half the planes, rounded down), or the largest value over all planes."""

AT_ONCE_BYTES = 64 << 20
LISTED = 6


def open_plane(uri: str, plane: Plane | None, level: int | None, cure: str) -> LayerSource:
    """Open a picture, or one plane of a volume.

    Args:
        uri: See `inkbatch.io.layers.single.open_flat`.
        plane: The plane that is meant; None: the one that is not empty. A picture has none.
        level: Level of an OME-Zarr group; None: full resolution.
        cure: Closes the message where several planes are not empty: how to state one.

    Raises:
        DataError: A plane that is not there; see `open_flat`.
    """
    source = open_flat(uri, level=level)
    count = source.shape_zyx[0]
    if count > 1 and plane is None and not source.is_array:
        source.close()
        raise DataError(f"{uri}: expected one 2-D picture, got {count} pages; save the one you mean by itself")
    if count == 1 and isinstance(plane, int) and plane > 0:
        source.close()
        raise DataError(f"{uri}: expected a volume for plane {plane}, got one 2-D picture; drop plane")
    number = count // 2 if plane == "middle" else plane
    if isinstance(number, int) and number >= count:
        source.close()
        raise DataError(f"{uri}: expected a plane from 0 to {count - 1}, got plane {number}; choose one of them")
    return OnePlane(source, number, cure) if count > 1 else source


class OnePlane(CheckedLayerSource):
    """A plane of another source, or the largest value over its planes.

    Attributes:
        plane: Number of the plane from 0, ``max``, or None: the one that is not empty.
        found: Planes that were not empty in what was read so far, where `plane` is None.
    """

    def __init__(self, inner: LayerSource, plane: int | Literal["max"] | None, cure: str) -> None:
        self.uri, self.dtype, self.lossy, self.fingerprint = inner.uri, inner.dtype, inner.lossy, inner.fingerprint
        self.shape_zyx = (1, *inner.shape_zyx[1:])
        self.block_yx, self.whole_layers = inner.block_yx, inner.whole_layers
        self.resident_bytes = inner.resident_bytes
        self.plane, self.found = plane, frozenset[int]()
        self._inner, self._cure, self._lock = inner, cure, threading.Lock()

    @property
    def planes(self) -> int:
        """Planes of the volume."""
        return self._inner.shape_zyx[0]

    def settle(self, planes: Iterable[int]) -> None:
        """Take the planes that whole passes over the volume have found; of one, only that is read from now on.

        Raises:
            DataError: They are several.
        """
        if self.plane is None:
            self._see(planes)
            if len(self.found) == 1:
                (self.plane,) = self.found

    def _fill(self, indices: range, box: Box, out: NDArray[np.generic]) -> None:
        first, plane = self._inner.first_layer, self.plane
        if isinstance(plane, int):
            self._inner.read(range(first + plane, first + plane + 1), box, out)
            return
        for rows in self._strips(box):
            block: NDArray[Any] = self._inner.read(range(first, first + self.planes), rows)
            np.max(block, axis=0, out=out[0, rows.y0 - box.y0 : rows.y1 - box.y0])
            if plane is None:
                self._see(np.flatnonzero(block.any(axis=(1, 2))).tolist())

    def _strips(self, box: Box) -> Iterable[Box]:
        """Cut a box into rows of blocks, so that not all of its planes are held at once."""
        fitting = AT_ONCE_BYTES // max(1, self.planes * box.width * self.dtype.itemsize)
        edge = self.block_yx[0]
        step = max(edge, fitting - fitting % edge)
        y0 = box.y0
        while y0 < box.y1:
            y1 = min(box.y1, y0 - y0 % edge + step)
            yield Box(y0, box.x0, y1, box.x1)
            y0 = y1

    def _see(self, planes: Iterable[int]) -> None:
        with self._lock:
            self.found |= set(planes)
        if len(self.found) > 1:
            listed = ", ".join(map(str, sorted(self.found)[:LISTED])) + (", …" if len(self.found) > LISTED else "")
            raise DataError(
                f"{self.uri}: expected values other than 0 on one of its {self.planes} planes, got them on planes "
                f"{listed}; {self._cure}"
            )

    def close(self) -> None:
        """See `LayerSource.close`."""
        self._inner.close()

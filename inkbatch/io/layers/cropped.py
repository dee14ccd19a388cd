"""A part of the layers of another source, as a source of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import MismatchError
from inkbatch.geometry import Box
from inkbatch.io.layers.base import LayerSource


class CroppedLayers(LayerSource):
    """A box of another source; its pixels count from (0, 0)."""

    def __init__(self, inner: LayerSource, box: Box) -> None:
        """Cut out a box.

        Raises:
            MismatchError: It is empty or leaves the layers.
        """
        layers, height, width = inner.shape_zyx
        if not box.area or not Box(0, 0, height, width).contains(box):
            raise MismatchError(
                f"{inner.uri}: expected a box inside the layers of {height} x {width} pixels, got rows "
                f"{box.y0}:{box.y1}, columns {box.x0}:{box.x1}; choose another box"
            )
        self.inner, self.box = inner, box
        self.uri, self.dtype, self.axes, self.fingerprint = inner.uri, inner.dtype, inner.axes, inner.fingerprint
        self.shape_zyx = layers, box.height, box.width
        self.first_layer, self.block_layers = inner.first_layer, inner.block_layers
        self.block_yx, self.whole_layers = inner.block_yx, inner.whole_layers
        self.spacing, self.lossy, self.notes = inner.spacing, inner.lossy, inner.notes
        self.resident_bytes, self.unit_px = inner.resident_bytes, inner.unit_px

    def read(self, layers: range, box: Box, out: NDArray[np.generic] | None = None) -> NDArray[np.generic]:
        """See `LayerSource.read`."""
        return self.inner.read(layers, self._inside(box), out)

    def view(self, layer: int, box: Box) -> NDArray[np.generic] | None:
        """See `LayerSource.view`."""
        return self.inner.view(layer, self._inside(box))

    def coverage(self, box: Box) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
        """See `LayerSource.coverage`."""
        return self.inner.coverage(self._inside(box))

    def close(self) -> None:
        """See `LayerSource.close`."""
        self.inner.close()

    def _inside(self, box: Box) -> Box:
        """Translate a box of this source into the other one.

        Raises:
            ValueError: It leaves this source: a bug of the caller.
        """
        if not Box(0, 0, *self.box.shape).contains(box):
            raise ValueError(f"{self.uri}: {box} leaves the {self.box.height} x {self.box.width} pixels that are taken")
        return box.shift(self.box.y0, self.box.x0)

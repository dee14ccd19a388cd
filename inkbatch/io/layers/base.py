"""The interface of all sources of layers, whatever their file format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import LayerRangeError, NonFiniteError
from inkbatch.geometry import Box
from inkbatch.io.ome import Spacing


class LayerSource(ABC):
    """A stack of layers that can be read by box. Safe to read from several threads at once.

    Attributes:
        uri: Where it was opened, for messages; never holds credentials.
        shape_zyx: (layers, height, width).
        dtype: Stored dtype: uint8, uint16 or float32; native byte order in the arrays that `read` returns.
        first_layer: Number of the first stored layer (files may start at ``01.tif``); layer ranges count from it.
        block_yx: Natural granularity of reading along (y, x): reading less of a block still costs the block. For a
            striped TIFF (rows per strip, width); (1, 1) where any box is equally cheap.
        block_layers: Layers that are stored together: reading one of them costs them all. Blocks start at
            `first_layer`; 1 unless the source is a zarr array whose chunks hold several layers.
        whole_layers: True where any read decodes whole layers (JPG, PNG, single-strip LZW). Each is decoded once per
            process and kept, in memory or in a scratch file.
        spacing: Micrometres along z, y and x, as far as the source states them.
        unit_px: Edge of the squares that are best read at a time; None: as memory allows.
        lossy: True where saving has blurred the values (JPEG).
        channels: Channels of one picture that its layers are; 1 where they are layers.
        is_array: True where its layers are planes of one array (zarr, ``.npy``), not pages or files.
        resident_bytes: Memory that the source keeps while it is open (decoded layers), for the planner.
        notes: What a user should know of the files beside errors, for example the numbers of the layers.
        axes: Meaning of the stored dimensions, for example ``zyx`` or ``tczyx``.
        fingerprint: Digest of the files' names and sizes, or of a zarr array's metadata; goes into manifests, so that a
            source that was exchanged between two runs is noticed.
    """

    uri: str
    shape_zyx: tuple[int, int, int]
    dtype: np.dtype[Any]
    first_layer: int = 0
    block_yx: tuple[int, int] = (1, 1)
    block_layers: int = 1
    whole_layers: bool = False
    spacing: Spacing = Spacing()
    unit_px: int | None = None
    lossy: bool = False
    channels: int = 1
    is_array: bool = False
    resident_bytes: int = 0
    notes: tuple[str, ...] = ()
    axes: str = "zyx"
    fingerprint: str = ""

    @property
    def voxel_size_um(self) -> float | None:
        """Edge of a pixel if the source states it, the same along y and x; else None."""
        return self.spacing.plane

    @property
    def z_spacing_um(self) -> float | None:
        """Spacing of layers if the source states it, else None."""
        return self.spacing.z

    @abstractmethod
    def read(self, layers: range, box: Box, out: NDArray[np.generic] | None = None) -> NDArray[np.generic]:
        """Read a box of some layers.

        Args:
            layers: Layer numbers (counting from `first_layer`), ascending, step 1, all stored.
            box: Inside the layers.
            out: Optional C-contiguous array (len(layers), box.height, box.width) of `dtype` to fill.

        Returns:
            Array (len(layers), box.height, box.width) in stored layer order, intensities untouched.

        Raises:
            LayerRangeError: A layer number that is not stored.
            CorruptDataError: A layer is truncated or cannot be decoded; the message names the file.
            NonFiniteError: A float source holds NaN or infinity there.
            StorageError: Reading failed after retries.
        """

    def view(self, layer: int, box: Box) -> NDArray[np.generic] | None:
        """View one layer's pixels in a box without a copy, where the source is mapped into memory in its native dtype.

        Args:
            layer: Layer number (counting from `first_layer`), stored.
            box: Inside the layer.

        Returns:
            Read-only array (box.height, box.width) of `dtype`, possibly strided, that stays valid after `close`; or
            None where only `read` can serve (remote, compressed, foreign byte order, floats that must be checked).

        Raises:
            LayerRangeError: A layer number that is not stored.
            CorruptDataError: The file became shorter, or cannot be decoded.
        """
        return None

    def coverage(self, box: Box) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
        """Find the pixels that the source itself knows as papyrus; None if that follows from the values alone.

        Args:
            box: Inside the layers.

        Returns:
            Two arrays (box.height, box.width): pixels with a surface, and those of them that have all their layers.
        """
        return None

    def close(self) -> None:  # noqa: B027  # most sources hold nothing
        """Release file handles and scratch files."""

    def __enter__(self) -> LayerSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class CheckedLayerSource(LayerSource):
    """A source that checks requests and results, and leaves the reading itself to `_fill`."""

    @abstractmethod
    def _fill(self, indices: range, box: Box, out: NDArray[np.generic]) -> None:
        """Fill `out` (len(indices), box.height, box.width) with layers counted from 0; the request has been checked."""

    def read(self, layers: range, box: Box, out: NDArray[np.generic] | None = None) -> NDArray[np.generic]:
        """See `LayerSource.read`.

        Raises:
            ValueError: The box leaves the layers, or `out` has another shape or dtype: a bug of the caller.
        """
        indices = self._indices(layers)
        self._require_inside(box)
        shape = (len(indices), *box.shape)
        if out is None:
            out = np.empty(shape, self.dtype)
        elif out.shape != shape or out.dtype != self.dtype:
            raise ValueError(f"{self.uri}: expected out to be {shape} {self.dtype}, got {out.shape} {out.dtype}")
        if out.size:
            self._fill(indices, box, out)
            self._require_finite(layers, out)
        return out

    def view(self, layer: int, box: Box) -> NDArray[np.generic] | None:
        """See `LayerSource.view`: checks the request and offers nothing."""
        self._indices(range(layer, layer + 1))
        self._require_inside(box)
        return None

    def _indices(self, layers: range) -> range:
        """Turn layer numbers into indices from 0."""
        first, count = self.first_layer, self.shape_zyx[0]
        if layers.step != 1 or not first <= layers.start <= layers.stop <= first + count:
            raise LayerRangeError(
                f"{self.uri}: expected layers inside {first}:{first + count}, got {layers.start}:{layers.stop}; "
                "choose a range inside that"
            )
        return range(layers.start - first, layers.stop - first)

    def _require_inside(self, box: Box) -> None:
        _, height, width = self.shape_zyx
        if not Box(0, 0, height, width).contains(box):
            raise ValueError(f"{self.uri}: {box} leaves the layers of {height} x {width} pixels")

    def _require_finite(self, layers: range, block: NDArray[np.generic]) -> None:
        if block.dtype.kind != "f":
            return
        for number, plane in zip(layers, block, strict=True):
            if not np.isfinite(plane).all():
                raise NonFiniteError(
                    f"{self.uri}, layer {number}: expected finite grey values, got NaN or infinity; "
                    "repair that layer at its source, or convert the stack to 8 or 16 bits"
                )


class FlagLayers(CheckedLayerSource):
    """Layers of truth values, stored as 0 and 1, as grey values of 0 and 255."""

    def __init__(self, inner: LayerSource) -> None:
        self._inner = inner
        self.uri, self.shape_zyx, self.first_layer = inner.uri, inner.shape_zyx, inner.first_layer
        self.block_yx, self.block_layers, self.whole_layers = inner.block_yx, inner.block_layers, inner.whole_layers
        self.spacing, self.axes, self.fingerprint = inner.spacing, inner.axes, inner.fingerprint
        self.resident_bytes, self.is_array, self.dtype = inner.resident_bytes, True, np.dtype(np.uint8)

    def _fill(self, indices: range, box: Box, out: NDArray[np.generic]) -> None:
        first = self.first_layer
        found = self._inner.read(range(first + indices.start, first + indices.stop), box)
        out[...] = np.where(found != 0, 255, 0)

    def close(self) -> None:
        """See `LayerSource.close`."""
        self._inner.close()

"""Layers in a zarr array of any codec: zarr-python decodes, the faster ``zarrs`` pipeline where it can."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer.cpu import NDBuffer
from zarr.storage import LocalStore

from inkbatch.config import digest
from inkbatch.errors import CorruptDataError, DataError, InkbatchError
from inkbatch.geometry import Box
from inkbatch.io.layers.base import CheckedLayerSource, FlagLayers, LayerSource
from inkbatch.io.layers.cached import DecodedLayers
from inkbatch.io.layers.numbered import Keeping
from inkbatch.io.layers.zarr_nodes import ChosenArray, ZarrNode
from inkbatch.io.layers.zarr_store import LocationStore
from inkbatch.io.store.faults import judge
from inkbatch.text import bytes_text

FAST_PIPELINE = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": True}
PLAIN_PIPELINE = {"codec_pipeline.path": "zarr.core.codec_pipeline.BatchedCodecPipeline"}
COPY_BYTES = 128 << 20  # read and transposed at once where zarr cannot fill the caller's array itself

_opening = threading.Lock()  # zarr picks the pipeline from its global configuration


class ZarrLayers(CheckedLayerSource):
    """A zarr array with y, x and perhaps z; other axes have length 1. Chunks not stored hold the fill value."""

    is_array = True

    def __init__(self, chosen: ChosenArray, *, flags: bool = False) -> None:
        """Open the array; with `flags` truth values are taken, too, as 0 and 1."""
        self._array = _open_array(chosen.node)
        self._node, self._process = chosen.node, os.getpid()
        self.uri = str(chosen.node.location)
        self.spacing = chosen.spacing
        self.axes = chosen.axes
        self.fingerprint = digest({key: value for key, value in chosen.node.metadata.items() if key != "attributes"})
        lengths = dict(zip(chosen.axes, self._array.shape, strict=True))
        chunks = dict(zip(chosen.axes, self._array.chunks, strict=True))
        self.shape_zyx = (lengths.get("z", 1), lengths["y"], lengths["x"])
        if 0 in self.shape_zyx:
            raise DataError(f"{self.uri}: its shape is {self._array.shape}; it holds no pixels, write it again")
        if 0 in self._array.chunks:
            raise DataError(
                f"{self.uri}: expected chunks that hold pixels, its metadata state chunks of {self._array.chunks}; "
                "copy the array again"
            )
        self.dtype = self._array.dtype.newbyteorder("=")
        self.has_flags = flags and self.dtype == np.bool_
        if self.has_flags:
            self.dtype = np.dtype(np.uint8)
        if self.dtype not in (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32)):
            raise DataError(f"{self.uri}: expected uint8, uint16 or float32, got {self.dtype}; convert it")
        self.block_yx = min(chunks["y"], lengths["y"]), min(chunks["x"], lengths["x"])
        self.block_layers = min(chunks.get("z", 1), self.shape_zyx[0])
        self.whole_layers = self.block_yx == self.shape_zyx[1:]

    @property
    def chunk_bytes(self) -> int:
        """Decoded bytes of one chunk."""
        return int(np.prod(self._array.chunks, dtype=np.int64)) * self.dtype.itemsize

    def _here(self) -> Any:
        """Return the array as this process can read it: after a fork the threads of the fast pipeline are gone."""
        if self._process != os.getpid():
            with _opening:
                if self._process != os.getpid():
                    self._array, self._process = _open_plainly(self._node), os.getpid()
        return self._array

    def _fill(self, indices: range, box: Box, out: NDArray[np.generic]) -> None:
        try:
            if self.axes == "zyx" and self._array.dtype == self.dtype and out.flags.c_contiguous:
                selected = (slice(indices.start, indices.stop), *box.slices)
                self._here().get_basic_selection(selected, out=NDBuffer.from_numpy_array(out))
                return
            step = max(1, COPY_BYTES // (len(indices) * box.width * self.dtype.itemsize))
            step = max(step - step % self.block_yx[0], min(self.block_yx[0], box.height))
            for y0 in range(box.y0, box.y1, step):
                rows = Box(y0, box.x0, min(y0 + step, box.y1), box.x1)
                out[:, y0 - box.y0 : rows.y1 - box.y0] = self._read_any_order(indices, rows)
        except (InkbatchError, MemoryError):
            raise
        except Exception as error:  # codecs raise whatever damaged bytes lead them to
            fault = judge(self.uri, error) if isinstance(error, OSError) and error.errno is not None else None
            if fault is not None:
                raise fault from error
            raise CorruptDataError(
                f"{self.uri}: a chunk of layers {indices.start}:{indices.stop}, rows {box.y0}:{box.y1}, columns "
                f"{box.x0}:{box.x1} cannot be decoded ({type(error).__name__}: {error}); copy the array again"
            ) from error

    def _read_any_order(self, indices: range, box: Box) -> NDArray[Any]:
        """Read a box in the order (z, y, x), whatever the stored order."""
        wanted = {"z": slice(indices.start, indices.stop), "y": box.slices[0], "x": box.slices[1]}
        selection = tuple(wanted.get(axis, slice(0, 1)) for axis in self.axes)
        # Made here: for Fortran-ordered arrays zarr would make a Fortran-ordered one, which zarrs refuses to fill.
        block = np.empty([part.stop - part.start for part in selection], self._array.dtype)
        self._here().get_basic_selection(selection, out=NDBuffer.from_numpy_array(block))
        order = sorted(range(len(self.axes)), key=lambda position: "tczyx".index(self.axes[position]))
        return block.transpose(order).reshape(len(indices), *box.shape)


def open_zarr(chosen: ChosenArray, keeping: Keeping, *, flags: bool = False) -> LayerSource:
    """Open a zarr array as layers.

    Args:
        chosen: The array.
        keeping: Limits of memory.
        flags: Take truth values, too; they become 0 and 255.

    Raises:
        DataError: Unsupported dtype or codec, or chunks larger than half the memory budget.
    """
    array = ZarrLayers(chosen, flags=flags)
    layers: LayerSource = FlagLayers(array) if array.has_flags else array
    if 2 * array.chunk_bytes > keeping.memory_bytes:
        raise DataError(
            f"{layers.uri}: expected chunks of at most half the memory ({bytes_text(keeping.memory_bytes / 2)}), its "
            f"chunks decode to {bytes_text(array.chunk_bytes)}; allow more memory, or write it in smaller chunks"
        )
    if layers.whole_layers:
        return DecodedLayers(layers, keeping.memory_bytes, keeping.scratch)
    return layers


def _open_array(node: ZarrNode) -> Any:
    """Open with the fast pipeline where it serves (local, native byte order, known codecs), else the plain one."""
    with _opening:
        if node.location.is_local:
            try:
                with warnings.catch_warnings(), zarr.config.set(FAST_PIPELINE):
                    warnings.simplefilter("ignore")
                    store = LocalStore(node.location.path, read_only=True)
                    array = zarr.open_array(store, mode="r", zarr_format=node.zarr_format)
                if array.dtype.isnative and array.metadata.fill_value is not None:
                    return array
            except Exception:  # not supported there; the plain pipeline names the fault, if there is one
                pass
        return _open_plainly(node)


def _open_plainly(node: ZarrNode) -> Any:
    """Open with zarr-python's own pipeline, over our store."""
    store = LocationStore(node.location, blosc_chunks=_ends_in_blosc(node.metadata))
    try:
        with warnings.catch_warnings(), zarr.config.set(PLAIN_PIPELINE):
            warnings.simplefilter("ignore")
            return zarr.open_array(store, mode="r", zarr_format=node.zarr_format)
    except InkbatchError:
        raise
    except Exception as error:
        raise DataError(
            f"{node.location}: this zarr array cannot be opened ({type(error).__name__}: {error}); "
            "check its metadata and codecs, or convert it"
        ) from error


def _ends_in_blosc(metadata: Mapping[str, Any]) -> bool:
    """Tell whether a stored object is one Blosc buffer: v2's compressor, or the last of v3's codecs."""
    compressor, codecs = metadata.get("compressor"), metadata.get("codecs")
    if isinstance(codecs, list) and codecs and isinstance(codecs[-1], dict):
        return codecs[-1].get("name") == "blosc"
    return isinstance(compressor, dict) and compressor.get("id") == "blosc"

"""NumPy's own files: a 3-D ``.npy`` with its axes stated."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.config import digest
from inkbatch.errors import ConfigError, CorruptDataError, DataError
from inkbatch.geometry import Box
from inkbatch.io.layers.base import CheckedLayerSource, FlagLayers, LayerSource
from inkbatch.io.layers.files import MappedFiles, open_header
from inkbatch.io.layers.planes import NO_PREDICTOR, Plane
from inkbatch.io.layers.stack import PlaneStack
from inkbatch.io.store.location import Location
from inkbatch.io.store.meter import READ
from inkbatch.redaction import shown

NPY_MAGIC = b"\x93NUMPY"


class NpyLayers(CheckedLayerSource):
    """A local ``.npy``, mapped into memory; any axis order."""

    is_array = True

    def __init__(
        self, location: Location, dtype: np.dtype[Any], strides: tuple[int, ...], span: tuple[int, int]
    ) -> None:
        self.uri = str(location)
        self.dtype = dtype.newbyteorder("=")
        self._location, self._stored, self._strides, self._span = location, dtype, strides, span
        self._files = MappedFiles()

    def _volume(self) -> NDArray[np.generic]:
        data = self._files.buffer(self._location, *self._span)
        return np.ndarray(self.shape_zyx, self._stored, data, 0, self._strides)

    def _fill(self, indices: range, box: Box, out: NDArray[np.generic]) -> None:
        out[...] = self._volume()[(slice(indices.start, indices.stop), *box.slices)]
        READ.add(out.size * self._stored.itemsize)

    def view(self, layer: int, box: Box) -> NDArray[np.generic] | None:
        """See `LayerSource.view`: served for native integers."""
        index = self._indices(range(layer, layer + 1)).start
        self._require_inside(box)
        pixels: NDArray[np.generic] = self._volume()[index][box.slices]
        usable = self._stored.isnative and self._stored.kind != "f" and pixels.flags.aligned and pixels.size
        if not usable:
            return None
        READ.add(pixels.nbytes)
        return pixels

    def close(self) -> None:
        """Let go of the memory map."""
        self._files.close()


def open_npy(location: Location, axes: str | None, *, flat: bool = False) -> LayerSource:
    """Open a ``.npy``; a remote one must be stored in C order with axes ``zyx``.

    Args:
        location: The file.
        axes: Meaning of its dimensions.
        flat: It is a map of one layer: rows and columns, perhaps with layers first; truth values become 0 and 255.

    Raises:
        ConfigError: The axes are not stated, or do not fit the array.
        DataError: Unsupported dtype, or an order that cannot be read remotely.
        CorruptDataError: The file is truncated.
    """
    size = location.size()
    shape, fortran, dtype, offset = npy_header(location, size)
    flags = flat and dtype == np.bool_
    if flat:
        dtype = np.dtype(np.uint8) if flags else dtype
        shape, axes = _as_layers(location, shape), "zyx"
    if dtype.newbyteorder("=") not in (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32)):
        raise DataError(f"{location}: expected uint8, uint16 or float32, got {dtype}; convert it")
    if axes is None or sorted(axes) != ["x", "y", "z"] or len(shape) != 3:
        raise ConfigError(
            f"{location}: expected a 3-D array and its axes, got shape {shape} and axes {axes!r}; "
            "give axes, for example zyx for (layers, rows, columns)"
        )
    if min(shape) < 1:
        raise CorruptDataError(f"{location}: its shape is {shape}; it holds no pixels, write it again")
    stop = offset + math.prod(shape) * dtype.itemsize
    if stop > size:
        raise CorruptDataError(
            f"{location}: expected {stop} bytes for shape {shape}, the file has {size}; copy it again"
        )
    order = [axes.index(axis) for axis in "zyx"]
    depth, height, width = (shape[axis] for axis in order)
    if not location.is_local:
        if fortran or axes != "zyx":
            stored = "Fortran" if fortran else "C"
            raise DataError(
                f"{location}: expected C order with axes zyx in a remote file, got {stored} order with axes {axes}; "
                f"copy the file to a local folder first"
            )
        stack = PlaneStack(str(location), _planes(location, (depth, height, width), dtype, offset))
        stack.fingerprint, stack.is_array = digest([[location.name, size]]), True
        return FlagLayers(stack) if flags else stack
    lengths = shape[::-1] if fortran else shape
    steps = [int(np.prod(lengths[axis + 1 :], dtype=np.int64)) * dtype.itemsize for axis in range(3)]
    strides = steps[::-1] if fortran else steps
    source = NpyLayers(location, dtype, tuple(strides[axis] for axis in order), (offset, stop))
    source.shape_zyx = (depth, height, width)
    source.axes, source.fingerprint = axes, digest([[location.name, size]])
    return FlagLayers(source) if flags else source


def _as_layers(location: Location, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) not in (2, 3):
        raise DataError(
            f"{location}: expected rows and columns, or layers first, got an array of shape {shape}; save the plane "
            "that you mean by itself"
        )
    return (1, *shape) if len(shape) == 2 else shape


def npy_header(location: Location, size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Read shape, Fortran order, dtype and first data byte; nothing is ever unpickled.

    Raises:
        CorruptDataError: It is no header of a ``.npy``.
    """
    with open_header(location, size) as header:
        buffered = io.BytesIO(header.read(min(size, 1 << 16)) or b"")
    try:
        version = np.lib.format.read_magic(buffered)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(buffered)
    except Exception as error:  # the header is a Python literal, which fails in many ways
        finding = f"{type(error).__name__}: {shown(str(error))}"
        raise CorruptDataError(f"{location}: its npy header cannot be read ({finding}); copy it again") from error
    if not all(isinstance(length, int) and 0 <= length < 1 << 62 for length in shape):
        raise CorruptDataError(f"{location}: its npy header states a shape of {shown(shape)}; copy it again")
    return shape, fortran, dtype, buffered.tell()


def _planes(location: Location, shape: tuple[int, int, int], dtype: np.dtype[Any], offset: int) -> list[Plane]:
    depth, height, width = shape
    layer_bytes = height * width * dtype.itemsize
    return [
        Plane(
            location=location,
            label=f"{location}, layer {layer}",
            shape_yx=(height, width),
            dtype=dtype,
            codec="none",
            predictor=NO_PREDICTOR,
            block_yx=(height, width),
            padded=False,
            offsets=np.array([offset + layer * layer_bytes], np.int64),
            counts=np.array([layer_bytes], np.int64),
        )
        for layer in range(depth)
    ]

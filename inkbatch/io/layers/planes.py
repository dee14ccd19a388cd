"""One layer inside a file: the places of its strips or tiles, and their decoding."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import CorruptDataError
from inkbatch.geometry import Box
from inkbatch.io.layers.files import Buffer
from inkbatch.io.store.location import Location

# Name -> decoder of one strip or tile into a flat uint8 array; all release the interpreter lock.
DECODERS: dict[str, Any] = {
    "lzw": imagecodecs.lzw_decode,
    "deflate": imagecodecs.deflate_decode,
    "packbits": imagecodecs.packbits_decode,
}
if imagecodecs.ZSTD.available:
    DECODERS["zstd"] = imagecodecs.zstd_decode

# The most bytes that one stored byte can decode to; zstd repeats a byte over a block of 128 KiB.
MOST_RATIO = {"lzw": 4_096, "deflate": 1_100, "packbits": 128, "zstd": 65_536}

NO_PREDICTOR, HORIZONTAL, FLOATING = 1, 2, 3


@dataclass(frozen=True, eq=False)
class Plane:
    """A 2-D grey plane in a file, cut into blocks (strips or tiles).

    Attributes:
        location: The file.
        label: File and page, for messages.
        shape_yx: (height, width).
        dtype: Stored dtype, with its byte order.
        codec: ``none`` or a name in `DECODERS`.
        predictor: TIFF predictor: 1 none, 2 differences along x, 3 floating point.
        block_yx: Rows and columns of a block; strips are as wide as the layer.
        padded: Blocks at the border are stored whole (tiles), not clipped (strips).
        offsets: First byte of each block, row-major.
        counts: Stored bytes of each block.
        samples: Interleaved samples per pixel; this plane is number `sample` of them.
        sample: See `samples`.
    """

    format: ClassVar[str] = "TIFF"

    location: Location
    label: str
    shape_yx: tuple[int, int]
    dtype: np.dtype[Any]
    codec: str
    predictor: int
    block_yx: tuple[int, int]
    padded: bool
    offsets: NDArray[np.int64] = field(repr=False)
    counts: NDArray[np.int64] = field(repr=False)
    samples: int = 1
    sample: int = 0

    @property
    def name(self) -> str:
        """File and page, without the folder."""
        return self.label.rsplit("/", 1)[-1]

    @property
    def unpacked_bytes(self) -> int:
        """Memory that decoding takes at once; none where blocks are read as they are stored."""
        return 0 if self.codec == "none" else self.block_bytes

    @property
    def block_columns(self) -> int:
        """Blocks side by side."""
        return -(-self.shape_yx[1] // self.block_yx[1])

    @property
    def block_count(self) -> int:
        """Blocks that cover the plane."""
        return -(-self.shape_yx[0] // self.block_yx[0]) * self.block_columns

    @property
    def block_bytes(self) -> int:
        """Decoded bytes of a whole block."""
        return self.block_yx[0] * self.block_yx[1] * self.samples * self.dtype.itemsize

    def blocks(self, box: Box) -> NDArray[np.intp]:
        """Return the indices of the blocks that touch a box (not empty)."""
        (rows, columns), across = self.block_yx, self.block_columns
        y = np.arange(box.y0 // rows, -(-box.y1 // rows))
        x = np.arange(box.x0 // columns, -(-box.x1 // columns))
        return (y[:, None] * across + x[None, :]).ravel()

    def block_box(self, index: int) -> Box:
        """Return the pixels of a block, clipped to the plane."""
        (rows, columns), (height, width) = self.block_yx, self.shape_yx
        y, x = index // self.block_columns * rows, index % self.block_columns * columns
        return Box(y, x, min(y + rows, height), min(x + columns, width))

    def stored_shape(self, index: int) -> tuple[int, int, int]:
        """Return (rows, columns, samples) of a decoded block."""
        rows, columns = self.block_yx if self.padded else self.block_box(index).shape
        return rows, columns, self.samples

    @property
    def decoded_counts(self) -> NDArray[np.int64]:
        """Bytes that each block holds once decoded."""
        counts = np.full(self.block_count, self.block_bytes, np.int64)
        if not self.padded:
            counts[-1] = np.prod(self.stored_shape(self.block_count - 1)) * self.dtype.itemsize
        return counts

    @cached_property
    def raw_offset(self) -> int | None:
        """First byte of the plane where it lies in the file row by row, uncompressed; else None."""
        if self.codec != "none" or self.predictor != NO_PREDICTOR or self.block_yx[1] != self.shape_yx[1]:
            return None
        if self.padded and self.shape_yx[0] % self.block_yx[0]:
            return None
        full = self.block_bytes
        in_order = bool((np.diff(self.offsets) == full).all())
        return int(self.offsets[0]) if in_order else None

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of a raw plane."""
        return self.shape_yx[1] * self.samples * self.dtype.itemsize

    def raw_view(self, data: Buffer, rows: int, columns: int) -> NDArray[Any]:
        """View bytes that start at the first pixel of a box of a raw plane and end with its last one."""
        strides = self.row_bytes, self.samples * self.dtype.itemsize
        offset = self.sample * self.dtype.itemsize
        return np.ndarray((rows, columns), self.dtype, data, offset, strides)

    def raw_range(self, box: Box) -> tuple[int, int]:
        """Return the byte range of a box (not empty) of a raw plane, gaps between its rows included."""
        assert self.raw_offset is not None
        pixel = self.samples * self.dtype.itemsize
        start = self.raw_offset + box.y0 * self.row_bytes + box.x0 * pixel
        return start, self.raw_offset + (box.y1 - 1) * self.row_bytes + box.x1 * pixel

    def decode(self, index: int, data: Buffer) -> NDArray[Any]:
        """Decode one block.

        Args:
            index: Which block.
            data: Its stored bytes.

        Returns:
            (rows, columns) as in `stored_shape`, stored dtype or the native one.

        Raises:
            CorruptDataError: The bytes cannot be decoded, or give fewer pixels than the block has.
        """
        shape = self.stored_shape(index)
        wanted = shape[0] * shape[1] * shape[2] * self.dtype.itemsize
        if self.codec == "none":
            flat = np.frombuffer(data, np.uint8)
        else:
            # Some writers store the last strip whole, so there is room for a whole block.
            flat = np.empty(self.block_bytes, np.uint8)
            try:
                flat = DECODERS[self.codec](data, out=flat)
            except (RuntimeError, ValueError) as error:
                raise self._damaged(index, str(error)) from error
        if flat.nbytes < wanted:
            raise self._damaged(index, f"expected {wanted} bytes, got {flat.nbytes}")
        return self._predicted(flat[:wanted].view(self.dtype).reshape(shape))[:, :, self.sample]

    def _predicted(self, block: NDArray[Any]) -> NDArray[Any]:
        if self.predictor == HORIZONTAL:
            native = block.astype(block.dtype.newbyteorder("="), copy=self.codec == "none")
            result: NDArray[Any] = imagecodecs.delta_decode(native, axis=1, out=native)
            return result
        if self.predictor == FLOATING:
            result = imagecodecs.floatpred_decode(np.ascontiguousarray(block), axis=1)
            return result
        return block

    def _damaged(self, index: int, finding: str) -> CorruptDataError:
        kind = "tile" if self.padded else "strip"
        return CorruptDataError(
            f"{self.label}: {kind} {index} of {self.block_count} cannot be decoded ({self.codec}: {finding}); "
            "the file is damaged, copy it again from its source"
        )

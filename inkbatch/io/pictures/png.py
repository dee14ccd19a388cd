"""PNG files of any size, written from consecutive rows: bounded memory, all cores, equal bytes for equal pixels.

Written from the PNG specification (ISO/IEC 15948) and RFC 1950/1951. The rows are cut into blocks of a fixed size; each
block is deflated by itself and ends on a byte border (a sync flush), so that blocks can be deflated in parallel and
their concatenation is one valid deflate stream.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import DataError
from inkbatch.io.pictures.bands import reblock
from inkbatch.io.threads import codec_pool

SIGNATURE = b"\x89PNG\r\n\x1a\n"
ZLIB_HEADER = b"\x78\x5e"  # deflate, 32 KiB window, fast
LAST_BLOCK = b"\x03\x00"  # an empty final deflate block
BLOCK_BYTES = 1 << 20  # raw bytes that are deflated together; part of what makes equal bytes
LONGEST_PX = 1_000_000  # where libpng, hence most readers, ends unless told otherwise
DEFLATE_EFFORT = 2  # ink maps: 6 makes files 20 % smaller and takes six times as long
IN_FLIGHT = 8
GREY, COLOUR, INDEXED, UP = 0, 2, 3, 2


def write_png(
    handle: BinaryIO,
    shape_yx: tuple[int, int] | tuple[int, int, int],
    dtype: np.dtype[Any],
    rows: Iterable[NDArray[Any]],
    note: str = "",
) -> None:
    """Write a grey PNG, or one in colours.

    Args:
        handle: Open for writing; is written from front to back.
        shape_yx: (height, width) in pixels, or (height, width, 3) for red, green and blue.
        dtype: uint8 or uint16.
        rows: Consecutive blocks (any height, width) or (any height, width, 3) of `dtype`, from the top; all together
            `height` rows. How they are cut does not change the file.
        note: Text that the file carries as its description; nothing where empty.

    Raises:
        ValueError: A block has another width or dtype, or the rows are too few or too many.
    """
    height, width, *channels = shape_yx
    if channels not in ([], [3]):
        raise ValueError(f"expected one or three values per pixel, got {shape_yx}")
    bits = 8 * dtype.itemsize
    handle.write(SIGNATURE)
    kind = COLOUR if channels else GREY
    _write_chunk(handle, b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    if note:
        _write_chunk(handle, b"iTXt", b"Description\0\0\0\0\0" + note.encode())
    stride = width * dtype.itemsize * (3 if channels else 1)
    pending: deque[Future[bytes]] = deque()
    adler, done, head = 1, 0, ZLIB_HEADER
    above = np.zeros(stride, np.uint8)
    for block in reblock(rows, max(1, BLOCK_BYTES // (stride + 1))):
        if block.shape[1:] != tuple(shape_yx[1:]) or block.dtype != dtype:
            raise ValueError(f"expected rows of {tuple(shape_yx[1:])} {dtype}, got {block.shape[1:]} {block.dtype}")
        scanlines = _filtered(block, above)
        above = _as_bytes(block[-1:])[0]
        adler = zlib.adler32(scanlines.data, adler)
        pending.append(codec_pool.submit(_deflate, scanlines))
        done += len(block)
        if len(pending) > IN_FLIGHT:
            _write_chunk(handle, b"IDAT", head + pending.popleft().result())
            head = b""
    if done != height:
        raise ValueError(f"expected {height} rows, got {done}")
    while pending:
        _write_chunk(handle, b"IDAT", head + pending.popleft().result())
        head = b""
    _write_chunk(handle, b"IDAT", LAST_BLOCK + struct.pack(">I", adler))
    _write_chunk(handle, b"IEND", b"")


def png_bytes(picture: NDArray[Any], compression: int | None = None) -> bytes:
    """Encode a picture that lies in memory; equal pictures give equal bytes.

    Args:
        picture: (height, width) grey, or (height, width, 3) red, green, blue; uint8 or uint16.
        compression: zlib's level from 0 to 9; None takes the fast one of OpenCV.

    Raises:
        DataError: The picture is empty, or larger than a PNG can be.
    """
    pixels: NDArray[Any] = np.ascontiguousarray(picture[..., ::-1]) if picture.ndim == 3 else picture
    options = [] if compression is None else [cv2.IMWRITE_PNG_COMPRESSION, compression]
    try:
        fine, data = cv2.imencode(".png", pixels, options)
    except cv2.error:
        fine = False
    if not fine:
        shape = " x ".join(map(str, picture.shape))
        raise DataError(f"a picture of {shape} pixels cannot be encoded as PNG; expected 1 to {LONGEST_PX:,} per edge")
    return bytes(data)


def indexed_png(indices: NDArray[np.uint8], colours: NDArray[np.uint8]) -> bytes:
    """Encode a small picture of indices into a table of colours.

    Args:
        indices: (height, width).
        colours: (256, 4): red, green, blue and opacity.
    """
    height, width = indices.shape
    buffer = io.BytesIO()
    buffer.write(SIGNATURE)
    _write_chunk(buffer, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, INDEXED, 0, 0, 0))
    _write_chunk(buffer, b"PLTE", colours[:, :3].tobytes())
    _write_chunk(buffer, b"tRNS", colours[:, 3].tobytes())
    scanlines = np.zeros((height, width + 1), np.uint8)
    scanlines[:, 1:] = indices
    _write_chunk(buffer, b"IDAT", zlib.compress(scanlines.data, 1))
    _write_chunk(buffer, b"IEND", b"")
    return buffer.getvalue()


def _as_bytes(block: NDArray[Any]) -> NDArray[np.uint8]:
    """Turn pixels into (rows, bytes per row), samples with the high byte first."""
    ordered = np.ascontiguousarray(block, block.dtype.newbyteorder(">"))
    return ordered.view(np.uint8).reshape(len(block), -1)


def _filtered(block: NDArray[Any], above: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Make scanlines with filter 2: each byte minus the one above it."""
    samples = _as_bytes(block)
    scanlines = np.empty((len(samples), samples.shape[1] + 1), np.uint8)
    scanlines[:, 0] = UP
    np.subtract(samples[:1], above, out=scanlines[:1, 1:])
    np.subtract(samples[1:], samples[:-1], out=scanlines[1:, 1:])
    return scanlines


def _deflate(scanlines: NDArray[np.uint8]) -> bytes:
    packer = zlib.compressobj(DEFLATE_EFFORT, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(scanlines.data) + packer.flush(zlib.Z_SYNC_FLUSH)


def _write_chunk(handle: BinaryIO, kind: bytes, data: bytes) -> None:
    handle.write(struct.pack(">I", len(data)) + kind)
    handle.write(data)
    handle.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))

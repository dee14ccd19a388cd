"""Tiled TIFF, NPY and JPG files from consecutive rows of a picture; PNG is in `io.pictures.png`.

Each writer takes a handle open for writing, the picture's (height, width) and dtype, and its rows from the top, in
blocks of any height.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from inkbatch import __version__
from inkbatch.io.pictures.bands import reblock

TIFF_TILE_PX = 256
TIFF_BUFFER_BYTES = 16 << 20  # raw tiles that are deflated together
CLASSIC_TIFF_BYTES = 2**32 - 2**25  # offsets of classic TIFF have 32 bits; tags and tables need some
JPG_LONGEST_PX = 65_500  # where libjpeg ends; the format itself ends at 65,535

Rows = Iterable[NDArray[Any]]


def write_tiff(
    handle: BinaryIO,
    shape_yx: tuple[int, int],
    dtype: np.dtype[Any],
    rows: Rows,
    *,
    bigtiff: bool = False,
    pixel_um: float | None = None,
    note: str = "",
) -> None:
    """Write a tiled, deflated grey TIFF.

    Args:
        handle: Open for writing and seeking.
        shape_yx: (height, width) in pixels.
        dtype: uint8 or uint16.
        rows: See the module.
        bigtiff: Write BigTIFF (64-bit offsets) whatever the size; it is always done where the pixels exceed 4 GB.
        pixel_um: Edge of a pixel in micrometres, for the resolution tags.
        note: Text that the file carries as its description.
    """
    needed = shape_yx[0] * shape_yx[1] * dtype.itemsize > CLASSIC_TIFF_BYTES
    per_cm = 10_000 / pixel_um if pixel_um else None
    with tifffile.TiffWriter(handle, bigtiff=bigtiff or needed) as tiff:
        tiff.write(
            data=_tiles(rows, shape_yx[1]),
            shape=shape_yx,
            dtype=dtype,
            tile=(TIFF_TILE_PX, TIFF_TILE_PX),
            photometric="minisblack",
            compression="adobe_deflate",
            predictor=True,
            resolution=(per_cm, per_cm) if per_cm else None,
            resolutionunit="centimeter" if per_cm else None,
            software=f"inkbatch {__version__}",
            description=note or None,
            metadata=None,
            maxworkers=max(2, os.cpu_count() or 2),
            buffersize=TIFF_BUFFER_BYTES,
        )


def _tiles(rows: Rows, width: int) -> Iterator[NDArray[Any]]:
    """Cut rows into whole tiles, row-major; those at the right and lower border are filled up with zeros."""
    edge = TIFF_TILE_PX
    for strip in reblock(rows, edge):
        for x in range(0, width, edge):
            part = strip[:, x : x + edge]
            if part.shape != (edge, edge):
                part = np.pad(part, [(0, edge - part.shape[0]), (0, edge - part.shape[1])])
            yield part


def write_npy(handle: BinaryIO, shape_yx: tuple[int, int], dtype: np.dtype[Any], rows: Rows) -> None:
    """Write a NumPy file, C order, little-endian; `numpy.load(…, mmap_mode="r")` opens it without reading it."""
    stored = dtype.newbyteorder("<")
    header = {"descr": np.lib.format.dtype_to_descr(stored), "fortran_order": False, "shape": shape_yx}
    np.lib.format.write_array_header_1_0(handle, header)
    for block in rows:
        handle.write(np.ascontiguousarray(block, stored).data)


def write_jpg(
    handle: BinaryIO, shape_yx: tuple[int, int], dtype: np.dtype[Any], rows: Rows, *, quality: int = 90
) -> None:
    """Write a grey JPG. The encoder needs the whole picture in memory.

    Args:
        handle: Open for writing.
        shape_yx: (height, width) in pixels, at most `JPG_LONGEST_PX` each.
        dtype: uint8.
        rows: See the module.
        quality: 1 to 100.

    Raises:
        ValueError: The encoder refused the picture.
    """
    picture = np.empty(shape_yx, dtype)
    y = 0
    for block in rows:
        picture[y : y + len(block)] = block
        y += len(block)
    fine, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not fine:
        raise ValueError(f"a picture of {shape_yx} {dtype} cannot be encoded as JPG")
    handle.write(data.data)

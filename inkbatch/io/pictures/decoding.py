"""Pictures and annotations of other people's making, decoded whole or refused by name."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from inkbatch.errors import CorruptDataError, DataError
from inkbatch.io.pictures.orientation import UPRIGHT, exif_orientation, jpg_orientation, refuse_turned

MOST_PIXELS = 1 << 30  # of a picture that is decoded whole
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG_ANIMATION, PNG_HEADER_BYTES = b"\x00\x00\x00\x08acTL", 1 << 16  # its chunk stands before the pixels
PNG_GREY = 0  # colour type
JPG_MAGIC = b"\xff\xd8\xff"
ORIENTATION_TAG = 274
DEFLATE_RATIO = 1_100  # deflate gives at most 1,032 bytes for one
_SMALLER_OR_MASK = 0b101  # NewSubfileType of TIFF
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what it would print is raised here, by name


def decode_image(data: bytes, mode: int, place: str) -> NDArray[Any]:
    """Decode a PNG, JPEG, TIFF or BMP as OpenCV does, after a look at what would be lost.

    Args:
        data: The file.
        mode: ``cv2.IMREAD_GRAYSCALE``, ``IMREAD_COLOR`` (blue, green, red) or ``IMREAD_UNCHANGED``.
        place: Opens the message of a failure.

    Returns:
        (Y, X) or (Y, X, channels).

    Raises:
        CorruptDataError: It cannot be decoded, or its header promises far more pixels than its bytes can hold.
        DataError: Several pages, transparency, a note that it is to be turned, or more than `MOST_PIXELS`.
    """
    _require_sane_png(data, place)
    _require_one_page(data, place)
    if data.startswith(JPG_MAGIC) and (turned := jpg_orientation(data)) != UPRIGHT:
        refuse_turned(turned, place)
    pixels = np.frombuffer(data, np.uint8)
    if mode != cv2.IMREAD_UNCHANGED:
        _require_opaque(_decoded(pixels, cv2.IMREAD_UNCHANGED, place), place)
    found = _decoded(pixels, mode, place)
    _require_opaque(found, place)
    return found


def _decoded(pixels: NDArray[np.uint8], mode: int, place: str) -> NDArray[Any]:
    try:
        found = cv2.imdecode(pixels, mode) if pixels.size else None
    except cv2.error as error:
        raise CorruptDataError(f"{place}: cannot be decoded as a picture ({error.err}); replace it") from error
    if found is None:
        raise CorruptDataError(f"{place}: cannot be decoded as a picture; replace it, or leave it out")
    return np.asarray(found)


def _require_opaque(picture: NDArray[Any], place: str) -> None:
    if picture.ndim == 3 and picture.shape[2] == 4 and (picture[..., 3] != np.iinfo(picture.dtype).max).any():
        raise DataError(
            f"{place}: expected an opaque picture, got transparent pixels, whose ground nothing states; flatten it "
            "onto the ground that you mean, and save it without alpha"
        )


def _require_one_page(data: bytes, place: str) -> None:
    if not data.startswith(TIFF_MAGIC):
        return
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            pages: list[Any] = list(tiff.pages)
            count = len([page for page in pages if not int(page.subfiletype) & _SMALLER_OR_MASK])
            stated = pages[0].tags.get(ORIENTATION_TAG)
            turned = UPRIGHT if stated is None else int(stated.value)
    except Exception as error:  # tifffile raises whatever damaged tags lead it to
        raise CorruptDataError(
            f"{place}: its TIFF header cannot be read ({type(error).__name__}); copy the file again"
        ) from error
    if count > 1:
        raise DataError(f"{place}: expected one picture, got a TIFF of {count} pages; save the one you mean by itself")
    if turned != UPRIGHT:
        refuse_turned(turned, place)


def _require_sane_png(data: bytes, place: str) -> None:
    if not data.startswith(PNG_MAGIC):
        return
    try:
        width, height, bits = struct.unpack(">IIB", data[16:25])
    except struct.error as error:
        raise CorruptDataError(f"{place}: its picture header cannot be read; copy it again") from error
    if PNG_ANIMATION in data[:PNG_HEADER_BYTES]:
        raise DataError(f"{place}: expected one picture, got an animated PNG; save the frame you mean by itself")
    if height * width > MOST_PIXELS:
        raise DataError(f"{place}: expected at most {MOST_PIXELS:,} pixels, got {height} x {width}; cut it into parts")
    if height * width * bits // 8 > DEFLATE_RATIO * len(data):
        raise CorruptDataError(
            f"{place}: its header promises {height} x {width} pixels, more than its {len(data)} bytes can hold; "
            "copy it again"
        )
    for kind, block in _png_chunks(data, place):
        if kind == b"tRNS" and data[25] == PNG_GREY:  # of the other kinds OpenCV makes an alpha channel
            raise DataError(
                f"{place}: expected an opaque picture, got a grey PNG with a transparent colour (tRNS), whose ground "
                "nothing states; flatten it onto the ground that you mean, and save it without transparency"
            )
        if kind == b"eXIf" and (turned := exif_orientation(block)) != UPRIGHT:
            refuse_turned(turned, place)


def _png_chunks(data: bytes, place: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and content of the chunks that are no pixels.

    Raises:
        CorruptDataError: A chunk is longer than the file: OpenCV would take memory for all that it promises.
    """
    at = len(PNG_MAGIC)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if at + 8 + length > len(data):
            raise CorruptDataError(
                f"{place}: a part of it promises {length:,} bytes, where {len(data) - at - 8:,} are left of the file; "
                "copy it again"
            )
        if kind == b"IEND":
            return
        if kind != b"IDAT":
            yield kind, data[at + 8 : at + 8 + length]
        at += 12 + length

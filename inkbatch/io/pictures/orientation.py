"""Orientation of a picture as cameras and phones note it (EXIF): some readers turn the picture, others do not."""

from __future__ import annotations

import struct
from typing import NoReturn

from inkbatch.errors import DataError

UPRIGHT = 1  # EXIF 2.3, tag 0x0112; 2 to 8 are flips and quarter turns
TAG = 0x0112
EXIF = b"Exif\0\0"
_START_OF_SCAN, _APP1, _FILL = 0xDA, 0xE1, 0xFF


def refuse_turned(orientation: int, place: str) -> NoReturn:
    """Refuse a picture that is to be turned before it is shown: it would lie askew to its mask.

    Raises:
        DataError: Always.
    """
    raise DataError(
        f"{place}: expected an upright picture, got EXIF orientation {orientation}, which some programs obey and "
        "others do not; turn the pixels themselves (mogrify -auto-orient), and check that mask and labels fit"
    )


def exif_orientation(block: bytes) -> int:
    """Read the orientation of an EXIF block (a TIFF without pixels); `UPRIGHT` where it states none."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    try:
        if order is None:
            return UPRIGHT
        (at,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", block, entry)
            if tag == TAG:
                return int(value)
    except struct.error:  # damaged, as no reader obeys it
        return UPRIGHT
    return UPRIGHT


def jpg_orientation(data: bytes) -> int:
    """Read the orientation of a JPG; `UPRIGHT` where it states none."""
    at = 2
    while at + 4 <= len(data) and data[at] == _FILL:
        code, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if code == _START_OF_SCAN:
            break
        if code == _FILL:
            at += 1
            continue
        block = data[at + 4 : at + 2 + length]
        if code == _APP1 and block.startswith(EXIF):
            return exif_orientation(block[len(EXIF) :])
        at += 2 + max(length, 2)
    return UPRIGHT

"""Packed tiles of codes: a few bytes for an empty or an even one."""

from __future__ import annotations

import numpy as np
from numcodecs import Blosc

from inkbatch.data.labels.painting import TILE_PX, Codes
from inkbatch.errors import CorruptDataError

_CODEC = Blosc("lz4", 5, Blosc.NOSHUFFLE)


def packed(codes: Codes) -> bytes:
    """Pack codes of any shape; all zeros are no bytes at all."""
    return bytes(_CODEC.encode(np.ascontiguousarray(codes))) if codes.any() else b""


def unpacked(data: bytes | memoryview, shape: tuple[int, int] = (TILE_PX, TILE_PX)) -> Codes:
    """Unpack codes.

    Raises:
        CorruptDataError: The bytes are not those of `packed`.
    """
    out = np.zeros(shape, np.uint8)
    if len(data):
        try:
            _CODEC.decode(data, out)
        except (RuntimeError, ValueError) as error:
            raise CorruptDataError(f"painted labels: packed codes of {shape} cannot be read: {error}") from error
    return out

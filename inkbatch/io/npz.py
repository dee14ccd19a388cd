"""NumPy's archives of several arrays, ``.npz``, as units of a run leave them: read whole, or refused by name."""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import CorruptDataError
from inkbatch.io.store.location import Location

MOST_BYTES = 4 << 30  # of one array; a damaged header may ask for any number
_DAMAGE = (
    ValueError, KeyError, IndexError, TypeError, OSError, EOFError, OverflowError, RuntimeError, NotImplementedError,
    SyntaxError, struct.error, zlib.error, zipfile.BadZipFile, MemoryError,
)  # fmt: skip


def read_npz(place: Location, what: str, cure: str, names: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    """Read every array of an archive; nothing is ever unpickled.

    Args:
        place: The file.
        what: What it should be, for the message.
        cure: What to do if it is not.
        names: Arrays that it must hold.

    Raises:
        CorruptDataError: It is no whole archive, an array states more than it holds, or one of `names` is not there.
        FileNotFoundError: There is no file.
    """
    data = place.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = {info.filename.removesuffix(".npy"): _array(archive, info) for info in archive.infolist()}
    except _DAMAGE as error:
        raise CorruptDataError(
            f"{place}: expected {what}, got damaged bytes ({type(error).__name__}); {cure}"
        ) from error
    if missing := sorted(set(names) - found.keys()):
        raise CorruptDataError(f"{place}: expected {what}, got no {', '.join(missing)}; {cure}")
    return found


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """Read one member; its header is compared with its size before anything is made of it."""
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(member)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or not 0 <= size <= min(info.file_size, MOST_BYTES):
            raise ValueError("its header states more than it holds")
        values = np.frombuffer(bytearray(member.read(size)), dtype, math.prod(shape))
    return values.reshape(shape, order="F" if fortran else "C")

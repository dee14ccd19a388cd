"""Destinations of an encoded zarr shard, piece by piece: a local file without a name yet, or one put to a store."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any, Protocol

from inkbatch.io.store.local_files import NewFile
from inkbatch.io.store.location import Location
from inkbatch.io.store.meter import WRITTEN

_KEEP_SIZE = 1  # fallocate's flag: reserve room, leave the file's length alone
RESERVED_BYTES = 1 << 20  # less is not worth a call

# Larger writes get larger pages of the page cache, and a virtual machine must fetch these from its host more often: 128
# KiB at a time took an eighth of the seconds that 4 MiB took. Elsewhere it costs nothing.
WRITE_BYTES = 128 << 10


class ShardSink(Protocol):
    """Destination of one shard, which appears when `finish` is called.

    Attributes:
        uri: Its place.
    """

    uri: str

    def append(self, piece: memoryview) -> None:
        """Take the next bytes; `piece` may change after the call."""

    def finish(self) -> None:
        """Make the shard appear; it is whole."""

    def abandon(self) -> None:
        """Leave no trace; also after a failed `finish`."""


def sink_for(location: Location) -> ShardSink:
    """Make the sink of a shard at a location."""
    return LocalShard(location.path) if location.is_local else SentShard(location)


class LocalShard:
    """A `NewFile`.

    Room is reserved before each piece: file systems that allocate late (ext4) then spend about a third less time on
    writing it. Where the file system has no such call, nothing is reserved.
    """

    def __init__(self, path: str) -> None:
        self.uri = path
        self._file = NewFile(path)
        self._written = 0

    def append(self, piece: memoryview) -> None:
        """See `ShardSink`."""
        if len(piece) >= RESERVED_BYTES:
            _reserve(self._file.handle, self._written, len(piece))
        for start in range(0, len(piece), WRITE_BYTES):
            self._file.write(piece[start : start + WRITE_BYTES])
        self._written += len(piece)

    def finish(self) -> None:
        """See `ShardSink`."""
        self._file.publish()
        WRITTEN.add(self._written)

    def abandon(self) -> None:
        """See `ShardSink`."""
        self._file.abandon()


class SentShard:
    """Bytes that are kept until the shard is whole, and put as one object."""

    def __init__(self, location: Location) -> None:
        self.uri = location.uri
        self._location = location
        self._parts: list[bytes] = []

    def append(self, piece: memoryview) -> None:
        """See `ShardSink`."""
        self._parts.append(bytes(piece))

    def finish(self) -> None:
        """See `ShardSink`."""
        self._location.write_parts(self._parts)

    def abandon(self) -> None:
        """See `ShardSink`."""
        self._parts = []


@lru_cache(maxsize=1)
def fallocate() -> Any:
    """Find Linux's own call, or None; where a file system lacks it, `os.posix_fallocate` would write every block."""
    call = getattr(ctypes.CDLL(None), "fallocate64", None)
    if call is not None:
        call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return call


def _reserve(handle: int, start: int, length: int) -> None:
    """Reserve room; a failure is left to the write that follows, which names it."""
    call = fallocate()
    if call is not None:
        call(handle, _KEEP_SIZE, start, length)

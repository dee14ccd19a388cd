"""Ledger of what a piece of work stores: path, bytes and checksum of each object, noted as it is written.

Whoever drives the work opens `recording` around it. `Location` notes every object that it puts, and the writer of zarr
shards every shard; the thread that opened the recording is the one that finishes its objects, so that a context
variable suffices.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

import google_crc32c
import numpy as np

from inkbatch.io.store.local_files import force

SHARD = "shard-crc32c:"  # of a zarr shard: over the checksums of its chunks, then its index
WHOLE = "crc32c:"  # of any other object: over all its bytes


@dataclass(frozen=True)
class Noted:
    """An object as it was written.

    Attributes:
        bytes: Its size.
        checksum: `SHARD` or `WHOLE`, then eight hexadecimal digits.
    """

    bytes: int
    checksum: str


Ledger = dict[str, Noted]  # by URI

_open: ContextVar[Ledger | None] = ContextVar("inkbatch_ledger", default=None)


@contextlib.contextmanager
def recording() -> Iterator[Ledger]:
    """Note what this thread stores in the block."""
    ledger: Ledger = {}
    token = _open.set(ledger)
    try:
        yield ledger
    finally:
        _open.reset(token)


@contextlib.contextmanager
def unrecorded() -> Iterator[None]:
    """Note nothing in the block: its objects belong to no result (pictures of the work so far)."""
    token = _open.set(None)
    try:
        yield
    finally:
        _open.reset(token)


def note(uri: str, size: int, checksum: str) -> None:
    """Note an object that is stored, if this thread records."""
    ledger = _open.get()
    if ledger is not None:
        ledger[uri] = Noted(size, checksum)


def note_bytes(uri: str, data: bytes | bytearray | memoryview) -> None:
    """Note an object with all its bytes at hand, if this thread records."""
    if _open.get() is not None:
        note(uri, memoryview(data).nbytes, whole_checksum(data))


def note_parts(uri: str, parts: Sequence[bytes | memoryview]) -> None:
    """Note an object that was written from parts, if this thread records."""
    if _open.get() is not None:
        note_bytes(uri, b"".join(parts))


def whole_checksum(data: bytes | bytearray | memoryview) -> str:
    """Compute the checksum of an object that is no shard."""
    return f"{WHOLE}{google_crc32c.value(np.frombuffer(data, np.uint8)) if len(data) else 0:08x}"


class RunningChecksum:
    """Size and checksum of an object that is written part by part."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin at the first part."""
        self.bytes, self._sum = 0, 0

    def seen(self, part: bytes) -> bytes:
        """Take the next part along; returns it."""
        self._sum = google_crc32c.extend(self._sum, part) if part else self._sum
        self.bytes += len(part)
        return part

    @property
    def checksum(self) -> str:
        """Checksum of all parts, as `whole_checksum` computes it."""
        return f"{WHOLE}{self._sum:08x}"


def below(ledger: Mapping[str, Noted], folder: str) -> dict[str, list[int | str]]:
    """List what lies below a folder as markers hold it: path in the folder -> [bytes, checksum]."""
    prefix = f"{folder.rstrip('/')}/"
    return {
        uri.removeprefix(prefix): [found.bytes, found.checksum]
        for uri, found in sorted(ledger.items())
        if uri.startswith(prefix)
    }


def make_durable(ledger: Mapping[str, Noted]) -> None:
    """Force the local files of a ledger, and the names of these, onto the disk; other stores are durable by a put."""
    files = [uri for uri in ledger if "://" not in uri]
    for path in [*files, *sorted({os.path.dirname(file) for file in files})]:
        force(path)

"""Bytes of layer files: headers by small ranges, strips by merged ranges, local files through memory maps."""

from __future__ import annotations

import io
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import CorruptDataError
from inkbatch.io.store.location import Location
from inkbatch.io.store.meter import READ
from inkbatch.io.store.ranges import read_ranges
from inkbatch.io.store.retrying import retried
from inkbatch.io.threads import Tasks, decode_pool

HEADER_BYTES = 32 << 10  # holds the tags of most layers, and costs less than the latency of asking for it
MERGE_GAP_BYTES = 256 << 10  # a gap cheaper to read than to ask around
REMOTE_PART_BYTES = 8 << 20  # one request; larger reads are cut so that they use several connections
LOCAL_PART_BYTES = 1 << 20  # one task for a decoding thread
FETCH_BYTES = 64 << 20  # fetched at once, per reader; as much again may wait to be decoded

Buffer = bytes | memoryview


class RangeFile(io.RawIOBase):
    """A remote file to read headers from: fetches `HEADER_BYTES` at a time and keeps what it fetched."""

    def __init__(self, location: Location, size: int) -> None:
        self._location, self._size, self._position = location, size, 0
        self._kept: list[tuple[int, bytes]] = []

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position; nothing is fetched."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Return the position at which the next read starts."""
        return self._position

    def readinto(self, target: Any) -> int:
        """Fill `target` from here, less only at the end of the file."""
        view = memoryview(target).cast("B")
        start, stop = self._position, min(self._position + len(view), self._size)
        if start >= stop:
            return 0
        view[: stop - start] = self._bytes(start, stop)
        self._position = stop
        return stop - start

    def _bytes(self, start: int, stop: int) -> bytes:
        for kept_from, data in self._kept:
            if kept_from <= start and stop <= kept_from + len(data):
                return data[start - kept_from : stop - kept_from]
        data = self._location.read_range(start, min(self._size, max(stop, start + HEADER_BYTES)))
        self._kept.append((start, data))
        return data[: stop - start]


def open_header(location: Location, size: int) -> BinaryIO | RangeFile:
    """Open a file to read its header: the local file itself, or small ranges of the remote one."""
    if location.is_local:
        return retried(location.uri, lambda: open(location.path, "rb"))
    return RangeFile(location, size)


def read_whole(location: Location, size: int) -> bytes:
    """Read the whole object, over several connections where it is large and remote."""
    cuts = range(0, size, REMOTE_PART_BYTES) if not location.is_local else range(0, size, max(size, 1))
    return b"".join(read_ranges([(location, start, min(start + cuts.step, size)) for start in cuts]))


class MappedFiles:
    """Memory maps of local files, each opened once; safe to use from several threads."""

    def __init__(self) -> None:
        self._maps: dict[str, mmap.mmap] = {}
        self._lock = threading.Lock()

    def buffer(self, location: Location, start: int, stop: int, *, all_at_once: bool = False) -> memoryview:
        """View bytes ``[start, stop)`` without a copy.

        Args:
            location: The file.
            start: First byte.
            stop: End, exclusive.
            all_at_once: Most of the range is about to be read: let the disk start now (half as long on a cold file).

        Raises:
            CorruptDataError: The file has become shorter than that; touching its map would kill the process.
        """
        with self._lock:
            mapped = self._maps.get(location.uri)
            if mapped is None:
                mapped = self._maps[location.uri] = retried(location.uri, lambda: _map(location.path))
        if stop > min(len(mapped), mapped.size()):
            raise CorruptDataError(
                f"{location.uri}: expected bytes {start}:{stop}, the file ends at {mapped.size()}; it was cut or "
                "replaced while it was read; put the whole file back"
            )
        if all_at_once:
            page = start - start % mmap.PAGESIZE
            mapped.madvise(mmap.MADV_WILLNEED, page, stop - page)
        return memoryview(mapped)[start:stop]

    def close(self) -> None:
        """Let go of the maps; views that were handed out stay valid and keep theirs."""
        with self._lock:
            self._maps.clear()


def _map(path: str) -> mmap.mmap:
    handle = os.open(path, os.O_RDONLY)
    try:
        # Private, since mounts of object stores allow no shared maps; nothing is written, so nothing is copied.
        return mmap.mmap(handle, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Part:
    """A run of bytes of one file, and the function that uses them.

    Attributes:
        location: The file.
        start: First byte.
        stop: End, exclusive.
        use: Called once with the bytes, on some thread.
    """

    location: Location
    start: int
    stop: int
    use: Callable[[Buffer], None]


def merged_runs(offsets: NDArray[np.int64], counts: NDArray[np.int64], is_local: bool) -> Iterator[NDArray[np.intp]]:
    """Group byte ranges, in file order, into runs that are read in one piece.

    Args:
        offsets: First bytes.
        counts: Lengths.
        is_local: Whether runs are tasks for decoding threads only (small), or requests (large, near ones merged).

    Yields:
        Positions in `offsets`, in file order.
    """
    order = np.argsort(offsets, kind="stable")
    limit, gap = (LOCAL_PART_BYTES, LOCAL_PART_BYTES) if is_local else (REMOTE_PART_BYTES, MERGE_GAP_BYTES)
    starts, stops = offsets[order], (offsets + counts)[order]
    first = 0
    for position in range(1, len(order) + 1):
        if (
            position == len(order)
            or stops[position] - starts[first] > limit
            or starts[position] - stops[position - 1] > gap
        ):
            yield order[first:position]
            first = position


def run_reads(parts: Sequence[Part], files: MappedFiles) -> None:
    """Read all parts and use them: fetching and decoding overlap, and memory stays bounded.

    Raises:
        InkbatchError: What reading or using the first failing part raised.
    """
    if not parts:
        return
    if parts[0].location.is_local:
        if len(parts) == 1:
            _use_mapped(parts[0], files)
        else:
            with Tasks(decode_pool) as tasks:
                for part in parts:
                    tasks.start(_use_mapped, part, files)
        return
    with Tasks(decode_pool) as tasks:
        for group in _groups(parts):
            fetched = read_ranges([(part.location, part.start, part.stop) for part in group])
            tasks.finish()  # the group before, so that no more than two are held
            for part, data in zip(group, fetched, strict=True):
                tasks.start(part.use, data)


def _use_mapped(part: Part, files: MappedFiles) -> None:
    part.use(files.buffer(part.location, part.start, part.stop))
    READ.add(part.stop - part.start)


def _groups(parts: Sequence[Part]) -> Iterator[list[Part]]:
    group: list[Part] = []
    held = 0
    for part in parts:
        if group and held + part.stop - part.start > FETCH_BYTES:
            yield group
            group, held = [], 0
        group.append(part)
        held += part.stop - part.start
    if group:
        yield group

"""Byte ranges of objects, many at once where the store is remote."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from inkbatch.errors import CorruptDataError, InkbatchError, StorageError
from inkbatch.io.store import retrying
from inkbatch.io.store.faults import judge
from inkbatch.io.store.local_files import read_local
from inkbatch.io.store.meter import READ

PARALLEL_REQUESTS = 48  # per call of `read_ranges`; S3 serves about 50-90 MB/s per connection


class Place(Protocol):
    """An object of a store, as `inkbatch.io.store.location.Location` names it."""

    @property
    def uri(self) -> str:
        """Its address, for messages."""

    @property
    def path(self) -> str:
        """Its path in the file system."""

    @property
    def is_local(self) -> bool:
        """True on a local disk."""

    @property
    def fs(self) -> AbstractFileSystem:
        """The file system that serves it."""


ByteRange = tuple[Place, int, int]


def read_ranges(ranges: Sequence[ByteRange]) -> list[bytes]:
    """Read byte ranges ``(location, start, stop)`` of objects on one store, in parallel where it is remote.

    Only the ranges that failed are asked for again.

    Returns:
        The bytes of each range, in the order of `ranges`.

    Raises:
        FileNotFoundError: An object is not there.
        CorruptDataError: An object is shorter than its range.
        StorageError: A range failed again after retries.
    """
    results: list[bytes] = [b""] * len(ranges)
    open_indices = [index for index, (_, start, stop) in enumerate(ranges) if stop > start]
    waits = list(retrying.RETRY_DELAYS_S)
    was_short: set[int] = set()
    while open_indices:
        failed: list[int] = []
        fault: tuple[InkbatchError, BaseException] | None = None
        for index, answer in zip(open_indices, _fetch([ranges[index] for index in open_indices]), strict=True):
            location, start, stop = ranges[index]
            if isinstance(answer, BaseException):
                ours = judge(location.uri, answer)
                if ours is None:
                    raise answer
                if not isinstance(ours, StorageError):
                    raise ours from answer
                failed.append(index)
                fault = ours, answer
            elif len(answer) != stop - start:
                short = CorruptDataError(
                    f"{location.uri}: expected bytes {start}:{stop}, got {len(answer)}; the object is truncated, "
                    "copy it again"
                )
                if location.is_local or index in was_short:
                    raise short
                was_short.add(index)  # a connection that broke may have cut it: it is read once more
                failed.append(index)
                fault = short, short
            else:
                results[index] = answer
        if fault is not None:
            if not waits:
                raise fault[0] from (fault[1] if fault[1] is not fault[0] else None)
            time.sleep(waits.pop(0))
        open_indices = failed
    READ.add(sum(len(data) for data in results))
    return results


def _fetch(ranges: Sequence[ByteRange]) -> list[bytes | BaseException]:
    """Ask once for each range; an exception stands in the place of the bytes that it cost."""
    location = ranges[0][0]
    fs = location.fs
    if isinstance(fs, AsyncFileSystem):
        paths = [item.path for item, _, _ in ranges]
        starts, stops = [start for _, start, _ in ranges], [stop for _, _, stop in ranges]
        try:
            answers = fs.cat_ranges(paths, starts, stops, batch_size=PARALLEL_REQUESTS, on_error="return")
        except Exception as error:  # the client could not be made: no credentials, no endpoint
            return [error] * len(ranges)
        return list(answers)
    return [_fetch_one(item, start, stop) for item, start, stop in ranges]


def _fetch_one(location: Place, start: int, stop: int) -> bytes | BaseException:
    try:
        if not location.is_local:
            return bytes(location.fs.cat_file(location.path, start=start, end=stop))
        return read_local(location.path, start, stop)
    except Exception as error:
        return error

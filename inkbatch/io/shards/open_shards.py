"""Shards on a local disk that stay open, with their indices: a small region costs one read of the file.

Training cuts tiles out of the same shards again and again. X-ray layers are stored as they are (see `codec`),
so a region of them is copied straight from the file, which the system keeps in its own memory: a second copy in ours
would cost the first touch of as much fresh memory, and leave less for the system's.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.io.shards.codec import Place, codec_of, is_raw
from inkbatch.io.shards.layout import BLOSC_HEADER_BYTES, ArrayLayout
from inkbatch.io.shards.reading import StoredShard, decode_run, own_of
from inkbatch.io.shards.scratch import Bytes
from inkbatch.io.store.location import Location

OPEN_FILES = 256  # of the 1,024 that a process may mostly have


class OpenShard(StoredShard):
    """One local shard, prepared for all of its chunks; closed when the last reader lets go of it."""

    def __init__(self, location: Location, layout: ArrayLayout) -> None:
        super().__init__(location, layout)
        self.prepare(list(itertools.product(*(range(count) for count in layout.chunks_per_shard))))
        self._stamp = self._stamped()
        self._checked: set[Place] = set()

    def _stamped(self) -> tuple[int, int]:
        found = os.fstat(self._handle)
        return found.st_size, found.st_mtime_ns

    def is_unchanged(self) -> bool:
        """Tell whether the file is as it was when it was opened."""
        return self._stamped() == self._stamp

    def cut(self, place: Place, inner: Sequence[slice], buffer: Bytes) -> NDArray[Any] | None:
        """Read a region of a chunk that is stored uncompressed, or of one of zeros.

        The checksum is tested when the chunk is read for the first time.

        Args:
            place: The chunk's place inside the shard.
            inner: The region, one slice per axis, inside the chunk.
            buffer: At least `ArrayLayout.slot_bytes`; holds the result.

        Returns:
            The region, stored dtype; None where the chunk is compressed.

        Raises:
            CorruptDataError: The checksum fails.
        """
        layout = self.layout
        start, stop = self.spans[place]
        whole: NDArray[Any] = np.ndarray(layout.chunks, layout.dtype, buffer, BLOSC_HEADER_BYTES)
        if start == stop:
            whole[tuple(inner)] = 0
        elif place in self._checked:
            for first, last in self._rows(inner):
                self.read_at(start + first, buffer.data[first:last])
        else:
            if stop - start != layout.slot_bytes:
                return None
            self.read_at(start, buffer.data[: layout.slot_bytes])
            if not is_raw(buffer[: layout.slot_bytes], layout):
                return None
            codec_of(layout).require_whole(buffer[: layout.slot_bytes], (self.location, place))
            self._checked.add(place)
        return whole[tuple(inner)]

    def decode(self, place: Place, out: NDArray[Any]) -> None:
        """Decode a chunk, clipped to the shape of `out`.

        Raises:
            CorruptDataError: The checksum fails, or the bytes cannot be decoded.
        """
        decode_run(self, [place], own_of({place: out}))

    def _rows(self, inner: Sequence[slice]) -> Iterator[tuple[int, int]]:
        """Return the bytes of the stored chunk, half-open, that hold the rows of a region at the chunk's full width."""
        *lead, height, width = self.layout.chunks
        rows, row_bytes = inner[-2], width * np.dtype(self.layout.dtype).itemsize
        firsts = np.arange(0, math.prod(lead) * height, height).reshape(lead)[tuple(inner[:-2])].ravel() + rows.start
        starts = (BLOSC_HEADER_BYTES + firsts * row_bytes).tolist()
        length = (rows.stop - rows.start) * row_bytes
        return _bridged([(start, start + length) for start in starts])


def _bridged(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join spans, in their order, where the gap between two is no longer than the second."""
    start, stop = spans[0]
    for begin, end in spans[1:]:
        if begin - stop > end - begin:
            yield start, stop
            start = begin
        stop = end
    yield start, stop


class OpenShards:
    """The shards that were used last, kept open. Safe to use from several threads.

    Args:
        limit: Most files that stay open.
    """

    def __init__(self, limit: int = OPEN_FILES) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._shards: OrderedDict[str, OpenShard] = OrderedDict()

    def get(self, location: Location, layout: ArrayLayout) -> OpenShard:
        """Return a shard, ready to be read; opened again where the file has changed meanwhile.

        Raises:
            CorruptDataError: The shard is missing, or its index fails its checksum.
        """
        with self._lock:
            found = self._shards.get(location.uri)
            if found is not None and found.is_unchanged():
                self._shards.move_to_end(location.uri)
                return found
        opened = OpenShard(location, layout)
        with self._lock:
            self._shards[location.uri] = opened
            self._shards.move_to_end(location.uri)
            while len(self._shards) > self._limit:
                self._shards.popitem(last=False)
        return opened

"""Decoded chunks, kept in memory up to a limit: who reads small windows again and again decodes each chunk once.

Training cuts tiles of 64 to 256 px out of chunks of 256 px, in random order, epoch after epoch. What has been decoded
is therefore kept; what was decoded first goes first. A limit of 0 keeps nothing.

Chunks lie side by side in slabs of megabytes, which are given back as a whole: NumPy asks for huge pages for arrays of
4 MiB and more, and the first touch of fresh memory in pages of 4 KiB costs as much as decoding into it.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.io.shards import ShardedArray

Place = tuple[int, ...]
Key = tuple[str, Place]
SLAB_BYTES = 32 << 20
SLABS_AT_LEAST = 16  # so that little is forgotten at a time
ALIGNED_BYTES = 64


@dataclass
class _Slab:
    """Memory of several chunks.

    Attributes:
        memory: Its bytes.
        used: How many are taken.
        keys: The chunks that lie in it.
        kept: False once it was given up; readers may still hold parts of it.
    """

    memory: NDArray[np.uint8]
    used: int = 0
    keys: list[Key] = field(default_factory=list)
    kept: bool = True


@dataclass(frozen=True)
class Room:
    """Where one chunk goes before it is kept.

    Attributes:
        chunk: To be filled.
        slab: Whose memory it is; None for a chunk larger than all that may be kept.
    """

    chunk: NDArray[Any]
    slab: _Slab | None


class ChunkCache:
    """Decoded chunks of several arrays. Safe to use from several threads.

    Args:
        limit_bytes: Most bytes that are kept.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._slabs: deque[_Slab] = deque()
        self._held = 0
        self._chunks: dict[Key, NDArray[Any]] = {}

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that are kept now."""
        return self._held

    def get(self, array: str, places: Sequence[Place]) -> dict[Place, NDArray[Any]]:
        """Those of the wanted chunks that are kept; they are to be read, never written to."""
        found = {place: self._chunks.get((array, place)) for place in places}
        return {place: chunk for place, chunk in found.items() if chunk is not None}

    def room(self, shape: Sequence[int], dtype: str) -> Room:
        """Memory for a chunk, uninitialised; what was decoded first makes room."""
        wanted = np.dtype(dtype)
        size = int(np.prod(shape)) * wanted.itemsize
        if size > self.limit_bytes:
            return Room(np.empty(shape, wanted), None)
        with self._lock:
            slab = self._slabs[-1] if self._slabs else None
            if slab is None or slab.used + size > len(slab.memory):
                slab = self._fresh(size)
            start = slab.used
            slab.used = -(-(start + size) // ALIGNED_BYTES) * ALIGNED_BYTES
        return Room(slab.memory[start : start + size].view(wanted).reshape(shape), slab)

    def put(self, array: str, place: Place, room: Room) -> None:
        """Keep a chunk that was decoded into its room."""
        with self._lock:
            if room.slab is not None and room.slab.kept and (array, place) not in self._chunks:
                self._chunks[array, place] = room.chunk
                room.slab.keys.append((array, place))

    def _fresh(self, size: int) -> _Slab:
        length = max(size, min(SLAB_BYTES, self.limit_bytes // SLABS_AT_LEAST))
        while self._slabs and self._held + length > self.limit_bytes:
            old = self._slabs.popleft()
            old.kept = False
            self._held -= len(old.memory)
            for key in old.keys:
                del self._chunks[key]
        self._slabs.append(_Slab(np.empty(length, np.uint8)))
        self._held += length
        return self._slabs[-1]


@dataclass(frozen=True)
class CachedArray:
    """A sharded array that is read through a cache.

    Attributes:
        array: The stored array.
        cache: Where its decoded chunks are kept.
    """

    array: ShardedArray
    cache: ChunkCache

    def read(self, region: Sequence[slice]) -> NDArray[Any]:
        """Read a region; see `ShardedArray.read`."""
        if not self.cache.limit_bytes:
            return self.array.read(region)
        chunks = self.array.layout.chunks
        spans = [range(part.start // size, -(-part.stop // size)) for part, size in zip(region, chunks, strict=True)]
        places = list(itertools.product(*spans))
        found = self.cache.get(self.array.location.uri, places)
        missing = [place for place in places if place not in found]
        if missing:
            found |= self._decoded(missing)
        out = np.empty([part.stop - part.start for part in region], np.dtype(self.array.layout.dtype))
        for place in places:
            inner, outer = [], []
            for number, size, part in zip(place, chunks, region, strict=True):
                first, last = max(number * size, part.start), min((number + 1) * size, part.stop)
                inner.append(slice(first - number * size, last - number * size))
                outer.append(slice(first - part.start, last - part.start))
            out[tuple(outer)] = found[place][tuple(inner)]
        return out

    def _decoded(self, places: Sequence[Place]) -> dict[Place, NDArray[Any]]:
        """Decode chunks (those of one shard in as few requests as possible) and keep them."""
        layout = self.array.layout
        rooms = []
        for place in places:
            corner = zip(place, layout.chunks, layout.shape, strict=True)
            rooms.append(self.cache.room([min(chunk, size - i * chunk) for i, chunk, size in corner], layout.dtype))
        self.array.read_chunks(places, [room.chunk for room in rooms])
        for place, room in zip(places, rooms, strict=True):
            self.cache.put(self.array.location.uri, place, room)
        return {place: room.chunk for place, room in zip(places, rooms, strict=True)}

"""Decoded chunks, kept in memory up to a limit, so that many small regions decode each chunk once.

Training cuts tiles of 64 to 256 px out of chunks of 256 px, in random order, epoch after epoch. What has been decoded
is therefore kept; what was decoded first goes first. A limit of 0 keeps nothing. Chunks that are stored uncompressed on
a local disk, layers of papyrus mostly, need no decoding: a region that takes a large part of one is read straight from
the disk (`io.shards.open_shards`). A smaller one is one of many in the same chunk, which is therefore kept as well.

Chunks lie side by side in slabs of megabytes, which are given back as a whole: NumPy asks for huge pages for arrays of
4 MiB and more, and the first touch of fresh memory in pages of 4 KiB costs as much as decoding into it.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.io.shards.array import ShardedArray
from inkbatch.io.shards.open_shards import OpenShards
from inkbatch.io.shards.scratch import Bytes, scratch

Place = tuple[int, ...]
Key = tuple[str, Place]
Slices = tuple[slice, ...]
SLAB_BYTES = 32 << 20
SLABS_AT_LEAST = 16  # so that little is forgotten at a time
ALIGNED_BYTES = 64
STRAIGHT_SHARE = 0.25  # of a chunk's rows times columns; a smaller region makes it kept


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
class ReservedChunk:
    """Memory of one chunk that is about to be decoded and kept.

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
        self.shards = OpenShards()

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that are kept now."""
        return self._held

    def get(self, array: str, places: Iterable[Place]) -> dict[Place, NDArray[Any]]:
        """Return those of some chunks that are kept; never write to them."""
        found = {place: self._chunks.get((array, place)) for place in places}
        return {place: chunk for place, chunk in found.items() if chunk is not None}

    def reserve(self, shape: Sequence[int], dtype: str) -> ReservedChunk:
        """Reserve memory for a chunk, uninitialised; the chunks that were decoded first make room."""
        wanted = np.dtype(dtype)
        size = int(np.prod(shape)) * wanted.itemsize
        if size > self.limit_bytes:
            return ReservedChunk(np.empty(shape, wanted), None)
        with self._lock:
            slab = self._slabs[-1] if self._slabs else None
            if slab is None or slab.used + size > len(slab.memory):
                slab = self._fresh(size)
            start = slab.used
            slab.used = -(-(start + size) // ALIGNED_BYTES) * ALIGNED_BYTES
        return ReservedChunk(slab.memory[start : start + size].view(wanted).reshape(shape), slab)

    def put(self, array: str, place: Place, reserved: ReservedChunk) -> None:
        """Keep a chunk that was decoded into its reserved memory."""
        with self._lock:
            if reserved.slab is not None and reserved.slab.kept and (array, place) not in self._chunks:
                self._chunks[array, place] = reserved.chunk
                reserved.slab.keys.append((array, place))

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
        cache: Cache of its decoded chunks.
    """

    array: ShardedArray
    cache: ChunkCache

    def read(self, region: Sequence[slice]) -> NDArray[Any]:
        """Read a region; see `ShardedArray.read`."""
        if not self.cache.limit_bytes:
            return self.array.read(region)
        layout = self.array.layout
        cuts = _cuts(layout.chunks, region)
        found = self.cache.get(self.array.location.uri, cuts)
        missing = [place for place in cuts if place not in found]
        if len(cuts) == len(missing) == 1:
            alone = self._on_disk(missing[0], cuts[missing[0]][0], np.empty(layout.slot_bytes, np.uint8))
            if alone is not None:
                return alone
        out = np.empty([part.stop - part.start for part in region], np.dtype(layout.dtype))
        if len(cuts) > 1:
            missing = [place for place in missing if not self._copied(place, cuts[place], out)]
        if missing:
            found |= self._decoded(missing)
        for place, chunk in found.items():
            inner, outer = cuts[place]
            out[outer] = chunk[inner]
        return out

    def _copied(self, place: Place, cut: tuple[Slices, Slices], out: NDArray[Any]) -> bool:
        """Copy a region of a chunk that a local disk holds uncompressed; False where it must be decoded."""
        with scratch.lend(self.array.layout.slot_bytes) as buffer:
            found = self._on_disk(place, cut[0], buffer)
            if found is not None:
                out[cut[1]] = found
        return found is not None

    def _on_disk(self, place: Place, inner: Slices, buffer: Bytes) -> NDArray[Any] | None:
        """Read a large part of a chunk that a local disk holds uncompressed into `buffer`; None for any other."""
        height, width = self.array.layout.chunks[-2:]
        rows, columns = inner[-2:]
        taken = (rows.stop - rows.start) * (columns.stop - columns.start)
        if taken < STRAIGHT_SHARE * height * width or not self.array.location.is_local:
            return None
        coordinates, inside = self.array.layout.in_shard(place)
        shard = self.cache.shards.get(self.array.shard_location(coordinates), self.array.layout)
        return shard.cut(inside, inner, buffer)

    def _decoded(self, places: Sequence[Place]) -> dict[Place, NDArray[Any]]:
        """Decode chunks (those of one shard in as few requests as possible) and keep them."""
        layout = self.array.layout
        reserved = []
        for place in places:
            corner = zip(place, layout.chunks, layout.shape, strict=True)
            shape = [min(chunk, size - i * chunk) for i, chunk, size in corner]
            reserved.append(self.cache.reserve(shape, layout.dtype))
        self.array.read_chunks(places, [one.chunk for one in reserved], self.cache.shards)
        for place, one in zip(places, reserved, strict=True):
            self.cache.put(self.array.location.uri, place, one)
        return {place: one.chunk for place, one in zip(places, reserved, strict=True)}


def _cuts(chunks: Sequence[int], region: Sequence[slice]) -> dict[Place, tuple[Slices, Slices]]:
    """Cut a region into its parts in each chunk: the slices in the chunk, and those in the region."""
    axes = []
    for size, part in zip(chunks, region, strict=True):
        start, stop = part.start, part.stop
        along = []
        for number in range(start // size, -(-stop // size)):
            corner = number * size
            first, last = max(corner, start), min(corner + size, stop)
            along.append((number, slice(first - corner, last - corner), slice(first - start, last - start)))
        axes.append(along)
    return {
        place: (inner, outer) for place, inner, outer in (zip(*one, strict=True) for one in itertools.product(*axes))
    }

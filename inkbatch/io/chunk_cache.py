"""Decoded chunks, kept in memory up to a limit: who reads small windows again and again decodes each chunk once.

Training cuts tiles of 64 to 256 px out of chunks of 256 px, in random order, epoch after epoch. What has been decoded
is therefore kept; the chunks that were not used for the longest time go first. A limit of 0 keeps nothing.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.io.shards import ShardedArray

Place = tuple[int, ...]
Key = tuple[str, Place]


class ChunkCache:
    """Decoded chunks of several arrays. Safe to use from several threads.

    Args:
        limit_bytes: Most bytes that are kept.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._chunks: OrderedDict[Key, NDArray[Any]] = OrderedDict()

    @property
    def held_bytes(self) -> int:
        """Bytes that are kept now."""
        return self._bytes

    def get(self, array: str, places: Sequence[Place]) -> dict[Place, NDArray[Any]]:
        """Those of the wanted chunks that are kept; they are to be read, never written to."""
        found = {}
        with self._lock:
            for place in places:
                chunk = self._chunks.get((array, place))
                if chunk is not None:
                    self._chunks.move_to_end((array, place))
                    found[place] = chunk
        return found

    def put(self, array: str, chunks: dict[Place, NDArray[Any]]) -> None:
        """Keep chunks; the ones that were used least recently make room."""
        with self._lock:
            for place, chunk in chunks.items():
                if chunk.nbytes > self.limit_bytes or (array, place) in self._chunks:
                    continue
                self._chunks[array, place] = chunk
                self._bytes += chunk.nbytes
            while self._bytes > self.limit_bytes:
                _, old = self._chunks.popitem(last=False)
                self._bytes -= old.nbytes


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
        """Decode chunks, all that lie in their hull in one go (one request on object stores), and keep them."""
        layout = self.array.layout
        lows = [min(axis) for axis in zip(*places, strict=True)]
        highs = [max(axis) + 1 for axis in zip(*places, strict=True)]
        sizes = list(zip(layout.chunks, layout.shape, strict=True))
        starts = [low * chunk for low, (chunk, _) in zip(lows, sizes, strict=True)]
        stops = [min(high * chunk, size) for high, (chunk, size) in zip(highs, sizes, strict=True)]
        whole = self.array.read([slice(start, stop) for start, stop in zip(starts, stops, strict=True)])
        chunks = {}
        for place in itertools.product(*(range(low, high) for low, high in zip(lows, highs, strict=True))):
            corner = [(number - low) * chunk for number, low, (chunk, _) in zip(place, lows, sizes, strict=True)]
            window = tuple(slice(first, first + chunk) for first, (chunk, _) in zip(corner, sizes, strict=True))
            chunks[place] = whole[window].copy()
        self.cache.put(self.array.location.uri, chunks)
        return chunks

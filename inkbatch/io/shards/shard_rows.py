"""Writing a row of zarr shards, which lie side by side, chunk row by chunk row with all codec threads.

One task fills, encodes and writes a row of chunks across all of the shards, while its bytes are in the cache. Tasks
write in turn, so that chunks lie in C order in each shard and equal content gives equal bytes. They wait for each other
only in the order in which they begin, so that the first one that waits never waits for ever. Memory is a row of chunks
per thread, whatever the shard's size.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from inkbatch.io.shards.codec import MISSING, Place, checksum, encode_slots, joined, scatter, slots
from inkbatch.io.shards.layout import CRC_BYTES, ArrayLayout
from inkbatch.io.shards.scratch import Bytes, scratch
from inkbatch.io.shards.sinks import ShardSink
from inkbatch.io.store.ledger import SHARD, note, unrecorded
from inkbatch.io.threads import cancel, codec_pool

Fill = Callable[[Place, NDArray[Any]], None]
"""Fills a row of chunks entirely.

Its arguments: the row's place in the shards along all axes but the last, and the array (count, *chunk) to fill.
"""


def from_block(layout: ArrayLayout, block: NDArray[Any]) -> Fill:
    """Make a `Fill` from an array that holds the shards' content, clipped to the array's border."""

    def fill(place: Place, target: NDArray[Any]) -> None:
        lead = tuple(slice(i * size, (i + 1) * size) for i, size in zip(place, layout.chunks[:-1], strict=True))
        scatter(block[lead], target)

    return fill


def extended(total: int, chunk_checksum: Bytes) -> int:
    """Extend the sum over a shard's chunks by the checksum that ends the next one."""
    return int(google_crc32c.extend(total, chunk_checksum.tobytes()))


def shard_checksum(total: int, index: bytes) -> str:
    """End the sum over a shard's chunks with its index; see `inkbatch.io.store.ledger.SHARD`."""
    return f"{SHARD}{google_crc32c.extend(total, index):08x}"


class ShardRow:
    """Shards side by side along the last axis, being written.

    Args:
        layout: Layout of the array.
        sinks: Where each shard goes; at the array's border the last one may hold fewer chunks than it could.
        width: Pixels along the last axis that have content.
        fill: Gives the content; called by several threads, once per row of chunks.
    """

    def __init__(self, layout: ArrayLayout, sinks: Sequence[ShardSink], width: int, fill: Fill) -> None:
        self._layout, self._sinks, self._fill = layout, sinks, fill
        self._chunks = -(-width // layout.chunks[-1])
        per_shard = math.prod(layout.chunks_per_shard)
        self._index = np.full((len(sinks), per_shard, 2), MISSING, dtype="<u8")
        self._offsets = [0] * len(sinks)
        self._sums = [0] * len(sinks)  # over the checksums of the chunks; with the index, that of the shard
        self._turn = threading.Condition()
        self._next = 0
        self._failed = False
        places = itertools.product(*(range(count) for count in layout.chunks_per_shard[:-1]))
        self._jobs: list[Future[None]] = [
            codec_pool.submit(self._task, number, place) for number, place in enumerate(places)
        ]

    def finish(self) -> int:
        """Wait until all is written; let the shards be seen.

        Returns:
            Bytes stored.
        """
        try:
            for job in self._jobs:
                job.result()
            stored = 0
            rows = zip(self._sinks, self._index, self._offsets, self._sums, strict=True)
            for sink, index, offset, before in rows:
                tail = index.tobytes()
                sink.append(memoryview(tail + checksum(tail)))
                with unrecorded():
                    sink.finish()
                note(sink.uri, offset + self._layout.index_bytes, shard_checksum(before, tail))
                stored += offset + self._layout.index_bytes
            return stored
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Stop, and leave no trace of shards that are not finished."""
        self._fail()
        cancel(self._jobs)
        for sink in self._sinks:
            sink.abandon()

    def _task(self, number: int, place: Place) -> None:
        buffer = scratch.take(self._chunks * self._layout.slot_bytes)
        try:
            if not self._failed:
                self._fill(place, slots(self._layout, self._chunks, buffer))
                spans = encode_slots(self._layout, self._chunks, buffer)
                with self._turn:
                    self._turn.wait_for(lambda: self._failed or self._next == number)
                if not self._failed:
                    self._append(number, spans, buffer)
                    with self._turn:
                        self._next = number + 1
                        self._turn.notify_all()
        except BaseException:
            self._fail()
            raise
        finally:
            scratch.give(buffer)

    def _fail(self) -> None:
        with self._turn:
            self._failed = True
            self._turn.notify_all()

    def _append(self, number: int, spans: Sequence[tuple[int, int]], buffer: NDArray[np.uint8]) -> None:
        across = self._layout.chunks_per_shard[-1]
        for shard, sink in enumerate(self._sinks):
            own = spans[shard * across : (shard + 1) * across]
            for row, (begin, end) in enumerate(own, number * across):
                if end > begin:
                    self._index[shard, row] = self._offsets[shard], end - begin
                    self._offsets[shard] += end - begin
                    self._sums[shard] = extended(self._sums[shard], buffer[end - CRC_BYTES : end])
            for begin, end in joined(own):
                sink.append(buffer.data[begin:end])


class _Kept:
    """A sink that keeps the bytes of its shard."""

    uri = ""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def append(self, piece: memoryview) -> None:
        self.parts.append(bytes(piece))

    def finish(self) -> None:
        pass

    def abandon(self) -> None:
        self.parts = []


def encode_shard(layout: ArrayLayout, block: NDArray[Any]) -> list[bytes]:
    """Encode one shard: chunks in C order, then the index.

    Args:
        layout: Layout of the array.
        block: Content, clipped to the array's border; missing parts of border chunks are filled with zeros.

    Returns:
        Byte strings whose concatenation is the stored object. Equal content gives equal bytes.
    """
    kept = _Kept()
    ShardRow(layout, [kept], block.shape[-1], from_block(layout, block)).finish()
    return kept.parts

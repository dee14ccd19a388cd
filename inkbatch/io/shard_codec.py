"""Encoding and decoding the chunks of a zarr shard: few passes over memory, in parallel, equal bytes for equal content.

X-ray layers are noise to a compressor: LZ4 leaves 99.8 % of them. Where a sample of a chunk does not shrink, the chunk
is stored in Blosc's own uncompressed form (a header, then the bytes as they are), which every Blosc reader reads. Such
a chunk is gathered from the unit's array straight into the bytes that are written, and scattered straight from the
stored bytes on reading. Only chunks that shrink (empty areas, predictions) pass the compressor.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

from inkbatch.errors import CorruptDataError
from inkbatch.io.shard_layout import BLOSC_HEADER_BYTES, CODECS, CRC_BYTES, ArrayLayout

MISSING = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
TASK_BYTES = 4 << 20  # encoded or decoded by one task; more leaves the cache, less costs hand-overs
KEPT_BYTES = 64 << 20  # of buffers that wait for their next use
SAMPLE_PIECES, SAMPLE_PIECE_BYTES = 8, 1024  # compressed to learn whether a chunk would shrink
SHRINKS = 0.97  # a sample that stays above this share of its size says: store the chunk as it is
PEEK_BYTES = 4096  # a chunk of zeros is found out by its first bytes, mostly

# Blosc's frame: version, codec's version, flags, item size; then bytes, block size and stored bytes as little uint32.
_FLAGS_AT, _STORED_RAW = 2, 0x02
_SHUFFLE = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}

Bytes = NDArray[np.uint8]
Place = tuple[int, ...]


CODEC_THREADS = max(2, os.cpu_count() or 2)


@lru_cache(maxsize=1)
def codec_pool() -> ThreadPoolExecutor:
    """The process's threads for encoding and decoding chunks; one per core, at least two."""
    return ThreadPoolExecutor(CODEC_THREADS, thread_name_prefix="inkbatch-codec")


@dataclass
class _Buffers:
    """Byte arrays that are used again: touching fresh memory costs more than filling it."""

    _free: dict[int, list[Bytes]] = field(default_factory=dict)
    _bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, size: int) -> Bytes:
        """An array of `size` bytes; contents are whatever was there."""
        with self._lock:
            if self._free.get(size):
                self._bytes -= size
                return self._free[size].pop()
        return np.empty(size, np.uint8)

    def give(self, buffer: Bytes) -> None:
        """Hand an array back."""
        with self._lock:
            if self._bytes + len(buffer) <= KEPT_BYTES:
                self._bytes += len(buffer)
                self._free.setdefault(len(buffer), []).append(buffer)


buffers = _Buffers()


def checksum(data: Bytes | bytes) -> bytes:
    """crc32c of some bytes, little-endian."""
    return int(google_crc32c.value(data)).to_bytes(CRC_BYTES, "little")


def _compressor(layout: ArrayLayout, level: int | None = None) -> Blosc:
    settings = CODECS[layout.codec]
    shuffle = _SHUFFLE[settings["shuffle"]]
    level = settings["clevel"] if level is None else level
    return Blosc(settings["cname"], level, shuffle, typesize=np.dtype(layout.dtype).itemsize)


@lru_cache(maxsize=64)
def _raw_header(layout: ArrayLayout) -> Bytes:
    """What Blosc writes in front of a chunk that it stores as it is."""
    frame = _compressor(layout, 0).encode(np.zeros(layout.chunk_bytes, np.uint8))
    return np.frombuffer(frame[:BLOSC_HEADER_BYTES], np.uint8)


def _is_raw(stored: Bytes, layout: ArrayLayout) -> bool:
    """Whether a stored chunk (with its checksum) holds its bytes as they are."""
    whole = len(stored) == BLOSC_HEADER_BYTES + layout.chunk_bytes + CRC_BYTES
    return whole and bool(stored[_FLAGS_AT] & _STORED_RAW)


def encoded_parts(layout: ArrayLayout, block: NDArray[Any]) -> Iterator[memoryview]:
    """Encode one shard piece by piece: chunks in C order, then the index.

    Args:
        layout: Layout of the array.
        block: Content, clipped to the array's border; missing parts of border chunks are filled with zeros.

    Yields:
        Consecutive bytes of the stored object. A piece is valid until the next one is asked for.
    """
    content = block if block.strides[-1] == block.itemsize else np.ascontiguousarray(block)
    tasks = iter(_tasks(layout))
    pool, index = codec_pool(), np.full((math.prod(layout.chunks_per_shard), 2), MISSING, dtype="<u8")
    running: deque[tuple[Bytes, Future[list[tuple[int, int]]]]] = deque()

    def start(count: int) -> None:
        for place, chunks in itertools.islice(tasks, count):
            buffer = buffers.take(chunks * layout.slot_bytes)
            running.append((buffer, pool.submit(_encode_task, layout, content, place, chunks, buffer)))

    row = offset = 0
    try:
        start(CODEC_THREADS + 1)
        while running:
            buffer, future = running[0]
            for begin, end in future.result():
                if end > begin:
                    index[row] = offset, end - begin
                    offset += end - begin
                row += 1
            for begin, end in joined(future.result()):
                yield buffer.data[begin:end]
            running.popleft()
            buffers.give(buffer)
            start(1)
    finally:
        wait([future for _, future in running])
    tail = index.tobytes()
    yield memoryview(tail + checksum(tail))


def encode_shard(layout: ArrayLayout, block: NDArray[Any]) -> list[bytes]:
    """Encode one shard; see `encoded_parts`.

    Returns:
        Byte strings whose concatenation is the stored object. Equal content gives equal bytes.
    """
    return [bytes(part) for part in encoded_parts(layout, block)]


def _tasks(layout: ArrayLayout) -> Iterator[tuple[Place, int]]:
    """Runs of chunks along the last axis, in C order: (place of the first one, count)."""
    *lead, across = layout.chunks_per_shard
    step = max(1, min(across, TASK_BYTES // layout.slot_bytes))
    for place in itertools.product(*(range(count) for count in lead)):
        for first in range(0, across, step):
            yield (*place, first), min(step, across - first)


def joined(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Spans that are not empty, those that follow each other as one."""
    start = stop = 0
    for begin, end in spans:
        if begin == end:
            continue
        if begin != stop:
            if stop > start:
                yield start, stop
            start = begin
        stop = end
    if stop > start:
        yield start, stop


def _encode_task(
    layout: ArrayLayout, block: NDArray[Any], place: Place, count: int, buffer: Bytes
) -> list[tuple[int, int]]:
    """Encode a run of chunks into slots of `buffer`; returns the bytes of each, (0, 0)-long for a chunk of zeros."""
    _gather(layout, block, place, count, buffer)
    slot, size = layout.slot_bytes, layout.chunk_bytes
    spans = []
    for number in range(count):
        stored = buffer[number * slot : (number + 1) * slot]
        body = stored[BLOSC_HEADER_BYTES : BLOSC_HEADER_BYTES + size]
        start = number * slot
        if not body[:PEEK_BYTES].any() and not body.max():
            spans.append((start, start))
            continue
        if _shrinks(layout, body):
            frame = np.frombuffer(_compressor(layout).encode(body), np.uint8)
            stored[: len(frame)] = frame
            end = len(frame)
        else:
            stored[:BLOSC_HEADER_BYTES] = _raw_header(layout)
            end = BLOSC_HEADER_BYTES + size
        stored[end : end + CRC_BYTES] = np.frombuffer(checksum(stored[:end]), np.uint8)
        spans.append((start, start + end + CRC_BYTES))
    return spans


def _shrinks(layout: ArrayLayout, body: Bytes) -> bool:
    """Whether compressing is worth a try: always, but for LZ4 without shuffling, which a sample decides."""
    if layout.codec != "lz4" or len(body) < 4 * SAMPLE_PIECES * SAMPLE_PIECE_BYTES:
        return True
    pieces = np.ndarray((SAMPLE_PIECES, SAMPLE_PIECE_BYTES), np.uint8, body, strides=(len(body) // SAMPLE_PIECES, 1))
    sample = np.ascontiguousarray(pieces)
    return len(_compressor(layout).encode(sample)) < SHRINKS * sample.nbytes


def _gather(layout: ArrayLayout, block: NDArray[Any], place: Place, count: int, buffer: Bytes) -> None:
    """Copy a run of chunks out of a block into slots of `buffer`, behind the room for Blosc's header."""
    chunk = (*layout.chunks[:-1], layout.chunks[-1] * block.itemsize)
    inner = tuple(math.prod(chunk[axis + 1 :]) for axis in range(len(chunk)))
    target = np.ndarray((count, *chunk), np.uint8, buffer, BLOSC_HEADER_BYTES, (layout.slot_bytes, *inner))
    lead = tuple(slice(i * size, (i + 1) * size) for i, size in zip(place[:-1], layout.chunks[:-1], strict=True))
    first = place[-1] * layout.chunks[-1]
    part = block[lead][..., first : first + count * layout.chunks[-1]]
    if part.shape != (*layout.chunks[:-1], count * layout.chunks[-1]):
        target[...] = 0
    if not part.size:
        return
    part = part.view(np.uint8)
    rows = tuple(slice(0, length) for length in part.shape[:-1])
    whole = part.shape[-1] // chunk[-1]
    if whole:
        split = part[..., : whole * chunk[-1]].reshape(*part.shape[:-1], whole, chunk[-1])
        target[(slice(0, whole), *rows)] = np.moveaxis(split, -2, 0)
    rest = part.shape[-1] - whole * chunk[-1]
    if rest:
        target[(whole, *rows, slice(0, rest))] = part[..., whole * chunk[-1] :]


def decode_chunk(layout: ArrayLayout, stored: memoryview | bytes | None, place: str) -> NDArray[Any] | None:
    """Decode one chunk.

    Args:
        layout: Layout of the array.
        stored: The chunk with its checksum; None for a chunk of zeros.
        place: Object and chunk, for messages.

    Returns:
        Array of the chunk's shape, read-only or this thread's own until its next call; None for a chunk of zeros.

    Raises:
        CorruptDataError: The checksum fails, or the bytes cannot be decoded.
    """
    if stored is None:
        return None
    data = np.frombuffer(stored, np.uint8)
    if len(data) <= CRC_BYTES or checksum(data[:-CRC_BYTES]) != data[-CRC_BYTES:].tobytes():
        raise CorruptDataError(f"{place} fails its checksum; make the array anew")
    if _is_raw(data, layout):
        raw: NDArray[Any] = np.ndarray(layout.chunks, layout.dtype, data, BLOSC_HEADER_BYTES)
        return raw
    whole = _scratch_array(layout.chunks, np.dtype(layout.dtype))
    try:
        _compressor(layout).decode(data[:-CRC_BYTES], whole)
    except (RuntimeError, ValueError) as error:
        raise CorruptDataError(f"{place} cannot be decoded: {error}") from error
    return whole


_scratch = threading.local()


def _scratch_array(shape: Place, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A per-thread array that is used again by the next call; contents are whatever was there."""
    key = (shape, dtype.str)
    if getattr(_scratch, "key", None) != key:
        _scratch.key, _scratch.array = key, np.empty(shape, dtype)
    array: NDArray[Any] = _scratch.array
    return array

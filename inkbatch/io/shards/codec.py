"""Encoding and decoding the chunks of a zarr shard: few passes over memory, in parallel, equal bytes for equal content.

X-ray layers are noise to a compressor: LZ4 leaves 99.8 % of them. Where a sample of a chunk does not shrink, the chunk
is stored in Blosc's own uncompressed form (a header, then the bytes as they are), which every Blosc reader reads. Such
a chunk is gathered from the unit's array straight into the bytes that are written, and scattered straight from the
stored bytes on reading. Only chunks that shrink (empty areas, predictions) pass the compressor.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import Blosc, blosc
from numpy.typing import NDArray

from inkbatch.errors import CorruptDataError
from inkbatch.io.shards.layout import BLOSC_HEADER_BYTES, CODECS, CRC_BYTES, ArrayLayout

MISSING = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
TASK_BYTES = 4 << 20  # encoded or decoded by one task; more leaves the cache, less costs hand-overs
KEPT_BYTES = 64 << 20  # of buffers that wait for their next use
SAMPLE_PIECES, SAMPLE_PIECE_BYTES = 8, 1024  # compressed to learn whether a chunk would shrink
SHRINKS = 0.97  # a sample that stays above this share of its size says: store the chunk as it is
PEEK_BYTES = 4096  # a chunk of zeros is found out by its first bytes, mostly

blosc.use_threads = False  # chunks are decoded side by side by our threads; its own would be woken for every chunk

# Blosc's frame: version, codec's version, flags, item size; then bytes, block size and stored bytes as little uint32.
_FLAGS_AT, _STORED_RAW = 2, 0x02
_SHUFFLE = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}

Bytes = NDArray[np.uint8]
Place = tuple[int, ...]


MOST_THREADS = 16  # more wait for memory, and each holds a few MiB
CODEC_THREADS = max(2, min(MOST_THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2))


def codec_pool() -> ThreadPoolExecutor:
    """The process's threads for encoding and decoding chunks: one per core, at least two.

    A forked process gets its own: threads do not survive a fork.
    """
    return _pool_of(os.getpid())


@lru_cache(maxsize=1)
def _pool_of(process: int) -> ThreadPoolExecutor:
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


@lru_cache(maxsize=64)
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


def is_raw(stored: Bytes, layout: ArrayLayout) -> bool:
    """Whether a stored chunk (with its checksum) holds its bytes as they are."""
    whole = len(stored) == BLOSC_HEADER_BYTES + layout.chunk_bytes + CRC_BYTES
    return whole and bool(stored[_FLAGS_AT] & _STORED_RAW)


def slots(layout: ArrayLayout, count: int, buffer: Bytes) -> NDArray[Any]:
    """Room in `buffer` for chunks side by side, each behind room for its header: (count, *chunk), the stored dtype."""
    dtype = np.dtype(layout.dtype)
    inner = tuple(math.prod(layout.chunks[axis + 1 :]) * dtype.itemsize for axis in range(len(layout.chunks)))
    shape, strides = (count, *layout.chunks), (layout.slot_bytes, *inner)
    return np.ndarray(shape, dtype, buffer.data, BLOSC_HEADER_BYTES, strides)


def scatter(part: NDArray[Any], target: NDArray[Any]) -> None:
    """Cut an array along its last axis into chunks; what it does not fill becomes zero.

    Args:
        part: (…, up to count x chunk); leading axes at most those of a chunk.
        target: (count, …, chunk), from `slots`.
    """
    width = target.shape[-1]
    if part.shape != (*target.shape[1:-1], len(target) * width):
        target[...] = 0
    rows = tuple(slice(0, length) for length in part.shape[:-1])
    whole, rest = divmod(part.shape[-1], width)
    if whole:
        cut = part[..., : whole * width].reshape(*part.shape[:-1], whole, width)
        target[(slice(0, whole), *rows)] = np.moveaxis(cut, -2, 0)
    if rest:
        target[(whole, *rows, slice(0, rest))] = part[..., whole * width :]


def encode_slots(layout: ArrayLayout, count: int, buffer: Bytes) -> list[tuple[int, int]]:
    """Encode the chunks that lie in `slots`, in place.

    Returns:
        First byte and end of each stored chunk in `buffer`, header and checksum included; empty for a chunk of zeros.
    """
    slot, size = layout.slot_bytes, layout.chunk_bytes
    spans = []
    for start in range(0, count * slot, slot):
        stored = buffer[start : start + slot]
        body = stored[BLOSC_HEADER_BYTES : BLOSC_HEADER_BYTES + size]
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


def _shrinks(layout: ArrayLayout, body: Bytes) -> bool:
    """Whether compressing is worth a try: always, but for LZ4 without shuffling, which a sample decides."""
    if layout.codec != "lz4" or len(body) < 4 * SAMPLE_PIECES * SAMPLE_PIECE_BYTES:
        return True
    pieces = np.ndarray((SAMPLE_PIECES, SAMPLE_PIECE_BYTES), np.uint8, body, strides=(len(body) // SAMPLE_PIECES, 1))
    sample = np.ascontiguousarray(pieces)
    return len(_compressor(layout).encode(sample)) < SHRINKS * sample.nbytes


def decode_chunk(
    layout: ArrayLayout,
    stored: memoryview | bytes | None,
    name: tuple[object, Place],
    into: NDArray[Any] | None = None,
) -> NDArray[Any] | None:
    """Decode one chunk.

    Args:
        layout: Layout of the array.
        stored: The chunk with its checksum; None for a chunk of zeros.
        name: Object and place of the chunk in it, for messages.
        into: Contiguous memory of a chunk, for one that is compressed; None takes this thread's own.

    Returns:
        Array of the chunk's shape: `into`, or read-only, or this thread's own until its next call; None for a chunk of
        zeros.

    Raises:
        CorruptDataError: The checksum fails, or the bytes cannot be decoded.
    """
    if stored is None:
        return None
    data = np.frombuffer(stored, np.uint8)
    if len(data) <= CRC_BYTES or checksum(data[:-CRC_BYTES]) != data[-CRC_BYTES:].tobytes():
        raise CorruptDataError(f"{name[0]}: chunk {name[1]} fails its checksum; make the array anew")
    if is_raw(data, layout):
        raw: NDArray[Any] = np.ndarray(layout.chunks, layout.dtype, data, BLOSC_HEADER_BYTES)
        return raw
    whole = _scratch_array(layout.chunks, np.dtype(layout.dtype)) if into is None else into
    try:
        blosc.decompress(data[:-CRC_BYTES], whole)
    except (RuntimeError, ValueError) as error:
        raise CorruptDataError(f"{name[0]}: chunk {name[1]} cannot be decoded: {error}") from error
    return whole


_scratch = threading.local()


def _scratch_array(shape: Place, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A per-thread array that is used again by the next call; contents are whatever was there."""
    key = (shape, dtype.str)
    if getattr(_scratch, "key", None) != key:
        _scratch.key, _scratch.array = key, np.empty(shape, dtype)
    array: NDArray[Any] = _scratch.array
    return array

"""Encoding and decoding the chunks of a zarr shard: few passes over memory, in parallel, equal bytes for equal content.

X-ray layers are noise to a compressor: LZ4 leaves 99.8 % of them. Where a sample of a chunk does not shrink, the chunk
is stored in Blosc's own uncompressed form (a header, then the bytes as they are), which every Blosc reader reads. Such
a chunk is gathered from the unit's array straight into the bytes that are written, and scattered straight from the
stored bytes on reading. Only chunks that shrink (empty areas, predictions) pass the compressor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import Blosc, blosc
from numpy.typing import NDArray

from inkbatch.errors import CorruptDataError
from inkbatch.io.shards.layout import BLOSC_HEADER_BYTES, CODECS, CRC_BYTES, ArrayLayout
from inkbatch.io.shards.scratch import Bytes

MISSING = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
TASK_BYTES = 4 << 20  # encoded or decoded by one task; more leaves the cache, less costs hand-overs
SAMPLE_PIECES, SAMPLE_PIECE_BYTES = 8, 1024  # compressed to learn whether a chunk would shrink
SHRINKS = 0.97  # a sample that stays above this share of its size says: store the chunk as it is
PEEK_BYTES = 4096  # a chunk of zeros is found out by its first bytes, mostly

# Blosc's frame: version, codec's version, flags, item size; then bytes, block size and stored bytes as little uint32.
_FLAGS_AT, _STORED_RAW = 2, 0x02
_SHUFFLE = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}

Place = tuple[int, ...]


def checksum(data: Bytes | bytes) -> bytes:
    """Compute the crc32c of some bytes, little-endian."""
    return int(google_crc32c.value(data)).to_bytes(CRC_BYTES, "little")


def codec_of(layout: ArrayLayout) -> ChunkCodec:
    """Return the codec of an array's chunks; equal layouts share one."""
    return _codec(layout)


@lru_cache(maxsize=64)
def _codec(layout: ArrayLayout) -> ChunkCodec:
    return ChunkCodec(layout)


class ChunkCodec:
    """Encodes and decodes chunks of one layout in the calling thread. Safe to use from several threads.

    Args:
        layout: Layout of the array.
    """

    def __init__(self, layout: ArrayLayout) -> None:
        # The calls of numcodecs take no number of threads; it has one switch for the whole process, which a context
        # around a call would turn for all other threads, too. Chunks are decoded side by side by our own threads;
        # Blosc's would be woken for every chunk.
        blosc.use_threads = False
        settings = CODECS[layout.codec]
        shuffle, typesize = _SHUFFLE[settings["shuffle"]], np.dtype(layout.dtype).itemsize
        self.layout = layout
        self._blosc = Blosc(settings["cname"], settings["clevel"], shuffle, typesize=typesize)
        frame = Blosc(settings["cname"], 0, shuffle, typesize=typesize).encode(np.zeros(layout.chunk_bytes, np.uint8))
        self._raw_header = np.frombuffer(frame[:BLOSC_HEADER_BYTES], np.uint8)

    def encode(self, slot: Bytes) -> int:
        """Encode the chunk that lies in a slot (see `slots`), in place.

        Returns:
            Bytes from the slot's start that are to be stored, header and checksum included; 0 for a chunk of zeros.
        """
        size = self.layout.chunk_bytes
        body = slot[BLOSC_HEADER_BYTES : BLOSC_HEADER_BYTES + size]
        if not body[:PEEK_BYTES].any() and not body.max():
            return 0
        if self._shrinks(body):
            frame = np.frombuffer(self._blosc.encode(body), np.uint8)
            slot[: len(frame)] = frame
            end = len(frame)
        else:
            slot[:BLOSC_HEADER_BYTES] = self._raw_header
            end = BLOSC_HEADER_BYTES + size
        slot[end : end + CRC_BYTES] = np.frombuffer(checksum(slot[:end]), np.uint8)
        return end + CRC_BYTES

    def decode(
        self, stored: memoryview | bytes | None, name: tuple[object, Place], into: NDArray[Any]
    ) -> NDArray[Any] | None:
        """Decode one chunk.

        Args:
            stored: The chunk with its checksum; None for a chunk of zeros.
            name: Object and place of the chunk in it, for messages.
            into: Contiguous memory of a chunk for one that is compressed.

        Returns:
            The chunk: `into`, or a read-only view of `stored` where the bytes are stored as they are; None for a chunk
            of zeros.

        Raises:
            CorruptDataError: The checksum fails, or the bytes cannot be decoded.
        """
        if stored is None:
            return None
        data = np.frombuffer(stored, np.uint8)
        self.require_whole(data, name)
        if is_raw(data, self.layout):
            raw: NDArray[Any] = np.ndarray(self.layout.chunks, self.layout.dtype, data, BLOSC_HEADER_BYTES)
            return raw
        try:
            blosc.decompress(data[:-CRC_BYTES], into)
        except (RuntimeError, ValueError) as error:
            raise CorruptDataError(f"{name[0]}: chunk {name[1]} cannot be decoded: {error}") from error
        return into

    def require_whole(self, data: Bytes, name: tuple[object, Place]) -> None:
        """Check a stored chunk against its checksum.

        Raises:
            CorruptDataError: It fails.
        """
        if len(data) <= CRC_BYTES or checksum(data[:-CRC_BYTES]) != data[-CRC_BYTES:].tobytes():
            raise CorruptDataError(f"{name[0]}: chunk {name[1]} fails its checksum; make the array again")

    def _shrinks(self, body: Bytes) -> bool:
        """Tell whether compressing is worth a try: always, but for LZ4 without shuffling, where a sample decides."""
        if self.layout.codec != "lz4" or len(body) < 4 * SAMPLE_PIECES * SAMPLE_PIECE_BYTES:
            return True
        strides = (len(body) // SAMPLE_PIECES, 1)
        pieces = np.ndarray((SAMPLE_PIECES, SAMPLE_PIECE_BYTES), np.uint8, body, strides=strides)
        sample = np.ascontiguousarray(pieces)
        return len(self._blosc.encode(sample)) < SHRINKS * sample.nbytes


def is_raw(stored: Bytes, layout: ArrayLayout) -> bool:
    """Tell whether a stored chunk (with its checksum) holds its bytes as they are."""
    whole = len(stored) == BLOSC_HEADER_BYTES + layout.chunk_bytes + CRC_BYTES
    return whole and bool(stored[_FLAGS_AT] & _STORED_RAW)


def slots(layout: ArrayLayout, count: int, buffer: Bytes) -> NDArray[Any]:
    """View `buffer` as chunks side by side, each behind room for its header: (count, *chunk), the stored dtype."""
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
    codec, slot = codec_of(layout), layout.slot_bytes
    starts = range(0, count * slot, slot)
    return [(start, start + codec.encode(buffer[start : start + slot])) for start in starts]


def joined(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join spans that follow each other, and leave out empty ones."""
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

"""Reading a stored zarr shard again, in bounded memory, to learn if it is what was written at its place."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from inkbatch.errors import CorruptDataError
from inkbatch.io.shards.codec import MISSING, Place, checksum, codec_of
from inkbatch.io.shards.layout import CRC_BYTES, ArrayLayout
from inkbatch.io.shards.shard_rows import extended, shard_checksum
from inkbatch.io.store.location import Location

READ_BYTES = 8 << 20  # of chunks at a time


@dataclass(frozen=True)
class Span:
    """Stored bytes of a chunk in its shard, half-open.

    Attributes:
        place: The chunk's place inside the shard.
        start: First byte.
        stop: One after the last.
    """

    place: Place
    start: int
    stop: int


def checked_shard(place: Location, layout: ArrayLayout) -> tuple[int, str]:
    """Check every chunk of a shard against its own checksum.

    Args:
        place: The shard.
        layout: Of its array.

    Returns:
        Its size, and its checksum as markers hold it (see `inkbatch.io.store.ledger.SHARD`).

    Raises:
        FileNotFoundError: It is not there.
        CorruptDataError: It is cut, or a checksum fails.
    """
    size = place.size()
    tail = place.read_range(max(0, size - layout.index_bytes), size)
    index = tail[:-CRC_BYTES]
    if len(tail) != layout.index_bytes or checksum(index) != tail[-CRC_BYTES:]:
        raise CorruptDataError(f"{place}: the zarr shard's index fails its checksum; make the array again")
    total, codec = 0, codec_of(layout)
    places = itertools.product(*map(range, layout.chunks_per_shard))
    spans = [
        Span(chunk, int(start), int(start + length))
        for chunk, (start, length) in zip(places, np.frombuffer(index, "<u8").reshape(-1, 2), strict=True)
        if start != MISSING
    ]
    for group in _groups(spans):
        first, last = group[0].start, group[-1].stop
        data = np.frombuffer(place.read_range(first, last), np.uint8)
        for span in group:
            chunk = data[span.start - first : span.stop - first]
            codec.require_whole(chunk, (place, span.place))
            total = extended(total, chunk[-CRC_BYTES:])
    return size, shard_checksum(total, index)


def _groups(spans: list[Span]) -> Iterator[list[Span]]:
    """Cut spans into groups that follow each other in the shard and hold `READ_BYTES` at most, or one span."""
    group: list[Span] = []
    for span in spans:
        if group and (span.start != group[-1].stop or span.stop - group[0].start > READ_BYTES):
            yield group
            group = []
        group.append(span)
    if group:
        yield group

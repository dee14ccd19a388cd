"""Sharded zarr v3 arrays as we store them: encode and decode whole zarr shards, checksummed, in parallel.

One class reads and writes the arrays that inkbatch itself makes (surfaces, masks, predictions). Any zarr v3 reader
opens them; foreign zarr arrays are read through zarr-python (`io.layers`). Our own path exists because a unit's store
is one whole shard: it can be encoded straight from the unit's array, put as one object on any store, and a missing
object is an error here and not zeros. `benchmarks/bench_zarr.py` compares it with zarr-python and zarrs.

Layout (zarr v3 sharding-indexed, index at the end): encoded chunks, then per chunk (offset, length) as little-endian
uint64, then the index's crc32c. Each chunk is Blosc-compressed and followed by its own crc32c. A chunk of zeros alone
is left out (offset and length all ones).
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import CorruptDataError, DataError, MismatchError
from inkbatch.io.meter import READ
from inkbatch.io.shard_codec import (
    MISSING,
    TASK_BYTES,
    Bytes,
    Place,
    buffers,
    checksum,
    codec_pool,
    decode_chunk,
    joined,
)
from inkbatch.io.shard_files import ShardSink, sink_for
from inkbatch.io.shard_layout import CODECS, CRC_BYTES, ArrayLayout
from inkbatch.io.shard_strip import Fill, Strip, encode_shard, from_block
from inkbatch.io.storage import Location, read_ranges, retried

WHOLE_SHARD_SHARE = 0.5  # read a shard in one piece when at least this share of its chunks is wanted


@dataclass(frozen=True)
class ShardedArray:
    """One sharded array at a location. Safe to use from several threads; writers own whole shards."""

    location: Location
    layout: ArrayLayout

    @staticmethod
    def create(location: Location, layout: ArrayLayout) -> ShardedArray:
        """Write the array's metadata; an equal one that is already there is used on.

        Raises:
            MismatchError: Another array lies there.
        """
        wanted = layout.metadata()
        place = location / "zarr.json"
        try:
            found = place.read_json()
        except FileNotFoundError:
            place.write_json(wanted)
        else:
            if found != wanted:
                raise MismatchError(f"{location}: another array lies here; remove it or choose another name")
        return ShardedArray(location, layout)

    @staticmethod
    def open(location: Location) -> ShardedArray:
        """Open an array that inkbatch wrote.

        Raises:
            DataError: There is none, or it is not ours.
        """
        place = location / "zarr.json"
        try:
            document = place.read_json()
        except FileNotFoundError as error:
            raise DataError(f"{location}: no zarr array here; run inkbatch prepare (or infer) first") from error
        return ShardedArray(location, ArrayLayout.parse(document, str(location)))

    def shard_location(self, coordinates: Sequence[int]) -> Location:
        """Where the shard with these grid coordinates lies."""
        return self.location / "/".join(["c", *(str(c) for c in coordinates)])

    def write_shard(self, coordinates: Sequence[int], block: NDArray[Any]) -> int:
        """Encode and store one whole shard.

        Args:
            coordinates: The shard's place in the shard grid.
            block: The shard's content, clipped to the array's border, in the array's dtype.

        Returns:
            Bytes stored.
        """
        layout = self.layout
        expected = tuple(
            min(shard, size - c * shard)
            for c, shard, size in zip(coordinates, layout.shards, layout.shape, strict=True)
        )
        if block.shape != expected or block.dtype != np.dtype(layout.dtype):
            raise ValueError(
                f"shard {tuple(coordinates)}: wanted {expected} {layout.dtype}, got {block.shape} {block.dtype}"
            )
        return self.write_strip(coordinates, 1, from_block(layout, block))

    def write_strip(self, coordinates: Sequence[int], count: int, fill: Fill) -> int:
        """Encode and store whole shards side by side along the last axis, chunk row by chunk row.

        Args:
            coordinates: The first shard's place in the shard grid.
            count: Shards.
            fill: Gives the content of each row of chunks; see `shard_strip.Fill`. Where a store failed for the moment
                it is asked again from the start.

        Returns:
            Bytes stored.
        """
        *lead, first = coordinates
        places = [self.shard_location((*lead, first + number)) for number in range(count)]
        edge = self.layout.shards[-1]
        width = min((first + count) * edge, self.layout.shape[-1]) - first * edge
        if places[0].is_local:
            return retried(places[0].uri, lambda: self._written(places, width, fill))
        return self._written(places, width, fill)

    def _written(self, places: Sequence[Location], width: int, fill: Fill) -> int:
        sinks: list[ShardSink] = []
        try:
            sinks.extend(sink_for(place) for place in places)
        except BaseException:
            for sink in sinks:
                sink.abandon()
            raise
        return Strip(self.layout, sinks, width, fill).finish()

    def read(self, region: Sequence[slice], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Read a region, each stored chunk decoded once.

        Args:
            region: One slice per axis, inside the array, step 1.
            out: Optional array of the region's shape and dtype to fill.

        Returns:
            The region, in the stored dtype.

        Raises:
            CorruptDataError: A shard is missing, truncated, or fails its checksum; the message names the object.
        """
        bounds = [(part.start, part.stop) for part in region]
        if out is None:
            out = np.empty([stop - start for start, stop in bounds], np.dtype(self.layout.dtype))
        ranges = [
            range(start // shard, -(-stop // shard))
            for (start, stop), shard in zip(bounds, self.layout.shards, strict=True)
        ]
        jobs: list[Future[None]] = []
        opened: list[_StoredShard] = []
        try:
            for coordinates in itertools.product(*ranges):
                origin = [c * size for c, size in zip(coordinates, self.layout.shards, strict=True)]
                spans = _chunks_inside(self.layout, origin, bounds)
                stored = _StoredShard(self.shard_location(coordinates), self.layout)
                opened.append(stored)
                stored.prepare(list(itertools.product(*spans)))
                runs = _runs(self.layout, spans)
                jobs += [codec_pool().submit(_decode_run, stored, run, origin, bounds, out) for run in runs]
            for job in jobs:
                job.result()
        finally:
            for job in jobs:
                job.cancel()
            wait(jobs)
            for stored in opened:
                stored.close()
        return out


def _chunks_inside(layout: ArrayLayout, origin: Sequence[int], bounds: Sequence[tuple[int, int]]) -> list[range]:
    """Places of the chunks of a shard that touch a region, along each axis."""
    spans = []
    for start, (low, high), chunk, count in zip(origin, bounds, layout.chunks, layout.chunks_per_shard, strict=True):
        first = max(0, (low - start) // chunk)
        spans.append(range(first, min(count, -(-(high - start) // chunk))))
    return spans


def _runs(layout: ArrayLayout, spans: Sequence[range]) -> Iterator[list[Place]]:
    """Chunks that lie beside each other along the last axis, as many as one task decodes."""
    *lead, across = spans
    step = max(1, TASK_BYTES // layout.slot_bytes)
    for place in itertools.product(*lead):
        for first in range(across.start, across.stop, step):
            yield [(*place, last) for last in range(first, min(first + step, across.stop))]


class _StoredShard:
    """The bytes of one shard: read run by run from a local file, fetched whole or by chunk from elsewhere."""

    def __init__(self, location: Location, layout: ArrayLayout) -> None:
        self.location = location
        self.layout = layout
        self._spans: dict[Place, tuple[int, int]] = {}
        self._handle = -1
        self._whole: memoryview | None = None
        self._fetched: dict[int, bytes] = {}

    def prepare(self, wanted: Sequence[Place]) -> None:
        """Read the index; from other than local stores fetch the wanted chunks, or all where most are wanted.

        Raises:
            CorruptDataError: The shard is missing, or its index fails its checksum.
        """
        length = self.layout.index_bytes
        mostly = len(wanted) >= WHOLE_SHARD_SHARE * math.prod(self.layout.chunks_per_shard)
        try:
            if self.location.is_local:
                tail = retried(str(self.location), self._open_local)
            elif mostly:
                self._whole = memoryview(self.location.read_bytes())
                tail = bytes(self._whole[-length:])
            else:
                size = self.location.size()
                tail = self.location.read_range(max(0, size - length), size)
        except FileNotFoundError as error:
            raise CorruptDataError(
                f"{self.location}: this zarr shard is missing although its array is there; make the array anew"
            ) from error
        if len(tail) != length or checksum(tail[:-CRC_BYTES]) != tail[-CRC_BYTES:]:
            raise CorruptDataError(f"{self.location}: the zarr shard's index fails its checksum; make the array anew")
        self._spans = self._spans_of(tail, wanted)
        if not self.location.is_local and not mostly:
            spans = {start: stop for start, stop in self._spans.values() if stop > start}
            parts = read_ranges([(self.location, start, stop) for start, stop in spans.items()])
            self._fetched = dict(zip(spans, parts, strict=True))

    def _open_local(self) -> bytes:
        self.close()
        self._handle = os.open(self.location.path, os.O_RDONLY)
        size = os.fstat(self._handle).st_size
        start = max(0, size - self.layout.index_bytes)
        READ.add(size - start)
        return os.pread(self._handle, size - start, start)

    def _spans_of(self, tail: bytes, wanted: Sequence[Place]) -> dict[Place, tuple[int, int]]:
        """Stored bytes of each chunk, half-open; empty for a chunk of zeros."""
        index = np.frombuffer(tail[:-CRC_BYTES], dtype="<u8").reshape(-1, 2)
        numbers = np.ravel_multi_index(
            np.array(wanted, np.int64).reshape(-1, len(self.layout.shape)).T, self.layout.chunks_per_shard
        )
        rows = index[numbers]
        zeros = (rows == MISSING).all(axis=1)
        stops = rows.sum(axis=1)
        rows[zeros] = stops[zeros] = 0
        return dict(zip(wanted, zip(rows[:, 0].tolist(), stops.tolist(), strict=True), strict=True))

    def chunks(self, run: Sequence[Place], buffer: Bytes) -> list[memoryview | bytes | None]:
        """Stored bytes of some chunks with their checksums, None for a chunk of zeros.

        Args:
            run: Places of the chunks.
            buffer: Room for all of them, for local files.
        """
        spans = [self._spans[place] for place in run]
        if self._whole is not None:
            return [self._whole[start:stop] if stop > start else None for start, stop in spans]
        if self._handle < 0:
            return [self._fetched[start] if stop > start else None for start, stop in spans]
        found: list[memoryview | bytes | None] = []
        view, used = buffer.data, 0
        for start, stop in spans:
            target = view[used : used + stop - start]
            used += len(target)
            found.append(target if stop > start else None)
        used = 0
        for start, stop in joined(spans):
            used += _pread(self._handle, view[used : used + stop - start], start)
        return found

    def close(self) -> None:
        """Let go of the file; only when nobody reads any more."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _pread(handle: int, target: memoryview, start: int) -> int:
    """Fill `target` from a file; what lies beyond its end stays as it was, and its checksum says so."""
    done = 0
    while done < len(target):
        count = os.preadv(handle, [target[done:]], start + done)
        if not count:
            break
        done += count
    READ.add(done)
    return len(target)


def _decode_run(
    stored: _StoredShard,
    run: Sequence[Place],
    origin: Sequence[int],
    bounds: Sequence[tuple[int, int]],
    out: NDArray[Any],
) -> None:
    layout = stored.layout
    buffer = buffers.take(len(run) * layout.slot_bytes)
    for place, data in zip(run, stored.chunks(run, buffer), strict=True):
        whole = decode_chunk(layout, data, f"{stored.location}: chunk {place}")
        inner, outer = [], []
        for i, start, chunk, (low, high) in zip(place, origin, layout.chunks, bounds, strict=True):
            first = start + i * chunk
            begin, end = max(first, low), min(first + chunk, high)
            inner.append(slice(begin - first, end - first))
            outer.append(slice(begin - low, end - low))
        out[tuple(outer)] = 0 if whole is None else whole[tuple(inner)]
    buffers.give(buffer)


__all__ = ["CODECS", "ArrayLayout", "ShardedArray", "codec_pool", "encode_shard"]

"""Reading of zarr shards: their index, the chunks of a region, and the arrays that these fill."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import CorruptDataError
from inkbatch.io.shards.codec import MISSING, TASK_BYTES, Place, checksum, codec_of, joined
from inkbatch.io.shards.layout import CRC_BYTES, ArrayLayout
from inkbatch.io.shards.scratch import Bytes, scratch
from inkbatch.io.store.location import Location
from inkbatch.io.store.meter import READ
from inkbatch.io.store.ranges import read_ranges
from inkbatch.io.store.retrying import READINGS, retried

FLAT_BYTES = 1024  # a stored chunk no larger is flat, such as a mask's; its neighbours mostly hold the very same bytes
WHOLE_SHARD_SHARE = 0.5  # read a shard in one piece for at least this share of its chunks

Target = Callable[[Place], tuple[NDArray[Any], tuple[slice, ...]]]


@dataclass(frozen=True)
class ShardPart:
    """Chunks to read from one shard.

    Attributes:
        coordinates: The shard's place in the shard grid.
        runs: Places of chunks inside the shard; each run is one task.
        target: Gives the array that a chunk fills, and the region of the chunk that goes there.
    """

    coordinates: Place
    runs: Sequence[Sequence[Place]]
    target: Target


def target_of(
    layout: ArrayLayout, origin: Sequence[int], bounds: Sequence[tuple[int, int]], out: NDArray[Any]
) -> Target:
    """Make the `Target` of a region: the part of `out` that each chunk of one shard fills."""

    def target(place: Place) -> tuple[NDArray[Any], tuple[slice, ...]]:
        inner, outer = [], []
        for i, start, chunk, (low, high) in zip(place, origin, layout.chunks, bounds, strict=True):
            first = start + i * chunk
            begin, end = max(first, low), min(first + chunk, high)
            inner.append(slice(begin - first, end - first))
            outer.append(slice(begin - low, end - low))
        return out[tuple(outer)], tuple(inner)

    return target


def own_of(targets: Mapping[Place, NDArray[Any]]) -> Target:
    """Make the `Target` of whole chunks, each clipped to the shape of its array."""

    def target(place: Place) -> tuple[NDArray[Any], tuple[slice, ...]]:
        out = targets[place]
        return out, tuple(slice(0, size) for size in out.shape)

    return target


def chunks_inside(layout: ArrayLayout, origin: Sequence[int], bounds: Sequence[tuple[int, int]]) -> list[range]:
    """Return the places of the chunks of a shard that touch a region, along each axis."""
    spans = []
    for start, (low, high), chunk, count in zip(origin, bounds, layout.chunks, layout.chunks_per_shard, strict=True):
        first = max(0, (low - start) // chunk)
        spans.append(range(first, min(count, -(-(high - start) // chunk))))
    return spans


def runs_of(layout: ArrayLayout, places: Iterable[Place]) -> list[list[Place]]:
    """Cut chunks, in their order, into runs that one task decodes."""
    step, left = max(1, TASK_BYTES // layout.slot_bytes), iter(places)
    return list(iter(lambda: list(itertools.islice(left, step)), []))


class StoredShard:
    """The bytes of one shard: read run by run from a local file, fetched whole or by chunk from elsewhere.

    Its file is closed by `close`, or when the last reader lets go of it: a unit that was opened ahead of an error or a
    stop is never read.
    """

    def __init__(self, location: Location, layout: ArrayLayout) -> None:
        self.location = location
        self.layout = layout
        self.spans: dict[Place, tuple[int, int]] = {}  # stored bytes of each chunk to read, empty for one of zeros
        self._handle = -1
        self._whole: memoryview | None = None
        self._fetched: dict[int, bytes] = {}

    def prepare(self, wanted: Sequence[Place]) -> None:
        """Read the index; from a remote store fetch the chunks as well, or the whole shard for most of them.

        Raises:
            CorruptDataError: The shard is missing, or its index fails its checksum.
        """
        mostly = len(wanted) >= WHOLE_SHARD_SHARE * math.prod(self.layout.chunks_per_shard)
        try:
            tail = self._tail(mostly)
            for _ in range(READINGS - 1):
                if self._is_index(tail) or self.location.is_local:
                    break
                tail = self._tail(mostly)  # a network may have cut or flipped it
        except FileNotFoundError as error:
            raise CorruptDataError(
                f"{self.location}: this zarr shard is missing although its array is there; make the array again"
            ) from error
        if not self._is_index(tail):
            raise CorruptDataError(f"{self.location}: the zarr shard's index fails its checksum; make the array again")
        self.spans = self._spans_of(tail, wanted)
        if not self.location.is_local and not mostly:
            spans = {start: stop for start, stop in self.spans.values() if stop > start}
            parts = read_ranges([(self.location, start, stop) for start, stop in spans.items()])
            self._fetched = dict(zip(spans, parts, strict=True))

    def _tail(self, mostly: bool) -> bytes:
        """Read the index, or the whole remote shard if most of its chunks are asked for."""
        length = self.layout.index_bytes
        if self.location.is_local:
            return retried(str(self.location), self._open_local)
        if mostly:
            self._whole = memoryview(self.location.read_bytes(carries_checksum=True))
            return bytes(self._whole[-length:])
        size = self.location.size()
        return self.location.read_range(max(0, size - length), size)

    def _is_index(self, tail: bytes) -> bool:
        return len(tail) == self.layout.index_bytes and checksum(tail[:-CRC_BYTES]) == tail[-CRC_BYTES:]

    def _open_local(self) -> bytes:
        self.close()
        self._handle = os.open(self.location.path, os.O_RDONLY)
        size = os.fstat(self._handle).st_size
        start = max(0, size - self.layout.index_bytes)
        READ.add(size - start)
        return os.pread(self._handle, size - start, start)

    def _spans_of(self, tail: bytes, wanted: Sequence[Place]) -> dict[Place, tuple[int, int]]:
        """Read the stored bytes of each chunk from the index, half-open; empty for a chunk of zeros."""
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
        """Return the stored bytes of some chunks with their checksums, None for a chunk of zeros.

        Args:
            run: Places of the chunks.
            buffer: Room for all of them, for local files.
        """
        spans = [self.spans[place] for place in run]
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
            self.read_at(start, view[used : used + stop - start])
            used += stop - start
        return found

    def decoded(self, place: Place, stored: memoryview | bytes | None, into: NDArray[Any]) -> NDArray[Any] | None:
        """Decode a chunk as `ChunkCodec.decode` does; one that a network brought damaged is read again.

        Raises:
            CorruptDataError: It fails its checksum in the store, too.
        """
        codec, left = codec_of(self.layout), 0 if self.location.is_local else READINGS - 1
        while True:
            try:
                return codec.decode(stored, (self.location, place), into)
            except CorruptDataError:
                if not left:
                    raise
            left -= 1
            stored = self.location.read_range(*self.spans[place])

    def read_at(self, start: int, target: memoryview) -> None:
        """Fill `target` from a local file; beyond the file's end it stays as it was, which fails the checksum."""
        done = 0
        while done < len(target):
            count = os.preadv(self._handle, [target[done:]], start + done)
            if not count:
                break
            done += count
        READ.add(done)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; no thread may read any more."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class Region:
    """A region of an array whose shards are open: any thread decodes any part of it by itself, any number of times.

    This suits work on a part while it is in the cache; `ShardedArray.read` decodes side by side instead. Shards on a
    remote store are fetched when the region is opened. To be closed, or used in a ``with`` block.

    Args:
        layout: Layout of the array.
        shard_location: Gives the location of the shard with some grid coordinates.
        region: One slice per axis, inside the array, step 1.

    Raises:
        CorruptDataError: A shard is missing, or its index fails its checksum.
    """

    def __init__(
        self, layout: ArrayLayout, shard_location: Callable[[Sequence[int]], Location], region: Sequence[slice]
    ) -> None:
        self._layout = layout
        self._shards: list[tuple[list[int], StoredShard]] = []
        bounds = [(part.start, part.stop) for part in region]
        try:
            for coordinates in shards_inside(layout, bounds):
                origin = [c * size for c, size in zip(coordinates, layout.shards, strict=True)]
                stored = StoredShard(shard_location(coordinates), layout)
                self._shards.append((origin, stored))
                stored.prepare(list(itertools.product(*chunks_inside(layout, origin, bounds))))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Region:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, part: Sequence[slice]) -> NDArray[Any]:
        """Decode a part of the region in the calling thread.

        Args:
            part: One slice per axis in pixels of the whole array, inside the region.

        Returns:
            The part, in the stored dtype.

        Raises:
            CorruptDataError: A chunk fails its checksum; the message names the object.
        """
        bounds = [(one.start, one.stop) for one in part]
        out = np.empty([stop - start for start, stop in bounds], np.dtype(self._layout.dtype))
        for origin, stored in self._shards:
            spans = chunks_inside(self._layout, origin, bounds)
            runs = runs_of(self._layout, itertools.product(*spans))
            if len(runs) == 1 and len(runs[0]) > 1:
                whole = _whole_chunks(self._layout, origin, bounds, spans, out)
                if whole is not None:
                    decode_together(stored, runs[0], whole)
                    continue
            target = target_of(self._layout, origin, bounds, out)
            for run in runs:
                decode_run(stored, run, target)
        return out

    def close(self) -> None:
        """Close the files; no thread may read any more."""
        for _, stored in self._shards:
            stored.close()


def shards_inside(layout: ArrayLayout, bounds: Sequence[tuple[int, int]]) -> Iterator[Place]:
    """List the grid coordinates of the shards that touch a region."""
    spans = zip(bounds, layout.shards, strict=True)
    return itertools.product(*(range(start // shard, -(-stop // shard)) for (start, stop), shard in spans))


def decode_run(stored: StoredShard, run: Sequence[Place], target: Target) -> None:
    """Decode some chunks of a prepared shard, each to where it goes."""
    layout = stored.layout
    with scratch.lend(len(run) * layout.slot_bytes) as buffer, scratch.lend(layout.chunk_bytes) as beside:
        spare = beside.view(layout.dtype).reshape(layout.chunks)
        for place, data in zip(run, stored.chunks(run, buffer), strict=True):
            out, inner = target(place)
            straight = out.shape == layout.chunks and out.flags.c_contiguous
            whole = stored.decoded(place, data, out if straight else spare)
            if whole is None:
                out[...] = 0
            elif whole is not out:
                out[...] = whole[inner]


def decode_together(stored: StoredShard, run: Sequence[Place], out: NDArray[Any]) -> None:
    """Decode whole chunks side by side, and put them in place at once: the interpreter's lock changes hands less.

    Args:
        stored: A prepared shard.
        run: Places of the chunks, row-major; small enough for one task.
        out: (*grid, *chunk), is filled.
    """
    layout = stored.layout
    with (
        scratch.lend(len(run) * layout.slot_bytes) as buffer,
        scratch.lend(len(run) * layout.chunk_bytes) as together,
    ):
        found = stored.chunks(run, buffer)
        decoded = together.view(layout.dtype).reshape(len(run), *layout.chunks)
        if _are_one(found):
            first = stored.decoded(run[0], found[0], decoded[0])
            out[...] = 0 if first is None else first
            return
        for place, data, own in zip(run, found, decoded, strict=True):
            chunk = stored.decoded(place, data, own)
            if chunk is not own:
                own[...] = 0 if chunk is None else chunk
        out[...] = decoded.reshape(out.shape)


def _are_one(found: Sequence[memoryview | bytes | None]) -> bool:
    """Tell whether all chunks are flat and hold the same bytes."""
    if any(data is not None and len(data) > FLAT_BYTES for data in found):
        return False
    return len({None if data is None else bytes(data) for data in found}) == 1


def _whole_chunks(
    layout: ArrayLayout,
    origin: Sequence[int],
    bounds: Sequence[tuple[int, int]],
    spans: Sequence[range],
    out: NDArray[Any],
) -> NDArray[Any] | None:
    """View the part of `out` that a shard fills as (*grid, *chunk); None where the region cuts chunks."""
    outer, split = [], []
    for start, chunk, span, (low, high) in zip(origin, layout.chunks, spans, bounds, strict=True):
        first, last = start + span.start * chunk, start + span.stop * chunk
        if first < low or last > high:
            return None
        outer.append(slice(first - low, last - low))
        split += [len(span), chunk]
    return out[tuple(outer)].reshape(split).transpose(*range(0, len(split), 2), *range(1, len(split), 2))

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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import DataError, MismatchError
from inkbatch.io.shards.codec import Place
from inkbatch.io.shards.layout import CODECS, ArrayLayout
from inkbatch.io.shards.open_shards import OpenShards
from inkbatch.io.shards.reading import (
    Region,
    ShardPart,
    StoredShard,
    chunks_inside,
    decode_run,
    own_of,
    runs_of,
    shards_inside,
    target_of,
)
from inkbatch.io.shards.shard_rows import Fill, ShardRow, encode_shard, from_block
from inkbatch.io.shards.sinks import ShardSink, sink_for
from inkbatch.io.store.location import Location
from inkbatch.io.store.retrying import retried
from inkbatch.io.threads import Tasks, codec_pool


@dataclass(frozen=True)
class ShardedArray:
    """One sharded array at a location. Safe to use from several threads; writers own whole shards."""

    location: Location
    layout: ArrayLayout

    @staticmethod
    def create(location: Location, layout: ArrayLayout) -> ShardedArray:
        """Write the array's metadata; an equal one that is already there is used on.

        Raises:
            MismatchError: Another array is there.
        """
        wanted = layout.metadata()
        place = location / "zarr.json"
        try:
            found = place.read_json()
        except FileNotFoundError:
            place.write_json(wanted)
        else:
            if found != wanted:
                raise MismatchError(
                    f"{location}: another array is already here; choose another name, or give --replace"
                )
        return ShardedArray(location, layout)

    @staticmethod
    def open(location: Location) -> ShardedArray:
        """Open an array that inkbatch wrote.

        Raises:
            DataError: There is none, or inkbatch did not write it.
        """
        place = location / "zarr.json"
        try:
            document = place.read_json()
        except FileNotFoundError as error:
            raise DataError(f"{location}: no zarr array here; run inkbatch prepare (or infer) first") from error
        return ShardedArray(location, ArrayLayout.parse(document, str(location)))

    def shard_location(self, coordinates: Sequence[int]) -> Location:
        """Return the location of the shard with these grid coordinates."""
        return Location("/".join([self.location.uri.rstrip("/"), "c", *map(str, coordinates)]))

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
                f"shard {tuple(coordinates)}: expected {expected} {layout.dtype}, got {block.shape} {block.dtype}"
            )
        return self.write_shard_row(coordinates, 1, from_block(layout, block))

    def write_shard_row(self, coordinates: Sequence[int], count: int, fill: Fill) -> int:
        """Encode and store whole shards side by side along the last axis, chunk row by chunk row.

        Args:
            coordinates: The first shard's place in the shard grid.
            count: Shards.
            fill: Gives the content of each row of chunks; see `shard_rows.Fill`. Where a store failed for the moment
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
        return ShardRow(self.layout, sinks, width, fill).finish()

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
        layout = self.layout
        bounds = [(part.start, part.stop) for part in region]
        if out is None:
            out = np.empty([stop - start for start, stop in bounds], np.dtype(layout.dtype))
        parts = []
        for coordinates in shards_inside(layout, bounds):
            origin = [c * size for c, size in zip(coordinates, layout.shards, strict=True)]
            runs = runs_of(layout, itertools.product(*chunks_inside(layout, origin, bounds)))
            parts.append(ShardPart(coordinates, runs, target_of(layout, origin, bounds, out)))
        self._decode(parts)
        return out

    def opened(self, region: Sequence[slice]) -> Region:
        """Open a region whose parts are decoded one by one, each by the thread that asks for it; see `Region`."""
        return Region(self.layout, self.shard_location, region)

    def read_chunks(
        self, places: Sequence[Place], outs: Sequence[NDArray[Any]], kept: OpenShards | None = None
    ) -> None:
        """Read whole chunks, each into an array of its own.

        Args:
            places: Places in the grid of chunks of the whole array.
            outs: One array per chunk, of its shape (clipped to the array's border) and the stored dtype.
            kept: Shards that stay open; None opens and closes each.

        Raises:
            CorruptDataError: As `read`.
        """
        layout = self.layout
        if len(places) == 1 and kept is not None and self.location.is_local:  # labels of a tile: a quarter faster
            shard, inside = layout.in_shard(places[0])
            kept.get(self.shard_location(shard), layout).decode(inside, outs[0])
            return
        shards: dict[Place, dict[Place, NDArray[Any]]] = {}
        for place, out in zip(places, outs, strict=True):
            shard, inside = layout.in_shard(place)
            shards.setdefault(shard, {})[inside] = out
        parts = [
            ShardPart(place, runs_of(layout, sorted(targets)), own_of(targets)) for place, targets in shards.items()
        ]
        self._decode(parts, kept)

    def _decode(self, parts: Sequence[ShardPart], kept: OpenShards | None = None) -> None:
        """Decode chunks, side by side where they are many."""
        alone = sum(len(part.runs) for part in parts) == 1
        opened: list[StoredShard] = []
        try:
            with Tasks(codec_pool) as tasks:
                for part in parts:
                    place = self.shard_location(part.coordinates)
                    if kept is not None and place.is_local:
                        stored: StoredShard = kept.get(place, self.layout)
                    else:
                        stored = StoredShard(place, self.layout)
                        opened.append(stored)
                        stored.prepare([chunk for run in part.runs for chunk in run])
                    for run in part.runs:
                        if alone:
                            decode_run(stored, run, part.target)
                        else:
                            tasks.start(decode_run, stored, run, part.target)
        finally:
            for stored in opened:
                stored.close()


__all__ = ["CODECS", "ArrayLayout", "ShardedArray", "encode_shard"]

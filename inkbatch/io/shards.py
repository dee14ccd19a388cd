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
import mmap
import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

from inkbatch.errors import CorruptDataError, DataError, MismatchError
from inkbatch.io.storage import Location, retried

MISSING = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
CRC_BYTES = 4
WHOLE_SHARD_SHARE = 0.5  # read a shard in one piece when at least this share of its chunks is wanted

CODECS: dict[str, dict[str, Any]] = {
    "lz4": {"cname": "lz4", "clevel": 3, "shuffle": "noshuffle"},  # memory speed; squeezes out empty areas only
    "lz4-bit": {"cname": "lz4", "clevel": 3, "shuffle": "bitshuffle"},
    "zstd": {"cname": "zstd", "clevel": 1, "shuffle": "bitshuffle"},  # smallest: for slow or dear networks
}
_SHUFFLE = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}


@lru_cache(maxsize=1)
def codec_pool() -> ThreadPoolExecutor:
    """The process's threads for encoding and decoding chunks; one per core, at least two."""
    return ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="inkbatch-codec")


_scratch = threading.local()


def _scratch_array(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A per-thread array that is used again by the next call; contents are whatever was there."""
    key = (shape, dtype.str)
    if getattr(_scratch, "key", None) != key:
        _scratch.key, _scratch.array = key, np.empty(shape, dtype)
    array: NDArray[Any] = _scratch.array
    return array


@dataclass(frozen=True)
class ArrayLayout:
    """How an array is cut and encoded.

    Attributes:
        shape: Array shape.
        chunks: Chunk shape; divides `shards`.
        shards: Shape of one stored object.
        dtype: numpy dtype name, ``uint8``, ``uint16``, ``float16`` or ``float32``.
        codec: Name in `CODECS`.
        dimension_names: Axis names, for readers.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...]
    dtype: str
    codec: str = "lz4"
    dimension_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.shape) == len(self.chunks) == len(self.shards):
            raise ValueError(f"shape {self.shape}, chunks {self.chunks}, shards {self.shards}: differing lengths")
        if any(shard % chunk for shard, chunk in zip(self.shards, self.chunks, strict=True)):
            raise ValueError(f"shards {self.shards} are no multiples of chunks {self.chunks}")

    @property
    def chunks_per_shard(self) -> tuple[int, ...]:
        """Chunks along each axis of a shard."""
        return tuple(shard // chunk for shard, chunk in zip(self.shards, self.chunks, strict=True))

    @property
    def index_bytes(self) -> int:
        """Length of a shard's index with its checksum."""
        return 16 * math.prod(self.chunks_per_shard) + CRC_BYTES

    def metadata(self) -> dict[str, Any]:
        """The array's ``zarr.json``."""
        itemsize = np.dtype(self.dtype).itemsize
        little = {"name": "bytes"} if itemsize == 1 else {"name": "bytes", "configuration": {"endian": "little"}}
        blosc = {**CODECS[self.codec], "typesize": itemsize, "blocksize": 0}
        crc = {"name": "crc32c"}
        sharding = {
            "chunk_shape": list(self.chunks),
            "codecs": [little, {"name": "blosc", "configuration": blosc}, crc],
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, crc],
            "index_location": "end",
        }
        document: dict[str, Any] = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.shards)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0 if np.dtype(self.dtype).kind in "ui" else 0.0,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": {},
            "storage_transformers": [],
        }
        if self.dimension_names:
            document["dimension_names"] = list(self.dimension_names)
        return document

    @staticmethod
    def parse(document: Any, place: str) -> ArrayLayout:
        """Read a ``zarr.json`` that `metadata` wrote.

        Raises:
            DataError: The array was written by something else, or is not sharded as ours are.
        """
        try:
            sharding = document["codecs"][0]["configuration"]
            blosc = next(codec for codec in sharding["codecs"] if codec["name"] == "blosc")["configuration"]
            wanted = {key: blosc[key] for key in ("cname", "clevel", "shuffle")}
            layout = ArrayLayout(
                shape=tuple(document["shape"]),
                chunks=tuple(sharding["chunk_shape"]),
                shards=tuple(document["chunk_grid"]["configuration"]["chunk_shape"]),
                dtype=str(document["data_type"]),
                codec=next(name for name, settings in CODECS.items() if settings == wanted),
                dimension_names=tuple(document.get("dimension_names") or ()),
            )
            known = layout.metadata()
        except (KeyError, IndexError, TypeError, ValueError, StopIteration) as error:
            raise DataError(f"{place}: not an array that inkbatch wrote; run inkbatch prepare on it first") from error
        if known["codecs"] != document["codecs"]:
            raise DataError(f"{place}: its codecs are not inkbatch's; run inkbatch prepare on it first")
        return layout


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
        parts = encode_shard(layout, block)
        self.shard_location(coordinates).write_parts(parts)
        return sum(len(part) for part in parts)

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
        jobs: list[Any] = []
        for coordinates in itertools.product(*ranges):
            jobs.extend(self._decode_jobs(coordinates, bounds, out))
        for job in jobs:
            job.result()
        return out

    def _decode_jobs(self, shard: tuple[int, ...], bounds: list[tuple[int, int]], out: NDArray[Any]) -> Iterable[Any]:
        layout = self.layout
        origin = [c * size for c, size in zip(shard, layout.shards, strict=True)]
        wanted = list(_chunks_inside(layout, origin, bounds))
        stored = _StoredShard(self.shard_location(shard), layout)
        stored.prepare(len(wanted))
        for chunk in wanted:
            yield codec_pool().submit(_decode_chunk, stored, chunk, origin, bounds, out)


def _chunks_inside(
    layout: ArrayLayout, origin: Sequence[int], bounds: Sequence[tuple[int, int]]
) -> Iterable[tuple[int, ...]]:
    spans = []
    for start, (low, high), chunk, count in zip(origin, bounds, layout.chunks, layout.chunks_per_shard, strict=True):
        first = max(0, (low - start) // chunk)
        spans.append(range(first, min(count, -(-(high - start) // chunk))))
    return itertools.product(*spans)


def encode_shard(layout: ArrayLayout, block: NDArray[Any]) -> list[bytes]:
    """Encode one shard into the parts of its object: chunks in C order, then the index.

    Args:
        layout: Layout of the array.
        block: Content, clipped to the array's border; missing parts of border chunks are filled with zeros.

    Returns:
        Byte strings whose concatenation is the stored object. Equal content gives equal bytes.
    """
    places = list(itertools.product(*(range(count) for count in layout.chunks_per_shard)))
    chunks = list(codec_pool().map(lambda place: _encode_chunk(layout, block, place), places))
    index = np.full((len(places), 2), MISSING, dtype="<u8")
    offset = 0
    parts: list[bytes] = []
    for row, chunk in enumerate(chunks):
        if chunk is None:
            continue
        length = sum(len(part) for part in chunk)
        index[row] = offset, length
        offset += length
        parts.extend(chunk)
    tail = index.tobytes()
    parts.append(tail + _crc(tail))
    return parts


def _crc(data: bytes) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(CRC_BYTES, "little")


def _compressor(layout: ArrayLayout) -> Blosc:
    settings = CODECS[layout.codec]
    itemsize = np.dtype(layout.dtype).itemsize
    return Blosc(settings["cname"], settings["clevel"], _SHUFFLE[settings["shuffle"]], typesize=itemsize)


def _encode_chunk(layout: ArrayLayout, block: NDArray[Any], place: tuple[int, ...]) -> tuple[bytes, bytes] | None:
    slices = tuple(slice(i * chunk, (i + 1) * chunk) for i, chunk in zip(place, layout.chunks, strict=True))
    part = block[slices]
    if part.size == 0 or not part.any():
        return None
    whole = _scratch_array(layout.chunks, block.dtype)
    if part.shape != layout.chunks:
        whole.fill(0)
    whole[tuple(slice(0, length) for length in part.shape)] = part
    data = bytes(_compressor(layout).encode(whole))
    return data, _crc(data)


class _StoredShard:
    """The bytes of one shard, fetched whole or by chunk."""

    def __init__(self, location: Location, layout: ArrayLayout) -> None:
        self.location = location
        self.layout = layout
        self.whole: memoryview | None = None
        self.index: NDArray[np.uint64] = np.empty(0, np.uint64)

    def prepare(self, wanted: int) -> None:
        """Fetch the index, or the whole object when most of it is wanted."""
        try:
            if not self.location.is_local and wanted >= WHOLE_SHARD_SHARE * math.prod(self.layout.chunks_per_shard):
                self.whole = memoryview(self.location.read_bytes())
                tail = bytes(self.whole[-self.layout.index_bytes :])
            elif self.location.is_local:
                tail = retried(str(self.location), self._open_local)
            else:
                size = self.location.size()
                tail = self.location.read_range(max(0, size - self.layout.index_bytes), size)
        except FileNotFoundError as error:
            raise CorruptDataError(
                f"{self.location}: this zarr shard is missing although its array is there; make the array anew"
            ) from error
        if len(tail) != self.layout.index_bytes or _crc(tail[:-CRC_BYTES]) != tail[-CRC_BYTES:]:
            raise CorruptDataError(f"{self.location}: the zarr shard's index fails its checksum; make the array anew")
        self.index = np.frombuffer(tail[:-CRC_BYTES], dtype="<u8").reshape(-1, 2)

    def _open_local(self) -> bytes:
        with open(self.location.path, "rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            if size:
                self.whole = memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
        return bytes(self.whole[-self.layout.index_bytes :]) if self.whole is not None else b""

    def chunk(self, place: tuple[int, ...]) -> memoryview | bytes | None:
        """Encoded bytes of one chunk with its checksum, or None for a chunk of zeros."""
        row = int(np.ravel_multi_index(place, self.layout.chunks_per_shard))
        offset, length = self.index[row]
        if offset == MISSING and length == MISSING:
            return None
        start, stop = int(offset), int(offset) + int(length)
        if self.whole is not None:
            return self.whole[start:stop]
        return self.location.read_range(start, stop)


def _decode_chunk(
    stored: _StoredShard,
    place: tuple[int, ...],
    origin: Sequence[int],
    bounds: Sequence[tuple[int, int]],
    out: NDArray[Any],
) -> None:
    layout = stored.layout
    inner, outer = [], []
    for i, start, chunk, (low, high) in zip(place, origin, layout.chunks, bounds, strict=True):
        first = start + i * chunk
        begin, end = max(first, low), min(first + chunk, high)
        inner.append(slice(begin - first, end - first))
        outer.append(slice(begin - low, end - low))
    data = stored.chunk(place)
    if data is None:
        out[tuple(outer)] = 0
        return
    body = bytes(data[:-CRC_BYTES])
    if len(data) <= CRC_BYTES or _crc(body) != bytes(data[-CRC_BYTES:]):
        raise CorruptDataError(f"{stored.location}: chunk {place} fails its checksum; make the array anew")
    whole = _scratch_array(layout.chunks, np.dtype(layout.dtype))
    try:
        _compressor(layout).decode(body, whole)
    except (RuntimeError, ValueError) as error:
        raise CorruptDataError(f"{stored.location}: chunk {place} cannot be decoded: {error}") from error
    out[tuple(outer)] = whole[tuple(inner)]

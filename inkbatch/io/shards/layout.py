"""Layout of a sharded zarr v3 array: shapes, codec, and the ``zarr.json`` that states them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from inkbatch.errors import DataError

CRC_BYTES = 4
BLOSC_HEADER_BYTES = 16

CODECS: dict[str, dict[str, Any]] = {
    "lz4": {"cname": "lz4", "clevel": 3, "shuffle": "noshuffle"},  # memory speed; squeezes out empty areas only
    "lz4-bit": {"cname": "lz4", "clevel": 3, "shuffle": "bitshuffle"},
    "zstd": {"cname": "zstd", "clevel": 1, "shuffle": "bitshuffle"},  # smallest: for slow or dear networks
}
MASK_CODEC = "lz4"  # masks and labels are flat: decoded in a fifth of the seconds of zstd, small either way


@dataclass(frozen=True)
class ArrayLayout:
    """Shapes and codec of an array.

    Attributes:
        shape: Array shape.
        chunks: Chunk shape; divides `shards`.
        shards: Shape of one stored object.
        dtype: numpy dtype name, ``uint8``, ``uint16``, ``uint32``, ``float16`` or ``float32``.
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
            raise ValueError(f"shape {self.shape}, chunks {self.chunks}, shards {self.shards}: expected equal lengths")
        if any(shard % chunk for shard, chunk in zip(self.shards, self.chunks, strict=True)):
            raise ValueError(f"shards {self.shards} are no multiples of chunks {self.chunks}")

    @cached_property
    def chunks_per_shard(self) -> tuple[int, ...]:
        """Chunks along each axis of a shard."""
        return tuple(shard // chunk for shard, chunk in zip(self.shards, self.chunks, strict=True))

    def in_shard(self, place: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shard that holds a chunk of the whole array, and the chunk's place inside it."""
        both = [divmod(number, count) for number, count in zip(place, self.chunks_per_shard, strict=True)]
        return tuple(shard for shard, _ in both), tuple(inner for _, inner in both)

    @cached_property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk."""
        return math.prod(self.chunks) * np.dtype(self.dtype).itemsize

    @cached_property
    def slot_bytes(self) -> int:
        """Most bytes that a stored chunk takes, with Blosc's header and its checksum."""
        return BLOSC_HEADER_BYTES + self.chunk_bytes + CRC_BYTES

    @cached_property
    def index_bytes(self) -> int:
        """Length of a shard's index with its checksum."""
        return 16 * math.prod(self.chunks_per_shard) + CRC_BYTES

    def metadata(self) -> dict[str, Any]:
        """Make the array's ``zarr.json``."""
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

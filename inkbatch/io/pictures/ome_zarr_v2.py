"""OME-Zarr 0.4 in zarr v2, as the field's viewers open it: (z, y, x), ``/`` between chunk numbers, Blosc-zstd.

Neuroglancer and Volume Cartographer read no float16 and no zarr v3 shards; this copy is for them. Chunks are written
one by one, in parallel, and the group's metadata last: a copy that was interrupted opens nowhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numcodecs
import numpy as np
from numpy.typing import NDArray

from inkbatch.geometry import Box, cut
from inkbatch.io.ome import ome_axes, ome_levels
from inkbatch.io.store.location import Location

CHUNK_PX = 128
CHUNK_LAYERS = 32
BLOCK_PX = 1024  # read at a time, all layers; a multiple of CHUNK_PX
WRITERS = 4
COMPRESSOR: dict[str, Any] = {"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 1, "blocksize": 0}


@dataclass(frozen=True)
class LevelValues:
    """One level of a pyramid, read by box.

    Attributes:
        shape_zyx: (layers, height, width).
        dtype: uint8 or uint16.
        read: Returns (layers, box.height, box.width) of `dtype` for a box inside the level.
    """

    shape_zyx: tuple[int, int, int]
    dtype: np.dtype[Any]
    read: Callable[[Box], NDArray[Any]]


def write_ome_zarr_v2(
    place: Location,
    levels: Sequence[LevelValues],
    spacing_zyx_um: tuple[float, float, float],
    facts: dict[str, Any],
) -> int:
    """Write a pyramid whose levels halve y and x.

    Args:
        place: Folder of the group; objects that are there are replaced.
        levels: From full resolution down.
        spacing_zyx_um: Micrometres between values of level 0 along z, y and x.
        facts: Stored in the group's attributes under ``inkbatch``.

    Returns:
        Bytes stored.

    Raises:
        StorageError: Writing failed again after retries.
    """
    for name in (".zgroup", ".zattrs"):  # a group without them does not open: half of a replaced one is seen by nobody
        (place / name).delete()
    stored = 0
    with ThreadPoolExecutor(WRITERS, thread_name_prefix="inkbatch-ome") as writers:
        for number, level in enumerate(levels):
            folder = place / str(number)
            (folder / ".zarray").write_json(_array_metadata(level))
            for box in cut(level.shape_zyx[1:], BLOCK_PX, BLOCK_PX):
                block = level.read(box)
                parts = list(_chunks(level, box, block))
                stored += sum(writers.map(lambda part, folder=folder: _store(folder, *part), parts))
    (place / ".zattrs").write_json(_attributes(place.name, len(levels), spacing_zyx_um, facts))
    (place / ".zgroup").write_json({"zarr_format": 2})
    return stored


def _chunk_shape(level: LevelValues) -> tuple[int, int, int]:
    return min(CHUNK_LAYERS, level.shape_zyx[0]), CHUNK_PX, CHUNK_PX


def _array_metadata(level: LevelValues) -> dict[str, Any]:
    return {
        "zarr_format": 2,
        "shape": list(level.shape_zyx),
        "chunks": list(_chunk_shape(level)),
        "dtype": level.dtype.newbyteorder("<").str,
        "compressor": COMPRESSOR,
        "fill_value": 0,
        "order": "C",
        "filters": None,
        "dimension_separator": "/",
    }


def _chunks(level: LevelValues, box: Box, block: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Cut out names and values of the chunks of a block, those at the border filled up with zeros."""
    depth, edge, _ = _chunk_shape(level)
    for z, y, x in itertools.product(
        range(0, block.shape[0], depth), range(0, box.height, edge), range(0, box.width, edge)
    ):
        part = block[z : z + depth, y : y + edge, x : x + edge]
        missing = [(0, full - size) for full, size in zip((depth, edge, edge), part.shape, strict=True)]
        whole = np.pad(part, missing) if any(after for _, after in missing) else np.ascontiguousarray(part)
        yield f"{z // depth}/{(box.y0 + y) // edge}/{(box.x0 + x) // edge}", whole


def _store(folder: Location, name: str, values: NDArray[Any]) -> int:
    codec = numcodecs.get_codec(COMPRESSOR)
    data = bytes(codec.encode(np.asarray(values, values.dtype.newbyteorder("<"))))
    (folder / name).write_bytes(data)
    return len(data)


def _attributes(name: str, count: int, spacing: tuple[float, float, float], facts: dict[str, Any]) -> dict[str, Any]:
    levels = ome_levels(count, dict(zip("zyx", spacing, strict=True)), shift_first=True)
    image: dict[str, Any] = {"version": "0.4", "name": name.removesuffix(".zarr"), "axes": ome_axes("zyx")}
    image |= {"datasets": levels, "type": "mean"}
    return {"multiscales": [image], "inkbatch": facts}

"""The volume of a scroll: an OME-Zarr with levels, or one zarr array; read chunk by chunk through a bounded cache."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.config import digest
from inkbatch.errors import ConfigError, CorruptDataError, DataError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.layers.spacing import SIZE_TOLERANCE, NamedSize, sizes_beside
from inkbatch.io.layers.zarr_nodes import ZarrNode, choose_array, find_node, level_count
from inkbatch.io.ome import LARGEST_UM, SMALLEST_UM, is_plausible
from inkbatch.io.store.location import Location
from inkbatch.io.threads import chunk_pool, remote_chunk_pool

if TYPE_CHECKING:
    from inkbatch.io.layers.zarr_layers import ZarrLayers

Chunk = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Volume:
    """One level of a volume, opened.

    Attributes:
        uri: The volume as it was given, for messages.
        level: The level that is read.
        level_count: Levels that are there.
        array: Reader of the level's array.
        base_um: Voxel edge at level 0 in micrometres; None where nothing states it.
        fingerprint: Digest of the metadata.
    """

    uri: str
    level: int
    level_count: int
    array: ZarrLayers
    base_um: float | None
    fingerprint: str

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Voxels of the level."""
        return self.array.shape_zyx

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored dtype: uint8 or uint16."""
        return self.array.dtype

    @property
    def chunk_zyx(self) -> Chunk:
        """Voxels of a chunk, clipped to the level."""
        return self.array.block_layers, *self.array.block_yx

    @property
    def chunk_counts(self) -> Chunk:
        """Chunks along each axis."""
        z, y, x = (-(-size // part) for size, part in zip(self.shape_zyx, self.chunk_zyx, strict=True))
        return z, y, x

    @property
    def chunk_bytes(self) -> int:
        """Decoded bytes of a whole chunk."""
        return math.prod(self.chunk_zyx) * self.dtype.itemsize

    def read_chunk(self, chunk: Chunk) -> NDArray[Any]:
        """Read one chunk, clipped to the level; one that is not stored holds the fill value.

        Raises:
            CorruptDataError: It is truncated or cannot be decoded.
            StorageError: Reading failed after retries.
        """
        starts = [place * part for place, part in zip(chunk, self.chunk_zyx, strict=True)]
        stops = [min(s + part, size) for s, part, size in zip(starts, self.chunk_zyx, self.shape_zyx, strict=True)]
        try:
            return self.array.read(range(starts[0], stops[0]), Box(starts[1], starts[2], stops[1], stops[2]))
        except CorruptDataError as error:
            raise CorruptDataError(f"volume {self.uri}, level {self.level}, chunk {chunk}: {error}") from error


def open_volume(
    uri: str,
    *,
    level: int | None = None,
    spacing_um: float | None = None,
    base_um: float | None = None,
    axes: str | None = None,
) -> Volume:
    """Open a volume; metadata are read, no voxels.

    Args:
        uri: OME-Zarr (v2 or v3) or one zarr array with axes z, y, x: local, ``s3://``, ``https://``, ``memory://``.
        level: Level to read; None chooses the coarsest that is not coarser than `spacing_um`, or 0.
        spacing_um: Spacing of pixels that is wished, in micrometres.
        base_um: Voxel edge at level 0, where the volume does not state it.
        axes: Axis order of a plain array that names none.

    Raises:
        ConfigError: A level that is not there.
        DataError: No volume is there; wrong axes, dtype, or level sizes.
        MismatchError: Voxel sizes that contradict each other.
    """
    location = Location.parse(uri)
    node = find_node(location)
    if node is None:
        raise DataError(f"volume {location}: expected an OME-Zarr or a zarr array, got neither; check the location")
    count = 1 if node.is_array else level_count(node)
    sizes = [_level_um(node, number) for number in range(count)]
    base = _base_um(location, sizes[0], base_um)
    chosen = level if level is not None else _level_for(spacing_um, base, count)
    if chosen >= count:
        raise ConfigError(f"volume {location}: expected level 0 to {count - 1}, got {chosen}; choose one of them")
    array = _array(node, chosen, axes)
    if chosen:
        _check_level(location, chosen, _array(node, 0, axes).shape_zyx, array.shape_zyx, sizes)
    prints = {"level": chosen, "array": array.fingerprint, "base_um": base}
    return Volume(str(location), chosen, count, array, base, digest(prints))


def _array(node: ZarrNode, level: int, axes: str | None) -> ZarrLayers:
    chosen = choose_array(node, axes, None if node.is_array else level)
    if chosen.axes != "zyx":
        raise DataError(
            f"volume {node.location}: expected axes zyx, got {chosen.axes!r}; coordinates of a mesh would land at "
            "other voxels, so write the volume again with depth first"
        )
    from inkbatch.io.layers.zarr_layers import ZarrLayers  # zarr: only where it is used

    array = ZarrLayers(chosen)
    if array.dtype.kind != "u":
        raise DataError(f"volume {node.location}: expected uint8 or uint16, got {array.dtype}; convert it first")
    return array


def _level_um(node: ZarrNode, level: int) -> float | None:
    """Read the voxel edge that the OME metadata state for a level; None if they state nothing usable."""
    if node.is_array:
        return None
    return choose_array(node, None, level).spacing.plane


def _base_um(location: Location, ome_um: float | None, stated_um: float | None) -> float | None:
    """Find the voxel edge at level 0: OME metadata, the user's, ``meta.json`` or its name; they must agree."""
    said = [NamedSize("its OME metadata", ome_um)] if ome_um is not None else []
    said += [NamedSize("what you state", stated_um)] if stated_um is not None else []
    said += sizes_beside(location)
    for size in said:
        if not is_plausible(size.um):
            raise MismatchError(
                f"volume {location}: expected a voxel size of {SMALLEST_UM:g} to {LARGEST_UM:g} µm, got {size.um:g} "
                f"from {size.place}; correct it there"
            )
    for size in said[1:]:
        low, high = sorted((said[0].um, size.um))
        if high - low > max(said[0].within, size.within) * high:
            pairs = ", ".join(f"{one.place}: {one.um:g} µm" for one in said)
            raise MismatchError(
                f"volume {location}: expected one voxel size at level 0, got {pairs} (factor {high / low:.4g}); "
                "correct the one that is wrong"
            )
    return said[0].um if said else None


def _level_for(spacing_um: float | None, base_um: float | None, count: int) -> int:
    """Choose the coarsest level whose voxels are not larger than the spacing."""
    if spacing_um is None or base_um is None:
        return 0
    return min(count - 1, max(0, math.floor(math.log2(spacing_um / base_um * (1 + SIZE_TOLERANCE)))))


def _check_level(
    location: Location, level: int, base: tuple[int, ...], found: tuple[int, ...], sizes: list[float | None]
) -> None:
    """Refuse a level that is not the first one halved so many times.

    Raises:
        MismatchError: Its shape or its stated size says otherwise.
    """
    factor = 2**level
    wrong_shape = any(abs(a / factor - b) >= 2 for a, b in zip(base, found, strict=True))
    first, own = sizes[0], sizes[level]
    wrong_size = first is not None and own is not None and not math.isclose(own, first * factor, rel_tol=SIZE_TOLERANCE)
    if wrong_shape or wrong_size:
        said = f", {own:g} µm for {first:g} µm" if wrong_size else ""
        raise MismatchError(
            f"volume {location}: expected level {level} to be level 0 halved {level} times, got shape {found} for "
            f"{base}{said}; choose another level, or have the pyramid written again"
        )


class ChunkReader:
    """Reads chunks ahead and keeps the latest ones; safe to use from several threads.

    Attributes:
        limit_bytes: Decoded bytes that are kept at most, beside those in use.
        chunks_read: Chunks read so far.
    """

    def __init__(self, volume: Volume, limit_bytes: int) -> None:
        self.volume, self.limit_bytes = volume, limit_bytes
        self.chunks_read = 0
        self._kept: OrderedDict[Chunk, Future[NDArray[Any]]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def most(self) -> int:
        """Chunks that fit the limit, at least one."""
        return max(1, self.limit_bytes // self.volume.chunk_bytes)

    def ask(self, chunks: set[Chunk]) -> Mapping[Chunk, Future[NDArray[Any]]]:
        """Have chunks read that are not kept; the result's futures keep them alive while they are in use."""
        asked = {}
        pool = chunk_pool if Location.parse(self.volume.uri).is_local else remote_chunk_pool
        with self._lock:
            for chunk in sorted(chunks):
                found = self._kept.get(chunk)
                if found is None or (found.done() and (found.cancelled() or found.exception() is not None)):
                    found = pool.submit(self.volume.read_chunk, chunk)
                    self.chunks_read += 1
                self._kept[chunk] = found
                self._kept.move_to_end(chunk)
                asked[chunk] = found
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)
        return asked

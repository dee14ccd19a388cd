"""OME-Zarr 0.5 pyramids of sharded arrays, written unit by unit.

Level k halves level k - 1 along y and x; the layer axis keeps its full depth. The shard edge halves too, so that a
write box of whole shards at level 0 is whole shards at every level: each unit writes its part of the whole pyramid and
no two units touch one object.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import CorruptDataError, DataError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.halving import Pooling, halve
from inkbatch.io.ome import ome_axes, ome_levels, ome_spacing
from inkbatch.io.shard_size import SMALLEST_SHARD_PX, require_shard_px
from inkbatch.io.shards.array import ArrayLayout, ShardedArray
from inkbatch.io.shards.codec import Place
from inkbatch.io.shards.layout import MASK_CODEC
from inkbatch.io.shards.shard_rows import Fill, from_block
from inkbatch.io.store.location import Location

OME_VERSION = "0.5"
CHUNK_PX = 256  # of a chunk along y and x; see benchmarks/README.md
OVERVIEW_PX = 1024  # no level beyond the first that fits this

CURES = {
    "surface.zarr": "run inkbatch prepare",
    "mask.zarr": "run inkbatch prepare",
    "ink_labels.zarr": "run inkbatch labels",
    "ignore_mask.zarr": "run inkbatch labels with rules for an ignore mask, or build the dataset again without one",
    "validation_mask.zarr": "run inkbatch labels with a validation mask",
    "prediction.zarr": "run inkbatch infer",
    "disagreement.zarr": "run inkbatch ensemble",
    "labels.zarr": "run inkbatch instances",
}


def _cure(name: str) -> str:
    """Name the job that makes an array of this name."""
    return CURES.get(name, "check the address, or run the job that makes it")


@dataclass(frozen=True)
class Multiscale:
    """A pyramid at a location.

    Attributes:
        location: The OME-Zarr group.
        levels: Arrays from full resolution down, axes (z, y, x) or (y, x).
        attributes: The group's attributes: ``ome`` and ``inkbatch``.
        pooling: How a level is made from the one above: ``mean`` (rounded half up for integers), ``max`` (masks), or
            ``first``: every other pixel (numbers that name something).
    """

    location: Location
    levels: tuple[ShardedArray, ...]
    attributes: Mapping[str, Any]
    pooling: Pooling = "mean"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of level 0."""
        return self.levels[0].layout.shape

    @property
    def shard_px(self) -> int:
        """Edge of a zarr shard of level 0 along y and x."""
        return self.levels[0].layout.shards[-1]

    @staticmethod
    def create(
        location: Location,
        shape: tuple[int, ...],
        *,
        dtype: str,
        chunk: tuple[int, ...],
        shard_px: int,
        voxel_size_um: float,
        provenance: Mapping[str, Any],
        codec: str = "lz4",
        pooling: Pooling = "mean",
        z_spacing_um: float | None = None,
    ) -> Multiscale:
        """Write the metadata of a pyramid; an equal one that is already there is used on.

        Args:
            location: Where the group goes.
            shape: (Z, Y, X) or (Y, X).
            dtype: numpy dtype name of all levels.
            chunk: Chunk shape of level 0; its last two entries divide `shard_px`.
            shard_px: Shard edge along y and x of level 0, a power of two of at least 32.
            voxel_size_um: Voxel edge at level 0 in micrometres.
            provenance: Stored under the attribute ``inkbatch``.
            codec: Name in `shards.CODECS`.
            pooling: How levels are made.
            z_spacing_um: Spacing of layers; None: `voxel_size_um`.

        Raises:
            MismatchError: Something else is there.
        """
        layouts = list(_layouts(shape, dtype, chunk, shard_px, codec))
        return Multiscale._created(location, layouts, voxel_size_um, provenance, pooling, z_spacing_um)

    @staticmethod
    def _created(
        location: Location,
        layouts: list[ArrayLayout],
        voxel_size_um: float,
        provenance: Mapping[str, Any],
        pooling: Pooling,
        z_spacing_um: float | None = None,
    ) -> Multiscale:
        attributes = {
            "ome": _ome_attributes(location.name, layouts, voxel_size_um, pooling, z_spacing_um),
            "inkbatch": dict(provenance),
        }
        document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        place = location / "zarr.json"
        try:
            found = place.read_json()
        except FileNotFoundError:
            place.write_json(document)
        else:
            if found != document:
                raise MismatchError(
                    f"{location}: it was made from other inputs or settings; choose another ROOT, or give --replace, "
                    "which removes it"
                )
        levels = tuple(ShardedArray.create(location / str(k), layout) for k, layout in enumerate(layouts))
        return Multiscale(location, levels, attributes, pooling)

    @staticmethod
    def create_mask(
        location: Location,
        shape_yx: tuple[int, int],
        *,
        shard_px: int,
        voxel_size_um: float,
        provenance: Mapping[str, Any],
        pooling: Pooling = "max",
    ) -> Multiscale:
        """Write the metadata of a pyramid (Y, X) of uint8 for a mask or labels; see `create`."""
        return Multiscale.create(
            location,
            shape_yx,
            dtype="uint8",
            chunk=(CHUNK_PX, CHUNK_PX),
            shard_px=shard_px,
            voxel_size_um=voxel_size_um,
            provenance=provenance,
            codec=MASK_CODEC,
            pooling=pooling,
        )

    @staticmethod
    def create_flat(
        location: Location,
        shape_yx: tuple[int, int],
        *,
        edge_px: int,
        voxel_size_um: float,
        provenance: Mapping[str, Any],
    ) -> Multiscale:
        """Write the metadata of a group (Y, X) of uint8 with full resolution alone, each chunk a zarr shard of its own.

        Such an array is written chunk by chunk, and chunks without content need not be stored.

        Raises:
            MismatchError: Something else is there.
        """
        edges = (edge_px, edge_px)
        layout = ArrayLayout(shape_yx, edges, edges, "uint8", MASK_CODEC, ("y", "x"))
        return Multiscale._created(location, [layout], voxel_size_um, provenance, "max")

    @staticmethod
    def open(location: Location) -> Multiscale:
        """Open a pyramid that inkbatch wrote.

        Raises:
            DataError: There is none, or inkbatch did not write it.
        """
        try:
            document = (location / "zarr.json").read_mapping()
        except FileNotFoundError as error:
            raise DataError(f"{location}: no OME-Zarr group here; {_cure(location.name)}") from error
        attributes = document.get("attributes", {})
        try:
            entry = attributes["ome"]["multiscales"][0]
            paths = [dataset["path"] for dataset in entry["datasets"]]
            stated = entry.get("type")
            pooling: Pooling = stated if stated in ("max", "first") else "mean"
        except (KeyError, IndexError, TypeError) as error:
            raise DataError(
                f"{location}: no OME-Zarr 0.5 multiscales in its attributes; run inkbatch prepare"
            ) from error
        axes = entry.get("axes")
        if axes != ome_axes("zyx") and axes != ome_axes("yx"):
            raise DataError(
                f"{location}: expected axes z, y, x (or y, x), all of them space in micrometers, got {axes}; "
                "run inkbatch prepare on the source again, which stores them so"
            )
        if "inkbatch" not in attributes:
            raise DataError(f"{location}: no inkbatch provenance in its attributes; run inkbatch prepare on it first")
        return Multiscale(location, tuple(ShardedArray.open(location / path) for path in paths), attributes, pooling)

    def pixel_um(self, level: int = 0) -> float:
        """Return the edge of a pixel of one level in micrometres, as the OME metadata states it."""
        entry = self.attributes["ome"]["multiscales"][0]
        found = ome_spacing(entry, level, [axis["name"] for axis in entry["axes"]], {}).plane
        if found is None:
            raise CorruptDataError(
                f"{self.location}: expected a pixel size in its OME metadata, got none; run inkbatch prepare on the "
                "source again"
            )
        return found

    def write(self, write_box: Box, block: NDArray[Any]) -> int:
        """Store a block of whole shards at level 0 and its parts of all other levels.

        Args:
            write_box: Whole shards of level 0, clipped to the border.
            block: (Z, height, width) or (height, width), the array's dtype.

        Returns:
            Bytes stored.
        """
        blocks = [block, *(np.empty(shape, block.dtype) for shape in self.halved(block.shape)[1:])]
        for upper, lower in itertools.pairwise(blocks):
            halve(upper, self.pooling, lower)
        return self.write_levels(write_box, blocks)

    def write_made(self, write_box: Box, make: Callable[[Box, NDArray[Any]], None]) -> tuple[int, list[NDArray[Any]]]:
        """Store a block of whole shards (Y, X) that is made chunk by chunk, each halved and encoded while in the cache.

        Args:
            write_box: Whole shards of level 0, clipped to the border.
            make: Fills a chunk, clipped to the border: its box in pixels of level 0, and (height, width) to fill
                entirely. Called by the codec's threads; twice for a chunk where a store failed for the moment.

        Returns:
            Bytes stored, and the box's content at each level but the first.
        """
        lower = [np.empty(shape, self.levels[0].layout.dtype) for shape in self.halved(write_box.shape)[1:]]
        array = self.levels[0]
        edge, (height, width) = array.layout.shards[-1], array.layout.chunks

        def fill_from(top: int, left: int) -> Fill:
            def fill(place: Place, target: NDArray[Any]) -> None:
                for number, chunk in enumerate(target):
                    y0, x0 = top + place[0] * height, left + number * width
                    box = Box(y0, x0, y0 + height, x0 + width).intersect(write_box)
                    part = chunk[: box.height, : box.width]
                    if part.shape != chunk.shape:
                        chunk[...] = 0
                    if not part.size:
                        continue
                    make(box, part)
                    if lower:
                        inside = box.within(write_box)
                        rows, columns = (slice(side.start // 2, -(-side.stop // 2)) for side in inside)
                        halve(part, self.pooling, lower[0][rows, columns])

            return fill

        stored = 0
        for place, count in self._shard_rows(0, write_box):
            stored += array.write_shard_row(place, count, fill_from(place[-2] * edge, place[-1] * edge))
        for number, block in enumerate(lower, start=1):
            if number > 1:
                halve(lower[number - 2], self.pooling, block)
            stored += self.write_level(number, write_box, block)
        return stored, lower

    def halved(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return the shapes of a block at level 0 and of its halves at all other levels."""
        shapes = [shape]
        for _ in self.levels[1:]:
            *lead, height, width = shapes[-1]
            shapes.append((*lead, -(-height // 2), -(-width // 2)))
        return shapes

    def write_levels(self, write_box: Box, blocks: Sequence[NDArray[Any]]) -> int:
        """Store a block of whole shards whose halves are at hand.

        Args:
            write_box: Whole shards of level 0, clipped to the border.
            blocks: One block per level, each made of the one before by `halve`.

        Returns:
            Bytes stored.
        """
        return sum(self.write_level(number, write_box, block) for number, block in enumerate(blocks))

    def write_level(self, number: int, write_box: Box, block: NDArray[Any]) -> int:
        """Store a block of whole shards at one level.

        Args:
            number: The level.
            write_box: Whole shards of level 0, clipped to the border.
            block: The box's content at this level.

        Returns:
            Bytes stored.
        """
        array, area = self.levels[number], write_box.downscale(2**number)
        edge = array.layout.shards[-1]
        stored = 0
        for place, count in self._shard_rows(number, write_box):
            y, x = place[-2] * edge - area.y0, place[-1] * edge - area.x0
            rows = from_block(array.layout, block[..., y : y + edge, x : x + count * edge])
            stored += array.write_shard_row(place, count, rows)
        return stored

    def _shard_rows(self, number: int, write_box: Box) -> Iterator[tuple[Place, int]]:
        """List the shards of one level in a box that are written together: place of the first one, count."""
        array = self.levels[number]
        area, edge = write_box.downscale(2**number), array.layout.shards[-1]
        for row in range(-(-area.y1 // edge) - area.y0 // edge):
            (*lead, first), count = self.shard_row(number, write_box, row)
            together = count if array.location.is_local else 1  # what is sent is kept in memory until it is whole
            for start in range(first, first + count, together):
                yield (*lead, start), together

    def shard_row(self, number: int, write_box: Box, row: int = 0) -> tuple[tuple[int, ...], int]:
        """Return the shards of one level side by side in a box: place of the first one, count.

        Args:
            number: The level.
            write_box: Whole shards of level 0, clipped to the border.
            row: Number of the row of shards in the box.
        """
        layout = self.levels[number].layout
        edge = layout.shards[-1]
        lead = (0,) * (len(layout.shape) - 2)
        area = write_box.downscale(2**number)
        first = area.x0 // edge
        return (*lead, area.y0 // edge + row, first), -(-area.x1 // edge) - first

    def objects(self, write_box: Box) -> list[Location]:
        """List the stored objects that `write` makes for this box."""
        found = []
        for number, array in enumerate(self.levels):
            edge = array.layout.shards[-1]
            lead = (0,) * (len(array.layout.shape) - 2)
            area = write_box.downscale(2**number)
            for y in range(area.y0 // edge, -(-area.y1 // edge)):
                found += [array.shard_location((*lead, y, x)) for x in range(area.x0 // edge, -(-area.x1 // edge))]
        return found


def _layouts(
    shape: tuple[int, ...], dtype: str, chunk: tuple[int, ...], shard_px: int, codec: str
) -> list[ArrayLayout]:
    require_shard_px("shard_px", shard_px)
    depth = shape[:-2]
    depth_chunk = chunk[:-2]
    depth_shard = tuple(-(-size // part) * part for size, part in zip(depth, depth_chunk, strict=True))
    names = ("z", "y", "x")[-len(shape) :]
    layouts = []
    height, width = shape[-2:]
    edge = shard_px
    while True:
        chunk_yx = (min(chunk[-2], edge), min(chunk[-1], edge))
        layouts.append(
            ArrayLayout(
                (*depth, height, width), (*depth_chunk, *chunk_yx), (*depth_shard, edge, edge), dtype, codec, names
            )
        )
        if max(height, width) <= OVERVIEW_PX or edge <= SMALLEST_SHARD_PX:
            return layouts
        height, width, edge = -(-height // 2), -(-width // 2), edge // 2


def _ome_attributes(
    name: str, layouts: list[ArrayLayout], voxel_size_um: float, pooling: Pooling, z_spacing_um: float | None
) -> dict[str, Any]:
    names = layouts[0].dimension_names
    spacing = {axis: (z_spacing_um or voxel_size_um) if axis == "z" else voxel_size_um for axis in names}
    levels = ome_levels(len(layouts), spacing)
    multiscale = {"name": name.removesuffix(".zarr"), "axes": ome_axes(names), "datasets": levels, "type": pooling}
    return {"version": OME_VERSION, "multiscales": [multiscale]}

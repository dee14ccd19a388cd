"""Writing a surface unit by unit: each layer of a unit is read, converted and halved while it is in the cache."""

from __future__ import annotations

import itertools
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import NonFiniteError
from inkbatch.geometry import Box
from inkbatch.io.clahe import clahe_box, equalise
from inkbatch.io.halving import halve
from inkbatch.io.intensity import IntensityMap
from inkbatch.io.layers.base import LayerSource
from inkbatch.io.layers.single import read_mask
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.shards.codec import Place, scatter
from inkbatch.io.shards.scratch import scratch
from inkbatch.io.surface import ClaheSettings, SurfaceVolume
from inkbatch.io.threads import Tasks, codec_pool
from inkbatch.io.unit_buffers import BufferShelf, UnitBuffers

THUMBNAIL_STEP = 8


@dataclass(frozen=True)
class SurfaceLayers:
    """Layers of a source and the rules that turn them into a surface.

    Attributes:
        source: Opened layers.
        numbers: Their numbers in depth order, see `SurfaceProvenance.layer_numbers`.
        mapping: Grey values.
        clahe: Equalisation, or None.
        mask_source: Opened mask image, or None where the mask is derived: pixels that are zero in every layer are
            outside.
        group_layers: Layers that are read together, because the source stores them together.
    """

    source: LayerSource
    numbers: range
    mapping: IntensityMap
    clahe: ClaheSettings | None = None
    mask_source: LayerSource | None = None
    group_layers: int = 1

    def groups(self) -> list[range]:
        """List the numbers, ascending, in groups that are read together; their borders are those of stored blocks."""
        low, high = min(self.numbers), max(self.numbers) + 1
        borders = range(low - (low - self.source.first_layer) % self.group_layers, high, self.group_layers)
        return [range(max(start, low), min(start + self.group_layers, high)) for start in borders]

    def views(self, box: Box) -> list[NDArray[Any]] | None:
        """View a box of all layers in depth order without a copy.

        Returns:
            Arrays (height, width) in the source's dtype; None where the source is not mapped into memory, or where
            pixels depend on their neighbours.
        """
        if self.clahe is not None:
            return None
        found = []
        for number in self.numbers:
            view = self.source.view(number, box)
            if view is None:
                return None
            found.append(view)
        return found


@dataclass(frozen=True)
class StoredUnit:
    """Facts of a unit that was stored.

    Attributes:
        stored_bytes: Bytes on storage.
        mask_pixels: Pixels of papyrus.
        left_out_pixels: Pixels with a surface that do not have all their layers.
    """

    stored_bytes: int
    mask_pixels: int
    left_out_pixels: int = 0


class SurfaceWriter:
    """Writes the units of a surface. Safe to use from several threads.

    Args:
        layers: Layers to convert.
        volume: Surface to write, see `SurfaceVolume.create`.
    """

    def __init__(self, layers: SurfaceLayers, volume: SurfaceVolume) -> None:
        self._layers = layers
        self._volume = volume
        self._shelf = BufferShelf(volume.volume)

    def load(self, box: Box) -> SurfaceUnit:
        """Read a unit; nothing is read yet where the source is mapped into memory.

        Args:
            box: The unit's write box.

        Raises:
            NonFiniteError: A float layer holds NaN or infinity.
            DataError: A layer is damaged or truncated.
        """
        views = self._layers.views(box)
        if views is not None:
            return MappedUnit(self._layers, box, views, self._shelf)
        return _Conversion(self._layers, box, self._shelf).run()

    def store(self, unit: SurfaceUnit) -> StoredUnit:
        """Store a unit that `load` gave: its layers, then its mask."""
        stored, inside = unit.write_layers(self._volume.volume)
        stored += self._volume.mask.write(unit.box, inside)
        return StoredUnit(stored, int(np.count_nonzero(inside)), unit.left_out_pixels)


class SurfaceUnit(ABC):
    """One unit of a surface between reading and storing.

    Attributes:
        box: Write box.
        left_out_pixels: Pixels with a surface that do not have all their layers.
    """

    box: Box
    left_out_pixels: int = 0

    @abstractmethod
    def write_layers(self, surface: Multiscale) -> tuple[int, NDArray[np.uint8]]:
        """Store the layers; only once.

        Returns:
            Stored bytes, and the mask: uint8 (height, width), 1 where there is papyrus.
        """

    @abstractmethod
    def thumbnail(self) -> NDArray[np.float32]:
        """Show the middle layer from 0 to 1, one pixel out of `THUMBNAIL_STEP` along each axis."""


@dataclass(frozen=True)
class ConvertedUnit(SurfaceUnit):
    """A unit in memory.

    Attributes:
        box: Write box.
        levels: (layers, height, width) in depth order and its halves, one array per level of the pyramid.
        mask: uint8 (height, width), 1 where there is papyrus.
        buffers: Memory of `levels`.
        shelf: Where `buffers` go once the unit is stored.
        left_out_pixels: See `SurfaceUnit`.
    """

    box: Box
    levels: Sequence[NDArray[Any]]
    mask: NDArray[np.uint8]
    buffers: UnitBuffers
    shelf: BufferShelf
    left_out_pixels: int = 0

    def write_layers(self, surface: Multiscale) -> tuple[int, NDArray[np.uint8]]:
        """See `SurfaceUnit.write_layers`."""
        stored = surface.write_levels(self.box, self.levels)
        self.shelf.give(self.buffers)
        return stored, self.mask

    def thumbnail(self) -> NDArray[np.float32]:
        """See `SurfaceUnit.thumbnail`."""
        return _from_0_to_1(self.levels[0][len(self.levels[0]) // 2][::THUMBNAIL_STEP, ::THUMBNAIL_STEP])


class _Conversion:
    """Reads one unit; the codec's threads convert and halve its layers side by side."""

    def __init__(self, layers: SurfaceLayers, box: Box, shelf: BufferShelf) -> None:
        self._layers, self._box, self._shelf = layers, box, shelf
        clahe = layers.clahe
        self._read_box = clahe_box(box, clahe.cell_px, layers.source.shape_zyx[1:]) if clahe else box
        self._buffers = shelf.take()
        self._levels = self._buffers.cut((len(layers.numbers), *box.shape))
        self._coverage = layers.source.coverage(box)
        self._outside = _Outside(box.shape) if layers.mask_source is None and self._coverage is None else None

    def run(self) -> ConvertedUnit:
        """Convert all layers."""
        with Tasks(codec_pool) as tasks:
            for group in self._layers.groups():
                self._start(tasks, group)
                if len(group) > 1:
                    tasks.finish(newest=len(group))  # the group before is done: at most two are in memory
        mask, left_out = self._mask()
        return ConvertedUnit(self._box, self._levels, mask, self._buffers, self._shelf, left_out)

    def _mask(self) -> tuple[NDArray[np.uint8], int]:
        """Make the mask, and count the pixels with a surface that do not have all their layers."""
        if self._coverage is None:
            return _mask(self._layers, self._box, self._outside), 0
        surface, complete = self._coverage
        mask = complete.astype(np.uint8)
        if self._layers.mask_source is not None:
            mask &= _mask(self._layers, self._box, None)
        return mask, int(np.count_nonzero(surface & ~complete))

    def _start(self, tasks: Tasks, group: range) -> None:
        """Start converting a group; layers that are stored together are read together first."""
        if len(group) == 1:
            tasks.start(self._read_and_convert, group[0])
            return
        for number, stored in zip(group, self._layers.source.read(group, self._read_box), strict=True):
            tasks.start(self._convert, number, stored)

    def _read_and_convert(self, number: int) -> None:
        source = self._layers.source
        stored = source.view(number, self._read_box)
        self._convert(number, source.read(range(number, number + 1), self._read_box)[0] if stored is None else stored)

    def _convert(self, number: int, stored: NDArray[Any]) -> None:
        place = self._layers.numbers.index(number)
        try:
            self._apply_rules(stored, self._levels[0][place])
        except NonFiniteError as error:
            raise NonFiniteError(f"{self._layers.source.uri}, layer {number}: {error}") from error
        for upper, lower in itertools.pairwise(self._levels):
            halve(upper[place], "mean", lower[place])
        if self._outside is not None and self._outside.found:
            self._outside.see(stored[self._box.within(self._read_box)])

    def _apply_rules(self, stored: NDArray[Any], target: NDArray[Any]) -> None:
        clahe = self._layers.clahe
        if clahe is None:
            self._layers.mapping.apply(stored, target)
            return
        grey = np.empty(self._read_box.shape, np.uint8)
        self._layers.mapping.apply(stored, grey)
        target[:] = equalise(grey, self._read_box, self._box, clahe)


@dataclass(frozen=True)
class MappedUnit(SurfaceUnit):
    """A unit that lies in mapped files; each pixel goes from the source's pages straight to the shard.

    Attributes:
        layers: Rules.
        box: Write box.
        views: One array (height, width) per layer in depth order, the source's dtype.
        shelf: Gives memory for the halves.
    """

    layers: SurfaceLayers
    box: Box
    views: Sequence[NDArray[Any]]
    shelf: BufferShelf

    def write_layers(self, surface: Multiscale) -> tuple[int, NDArray[np.uint8]]:
        """See `SurfaceUnit.write_layers`; converts a row of chunks at a time."""
        buffers = self.shelf.take()
        halves = buffers.cut((len(self.views), *self.box.shape), halves_only=True)
        outside = _Outside(self.box.shape) if self.layers.mask_source is None else None
        rows = _MappedRows(self, surface.levels[0].layout.chunks, halves[0] if halves else None, outside)
        place, count = surface.shard_row(0, self.box)
        stored = surface.levels[0].write_shard_row(place, count, rows.fill)
        for number, lower in enumerate(halves, start=1):
            if number > 1:
                halve(halves[number - 2], "mean", lower)
            stored += surface.write_level(number, self.box, lower)
        self.shelf.give(buffers)
        return stored, _mask(self.layers, self.box, outside)

    def thumbnail(self) -> NDArray[np.float32]:
        """See `SurfaceUnit.thumbnail`."""
        seen = np.ascontiguousarray(self.views[len(self.views) // 2][::THUMBNAIL_STEP, ::THUMBNAIL_STEP])
        grey = np.empty(seen.shape, self.layers.mapping.dtype)
        self.layers.mapping.apply(seen, grey)
        return _from_0_to_1(grey)


@dataclass(frozen=True)
class _MappedRows:
    """Fills rows of chunks from a mapped unit.

    Attributes:
        unit: The unit.
        chunks: Chunk shape (z, y, x) of level 0.
        halves: (layers, height, width) of level 1, filled on the way; None where there is no such level.
        outside: Pixels without papyrus, found on the way; None where a mask was given.
    """

    unit: MappedUnit
    chunks: tuple[int, ...]
    halves: NDArray[Any] | None
    outside: _Outside | None

    def fill(self, place: Place, target: NDArray[Any]) -> None:
        """Fill a row of chunks; see `shard_rows.Fill`."""
        depth, height, _ = self.chunks
        rows = slice(place[1] * height, min((place[1] + 1) * height, self.unit.box.height))
        first = place[0] * depth
        views = self.unit.views[first : first + depth]
        if not views or rows.start >= rows.stop:
            target[...] = 0
            return
        target[:, len(views) :] = 0
        shape = (rows.stop - rows.start, self.unit.box.width)
        unknown = self.outside is not None
        with scratch.lend(math.prod(shape) * target.itemsize) as lent:
            grey = lent.view(target.dtype).reshape(shape)
            for layer, view in enumerate(views):
                self.unit.layers.mapping.apply(view[rows], grey)
                scatter(grey, target[:, layer])
                if self.halves is not None:
                    halve(grey, "mean", self.halves[first + layer][rows.start // 2 : -(-rows.stop // 2)])
                if unknown and self.outside is not None:
                    unknown = self.outside.see(view[rows], rows)


class _Outside:
    """Pixels of a unit that are zero in every layer seen so far. Safe to use from several threads."""

    def __init__(self, shape_yx: tuple[int, int]) -> None:
        self.pixels = np.ones(shape_yx, bool)
        self.found = True
        self._lock = threading.Lock()

    def see(self, stored: NDArray[Any], rows: slice | None = None) -> bool:
        """Take one layer into account, all of it or some rows; tell whether any of these pixels is still outside."""
        zero = stored == 0
        with self._lock:
            pixels = self.pixels if rows is None else self.pixels[rows]
            pixels &= zero
            left = bool(pixels.any())
            if rows is None:
                self.found = left
        return left


def _mask(layers: SurfaceLayers, box: Box, outside: _Outside | None) -> NDArray[np.uint8]:
    """Make the mask of a unit: the given one, or 1 where not every layer is zero."""
    if layers.mask_source is not None:
        return read_mask(layers.mask_source, box).astype(np.uint8)
    assert outside is not None
    return (~outside.pixels).astype(np.uint8)


def _from_0_to_1(grey: NDArray[Any]) -> NDArray[np.float32]:
    top = np.iinfo(grey.dtype).max if grey.dtype.kind == "u" else 1
    return (np.asarray(grey, np.float32) / np.float32(top)).astype(np.float32, copy=False)

"""Units of `prepare`: the surface cut so that each fits the memory budget."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from inkbatch.errors import ConfigError
from inkbatch.geometry import Unit, cut
from inkbatch.io.layers.base import LayerSource
from inkbatch.io.multiscale import CHUNK_PX
from inkbatch.io.shard_size import require_shard_px
from inkbatch.io.surface import CHUNK_LAYERS
from inkbatch.io.threads import CODEC_THREADS
from inkbatch.run.pipeline import Overlap
from inkbatch.text import bytes_text

BASE_BYTES = 350 << 20  # the interpreter with numpy, zarr and OpenCV
PYRAMID_SHARE = 4 / 3  # of a block: itself and its halves
SENT_SHARE = 2 * PYRAMID_SHARE  # of a zarr shard on its way to a remote store: its encoded parts, and these joined
UNIT_BYTES, NARROW_PX = 256 << 20, 2048  # a unit's most where any width is equally cheap: memory stays small
GROUPS_HELD = 2  # groups of layers in memory: one is converted while the next one is read
WIDE_PX = 4096  # of a unit, where the source is read in blocks
NO_OVERLAP = Overlap(0, 0)
OVERLAPS = (Overlap(1, 0), NO_OVERLAP)  # one unit is read while another one is written, or neither
SENT_OVERLAPS = (Overlap(1, 1), *OVERLAPS)  # to a remote store: one is read, one converted and one on its way


@dataclass(frozen=True)
class UnitPlan:
    """Units of a prepare job, and their cost.

    Attributes:
        units: Row-major; each a row of whole zarr shards.
        overlap: Units in flight beside the one being converted.
        peak_bytes: Estimated peak memory. Pages of mapped files do not count: the kernel takes them back when it likes.
        decodes: Times that a strip of the source is decoded (1 unless memory is too small for its width).
        group_layers: Layers that are read together, because the source stores them together.
    """

    units: list[Unit]
    overlap: Overlap
    peak_bytes: int
    decodes: int
    group_layers: int = 1


@dataclass(frozen=True)
class _Memory:
    """Memory that units of a prepare job take; see `plan_units`."""

    source: LayerSource
    layer_count: int
    itemsize: int
    shard_px: int
    halo_px: int
    local_store: bool

    @property
    def striped(self) -> bool:
        """True where the source is stored in blocks of the surface's whole width."""
        height, width = self.source.block_yx
        return width >= self.source.shape_zyx[2] and height * width > 1

    @property
    def rows(self) -> int:
        """Height of a unit in pixels."""
        return min(self.shard_px, self.source.shape_zyx[1])

    @property
    def column_bytes(self) -> int:
        """Bytes of one zarr shard of the surface, as it is in memory."""
        return self.layer_count * self.itemsize * self.shard_px * self.rows

    def peak_bytes(self, wide: int, overlap: Overlap, group: int) -> int:
        """Estimate the job's peak with units of `wide` zarr shards and `group` layers read together."""
        width = self.source.shape_zyx[2]
        own = min(wide * self.shard_px, width)
        per_pixel = self.layer_count * self.itemsize
        block = int(PYRAMID_SHARE * per_pixel * (self.rows * own))
        layers = max(4, min(GROUPS_HELD * group, self.layer_count))
        read_px = (self.rows + self.halo_px) * (width if self.striped else own)
        reading = layers * self.source.dtype.itemsize * read_px
        encoding = CODEC_THREADS * CHUNK_LAYERS * CHUNK_PX * own * self.itemsize
        sent = 0 if self.local_store else int(SENT_SHARE * per_pixel * self.shard_px * self.rows)
        blocks = block * (1 + overlap.ahead + overlap.behind)
        return BASE_BYTES + blocks + reading + encoding + sent + self.source.resident_bytes


def plan_units(
    source: LayerSource,
    layer_count: int,
    dtype: np.dtype[Any],
    shard_px: int,
    memory_bytes: int,
    halo_px: int,
    *,
    local_store: bool = True,
) -> UnitPlan:
    """Cut the surface into rows of whole zarr shards that memory can hold.

    A striped source gets wide units, so that each strip is decoded once; overlapping reading and writing comes second.
    A mapped source, where any box is equally cheap, gets small ones. Layers that a source stores together are read
    together, each block decoded once. A budget that cannot hold one zarr shard is refused.

    Args:
        source: The opened layers.
        layer_count: Layers of the surface.
        dtype: The surface's dtype.
        shard_px: Edge of a zarr shard.
        memory_bytes: Budget of the whole process.
        halo_px: Extra pixels read around a unit (CLAHE), on both sides together.
        local_store: True where the surface goes to a local disk, on which a zarr shard is written piece by piece.

    Raises:
        ConfigError: The budget is too small, or `shard_px` is no power of two of at least 32.
    """
    require_shard_px("shard_px", shard_px)
    memory = _Memory(source, layer_count, dtype.itemsize, shard_px, halo_px, local_store)
    columns = -(-source.shape_zyx[2] // shard_px)
    widest = columns if memory.striped else min(columns, _usual_columns(source, memory.column_bytes, shard_px))
    overlaps = OVERLAPS if local_store else SENT_OVERLAPS
    candidates = [(wide, overlap) for overlap in overlaps for wide in range(widest, 0, -1)]
    if memory.striped:
        candidates.sort(key=lambda c: -c[0])
    for group, (wide, overlap) in itertools.product(_groups(source, layer_count), candidates):
        needed = memory.peak_bytes(wide, overlap, group)
        if needed <= memory_bytes:
            units = [Unit(i, box, box) for i, box in enumerate(cut(source.shape_zyx[1:], shard_px, wide * shard_px))]
            return UnitPlan(units, overlap, needed, -(-columns // wide) if memory.striped else 1, group)
    smallest = memory.peak_bytes(1, NO_OVERLAP, 1)
    raise ConfigError(
        f"memory: {bytes_text(memory_bytes)} cannot hold one zarr shard of {layer_count} layers and what is read "
        f"for it; allow at least {bytes_text(smallest)}, or make shard_px smaller than {shard_px}"
    )


def _groups(source: LayerSource, layer_count: int) -> list[int]:
    """List numbers of layers to read together, largest first: those stored together, or even parts of them."""
    block = source.block_layers if not source.whole_layers else 1
    whole = min(block, layer_count)
    return sorted(
        {whole, *(part for part in (block // 2, block // 4, block // 8) if 1 < part < whole), 1}, reverse=True
    )


def _usual_columns(source: LayerSource, column_bytes: int, shard_px: int) -> int:
    """Choose the zarr shards side by side in a unit of a source that is not striped."""
    if source.unit_px is not None:
        return max(1, source.unit_px // shard_px)
    if source.block_yx == (1, 1):
        return max(1, min(-(-NARROW_PX // shard_px), UNIT_BYTES // column_bytes))
    return -(-WIDE_PX // shard_px)

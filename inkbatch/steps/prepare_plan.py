"""How `prepare` cuts a surface into units that fit the memory budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from inkbatch.errors import ConfigError
from inkbatch.geometry import Unit, cut
from inkbatch.io.layers.base import LayerSource

BASE_BYTES = 350 << 20  # the interpreter with numpy, zarr and OpenCV, and buffers of the codec threads
ENCODE_SHARE = 1.5  # of a zarr shard: its encoded parts and its halved copies
OVERLAPS = ((1, 1), (1, 0), (0, 0))  # (ahead, behind), the most overlapped first


@dataclass(frozen=True)
class UnitPlan:
    """Units of a prepare job, and what they cost.

    Attributes:
        units: Row-major; each a row of whole zarr shards.
        ahead: Units to load ahead.
        behind: Units that may wait to be stored.
        peak_bytes: Estimated peak memory.
        decodes: How often a strip of the source is decoded (1 unless memory is too small for its width).
    """

    units: list[Unit]
    ahead: int
    behind: int
    peak_bytes: int
    decodes: int


def plan_units(
    source: LayerSource, layer_count: int, dtype: np.dtype[Any], shard_px: int, memory_bytes: int, halo_px: int
) -> UnitPlan:
    """Cut the surface into rows of whole zarr shards, as wide as memory allows.

    Wide units decode a striped source once; overlapping reading and writing comes second; a budget that cannot hold one
    zarr shard is refused.

    Args:
        source: The opened layers.
        layer_count: Layers that are taken.
        dtype: The surface's dtype.
        shard_px: Edge of a zarr shard.
        memory_bytes: Budget of the whole process.
        halo_px: Extra pixels read around a unit (CLAHE), on both sides together.

    Raises:
        ConfigError: The budget is too small, or `shard_px` is no power of two of at least 32.
    """
    if shard_px < 32 or shard_px & (shard_px - 1):
        raise ConfigError(f"shard_px {shard_px}: wanted a power of two of at least 32")
    _, height, width = source.shape_zyx
    columns = -(-width // shard_px)
    striped = source.block_yx[1] >= width and source.block_yx[0] * source.block_yx[1] > 1
    rows = min(shard_px, height)
    per_pixel = layer_count * dtype.itemsize
    shard_bytes = int(ENCODE_SHARE * per_pixel * shard_px * rows)

    def peak(wide: int, ahead: int, behind: int) -> int:
        block = per_pixel * rows * min(wide * shard_px, width)
        reading = 4 * source.dtype.itemsize * (rows + halo_px) * (width if striped else min(width, wide * shard_px))
        return BASE_BYTES + block * (1 + ahead + behind) + reading + shard_bytes + source_cache_bytes(source)

    candidates = [(wide, *overlap) for overlap in OVERLAPS for wide in range(columns, 0, -1)]
    if striped:
        candidates.sort(key=lambda c: -c[0])
    elif columns > 1:
        candidates = [c for c in candidates if c[0] <= max(1, -(-4096 // shard_px))]
    for wide, ahead, behind in candidates:
        needed = peak(wide, ahead, behind)
        if needed <= memory_bytes:
            units = [Unit(i, box, box) for i, box in enumerate(cut((height, width), shard_px, wide * shard_px))]
            return UnitPlan(units, ahead, behind, needed, -(-columns // wide) if striped else 1)
    smallest = peak(1, 0, 0)
    raise ConfigError(
        f"memory: {memory_bytes / 2**30:.2f} GiB cannot hold one zarr shard of {layer_count} layers and what is read "
        f"for it; allow at least {smallest / 2**30:.2f} GiB, or make shard_px smaller than {shard_px}"
    )


def source_cache_bytes(source: LayerSource) -> int:
    """Memory that the source itself keeps."""
    return source.resident_bytes

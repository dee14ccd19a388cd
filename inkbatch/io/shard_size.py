"""Edges of zarr shards and of CLAHE's cells: powers of two."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from inkbatch.errors import ConfigError

SMALLEST_SHARD_PX = 32
SHARD_PX_RULE = f"a power of two of at least {SMALLEST_SHARD_PX}"


def is_power_of_two(value: int, at_least: int = 1) -> bool:
    """Tell whether a number is a power of two and not too small."""
    return value >= at_least and not value & (value - 1)


def is_shard_px(value: int) -> bool:
    """Tell whether zarr shards of all levels can have this edge at full resolution: see `SHARD_PX_RULE`.

    The edge halves from level to level and must stay whole.
    """
    return is_power_of_two(value, SMALLEST_SHARD_PX)


def whole_shard_px(edge_px: int) -> int:
    """Return the smallest edge of a zarr shard that holds so many pixels along a side."""
    return max(SMALLEST_SHARD_PX, 1 << (edge_px - 1).bit_length())


def require_shard_px(name: str, value: int) -> None:
    """Refuse an edge of zarr shards (or of units, which are whole shards) that breaks `SHARD_PX_RULE`.

    Args:
        name: Setting that states it, for the message.
        value: Edge in pixels.

    Raises:
        ConfigError: It does.
    """
    if not is_shard_px(value):
        raise ConfigError(f"{name} {value}: expected {SHARD_PX_RULE}")


def _shard_px(value: int) -> int:
    if not is_shard_px(value):
        raise ValueError(f"expected {SHARD_PX_RULE}")
    return value


ShardPx = Annotated[int, AfterValidator(_shard_px)]
"""Edge of zarr shards, or of units, which are whole shards, as a setting."""

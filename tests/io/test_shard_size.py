"""Edges of zarr shards are powers of two; one owner says so."""

from __future__ import annotations

import pytest

from inkbatch.errors import ConfigError
from inkbatch.io.shard_size import is_power_of_two, is_shard_px, require_shard_px


@pytest.mark.parametrize(
    ("value", "fits"), [(0, False), (-32, False), (16, False), (32, True), (48, False), (64, True)]
)
def test_a_shard_edge_is_a_power_of_two_of_at_least_32(value, fits):
    assert is_shard_px(value) is fits


def test_the_smallest_power_is_the_callers():
    assert [value for value in range(-2, 20) if is_power_of_two(value)] == [1, 2, 4, 8, 16]
    assert not is_power_of_two(8, 16)


def test_a_refusal_names_the_setting_and_the_rule():
    with pytest.raises(ConfigError, match="unit_px 48: expected a power of two of at least 32"):
        require_shard_px("unit_px", 48)

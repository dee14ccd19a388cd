"""Shards that stay open: the same values as ever, checked once, and never those of a file that has changed."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from inkbatch.errors import CorruptDataError
from inkbatch.io.shards.array import ShardedArray
from inkbatch.io.shards.layout import ArrayLayout
from inkbatch.io.shards.open_shards import OpenShards
from inkbatch.io.store.location import Location

SHAPE, CHUNK, SHARD = (4, 3, 40, 40), (1, 3, 40, 40), (2, 3, 40, 40)
LAYOUT = ArrayLayout(SHAPE, CHUNK, SHARD, "uint16", "lz4-bit", ("sample", "z", "y", "x"))


def content(seed=0):
    values = np.random.default_rng(seed).integers(0, 65536, SHAPE).astype(np.uint16)
    values[1] = 0
    values[2] = 7
    return values


@pytest.fixture
def array(tmp_path):
    made = ShardedArray.create(Location.parse(tmp_path / "a.zarr"), LAYOUT)
    for number in (0, 1):
        made.write_shard((number, 0, 0, 0), content()[2 * number : 2 * number + 2])
    return made


def window(shards, array, sample, inner):
    place, inside = LAYOUT.in_shard((sample, 0, 0, 0))
    shard = shards.get(array.shard_location(place), LAYOUT)
    return shard.cut(inside, (slice(0, 1), *inner), np.empty(LAYOUT.slot_bytes, np.uint8))


INNER = [
    (slice(z, 3), slice(y, y + height), slice(5, 9))
    for z, y, height in itertools.product((0, 1, 2), (0, 17), (1, 15, 21))
]


@pytest.mark.parametrize("sample", [0, 1, 3])
def test_cuts_hold_what_is_stored_the_first_time_and_later(array, sample):
    shards = OpenShards()
    for inner in [*INNER, *INNER]:
        np.testing.assert_array_equal(window(shards, array, sample, inner)[0], content()[sample][inner])


def test_a_compressed_chunk_is_not_cut_but_is_decoded(array):
    shards = OpenShards()
    assert window(shards, array, 2, INNER[0]) is None
    out = np.empty(CHUNK, np.uint16)
    shards.get(array.shard_location((1, 0, 0, 0)), LAYOUT).decode((0, 0, 0, 0), out)
    assert (out == 7).all()


def test_a_damaged_chunk_is_refused_by_name(array):
    path = Path(array.shard_location((0, 0, 0, 0)).path)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptDataError, match="fails its checksum"):
        window(OpenShards(), array, 0, INNER[0])


def test_a_file_that_was_written_into_is_opened_and_checked_anew(array):
    shards = OpenShards()
    window(shards, array, 0, INNER[0])
    path = Path(array.shard_location((0, 0, 0, 0)).path)
    with open(path, "r+b") as file:
        file.seek(100)
        file.write(b"other bytes")
    os.utime(path, ns=(1, 1))
    with pytest.raises(CorruptDataError, match="fails its checksum"):
        window(shards, array, 0, INNER[0])


def test_a_missing_shard_is_refused_by_name(array):
    os.unlink(array.shard_location((1, 0, 0, 0)).path)
    with pytest.raises(CorruptDataError, match="missing"):
        window(OpenShards(), array, 3, INNER[0])


def test_no_more_files_stay_open_than_allowed(array):
    def opened():
        return sum(1 for one in Path("/proc/self/fd").iterdir() if "a.zarr" in str(one.resolve()))

    shards = OpenShards(limit=1)
    for sample in (0, 3, 0, 3):
        np.testing.assert_array_equal(window(shards, array, sample, INNER[3])[0], content()[sample][INNER[3]])
        assert opened() == 1
    del shards
    assert opened() == 0

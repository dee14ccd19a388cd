"""Sharded arrays: readable by zarr-python and zarrs, checksummed, equal bytes for equal content."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inkbatch.errors import CorruptDataError, DataError, MismatchError
from inkbatch.io.shards.array import CODECS, ArrayLayout, ShardedArray, encode_shard
from inkbatch.io.shards.checking import checked_shard
from inkbatch.io.shards.reading import FLAT_BYTES
from inkbatch.io.store.location import Location
from inkbatch.io.store.meter import READ

LAYOUT = ArrayLayout((5, 50, 70), (2, 16, 16), (6, 32, 32), "uint8", "lz4", ("z", "y", "x"))


def fill(array: ShardedArray, content: np.ndarray) -> None:
    edge = array.layout.shards
    for y in range(0, content.shape[1], edge[1]):
        for x in range(0, content.shape[2], edge[2]):
            array.write_shard((0, y // edge[1], x // edge[2]), content[:, y : y + edge[1], x : x + edge[2]])


@pytest.fixture
def content():
    return np.random.default_rng(0).integers(0, 256, LAYOUT.shape, dtype=np.uint8)


@pytest.fixture
def array(tmp_path, content):
    made = ShardedArray.create(Location.parse(tmp_path / "a.zarr"), LAYOUT)
    fill(made, content)
    return made


@pytest.mark.parametrize("codec", sorted(CODECS))
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32"])
def test_zarr_python_reads_what_we_write(tmp_path, codec, dtype):
    layout = ArrayLayout((5, 50, 70), (2, 16, 16), (6, 32, 32), dtype, codec, ("z", "y", "x"))
    content = np.random.default_rng(1).integers(0, 200, layout.shape).astype(dtype)
    array = ShardedArray.create(Location.parse(tmp_path / "a.zarr"), layout)
    fill(array, content)
    opened = zarr.open_array(str(tmp_path / "a.zarr"), mode="r")
    np.testing.assert_array_equal(opened[:], content)
    assert opened.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(array.read((slice(0, 5), slice(0, 50), slice(0, 70))), content)


def test_zarrs_reads_what_we_write(array, content):
    pytest.importorskip("zarrs")
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        np.testing.assert_array_equal(zarr.open_array(array.location.path, mode="r")[:], content)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_region_equals_slicing(data):
    content = np.arange(5 * 50 * 70, dtype=np.uint32).astype(np.uint8).reshape(LAYOUT.shape)
    array = ShardedArray.create(Location.parse("memory://shards/regions"), LAYOUT)
    fill(array, content)
    region = []
    for size in LAYOUT.shape:
        start = data.draw(st.integers(0, size - 1))
        region.append(slice(start, data.draw(st.integers(start + 1, size))))
    np.testing.assert_array_equal(array.read(region), content[tuple(region)])


@pytest.mark.parametrize("place", ["memory://shards/opened", "local"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_part_of_an_open_region_equals_slicing(place, tmp_path, data):
    content = np.random.default_rng(2).integers(0, 3, LAYOUT.shape, dtype=np.uint8)
    array = ShardedArray.create(Location.parse(tmp_path / "a.zarr" if place == "local" else place), LAYOUT)
    fill(array, content)
    region, window = [], []
    for size in LAYOUT.shape:
        start = data.draw(st.integers(0, size - 1))
        region.append(slice(start, data.draw(st.integers(start + 1, size))))
        first = data.draw(st.integers(region[-1].start, region[-1].stop - 1))
        window.append(slice(first, data.draw(st.integers(first + 1, region[-1].stop))))
    with array.opened(region) as opened:
        for wanted in (window, region):
            found = opened.read(wanted)
            found[...] += 0  # it is the caller's own
            np.testing.assert_array_equal(found, content[tuple(wanted)])


def test_flat_chunks_beside_each_other_are_told_apart(tmp_path):
    content = np.zeros(LAYOUT.shape, np.uint8)
    for number, (y, x) in enumerate(itertools.product(range(0, 50, 16), range(0, 70, 16))):
        content[:2, y : y + 16, x : x + 16] = 7 * (number // 3)  # the same for three, 0 first; then others
        content[2:4, y : y + 16, x : x + 16] = 255
    content[1, 20, 40] = 1
    array = ShardedArray.create(Location.parse(tmp_path / "a.zarr"), LAYOUT)
    fill(array, content)
    whole = tuple(slice(0, size) for size in LAYOUT.shape)
    with array.opened(whole) as opened:
        for window in (whole, (slice(0, 4), slice(0, 48), slice(0, 64)), (slice(2, 4), slice(16, 32), slice(0, 64))):
            np.testing.assert_array_equal(opened.read(window), content[window])


def test_a_flat_chunk_that_is_damaged_is_found_although_its_neighbour_was_the_same(tmp_path):
    array = ShardedArray.create(Location.parse(tmp_path / "a.zarr"), LAYOUT)
    fill(array, np.full(LAYOUT.shape, 200, np.uint8))
    whole = [slice(0, size) for size in LAYOUT.shape]
    victim = Path(array.shard_location((0, 0, 0)).path)
    good = victim.read_bytes()
    first = good[: good.index(good[:16], 16)]
    assert good[len(first) : 2 * len(first)] == first
    assert len(first) < FLAT_BYTES
    damaged = bytearray(good)
    damaged[len(first) + 20] ^= 1
    victim.write_bytes(damaged)
    aligned = [slice(0, 4), slice(0, 32), slice(0, 32)]
    for window in (whole, aligned):
        with array.opened(whole) as opened, pytest.raises(CorruptDataError, match="c/0/0/0: chunk .* fails its check"):
            opened.read(window)


def test_an_open_region_names_damage_when_it_is_opened_or_read(array):
    whole = [slice(0, size) for size in LAYOUT.shape]
    victim = Path(array.shard_location((0, 0, 1)).path)
    stored = bytearray(victim.read_bytes())
    stored[40] ^= 1
    victim.write_bytes(stored)
    with array.opened(whole) as opened, pytest.raises(CorruptDataError, match=r"c/0/0/1: chunk .* fails its checksum"):
        opened.read(whole)
    stored[-2] ^= 1
    victim.write_bytes(stored)
    with pytest.raises(CorruptDataError, match=r"c/0/0/1: the zarr shard's index"):
        array.opened(whole)
    victim.unlink()
    with pytest.raises(CorruptDataError, match=r"c/0/0/1: this zarr shard is missing"):
        array.opened(whole)


def test_equal_content_gives_equal_bytes(content):
    block = np.ascontiguousarray(content[:, :32, :32])
    assert encode_shard(LAYOUT, block) == encode_shard(LAYOUT, block.copy())


def test_chunks_of_zeros_are_not_stored(tmp_path):
    array = ShardedArray.create(Location.parse(tmp_path / "a.zarr"), LAYOUT)
    stored = array.write_shard((0, 0, 0), np.zeros((5, 32, 32), np.uint8))
    assert stored == LAYOUT.index_bytes
    assert not array.read((slice(0, 5), slice(0, 32), slice(0, 32))).any()


def test_a_flipped_bit_anywhere_is_an_error(array):
    place = array.shard_location((0, 0, 0))
    data = bytearray(place.read_bytes())
    for position in range(0, len(data), 97):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        place.write_bytes(bytes(damaged))
        with pytest.raises(CorruptDataError, match="c/0/0/0"):
            array.read((slice(0, 5), slice(0, 32), slice(0, 32)))


def test_a_truncated_shard_is_an_error(array):
    place = array.shard_location((0, 1, 1))
    for length in (0, 10, place.size() - 1):
        place.write_bytes(place.read_bytes()[:length])
        with pytest.raises(CorruptDataError, match="c/0/1/1"):
            array.read((slice(0, 5), slice(32, 50), slice(32, 64)))


def test_a_missing_shard_is_an_error_and_not_zeros(array):
    array.shard_location((0, 1, 0)).delete()
    with pytest.raises(CorruptDataError, match="missing"):
        array.read((slice(0, 5), slice(0, 50), slice(0, 70)))


def test_an_array_of_another_layout_is_not_overwritten(array):
    other = ArrayLayout((5, 50, 71), (2, 16, 16), (6, 32, 32), "uint8", "lz4", ("z", "y", "x"))
    with pytest.raises(MismatchError, match="another array"):
        ShardedArray.create(array.location, other)


def test_foreign_zarr_arrays_are_refused_by_name(tmp_path):
    zarr.create_array(str(tmp_path / "foreign.zarr"), shape=(4, 4), chunks=(2, 2), dtype="uint8")
    with pytest.raises(DataError, match=r"foreign\.zarr.*prepare"):
        ShardedArray.open(Location.parse(tmp_path / "foreign.zarr"))


def test_a_block_of_the_wrong_shape_is_refused(array):
    with pytest.raises(ValueError, match="expected"):
        array.write_shard((0, 0, 0), np.zeros((5, 31, 32), np.uint8))


def test_metadata_survives_a_round_trip(array):
    assert ShardedArray.open(array.location).layout == LAYOUT


def test_bytes_are_counted_as_they_are_stored(array, content):
    stored = sum(path.stat().st_size for path in Path(array.location.path).rglob("*") if path.is_file())
    before = READ.total
    assert np.array_equal(array.read([slice(0, size) for size in content.shape]), content)
    assert content.nbytes <= READ.total - before <= stored  # noise does not shrink; chunks beyond the border are left


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not list open files in /proc/self/fd")
def test_a_region_that_nobody_reads_any_more_keeps_no_file_open(array):
    def open_shards() -> int:
        return sum("a.zarr/c" in os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())

    region = array.opened([slice(0, size) for size in LAYOUT.shape])
    assert open_shards() == 6
    del region
    assert open_shards() == 0


def test_a_check_names_the_chunk_that_is_damaged_by_its_place_in_the_shard(tmp_path):
    array = ShardedArray.create(Location.parse(tmp_path / "a"), ArrayLayout((64, 64), (16, 16), (64, 64), "uint8"))
    array.write_shard((0, 0), np.random.default_rng(0).integers(1, 255, (64, 64), dtype=np.uint8))
    place = array.shard_location((0, 0))
    size, _ = checked_shard(place, array.layout)
    data = bytearray(place.read_bytes())
    data[(size - array.layout.index_bytes) * 6 // 16 + 40] ^= 1  # inside the seventh of 16 equally long chunks
    place.write_bytes(data)
    with pytest.raises(CorruptDataError, match=r"c/0/0: chunk \(1, 2\) fails its checksum"):
        checked_shard(place, array.layout)

"""Shards written chunk row by chunk row: the same bytes as one by one, raw where nothing shrinks, no trace left."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import zarr

from inkbatch.errors import CorruptDataError, InkbatchError
from inkbatch.io.shards import sinks as shard_files
from inkbatch.io.shards.array import ArrayLayout, ShardedArray
from inkbatch.io.shards.shard_rows import encode_shard, from_block
from inkbatch.io.store.location import Location
from inkbatch.io.threads import codec_pool

LARGE = ArrayLayout((4, 200, 300), (2, 128, 128), (4, 256, 256), "uint8", "lz4", ("z", "y", "x"))


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, LARGE.shape, dtype=np.uint8)


def store(place, layout: ArrayLayout, content: np.ndarray) -> ShardedArray:
    array = ShardedArray.create(Location.parse(place), layout)
    for x in range(0, content.shape[2], layout.shards[2]):
        array.write_shard((0, 0, x // layout.shards[2]), content[:, :, x : x + layout.shards[2]])
    return array


def whole(layout: ArrayLayout) -> list[slice]:
    return [slice(0, size) for size in layout.shape]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_what_does_not_shrink_is_stored_as_it_is_and_read_by_zarr(tmp_path, dtype):
    layout = ArrayLayout((4, 256, 256), (2, 128, 128), (4, 256, 256), dtype, "lz4", ("z", "y", "x"))
    content = np.random.default_rng(0).bytes(4 * 256 * 256 * np.dtype(dtype).itemsize)
    noise = np.frombuffer(content, dtype).reshape(layout.shape)
    array = store(tmp_path / "a.zarr", layout, noise)
    size = array.shard_location((0, 0, 0)).size()
    assert size == 8 * (layout.chunk_bytes + 20) + layout.index_bytes
    np.testing.assert_array_equal(array.read(whole(layout)), noise)
    np.testing.assert_array_equal(array.read((slice(1, 3), slice(5, 250), slice(100, 131))), noise[1:3, 5:250, 100:131])
    np.testing.assert_array_equal(zarr.open_array(str(tmp_path / "a.zarr"), mode="r")[:], noise)


def test_zarrs_reads_what_is_stored_as_it_is(tmp_path, noise):
    pytest.importorskip("zarrs")
    store(tmp_path / "a.zarr", LARGE, noise)
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        np.testing.assert_array_equal(zarr.open_array(str(tmp_path / "a.zarr"), mode="r")[:], noise)


def test_an_empty_part_of_a_chunk_is_squeezed_out(tmp_path, noise):
    noise[:, :, 64:] = 0
    array = store(tmp_path / "a.zarr", LARGE, noise)
    assert array.shard_location((0, 0, 0)).size() < 0.6 * 2 * 200 * 128 * 2
    assert array.shard_location((0, 0, 1)).size() == LARGE.index_bytes
    np.testing.assert_array_equal(array.read(whole(LARGE)), noise)


def test_a_flipped_bit_in_a_chunk_stored_as_it_is_is_an_error(tmp_path, noise):
    array = store(tmp_path / "a.zarr", LARGE, noise)
    place = array.shard_location((0, 0, 0))
    data = bytearray(place.read_bytes())
    for position in (0, 2, 17, 40_000, LARGE.slot_bytes - 1, LARGE.slot_bytes, len(data) - 1):
        damaged = bytearray(data)
        damaged[position] ^= 2
        place.write_bytes(damaged)
        with pytest.raises(CorruptDataError, match="c/0/0/0"):
            array.read(whole(LARGE))


def test_side_by_side_stores_the_bytes_of_one_by_one(tmp_path, noise):
    single = store(tmp_path / "single.zarr", LARGE, noise)
    array = ShardedArray.create(Location.parse(tmp_path / "strip.zarr"), LARGE)
    stored = array.write_shard_row((0, 0, 0), 2, from_block(LARGE, noise))
    files = [array.shard_location((0, 0, x)).read_bytes() for x in range(2)]
    assert files == [single.shard_location((0, 0, x)).read_bytes() for x in range(2)]
    assert stored == sum(map(len, files))
    assert b"".join(encode_shard(LARGE, noise[:, :, :256])) == files[0]


def test_a_store_elsewhere_gets_the_same_bytes(memory_root, tmp_path, noise):
    local = store(tmp_path / "a.zarr", LARGE, noise)
    remote = ShardedArray.create(memory_root / "a.zarr", LARGE)
    remote.write_shard_row((0, 0, 0), 2, from_block(LARGE, noise))
    for x in range(2):
        assert remote.shard_location((0, 0, x)).read_bytes() == local.shard_location((0, 0, x)).read_bytes()


@pytest.mark.parametrize("failing", [0, 1, 3])
def test_a_failure_leaves_no_trace_and_the_pool_usable(tmp_path, noise, failing):
    array = ShardedArray.create(Location.parse(tmp_path / "a.zarr"), LARGE)
    good = from_block(LARGE, noise)
    lock, calls = threading.Lock(), []

    def fill(place, target):
        with lock:
            calls.append(place)
            if len(calls) == failing + 1:
                raise ArithmeticError("this row cannot be made")
        good(place, target)

    with pytest.raises(ArithmeticError, match="this row"):
        array.write_shard_row((0, 0, 0), 2, fill)
    assert [path.name for path in Path(tmp_path / "a.zarr").rglob("*") if path.is_file()] == ["zarr.json"]
    assert codec_pool.submit(lambda: 1).result(timeout=5) == 1
    array.write_shard_row((0, 0, 0), 2, good)
    np.testing.assert_array_equal(array.read(whole(LARGE)), noise)


def test_a_write_that_fails_for_the_moment_is_made_again_from_the_start(tmp_path, noise, monkeypatch):
    monkeypatch.setattr("inkbatch.io.store.retrying.RETRY_DELAYS_S", (0.0,))
    array = ShardedArray.create(Location.parse(tmp_path / "a.zarr"), LARGE)
    real, failures = os.write, [OSError(5, "disk hiccup")]

    def write(handle, data):
        if len(data) > 10_000 and failures:
            raise failures.pop()
        return real(handle, data)

    monkeypatch.setattr(os, "write", write)
    array.write_shard_row((0, 0, 0), 2, from_block(LARGE, noise))
    assert not failures
    np.testing.assert_array_equal(array.read(whole(LARGE)), noise)
    assert not list(tmp_path.rglob("*.partial"))


def test_a_disk_that_stays_full_is_named(tmp_path, noise, monkeypatch):
    monkeypatch.setattr("inkbatch.io.store.retrying.RETRY_DELAYS_S", ())
    array = ShardedArray.create(Location.parse(tmp_path / "a.zarr"), LARGE)

    def write(handle, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(InkbatchError, match=r"c/0/0/0"):
        array.write_shard((0, 0, 0), noise[:, :, :256])
    assert not list(tmp_path.rglob("*.partial"))


def test_without_fallocate_the_bytes_are_the_same(tmp_path, noise, monkeypatch):
    usual = store(tmp_path / "a.zarr", LARGE, noise)
    monkeypatch.setattr(shard_files, "fallocate", lambda: None)
    plain = store(tmp_path / "b.zarr", LARGE, noise)
    assert plain.shard_location((0, 0, 0)).read_bytes() == usual.shard_location((0, 0, 0)).read_bytes()

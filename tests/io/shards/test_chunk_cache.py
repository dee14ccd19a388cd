"""Chunks are decoded once while they are kept, and never more bytes are kept than allowed."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from inkbatch.io.shards.array import ShardedArray
from inkbatch.io.shards.chunk_cache import CachedArray, ChunkCache
from inkbatch.io.shards.layout import ArrayLayout
from inkbatch.io.store.location import Location

SHAPE, CHUNK = (3, 50, 70), (3, 16, 16)


@pytest.fixture
def content():
    """Shrinks, so that chunks are compressed."""
    return np.random.default_rng(0).integers(1, 5, SHAPE).astype(np.uint8)


@pytest.fixture
def papyrus():
    """Noise to a compressor: stored as it is."""
    return np.random.default_rng(0).integers(0, 65536, SHAPE).astype(np.uint16)


def stored(folder, content):
    layout = ArrayLayout(SHAPE, CHUNK, (3, 32, 32), content.dtype.name, "lz4-bit", ("z", "y", "x"))
    made = ShardedArray.create(Location.parse(folder), layout)
    for row in range(2):
        for column in range(3):
            block = content[:, row * 32 : row * 32 + 32, column * 32 : column * 32 + 32]
            made.write_shard((0, row, column), np.ascontiguousarray(block))
    return made


@pytest.fixture
def array(tmp_path, content):
    return stored(tmp_path / "a.zarr", content)


@pytest.fixture
def raw(tmp_path, papyrus):
    return stored(tmp_path / "raw.zarr", papyrus)


@pytest.fixture
def reads(monkeypatch):
    found = []
    plain = ShardedArray.read_chunks

    def counting(self, places, *rest):
        found.append(list(places))
        return plain(self, places, *rest)

    monkeypatch.setattr(ShardedArray, "read_chunks", counting)
    return found


def windows(count):
    rng = np.random.default_rng(1)
    for _ in range(count):
        y, x = int(rng.integers(0, 40)), int(rng.integers(0, 60))
        yield (
            slice(1, 3),
            slice(y, y + int(rng.integers(1, 50 - y + 1))),
            slice(x, x + int(rng.integers(1, 70 - x + 1))),
        )


@pytest.mark.parametrize("limit", [0, 1000, 3 * 16 * 16 * 4, 1 << 20])
def test_a_cached_array_reads_what_is_stored_whatever_is_kept(array, content, limit):
    cached = CachedArray(array, ChunkCache(limit))
    for region in windows(60):
        np.testing.assert_array_equal(cached.read(region), content[region])
        assert cached.cache.held_bytes <= limit


@pytest.mark.parametrize("limit", [1000, 3 * 16 * 16 * 8, 1 << 20])
def test_chunks_stored_as_they_are_read_as_they_are(raw, papyrus, limit):
    cached = CachedArray(raw, ChunkCache(limit))
    for region in [*windows(60), *windows(60)]:
        np.testing.assert_array_equal(cached.read(region), papyrus[region])
        assert cached.cache.held_bytes <= limit


def test_a_good_part_of_a_chunk_comes_straight_from_the_disk_and_is_not_kept(raw, papyrus, reads):
    cached = CachedArray(raw, ChunkCache(1 << 20))
    for rows in (slice(0, 12), slice(4, 16)):
        region = (slice(0, 3), rows, slice(18, 30))
        np.testing.assert_array_equal(cached.read(region), papyrus[region])
    assert (reads, cached.cache.held_bytes) == ([], 0)


def test_a_small_part_of_a_chunk_makes_it_kept(raw, papyrus, reads):
    cached = CachedArray(raw, ChunkCache(1 << 20))
    for rows in (slice(0, 6), slice(10, 16)):
        region = (slice(0, 3), rows, slice(18, 24))
        np.testing.assert_array_equal(cached.read(region), papyrus[region])
    assert reads == [[(0, 0, 1)]]


def test_what_is_kept_is_not_decoded_again(array, reads):
    cached = CachedArray(array, ChunkCache(1 << 20))
    whole = (slice(0, 3), slice(0, 50), slice(0, 70))
    cached.read(whole)
    assert len(reads) == 1
    for region in windows(20):
        cached.read(region)
    assert len(reads) == 1


def test_only_the_missing_chunks_are_decoded(array, reads):
    cached = CachedArray(array, ChunkCache(1 << 20))
    cached.read((slice(0, 3), slice(0, 16), slice(0, 32)))
    cached.read((slice(0, 3), slice(4, 12), slice(10, 40)))
    assert reads == [[(0, 0, 0), (0, 0, 1)], [(0, 0, 2)]]


def test_what_was_decoded_first_makes_room(array, reads):
    one = 3 * 16 * 16
    cached = CachedArray(array, ChunkCache(2 * one))
    left, middle, right = ((slice(0, 3), slice(0, 16), slice(x, x + 16)) for x in (0, 16, 32))
    for region in (left, middle, middle, left, right):
        cached.read(region)
    assert (len(reads), cached.cache.held_bytes) == (3, 2 * one)
    cached.read(middle)
    assert len(reads) == 3
    cached.read(left)
    assert len(reads) == 4


def test_a_region_that_takes_more_than_may_be_kept_is_read_all_the_same(array, content):
    one = 3 * 16 * 16
    cached = CachedArray(array, ChunkCache(2 * one))
    whole = tuple(slice(0, size) for size in SHAPE)
    np.testing.assert_array_equal(cached.read(whole), content)
    assert cached.cache.held_bytes <= 2 * one


@pytest.mark.parametrize("kind", ["array", "raw"])
def test_what_a_reader_gets_is_its_own(kind, request):
    cached = CachedArray(request.getfixturevalue(kind), ChunkCache(1 << 20))
    region = (slice(0, 3), slice(0, 16), slice(0, 16))
    first = cached.read(region)
    wanted = first.copy()
    cached.read((slice(0, 3), slice(0, 16), slice(16, 32)))
    np.testing.assert_array_equal(first, wanted)
    first[:] = 0
    np.testing.assert_array_equal(cached.read(region), wanted)


@pytest.mark.parametrize("kind", ["array", "raw"])
def test_threads_share_a_cache(kind, content, papyrus, request):
    content = content if kind == "array" else papyrus
    cached = CachedArray(request.getfixturevalue(kind), ChunkCache(3 * 16 * 16 * 3))
    wrong = []

    def work():
        wrong.extend(region for region in windows(80) if not np.array_equal(cached.read(region), content[region]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cached.cache.held_bytes <= 3 * 16 * 16 * 3

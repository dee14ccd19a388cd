"""Only needed bytes are read, whole layers are decoded once, and no thread, fork or fault changes a pixel."""

from __future__ import annotations

import errno
import os
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile

from inkbatch.errors import ConfigError, StorageError
from inkbatch.geometry import Box
from inkbatch.io.layers import files, open_layer_source
from inkbatch.io.layers.pictures import Picture
from inkbatch.io.store import retrying
from inkbatch.io.store.location import Location

HEADERS = 2 * files.HEADER_BYTES


@pytest.fixture
def big(make_grey) -> np.ndarray:
    return make_grey("uint16", (3, 1024, 768))


def put(web, volume: np.ndarray, **options) -> str:
    layers = web.folder / "layers"
    layers.mkdir()
    for number, layer in enumerate(volume):
        tifffile.imwrite(layers / f"{number:02d}.tif", layer, photometric="minisblack", **options)
    return f"{web.url}/layers"


def test_opening_reads_headers_only(web, big) -> None:
    uri = put(web, big, rowsperstrip=8)
    web.reset()
    source = open_layer_source(uri)
    assert source.shape_zyx == big.shape
    assert web.served_bytes < 3 * HEADERS < big.nbytes / 10


def tags_last(layer: np.ndarray, rows: int) -> bytes:
    """A deflated TIFF as many writers make it: first the strips, then the tags and the strips' places."""
    strips = [zlib.compress(layer[y : y + rows].tobytes()) for y in range(0, len(layer), rows)]
    offsets = np.cumsum([8, *map(len, strips)])
    tags_at = int(offsets[-1]) + offsets[-1] % 2
    lists_at = tags_at + 2 + 9 * 12 + 4
    tags = [
        (256, 4, 1, layer.shape[1]),
        (257, 4, 1, layer.shape[0]),
        (258, 3, 1, 16),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (273, 4, len(strips), lists_at),
        (277, 3, 1, 1),
        (278, 4, 1, rows),
        (279, 4, len(strips), lists_at + 4 * len(strips)),
    ]
    head = struct.pack("<2sHI", b"II", 42, tags_at) + b"".join(strips)
    lists = struct.pack(f"<{2 * len(strips)}I", *offsets[:-1].tolist(), *map(len, strips))
    return (
        head.ljust(tags_at, b"\0")
        + struct.pack("<H", 9)
        + b"".join(struct.pack("<HHII", *t) for t in tags)
        + bytes(4)
        + lists
    )


def test_tags_at_the_end_of_a_file_are_found_with_small_reads(web, big) -> None:
    layers = web.folder / "layers"
    layers.mkdir()
    for number, layer in enumerate(big):
        (layers / f"{number}.tif").write_bytes(tags_last(layer, 64))
    web.reset()
    source = open_layer_source(f"{web.url}/layers")
    assert web.served_bytes < 3 * HEADERS
    np.testing.assert_array_equal(source.read(range(3), Box(100, 100, 300, 300)), big[:, 100:300, 100:300])


def test_rows_of_an_uncompressed_layer_cost_their_own_bytes(web, big) -> None:
    source = open_layer_source(put(web, big, rowsperstrip=8))
    assert source.block_yx == (1, 768)
    web.reset()
    block = source.read(range(1, 3), Box(500, 10, 516, 700))
    np.testing.assert_array_equal(block, big[1:3, 500:516, 10:700])
    assert web.served_bytes <= 2 * 16 * 768 * 2


def test_tiles_cost_what_the_box_touches(web, big) -> None:
    source = open_layer_source(put(web, big, tile=(64, 64), compression="zlib"))
    assert source.block_yx == (64, 64)
    web.reset()
    box = Box(65, 64, 127, 128)
    np.testing.assert_array_equal(source.read(range(1, 2), box)[0], big[1][box.slices])
    assert 0 < web.served_bytes <= 64 * 64 * 2 * 1.1
    assert len(web.requests) == 1


def test_neighbouring_strips_are_asked_for_together(web, big) -> None:
    source = open_layer_source(put(web, big, rowsperstrip=8, compression="lzw"))
    web.reset()
    np.testing.assert_array_equal(source.read(range(3), Box(0, 0, 512, 768)), big[:, :512])
    assert len(web.requests) == 3  # one per layer, not one per strip


def test_zarr_chunks_cost_what_the_box_touches(web, big) -> None:
    import zarr

    array = zarr.create_array(
        web.folder / "v.zarr", shape=big.shape, chunks=(3, 64, 64), shards=(3, 256, 256), dtype="uint16"
    )
    array[...] = big
    source = open_layer_source(f"{web.url}/v.zarr", axes="zyx")
    assert source.block_yx == (64, 64)
    assert source.block_layers == 3
    web.reset()
    box = Box(65, 64, 127, 128)
    np.testing.assert_array_equal(source.read(range(3), box), big[(slice(None), *box.slices)])
    assert 0 < web.served_bytes <= 3 * 64 * 64 * 2 * 1.2


def test_a_large_read_is_cut_into_requests_and_stays_whole(web, big, monkeypatch: pytest.MonkeyPatch) -> None:
    from inkbatch.io.layers import stack

    monkeypatch.setattr(stack, "REMOTE_PART_BYTES", 100_000)
    monkeypatch.setattr(files, "REMOTE_PART_BYTES", 100_000)
    monkeypatch.setattr(files, "FETCH_BYTES", 250_000)
    for options in ({"rowsperstrip": 8}, {"rowsperstrip": 8, "compression": "zlib"}):
        source = open_layer_source(put(web, big, **options))
        web.reset()
        np.testing.assert_array_equal(source.read(range(3), Box(0, 0, 1024, 768)), big)
        assert len(web.requests) > 20
        for path in (web.folder / "layers").iterdir():
            path.unlink()
        (web.folder / "layers").rmdir()


def test_passing_faults_of_the_store_change_no_pixel(web, big, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "RETRY_DELAYS_S", (0.0, 0.0, 0.0))
    uri = put(web, big, rowsperstrip=8, compression="zlib")
    source = open_layer_source(uri)
    web.fail_next = [503, 500, 429]
    np.testing.assert_array_equal(source.read(range(3), Box(0, 0, 1024, 768)), big)
    web.fail_next = [503] * 100
    with pytest.raises(StorageError, match=r"0\d\.tif"):
        source.read(range(3), Box(0, 0, 1024, 768))


def test_a_server_without_ranges_is_refused_before_anything_is_read(web, big) -> None:
    uri = put(web, big, rowsperstrip=8)
    web.ignores_ranges = True
    with pytest.raises(Exception, match="ignores ranges") as caught:
        open_layer_source(uri)
    assert caught.value.exit_code == 65


@pytest.mark.parametrize("name", ["png", "jpg", "tif-lzw-one-strip", "zarr3-whole-layers"])
@pytest.mark.parametrize("memory_bytes", [1 << 30, 100_000])
def test_whole_layers_are_kept_in_memory_or_on_disk(store_locally, tmp_path: Path, name, memory_bytes) -> None:
    stored = store_locally(name)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    source = open_layer_source(stored.uri, memory_bytes=memory_bytes, scratch=str(scratch), **stored.options)
    stack_bytes = stored.expected.nbytes
    fits = stack_bytes * 3 <= memory_bytes
    assert source.resident_bytes == (stack_bytes if fits else 0)
    for _ in range(2):
        np.testing.assert_array_equal(source.read(range(1, 5), Box(3, 3, 40, 50)), stored.expected[1:5, 3:40, 3:50])
    assert list(scratch.iterdir()) == []  # the scratch file has no name: nothing is left behind, whatever happens
    source.close()


def test_each_layer_is_decoded_once(store_locally, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = store_locally("png")
    decoded, decode = [], Picture.decode

    def counting(picture: Picture, out) -> None:
        decoded.append(picture.location.name)
        decode(picture, out)

    monkeypatch.setattr(Picture, "decode", counting)
    source = open_layer_source(stored.uri)
    assert decoded == []
    with ThreadPoolExecutor(8) as pool:
        boxes = [Box(y, 0, y + 10, 83) for y in range(0, 50)]
        list(pool.map(lambda box: source.read(range(1, 4), box), boxes))
    assert sorted(decoded) == ["1.png", "2.png", "3.png"]


def test_a_layer_that_failed_is_tried_again(store_locally, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = store_locally("png")
    source = open_layer_source(stored.uri)
    with monkeypatch.context() as broken:

        def failing(picture: Picture, out) -> None:
            raise StorageError("the disk is away")

        broken.setattr(Picture, "decode", failing)
        with pytest.raises(StorageError):
            source.read(range(5), Box(0, 0, 61, 83))
    np.testing.assert_array_equal(source.read(range(5), Box(0, 0, 61, 83)), stored.expected)


def test_a_full_scratch_disk_is_refused_with_a_cure(
    store_locally, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store_locally("png")
    source = open_layer_source(stored.uri, memory_bytes=1000, scratch=str(tmp_path))

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ConfigError, match="scratch folder with more room"):
        source.read(range(5), Box(0, 0, 61, 83))


def test_a_missing_scratch_folder_is_refused(store_locally, tmp_path: Path) -> None:
    stored = store_locally("png")
    source = open_layer_source(stored.uri, memory_bytes=1000, scratch=str(tmp_path / "nobody"))
    with pytest.raises(ConfigError, match="nobody"):
        source.read(range(5), Box(0, 0, 61, 83))


def test_huge_strips_are_decoded_once_and_kept(store_locally) -> None:
    stored = store_locally("tif-deflate")  # strips of 16 x 83 uint16: 2656 bytes
    assert not open_layer_source(stored.uri, memory_bytes=8 * 2656).whole_layers
    source = open_layer_source(stored.uri, memory_bytes=8 * 2656 - 1)
    assert source.whole_layers
    np.testing.assert_array_equal(source.read(range(5), Box(3, 3, 40, 50)), stored.expected[:, 3:40, 3:50])


@pytest.mark.parametrize("name", ["tif-lzw", "png", "zarr3"])
def test_a_forked_process_reads_on(store_locally, name) -> None:
    stored = store_locally(name)
    source = open_layer_source(stored.uri, **stored.options)
    box = Box(0, 0, 61, 83)
    source.read(range(2), box)  # its threads exist before the fork
    child = os.fork()
    if child == 0:
        same = np.array_equal(source.read(range(5), box), stored.expected)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_files_of_a_remote_stack_are_opened_side_by_side(web, big, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = put(web, np.concatenate([big[:, :64]] * 4), rowsperstrip=8)
    together, most, lock = 0, 0, threading.Lock()
    read_range = Location.read_range

    def watched(location, start, stop):
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        try:
            return read_range(location, start, stop)
        finally:
            with lock:
                together -= 1

    monkeypatch.setattr(Location, "read_range", watched)
    open_layer_source(uri)
    assert most > 3


def test_maps_are_let_go_on_close(store_locally) -> None:
    stored = store_locally("tif")

    def handles() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = handles()
    source = open_layer_source(stored.uri)
    assert handles() == before  # opening keeps nothing open
    source.read(range(5), Box(0, 0, 9, 9))
    assert handles() == before + 5
    source.close()
    assert handles() == before

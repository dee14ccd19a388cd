from __future__ import annotations

import io
import itertools
import os
import struct
import tracemalloc

import cv2
import numpy as np
import pytest
import tifffile

from inkbatch.errors import ConfigError, CorruptDataError, DataError, StorageError
from inkbatch.geometry import Box, cut
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.pictures import png
from inkbatch.io.pictures import writers as export_writers
from inkbatch.io.pictures.bands import MapView, reblock
from inkbatch.io.pictures.export import BASE_BYTES, BYTES_PER_BAND_PIXEL, LONGEST_PX, Picture, band_rows, write_picture
from inkbatch.io.pictures.tones import ToneMap
from inkbatch.io.prediction import Prediction
from inkbatch.io.shards.array import ArrayLayout, ShardedArray
from inkbatch.io.store.location import Location

MEMORY = 2 << 30
U8, U16, F16 = (np.dtype(name) for name in ("uint8", "uint16", "float16"))
SHAPE = (333, 271)
DTYPES = {"png": U8, "tif": U16, "npy": F16, "jpg": U8}


@pytest.fixture(scope="module")
def probability() -> np.ndarray:
    """Odd size, smooth with edges; values from 0 to 1, both included."""
    noise = np.random.default_rng(5).random(SHAPE, dtype=np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 6)
    scaled = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    scaled[:30, :50] = 0
    scaled[-20:, -60:] = 1
    return scaled


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory, probability) -> Multiscale:
    """One level of 64-px zarr shards."""
    folder = Location.parse(tmp_path_factory.mktemp("map"))
    prediction = Prediction.create(folder, SHAPE, 64, 8.0, {})
    for box in cut(SHAPE, 64, 64):
        prediction.write(box, probability[box.slices])
    return prediction.pyramid


def as_stored(probability: np.ndarray) -> np.ndarray:
    return probability.astype(np.float16).astype(np.float64)


def flipped(values: np.ndarray, flip: str) -> np.ndarray:
    values = values[::-1] if "y" in flip else values
    return values[:, ::-1] if "x" in flip else values


def written(picture: Picture, place: Location) -> np.ndarray:
    size = write_picture(picture, place, MEMORY)
    assert size == os.path.getsize(place.path)
    if picture.format == "npy":
        return np.load(place.path)
    if picture.format == "tif":
        return tifffile.imread(place.path)
    return cv2.imread(place.path, cv2.IMREAD_UNCHANGED)


class TestEveryFormat:
    @pytest.mark.parametrize(
        "box", [Box(0, 0, *SHAPE), Box(17, 3, 18, 271), Box(63, 64, 258, 65), Box(65, 9, 321, 200)]
    )
    @pytest.mark.parametrize("flip", ["none", "x", "y", "xy"])
    @pytest.mark.parametrize(
        ("kind", "dtype"), [("png", U8), ("png", U16), ("tif", U8), ("tif", U16), ("npy", F16), ("npy", U8)]
    )
    def test_reads_back_as_numpy_says(self, tmp_path, pyramid, probability, kind, dtype, flip, box):
        picture = Picture(MapView(pyramid.levels[0], box, flip), ToneMap(dtype), kind)
        part = flipped(as_stored(probability)[box.slices], flip)
        found = written(picture, Location.parse(tmp_path / f"map.{kind}"))
        expected = part if dtype == F16 else np.rint(part * np.iinfo(dtype).max)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected.astype(dtype))

    @pytest.mark.parametrize("kind", ["png", "tif", "npy"])
    def test_threshold_counts_the_stored_value_itself_as_ink(self, tmp_path, pyramid, probability, kind):
        threshold = float(as_stored(probability)[200, 200])
        picture = Picture(MapView.of(pyramid), ToneMap(U8, threshold=threshold), kind)
        found = written(picture, Location.parse(tmp_path / f"map.{kind}"))
        np.testing.assert_array_equal(found, np.where(as_stored(probability) >= threshold, 255, 0))
        assert found[200, 200] == 255
        assert 0 < (found == 255).mean() < 1

    @pytest.mark.parametrize(("kind", "dtype"), [("png", U8), ("tif", U16), ("npy", F16)])
    def test_boost_multiplies_and_is_capped_at_one(self, tmp_path, pyramid, probability, kind, dtype):
        picture = Picture(MapView.of(pyramid), ToneMap(dtype, boost=1.7), kind)
        found = written(picture, Location.parse(tmp_path / f"map.{kind}"))
        boosted = np.minimum(as_stored(probability) * 1.7, 1)
        top = 1 if dtype == F16 else np.iinfo(dtype).max
        expected = boosted if dtype == F16 else np.rint(boosted * top)
        np.testing.assert_array_equal(found, expected.astype(dtype))
        assert (as_stored(probability) * 1.7 > 1).any()
        assert found.max() == top

    def test_jpg_is_close_to_the_map(self, tmp_path, pyramid, probability):
        picture = Picture(MapView.of(pyramid, flip="xy"), ToneMap(U8), "jpg", quality=95)
        found = written(picture, Location.parse(tmp_path / "map.jpg")).astype(float)
        assert found.shape == SHAPE
        assert np.abs(found - flipped(as_stored(probability), "xy") * 255).mean() < 2

    @pytest.mark.parametrize("kind", ["png", "tif", "npy", "jpg"])
    def test_equal_maps_give_equal_bytes(self, tmp_path, pyramid, kind):
        picture = Picture(MapView.of(pyramid), ToneMap(DTYPES[kind]), kind, note="note")
        places = [Location.parse(tmp_path / f"{name}.{kind}") for name in "ab"]
        for place in places:
            write_picture(picture, place, MEMORY)
        assert places[0].read_bytes() == places[1].read_bytes()

    @pytest.mark.parametrize("kind", ["png", "tif", "npy", "jpg"])
    def test_lands_on_an_object_store_and_leaves_no_scratch_file(self, tmp_path, pyramid, kind):
        picture = Picture(MapView.of(pyramid), ToneMap(DTYPES[kind]), kind)
        place, beside = Location.parse(f"memory://export-test/map.{kind}"), Location.parse(tmp_path / "local")
        write_picture(picture, place, MEMORY, scratch=str(tmp_path))
        write_picture(picture, beside, MEMORY)
        assert place.read_bytes() == beside.read_bytes()
        assert os.listdir(tmp_path) == ["local"]
        place.delete()


class TestTiff:
    def test_is_tiled_deflated_and_states_what_it_is(self, tmp_path, pyramid):
        place = Location.parse(tmp_path / "map.tif")
        write_picture(Picture(MapView.of(pyramid), ToneMap(U8), "tif", pixel_um=8.0, note='{"a": 1}'), place, MEMORY)
        with tifffile.TiffFile(place.path) as tiff:
            page = tiff.pages[0]
            assert (page.tilelength, page.tilewidth) == (256, 256)
            assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
            assert page.description == '{"a": 1}'
            assert page.get_resolution("micrometer") == (0.125, 0.125)
            assert not tiff.is_bigtiff

    def test_becomes_bigtiff_when_asked(self, tmp_path, pyramid, probability):
        place = Location.parse(tmp_path / "map.tif")
        found = written(Picture(MapView.of(pyramid), ToneMap(U8), "tif", bigtiff=True), place)
        np.testing.assert_array_equal(found, np.rint(as_stored(probability) * 255))
        assert tifffile.TiffFile(place.path).is_bigtiff

    def test_becomes_bigtiff_where_32_bits_end(self, tmp_path, pyramid, monkeypatch):
        place = Location.parse(tmp_path / "map.tif")
        pixels = SHAPE[0] * SHAPE[1]
        for dtype, expected in ((U8, False), (U16, True)):
            monkeypatch.setattr(export_writers, "CLASSIC_TIFF_BYTES", pixels)
            write_picture(Picture(MapView.of(pyramid), ToneMap(dtype), "tif"), place, MEMORY)
            assert tifffile.TiffFile(place.path).is_bigtiff == expected

    @pytest.mark.parametrize("box", [Box(0, 5, 333, 6), Box(9, 0, 10, 271)])
    def test_one_pixel_wide_or_high_maps_are_right_for_other_readers(self, tmp_path, pyramid, probability, box):
        place = Location.parse(tmp_path / "map.tif")
        write_picture(Picture(MapView(pyramid.levels[0], box), ToneMap(U16), "tif"), place, MEMORY)
        found = cv2.imread(place.path, cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(found, np.rint(as_stored(probability)[box.slices] * 65535))


class TestPng:
    @pytest.mark.parametrize("cuts", [[0, 900], [0, 1, 2, 899, 900], [0, 450, 900]])
    def test_the_file_does_not_depend_on_how_the_rows_were_cut(self, cuts):
        rows = np.random.default_rng(0).integers(0, 65536, (900, 1500), dtype=np.uint16)  # several deflate blocks
        whole, parts = io.BytesIO(), io.BytesIO()
        png.write_png(whole, rows.shape, U16, [rows])
        png.write_png(parts, rows.shape, U16, [rows[a:b] for a, b in itertools.pairwise(cuts)])
        assert whole.getvalue() == parts.getvalue()
        found = cv2.imdecode(np.frombuffer(whole.getvalue(), np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(found, rows)

    def test_rows_longer_than_a_deflate_block_are_written(self, monkeypatch):
        monkeypatch.setattr(png, "BLOCK_BYTES", 100)
        rows = np.random.default_rng(0).integers(0, 256, (30, 1001), dtype=np.uint8)  # more blocks than may wait
        handle = io.BytesIO()
        png.write_png(handle, rows.shape, U8, [rows])
        found = cv2.imdecode(np.frombuffer(handle.getvalue(), np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(found, rows)

    def test_the_note_is_a_text_chunk(self):
        handle = io.BytesIO()
        png.write_png(handle, (1, 1), U8, [np.zeros((1, 1), np.uint8)], note="what it is")
        data = handle.getvalue()
        at = data.index(b"iTXt")
        (length,) = struct.unpack(">I", data[at - 4 : at])
        assert data[at + 4 : at + 4 + length] == b"Description\0\0\0\0\0what it is"

    @pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
    @pytest.mark.parametrize("compression", [None, 9])
    def test_a_picture_in_memory_keeps_its_pixels_and_the_order_of_its_colours(self, shape, compression):
        picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        data = png.png_bytes(picture, compression)
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(found[..., ::-1] if found.ndim == 3 else found, picture)

    def test_an_empty_picture_is_refused(self):
        with pytest.raises(DataError, match="0 x 4 pixels cannot be encoded as PNG"):
            png.png_bytes(np.zeros((0, 4), np.uint8))

    @pytest.mark.parametrize("blocks", [[(3, 4)], [(3, 4), (3, 4)], [(5, 5)]])
    def test_rows_that_are_not_as_promised_are_refused(self, blocks):
        with pytest.raises(ValueError, match="expected .*, got"):
            png.write_png(io.BytesIO(), (5, 4), U8, [np.zeros(shape, np.uint8) for shape in blocks])


@pytest.mark.parametrize("rows", [1, 4, 7, 100])
def test_reblock_keeps_every_row_in_order(rows):
    values = np.arange(23 * 2).reshape(23, 2)
    blocks = list(reblock([values[:5], values[5:6], values[6:20], values[20:]], rows))
    np.testing.assert_array_equal(np.concatenate(blocks), values)
    assert [len(block) for block in blocks[:-1]] == [rows] * (len(blocks) - 1)


class CountingArray(ShardedArray):
    """A large map that is made up while it is read; counts how often each row is read."""

    def read(self, region, out=None):
        y, x = (np.arange(part.start, part.stop) for part in region)
        seen[0] = max(seen[0], len(y))
        reads[y] += 1
        return ((y[:, None] * 31 + x[None, :] * 7) % 1024 / 1024).astype(np.float16)


seen = [0]
reads = np.zeros(20_000, np.int64)


class TestMemory:
    SHAPE = (20_000, 601)

    def made_up(self, uri: str = "memory://made-up") -> MapView:
        layout = ArrayLayout(self.SHAPE, (256, 256), (2048, 2048), "float16", "zstd", ("y", "x"))
        return MapView(CountingArray(Location.parse(uri), layout), Box(0, 0, *self.SHAPE), "xy")

    @pytest.mark.parametrize("kind", ["png", "tif", "npy"])
    def test_a_long_map_is_streamed_in_bands(self, tmp_path, kind):
        """In float16 the map has 24 MB; bands, blocks and deflated tiles stay far below it."""
        seen[0] = 0
        reads[:] = 0
        picture = Picture(self.made_up(str(tmp_path)), ToneMap(F16 if kind == "npy" else U8), kind)
        write_picture(picture, Location.parse(tmp_path / f"warm.{kind}"), MEMORY)  # imports and codec tables
        seen[0] = 0
        reads[:] = 0
        tracemalloc.start()
        write_picture(picture, Location.parse(tmp_path / f"map.{kind}"), MEMORY)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert seen[0] <= 256
        assert (reads == 1).all()
        assert peak < 12e6

    def test_an_object_store_is_read_by_whole_zarr_shards_where_memory_allows_it(self):
        picture = Picture(self.made_up(), ToneMap(U8), "tif")
        enough = BASE_BYTES + BYTES_PER_BAND_PIXEL * 2048 * 601
        assert band_rows(picture, enough) == 2048
        assert band_rows(picture, enough - 1) == 1024
        assert band_rows(picture, BASE_BYTES + BYTES_PER_BAND_PIXEL * 256 * 601) == 256

    def test_a_local_disk_is_read_by_chunks(self, tmp_path):
        assert band_rows(Picture(self.made_up(str(tmp_path)), ToneMap(U8), "tif"), MEMORY) == 256

    @pytest.mark.parametrize("kind", ["tif", "jpg"])
    def test_a_budget_that_is_too_small_is_refused_before_anything_is_read(self, tmp_path, kind):
        reads[:] = 0
        place = Location.parse(tmp_path / f"map.{kind}")
        with pytest.raises(ConfigError, match=r"601 × 20000 px.*memory is 200.0 MiB.*coarser level"):
            write_picture(Picture(self.made_up(), ToneMap(U8), kind), place, 200 << 20)
        assert not reads.any()
        assert os.listdir(tmp_path) == []

    def test_jpg_needs_memory_for_the_whole_picture(self):
        enough_for_bands = BASE_BYTES + BYTES_PER_BAND_PIXEL * 256 * 601
        view = self.made_up()
        assert band_rows(Picture(view, ToneMap(U8), "png"), enough_for_bands) == 256
        with pytest.raises(ConfigError, match="or TIFF or PNG"):
            band_rows(Picture(view, ToneMap(U8), "jpg"), enough_for_bands)


class TestLongestSide:
    def picture(self, shape: tuple[int, int], kind: str) -> Picture:
        layout = ArrayLayout(shape, (256, 256), (2048, 2048), "float16", "zstd", ("y", "x"))
        view = MapView(FlatArray(Location.parse("memory://flat"), layout), Box(0, 0, *shape))
        return Picture(view, ToneMap(U8), kind)

    @pytest.mark.parametrize(("kind", "limit"), [("jpg", 65_500), ("png", 1_000_000)])
    @pytest.mark.parametrize("turned", [False, True])
    def test_a_longer_one_is_refused_with_the_cure(self, tmp_path, kind, limit, turned):
        shape = (limit + 1, 3) if turned else (3, limit + 1)
        with pytest.raises(ConfigError, match=rf"{limit + 1}.*{limit} px; choose a coarser level"):
            write_picture(self.picture(shape, kind), Location.parse(tmp_path / "map"), MEMORY)
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("kind", ["jpg", "png"])
    @pytest.mark.parametrize("turned", [False, True])
    def test_the_longest_one_is_written_and_can_be_read(self, tmp_path, kind, turned):
        shape = (LONGEST_PX[kind], 2) if turned else (2, LONGEST_PX[kind])
        assert written(self.picture(shape, kind), Location.parse(tmp_path / "map")).shape == shape


class FlatArray(ShardedArray):
    """A map of 0.5 without a store."""

    def read(self, region, out=None):
        return np.full([part.stop - part.start for part in region], 0.5, np.float16)


class TestAllOrNothing:
    @pytest.fixture
    def damaged(self, tmp_path, probability) -> Multiscale:
        """A map whose last zarr shard is gone."""
        prediction = Prediction.create(Location.parse(tmp_path / "damaged"), SHAPE, 64, 8.0, {})
        for box in cut(SHAPE, 64, 64):
            prediction.write(box, probability[box.slices])
        prediction.pyramid.levels[0].shard_location((5, 4)).delete()
        return prediction.pyramid

    @pytest.mark.parametrize("kind", ["png", "tif", "npy", "jpg"])
    def test_an_error_in_the_middle_leaves_no_file(self, tmp_path, damaged, kind):
        picture = Picture(MapView.of(damaged), ToneMap(DTYPES[kind]), kind)
        with pytest.raises(CorruptDataError, match="zarr shard is missing"):
            write_picture(picture, Location.parse(tmp_path / "out" / f"map.{kind}"), MEMORY)
        assert os.listdir(tmp_path / "out") == []

    @pytest.mark.parametrize("kind", ["png", "tif"])
    def test_an_error_in_the_middle_keeps_the_file_of_before(self, tmp_path, damaged, kind):
        place = Location.parse(tmp_path / f"map.{kind}")
        place.write_bytes(b"before")
        with pytest.raises(CorruptDataError):
            write_picture(Picture(MapView.of(damaged), ToneMap(U8), kind), place, MEMORY)
        assert place.read_bytes() == b"before"

    def test_an_error_in_the_middle_uploads_nothing(self, tmp_path, damaged):
        place = Location.parse("memory://export-test/damaged.png")
        with pytest.raises(CorruptDataError):
            write_picture(Picture(MapView.of(damaged), ToneMap(U8), "png"), place, MEMORY, scratch=str(tmp_path))
        assert not place.exists()
        assert os.listdir(tmp_path) == ["damaged"]

    def test_a_full_disk_is_a_try_again_that_names_the_place(self, tmp_path, pyramid, monkeypatch):
        def full(handle, *rest):
            handle.write(b"a beginning")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("inkbatch.io.pictures.export.write_npy", full)
        with pytest.raises(StorageError, match=r"map\.npy.*No space left.*free space"):
            write_picture(
                Picture(MapView.of(pyramid), ToneMap(F16), "npy"), Location.parse(tmp_path / "map.npy"), MEMORY
            )
        assert os.listdir(tmp_path) == []

    def test_a_web_server_is_refused_as_a_target(self, pyramid):
        picture = Picture(MapView.of(pyramid), ToneMap(U8), "png")
        with pytest.raises(ConfigError, match="web server takes no files"):
            write_picture(picture, Location.parse("https://example.org/map.png"), MEMORY)

    def test_a_folder_is_refused_as_a_target(self, tmp_path, pyramid):
        with pytest.raises(DataError, match="expected a file or nothing, got a folder"):
            write_picture(Picture(MapView.of(pyramid), ToneMap(U8), "png"), Location.parse(tmp_path), MEMORY)

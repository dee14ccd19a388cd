from __future__ import annotations

import cv2
import numpy as np
import pytest

from inkbatch.errors import CorruptDataError
from inkbatch.geometry import Box, cut
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.pictures.preview import NOT_STORED, LivePicture, preview_level, write_preview
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location


def stored_map(folder: Location, probability: np.ndarray, unit_px: int = 64) -> Multiscale:
    prediction = Prediction.create(folder, probability.shape, unit_px, 8.0, {"kind": "prediction"})
    for box in cut(probability.shape, unit_px, unit_px):
        prediction.write(box, probability[box.slices])
    return prediction.pyramid


def whole_level(pyramid: Multiscale, level: int) -> np.ndarray:
    array = pyramid.levels[level]
    return array.read([slice(0, size) for size in array.layout.shape])


@pytest.fixture
def probability() -> np.ndarray:
    return np.random.default_rng(3).random((77, 1101), dtype=np.float32)


@pytest.fixture
def folder(tmp_path) -> Location:
    return Location.parse(tmp_path / "prediction")


@pytest.mark.parametrize(("longest_px", "level"), [(5000, 0), (1101, 0), (1100, 1), (551, 1), (9, 1)])
def test_the_preview_is_the_finest_level_that_fits_or_else_the_coarsest(folder, probability, longest_px, level):
    pyramid = stored_map(folder, probability)
    assert len(pyramid.levels) == 2
    assert preview_level(pyramid, longest_px) == level
    write_preview(pyramid, folder / "preview.png", longest_px)
    picture = cv2.imread((folder / "preview.png").path, cv2.IMREAD_UNCHANGED)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, np.rint(whole_level(pyramid, level).astype(np.float64) * 255))


def test_black_is_zero_and_white_is_one(folder):
    probability = np.zeros((40, 50), np.float32)
    probability[:20] = 1
    write_preview(stored_map(folder, probability), folder / "preview.png")
    picture = cv2.imread((folder / "preview.png").path, cv2.IMREAD_UNCHANGED)
    assert (picture[:20] == 255).all()
    assert (picture[20:] == 0).all()


def test_equal_maps_give_equal_bytes_however_they_were_cut_into_units(folder, probability):
    write_preview(stored_map(folder / "a", probability, 64), folder / "a.png", 1101)
    write_preview(stored_map(folder / "b", probability, 256), folder / "b.png", 1101)
    other = probability.copy()
    other[5, 5] = 1 - other[5, 5]
    write_preview(stored_map(folder / "c", other), folder / "c.png", 1101)
    first = (folder / "a.png").read_bytes()
    assert first == (folder / "b.png").read_bytes()
    assert first != (folder / "c.png").read_bytes()


def test_a_preview_lands_on_any_store(probability):
    folder = Location.parse("memory://preview-test/prediction")
    write_preview(stored_map(folder, probability), folder / "preview.png")
    assert (folder / "preview.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    folder.delete_folder()


@pytest.mark.parametrize("wrong", [np.nan, 1.5, -0.25])
def test_what_is_no_probability_is_refused_and_not_painted(folder, probability, wrong):
    probability[70, 1000] = wrong
    pyramid = stored_map(folder, probability)
    with pytest.raises(CorruptDataError, match=r"prediction\.zarr.*0 to 1"):
        write_preview(pyramid, folder / "preview.png")
    assert not (folder / "preview.png").exists()


def test_minus_zero_is_black(folder):
    pyramid = stored_map(folder, np.full((40, 40), -0.0, np.float32) + np.eye(40, dtype=np.float32) * 0)
    probability = np.full((40, 40), -0.0, np.float16)
    probability[0, 0] = 1
    pyramid.levels[0].write_shard((0, 0), probability)
    write_preview(pyramid, folder / "preview.png")
    picture = cv2.imread((folder / "preview.png").path, cv2.IMREAD_UNCHANGED)
    assert picture[0, 0] == 255
    assert picture.sum() == 255


def test_the_picture_so_far_grows_with_the_units(tmp_path):
    place = Location.parse(tmp_path / "so-far.png")
    live = LivePicture((1500, 2100), place, longest_px=1100, every_s=0)
    live.add(Box(0, 1024, 1024, 2048), np.full((1024, 1024), 0.5, np.float32))
    shown = cv2.imread(str(tmp_path / "so-far.png"), cv2.IMREAD_UNCHANGED)
    assert shown.shape == (750, 1050)
    assert (shown[:512, 512:1024] == 128).all()
    assert (shown[:512, :512] == NOT_STORED).all()
    live.add(Box(1024, 2048, 1500, 2100), np.ones((476, 52), np.float32))
    shown = cv2.imread(str(tmp_path / "so-far.png"), cv2.IMREAD_UNCHANGED)
    assert (shown[512:, 1024:] == 255).all()

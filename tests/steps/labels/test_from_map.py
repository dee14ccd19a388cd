"""Labels from a map of another scan: carried by scale, soft, ignored around the threshold and where it saw nothing."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.steps.labels.job import LabelsConfig, describe, make_plan, run
from inkbatch.testing.maps import store_map, store_picture

SHAPE = (150, 210)
FINE = np.random.default_rng(4).random((300, 420)).astype(np.float16).astype(np.float32)
PAPYRUS = np.ones(FINE.shape, bool)
PAPYRUS[:41, :61] = False  # ends inside a pixel of the segment
COARSE = np.random.default_rng(5).random((75, 105)).astype(np.float16).astype(np.float32)


@pytest.fixture
def configure(tiny_segment):
    def make(**changes) -> LabelsConfig:
        given = {"segment": "tiny", "root": str(tiny_segment.root), "unit_px": 64, "from_map": "fine/net"}
        return LabelsConfig.checked({**given, **changes}, "labels")

    return make


@pytest.fixture
def fine(tiny_segment):
    store_picture(tiny_segment.root, "fine", "mask", PAPYRUS)
    return store_map(tiny_segment.root, "fine", "net", FINE, voxel_size_um=4.0, contract={"threshold": 0.4})


def read(config, name="ink_labels") -> np.ndarray:
    pyramid = Multiscale.open(Location.parse(config.root) / f"segments/tiny/{name}.zarr")
    return pyramid.levels[0].read(Box(0, 0, *pyramid.shape).slices)


def quarters(values) -> np.ndarray:
    return values.reshape(150, 2, 210, 2).sum(axis=(1, 3)) / 4


def test_a_finer_map_gives_the_mean_of_what_it_saw_and_ignores_the_rest(configure, fine):
    config = configure()
    run(config, RunContext())
    seen = quarters(PAPYRUS.astype(np.float64))
    share = np.divide(quarters(FINE * PAPYRUS.astype(np.float64)), seen, out=np.zeros(SHAPE), where=seen > 0)
    assert np.abs(read(config) - share * 255).max() <= 0.5001
    clear = np.minimum(np.abs(share - 0.3), np.abs(share - 0.5)) > 1e-5
    expected = ((share >= 0.3) & (share < 0.5)) | (seen < 0.5)
    np.testing.assert_array_equal(read(config, "ignore_mask")[clear], expected[clear])
    assert 0 < expected.mean() < 1
    manifest = json.loads(Path(str(Location.parse(config.root) / "segments/tiny/labels/manifest.json")).read_text())
    source = manifest["inputs"]["source"]
    assert source["digest"] == json.loads(Path(str(fine / "manifest.json")).read_text())["digest"]
    assert (source["of_segment"], source["scale_yx"], source["resampling"]) == ("fine", [2.0, 2.0], "area")
    assert manifest["config"]["ignore"]["uncertain"] == [0.3, 0.5]
    assert manifest["config"]["soft"]
    shown = cv2.imread(str(Location.parse(config.root) / "segments/tiny/labels/preview.png"), cv2.IMREAD_UNCHANGED)
    assert np.abs(shown[:, :210] - share * 255).max() <= 0.5001


def test_a_coarser_map_at_an_address_gives_the_nearest_value_however_it_is_cut(configure, tiny_segment, tmp_path):
    store_picture(tmp_path / "elsewhere", "tiny", "mask", np.ones(COARSE.shape))
    folder = store_map(tmp_path / "elsewhere", "tiny", "net", COARSE, voxel_size_um=16.0)
    config = configure(from_map=folder.uri, band=0)
    assert "0.5 of the map's pixels per pixel, resampled by nearest" in describe(config)
    run(config, RunContext())
    np.testing.assert_array_equal(read(config), np.rint(COARSE.repeat(2, 0).repeat(2, 1) * np.float32(255)))
    assert not read(config, "ignore_mask").any()  # only what the map did not see


def test_a_surface_or_map_that_cannot_be_carried_is_refused_by_name(configure, fine, tiny_segment):
    root = tiny_segment.root
    with pytest.raises(DataError, match="expected a finished map at .*nothing is there"):
        make_plan(configure(from_map="fine/other"))
    with pytest.raises(ConfigError, match="image does not go with from_map"):
        make_plan(configure(image="picture.png"))
    with pytest.raises(ConfigError, match="expected a band inside 0 to 1, got -0.05 to 0.85 around its threshold 0.4"):
        make_plan(configure(band=0.45))
    with pytest.raises(ConfigError, match="band belongs to from_map"):
        configure(band=0.1, ignore={"uncertain": [0.2, 0.3]})
    store_map(root, "fine", "ranked", FINE, voxel_size_um=4.0, method="ranks")
    with pytest.raises(DataError, match="map fine/ranked: expected probabilities, got ranks"):
        make_plan(configure(from_map="fine/ranked"))
    store_map(root, "fine", "look", FINE, voxel_size_um=4.0, box=[0, 0, 10, 10])
    with pytest.raises(DataError, match="expected a whole map, got a quick look"):
        make_plan(configure(from_map="fine/look"))
    store_map(root, "fine", "scaled", FINE, voxel_size_um=5.0)
    with pytest.raises(MismatchError, match=r"expected 1.6 of its pixels per pixel, as 5 and 8 µm say, got 2 from"):
        make_plan(configure(from_map="fine/scaled"))
    store_map(root, "wide", "net", FINE[:280], voxel_size_um=4.0)
    with pytest.raises(DataError, match="expected the mask of its own segment"):
        make_plan(configure(from_map="wide/net"))
    store_picture(root, "wide", "mask", PAPYRUS[:280])
    with pytest.raises(MismatchError, match="expected equal shapes up to one scale, got 280 x 420 px for 150 x 210 px"):
        make_plan(configure(from_map="wide/net"))

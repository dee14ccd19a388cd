"""The folders of the Scroll 5 tools, read as their viewer reads them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.steps.export.folders import ExportFoldersConfig, run
from inkbatch.testing.maps import store_map

MAPS = {start: np.random.default_rng(start).random((150, 90)).astype(np.float16) for start in (5, 6)}


@pytest.fixture
def configure(tmp_path):
    for start, values in MAPS.items():
        store_map(tmp_path / "root", "s", f"w{start}", values, layers=[start, start + 16])

    def make(*names, **changes) -> ExportFoldersConfig:
        values = {"segment": "s", "predictions": names or ("w5", "w6"), "to": str(tmp_path / "out"), **changes}
        return ExportFoldersConfig.checked({"root": str(tmp_path / "root"), **values}, "test")

    return make


def test_their_viewer_finds_one_float_array_per_window(configure, tmp_path):
    run(configure())
    found = sorted(Path(tmp_path / "out/npy_files").glob("*.npy"))
    assert [path.name for path in found] == ["segmentation_layer_5.npy", "segmentation_layer_6.npy"]
    arrays = [np.load(path) for path in found]
    assert {array.dtype.name for array in arrays} == {"float32"}
    for array, values in zip(arrays, MAPS.values(), strict=True):
        np.testing.assert_array_equal(array, values.astype(np.float32))
    np.testing.assert_allclose(np.mean(arrays, axis=0), np.mean(list(MAPS.values()), axis=0), atol=1e-3)


def test_pictures_and_metadata_lie_beside_them(configure, tmp_path):
    run(configure())
    picture = cv2.imread(str(tmp_path / "out/visualizations/segmentation_layer_6.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(picture, np.rint(MAPS[6].astype(np.float64) * 255))
    found = json.loads((tmp_path / "out/run_metadata.json").read_text())
    assert (found["overall_start_layer"], found["overall_end_layer"], found["completed"]) == (5, 6, True)
    assert found["windows"][0] == {"start_layer": 5, "end_layer": 20}


def test_a_prediction_without_a_window_is_named_by_itself(configure, tmp_path):
    store_map(tmp_path / "root", "s", "mean", MAPS[5])
    run(configure("mean"))
    assert (tmp_path / "out/npy_files/segmentation_mean.npy").exists()
    assert json.loads((tmp_path / "out/run_metadata.json").read_text())["windows"] == []


def test_what_would_spoil_their_average_is_refused(configure, tmp_path):
    store_map(tmp_path / "root", "s", "again", MAPS[6], layers=[5, 21])
    with pytest.raises(ConfigError, match="w5 and again would both be segmentation_layer_5"):
        run(configure("w5", "again"))
    store_map(tmp_path / "root", "s", "small", MAPS[6][:50], layers=[7, 23])
    with pytest.raises(MismatchError, match="prediction small"):
        run(configure("w5", "small"))
    assert not (tmp_path / "out").exists()
    run(configure())
    run(configure())  # the same files again do no harm
    with pytest.raises(DataError, match="holds segmentation_layer_6.npy, too"):
        run(configure("w5"))

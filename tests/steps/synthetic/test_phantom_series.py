"""A series of phantoms: drawn from ranges, the same again, and ready to be prepared and built into a dataset."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from inkbatch.data.segments.catalog import Catalog
from inkbatch.data.synthetic.phantom_series import RANGES, PhantomSeriesConfig
from inkbatch.errors import ConfigError, MismatchError
from inkbatch.steps.synthetic.phantom_series import run
from inkbatch.testing.segments import random_papyrus, write_layers

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def material(tmp_path):
    write_layers(tmp_path / "papyrus", random_papyrus((4, 40, 60)))
    letters = np.zeros((200, 300), np.uint8)
    letters[::3] = 255
    cv2.imwrite(str(tmp_path / "letters.png"), letters)
    return tmp_path


def series(material: Path, **changes) -> PhantomSeriesConfig:
    values = {
        "source": str(material / "papyrus"),
        "labels": str(material / "letters.png"),
        "output": str(material / "out"),
        "count": 3,
        "depth_order": "forward",
        "voxel_size_um": 8.0,
        "amplitude": [30, 70],
        "depth_layer": [1, 2],
        "label_scale": [0.8, 1.5],
        "edge_px": [0, 0],
    }
    return PhantomSeriesConfig.checked({**values, **changes}, "test")


def test_each_phantom_has_its_own_letters_and_ink_inside_the_ranges(material):
    config = series(material, count=40)
    drawn = [config.phantom(number, (40, 60), (200, 300)) for number in range(40)]
    for name in RANGES:
        low, high = getattr(config, name)
        values = [getattr(one, name) for one in drawn]
        assert low <= min(values) <= max(values) <= high
        assert len(set(values)) == (1 if low == high else 40)
    assert len({one.label_box for one in drawn}) == 40
    assert len({one.seed for one in drawn}) == 40
    for one in drawn:
        y0, x0, y1, x1 = one.label_box
        assert 0 <= y0 < y1 <= 200
        assert 0 <= x0 < x1 <= 300
        assert (y1 - y0 - 1) * one.label_scale < 40 <= (y1 - y0) * one.label_scale


def test_letters_come_from_the_label_box_alone(material):
    config = series(material, count=30, label_box=[20, 50, 90, 130])
    for number in range(30):
        y0, x0, y1, x1 = config.phantom(number, (40, 60), (200, 300)).label_box
        assert 20 <= y0 < y1 <= 90
        assert 50 <= x0 < x1 <= 130


def test_a_phantom_is_the_same_in_a_longer_series_and_another_with_another_seed(material):
    sizes = (40, 60), (200, 300)
    assert series(material).phantom(2, *sizes) == series(material, count=9).phantom(2, *sizes)
    assert series(material).phantom(2, *sizes) != series(material, seed=1).phantom(2, *sizes)


def test_a_series_writes_phantoms_and_a_catalog_and_goes_on_where_it_stopped(material):
    lines = run(series(material))
    assert lines[-1] == f"catalog: {material / 'out' / 'segments.yaml'}"
    catalog = Catalog.load(str(material / "out" / "segments.yaml"))
    for number in range(3):
        entry = catalog.entry(f"phantom-{number:02d}")
        assert sorted(path.name for path in Path(entry.source).iterdir()) == ["00.tif", "01.tif", "02.tif", "03.tif"]
        assert set(np.unique(cv2.imread(entry.ink_labels, -1))) == {0, 255}
        assert (entry.depth_order, entry.voxel_size_um) == ("forward", 8.0)
    before = (material / "out/phantom-00/phantom.json").stat().st_mtime_ns
    assert "already complete" in run(series(material, count=4))[0]
    assert (material / "out/phantom-00/phantom.json").stat().st_mtime_ns == before
    assert (material / "out/phantom-03/truth.png").exists()


def test_two_series_share_a_folder_and_its_catalog(material):
    run(series(material))
    run(series(material, prefix="other", count=1))
    names = yaml.safe_load((material / "out" / "segments.yaml").read_text())["segments"]
    assert list(names) == ["other-00", "phantom-00", "phantom-01", "phantom-02"]


def test_another_series_under_the_same_ids_is_refused(material):
    run(series(material))
    with pytest.raises(MismatchError, match="other settings"):
        run(series(material, amplitude=[60, 80]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"amplitude": [70, 30]}, r"amplitude: \[70, 30\] runs downwards"),
        ({"label_scale": [0.1, 0.1]}, "needs letters on 400 x 600 px, got 200 x 300"),
        ({"amplitude": [0, 0]}, "amplitude 0 plants no ink"),
        ({"prefix": "a/b"}, "an id is"),
        ({"amplitud": [1, 2]}, "did you mean 'amplitude'"),
    ],
)
def test_a_series_that_cannot_be_planted_is_refused_by_name(material, changes, words):
    with pytest.raises(ConfigError, match=words):
        run(series(material, **changes))


@pytest.mark.parametrize("part", ["train", "validation"])
def test_the_demos_series_never_shows_the_demos_pixels_or_letters(part):
    config = PhantomSeriesConfig.load(str(REPOSITORY / "jobs" / "demo" / f"phantoms-{part}.yaml"))
    demo = json.loads((REPOSITORY / "inkbatch/demo/phantom.json").read_text())["config"]
    for place in (config.source, config.labels):  # paths count from the file
        assert REPOSITORY / "scripts" in Path(str(place)).resolve().parents
    for name in ("amplitude", "depth_layer", "width_layers", "crackle", "crackle_px", "edge_px"):
        low, high = getattr(config, name)
        assert low <= demo[name] <= high


def test_the_demos_validation_shows_papyrus_that_does_not_train():
    train, validation = (
        PhantomSeriesConfig.load(str(REPOSITORY / "jobs" / "demo" / f"phantoms-{part}.yaml")).source_box
        for part in ("train", "validation")
    )
    assert train[3] <= validation[1]

"""The commands for labels, as a user gives them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from inkbatch.cli import labels as cli_labels
from inkbatch.errors import ConfigError
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.steps.prepare.job import run as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.testing.maps import store_map, store_picture
from inkbatch.testing.segments import random_papyrus, write_layers

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture
def inkbatch():
    app = typer.Typer()
    cli_labels.register(app)

    def call(*arguments) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    return call


@pytest.fixture
def root(tmp_path):
    source = write_layers(tmp_path / "layers", random_papyrus((2, 150, 210)))
    values = {"segment": "tiny", "root": str(tmp_path / "root"), "source": str(source), "shard_px": 64}
    prepare(PrepareConfig(**values, depth_order="forward", voxel_size_um=8.0), RunContext())
    return tmp_path / "root"


def test_labels_are_planned_made_and_replaced(inkbatch, root, tmp_path):
    mask = np.zeros((150, 210), np.uint8)
    mask[10:100, 20:120] = 255  # 9,000 px
    mask[120:130, 10:30] = 255  # 200 px
    cv2.imwrite(str(tmp_path / "labels.png"), mask)
    command = ("labels", "tiny", "--root", root, "--image", tmp_path / "labels.png")
    command += ("--config", REPOSITORY / "jobs/labels.yaml")
    plan = inkbatch(*command, "--dry-run", "--set", "ignore.uncertain=[0.3, 0.7]")
    assert "150 x 210 px" in plan
    assert "0 already counted and 0 already cleaned" in plan
    assert "values from 0.3 to below 0.7" in plan
    assert not (root / "segments/tiny/labels").exists()
    assert "labels: complete" in inkbatch(*command, "--log", "json")
    assert "already complete" in inkbatch(*command, "--dry-run")
    pyramid = Multiscale.open(Location.parse(root / "segments/tiny/ink_labels.zarr"))
    whole = Box(0, 0, 150, 210).slices
    assert np.count_nonzero(pyramid.levels[0].read(whole)) == 9_000
    inkbatch(*command, "--set", "clean.min_area_px=100", "--replace")
    assert np.count_nonzero(pyramid.levels[0].read(whole)) == 9_200


def test_labels_from_another_map_name_one_segment(inkbatch, root):
    store_picture(root, "fine", "mask", np.ones((300, 420)))
    store_map(root, "fine", "net", np.full((300, 420), 0.25), voxel_size_um=4.0)
    plan = inkbatch("labels", "--from-map", "fine/net", "--onto", "tiny", "--root", root, "--dry-run")
    assert "labels tiny: fine/net" in plan
    assert plan == inkbatch("labels", "tiny", "--from-map", "fine/net", "--root", root, "--dry-run")
    for wrong in (("--onto", "tiny"), ("tiny", "--onto", "tiny", "--from-map", "fine/net"), ("--from-map", "fine/net")):
        with pytest.raises(ConfigError, match="goes with --from-map|expected one segment"):
            inkbatch("labels", *wrong, "--root", root)


def test_vessels_are_written_into_folders(inkbatch, tmp_path):
    output = inkbatch("vessels", tmp_path / "vessels", "--count", 4, "--set", "shape_yx=[96, 96]")
    assert "3 train, 1 val, 0 test" in output
    assert len(list((tmp_path / "vessels/train_annotations").iterdir())) == 3


def test_an_export_of_cvat_becomes_pictures(inkbatch, tmp_path):
    folder = tmp_path / "export/SegmentationClass"
    folder.mkdir(parents=True)
    (tmp_path / "export/labelmap.txt").write_text("background:0,0,0::\nletters:255,0,0::\n")
    picture = np.zeros((8, 9, 3), np.uint8)
    picture[2:5, 3:6, 2] = 255
    cv2.imwrite(str(folder / "one.png"), picture)
    assert "one" in inkbatch("import-cvat", tmp_path / "export", tmp_path / "out", "--ink", "letters")
    written = cv2.imread(str(tmp_path / "out/one.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(written, picture[..., 2])

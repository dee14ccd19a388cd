"""The commands for finished predictions, as a user gives them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from inkbatch.cli import maps as cli_ensemble
from inkbatch.errors import ConfigError
from inkbatch.testing.maps import store_map, store_picture

REPOSITORY = Path(__file__).parent.parent.parent
SHAPE = (150, 210)
INK = np.zeros(SHAPE, bool)
INK[30:70, 20:120] = INK[90:130, 60:160] = True


@pytest.fixture
def inkbatch(monkeypatch, tmp_path):
    app = typer.Typer()
    cli_ensemble.register(app)
    for seed, name in enumerate(("one", "two")):
        noise = np.random.default_rng(seed).normal(0, 0.15 * (seed + 1), SHAPE)
        store_map(tmp_path / "root", "s", name, np.clip(0.3 + 0.4 * INK + noise, 0, 1).astype(np.float16))
    store_picture(tmp_path / "root", "s", "mask", np.full(SHAPE, 255), pooling="max")
    cv2.imwrite(str(tmp_path / "labels.png"), INK.astype(np.uint8) * 255)
    monkeypatch.setenv("INKBATCH_ROOT", str(tmp_path / "root"))

    def call(*arguments) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    return call


MEMBERS = ("--prediction", "one", "--prediction", "two")


def test_predictions_are_planned_combined_and_called_complete(inkbatch, tmp_path):
    command = ("ensemble", "s", *MEMBERS, "--config", REPOSITORY / "jobs/ensemble.yaml")
    assert "mean of 2 predictions" in inkbatch(*command, "--dry-run")
    assert "ensemble: complete" in inkbatch(*command, "--log", "json")
    assert (tmp_path / "root/predictions/s/ensemble-mean/disagreement.zarr").exists()
    assert "already complete" in inkbatch(*command, "--dry-run")


def test_fitted_weights_need_no_more_than_labels(inkbatch, tmp_path):
    inkbatch("ensemble", "s", *MEMBERS, "--fit-weights", "--labels", tmp_path / "labels.png", "--name", "fitted")
    found = json.loads((tmp_path / "root/predictions/s/fitted/weights.json").read_text())
    assert found["weights"]["one"] > found["weights"]["two"]
    text = inkbatch("evaluate", "s", "--name", "fitted", "--labels", tmp_path / "labels.png")
    assert f"{found['threshold']:g} (Dice" in text


def test_what_the_config_says_on_fitting_stays_when_the_option_asks_for_it(inkbatch, tmp_path):
    (tmp_path / "job.yaml").write_text(f"method: odds\nfit: {{metric: dice, labels: {tmp_path / 'labels.png'}}}\n")
    inkbatch("ensemble", "s", *MEMBERS, "--fit-weights", "--config", tmp_path / "job.yaml")
    found = json.loads((tmp_path / "root/predictions/s/ensemble-odds/weights.json").read_text())
    assert found["metric"] == "dice"


def test_weights_come_in_the_order_of_the_predictions(inkbatch, tmp_path):
    inkbatch("ensemble", "s", *MEMBERS, "--method", "weighted-mean", "--weight", "3", "--weight", "1")
    manifest = json.loads((tmp_path / "root/predictions/s/ensemble-weighted-mean/manifest.json").read_text())
    assert manifest["config"]["weights"] == [0.75, 0.25]


def test_one_prediction_is_no_ensemble(inkbatch):
    with pytest.raises(ConfigError, match="expected at least two predictions"):
        inkbatch("ensemble", "s", "--prediction", "one")


def test_two_maps_are_evaluated_side_by_side(inkbatch, tmp_path):
    command = ("evaluate", "s", "--name", "one", "--versus", "two", "--labels", tmp_path / "labels.png")
    command += ("--set", "region_px=32", "--threshold", "0.4", "--threshold", "0.6", "--to", tmp_path / "result")
    assert "one versus two" in inkbatch(*command, "--dry-run")
    text = inkbatch(*command)
    assert "F0.5" in text
    assert "one minus two, 95% interval over 35 blocks" in text
    assert {path.name for path in (tmp_path / "result").iterdir()} >= {"evaluation.json", "regions.csv", "curves.png"}


def test_a_map_is_cleaned_and_handed_on(inkbatch, tmp_path):
    text = inkbatch("clean", "s", "--name", "one", "--denoise", "median", "--min-area-px", "300", "--threshold", "0.5")
    assert "clean: complete" in text
    csv_text = inkbatch("export-rle", "s", "--name", "one-clean", "--to", tmp_path / "out.csv")
    assert "1 rows" in csv_text
    assert (tmp_path / "out.csv").read_text().startswith("Id,Predicted\ns,")
    inkbatch("export-folders", "s", "--prediction", "one", "--prediction", "one-clean", "--to", tmp_path / "folders")
    names = sorted(path.name for path in (tmp_path / "folders/npy_files").iterdir())
    assert names == ["segmentation_one-clean.npy", "segmentation_one.npy"]

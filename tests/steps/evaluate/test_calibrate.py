"""evaluate --calibrate: thresholds of left-out scrolls by a plain reading, and what is refused."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import fbeta_score
from typer.testing import CliRunner

from inkbatch.cli.app import app
from inkbatch.data.maps.calibration import calibrated
from inkbatch.data.maps.scoring import ScoreHistogram
from inkbatch.errors import ConfigError, CorruptDataError, DataError, MismatchError
from inkbatch.io.store.location import Location
from inkbatch.models.bundle import Bundle, bundle_location
from inkbatch.reports.calibrated import calibration_section
from inkbatch.run.job import RunContext
from inkbatch.steps.evaluate.calibrate import CalibrateConfig, run, scrolls_of
from inkbatch.steps.evaluate.job import EvaluateConfig, summary
from inkbatch.steps.evaluate.job import run as evaluate
from inkbatch.steps.infer.job import InferConfig
from inkbatch.steps.infer.job import run as infer
from inkbatch.steps.prepare.job import run as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.testing.faults import Notes
from inkbatch.testing.segments import VOXEL_SIZE_UM, identity_bundle, write_layers
from inkbatch.testing.training import write_labels

PAGE = (Path(__file__).parents[3] / "docs/evaluate.md").read_text(encoding="utf-8")
SHAPE = (48, 64)
SCROLLS = {"A": ("a1", "a2"), "B": ("b1",), "C": ("c1",)}
BRIGHTNESS = {"a1": 90, "a2": 100, "b1": 130, "c1": 60}  # of ink; each scroll wants a threshold of its own


def made(segment: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([*segment.encode()])
    ink = cv2.GaussianBlur(rng.standard_normal(SHAPE), (0, 0), 4) > 0.02
    layer = np.clip(rng.normal(40 + ink * (BRIGHTNESS[segment] - 40), 20), 1, 255).astype(np.uint8)
    return layer, ink


def f05(truth: np.ndarray, found: np.ndarray) -> float:
    hits = np.count_nonzero(truth & found)
    return 1.25 * hits / (np.count_nonzero(found) + 0.25 * np.count_nonzero(truth))


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("calibrate")
    root = str(place / "root")
    identity_bundle(place / "bundle")
    for segment in BRIGHTNESS:
        layer, ink = made(segment)
        source = write_layers(place / "sources" / segment, np.stack([layer] * 3))
        values = {"segment": segment, "root": root, "source": str(source), "depth_order": "forward"}
        prepare(PrepareConfig.checked({**values, "voxel_size_um": VOXEL_SIZE_UM}, "test"), RunContext())
        write_labels(root, segment, ink.astype(np.uint8) * 255)
        infer(InferConfig(segment=segment, root=root, bundle=str(place / "bundle"), name="map"), RunContext())
        evaluate(EvaluateConfig(segment=segment, root=root, region_px=32), RunContext())
    return place


@pytest.fixture
def place(template, tmp_path) -> Path:
    shutil.copytree(template, tmp_path / "all")
    return tmp_path / "all"


def config(place: Path, scrolls=SCROLLS, **changes) -> CalibrateConfig:
    return CalibrateConfig(calibrate=dict(scrolls), root=str(place / "root"), to=str(place / "bundle"), **changes)


def stored(place: Path) -> dict:
    return json.loads((place / "bundle" / "calibration.json").read_text())


def test_each_scroll_is_scored_at_the_threshold_that_is_best_on_the_others(place):
    list(run(config(place), RunContext()))
    found = stored(place)
    maps = {name: [(made(one)[0] / 255).astype(np.float16) for one in listed] for name, listed in SCROLLS.items()}
    truth = {name: np.concatenate([made(one)[1].ravel() for one in listed]) for name, listed in SCROLLS.items()}
    flat = {name: np.concatenate([one.ravel() for one in listed]).astype(float) for name, listed in maps.items()}
    tried = np.unique(np.concatenate(list(flat.values())))
    curves = {name: np.array([f05(truth[name], flat[name] >= at) for at in tried]) for name in SCROLLS}
    for row in found["scrolls"]:
        others = np.mean([curve for name, curve in curves.items() if name != row["scroll"]], axis=0)
        own = fbeta_score(truth[row["scroll"]], flat[row["scroll"]] >= row["threshold"], beta=0.5)
        best = int(np.argmax(others))
        low = tried[best - 1] if best else -1
        assert low < row["threshold"] <= tried[best]
        assert row["f_beta"] == pytest.approx(own, abs=1e-12)
        assert row["best_f_beta"] == pytest.approx(curves[row["scroll"]].max(), abs=1e-12)
    thresholds = [row["threshold"] for row in found["scrolls"]]
    assert len(set(thresholds)) > 1
    assert found["spread"] == pytest.approx(np.std(thresholds, ddof=1))
    best = int(np.argmax(np.mean(list(curves.values()), axis=0)))
    assert tried[best - 1] < found["threshold"] <= tried[best]


def test_infer_and_evaluate_take_the_threshold_and_say_where_it_is_from(place):
    list(run(config(place), RunContext()))
    threshold = stored(place)["threshold"]
    root, bundle, notes = str(place / "root"), str(place / "bundle"), Notes()
    infer(InferConfig(segment="a1", root=root, bundle=bundle, name="new"), RunContext(reporter=notes))
    said = f"threshold {threshold:.4f}, best F0.5 over 3 scrolls (A, B, C)"
    assert any(said in text for text in notes.said)
    report = evaluate(EvaluateConfig(segment="a1", root=root, name="new", region_px=32), RunContext())
    assert any("fitted on best F0.5 over 3 scrolls (A, B, C)" in line for line in summary(report.location))
    assert "over 3 scrolls (A, B, C)" in (place / "root/predictions/a1/new/evaluation/report.html").read_text()
    found = json.loads((place / "root/predictions/a1/new/evaluation/evaluation.json").read_text())
    assert threshold in [at["threshold"] for at in found["maps"][0]["at"]]
    opened = Bundle.open(bundle_location(bundle))
    assert opened.document.edited() == []
    assert Bundle.open(bundle_location(bundle), {"threshold": 0.9}).contract.threshold == 0.9


def test_the_command_line_shows_the_table_and_keeps_what_is_of_other_evaluations(place):
    line = next(line for line in PAGE.splitlines() if line.startswith("inkbatch evaluate --calibrate"))
    names = {"s1": "a1", "s2": "a2", "s3": "b1", "s4": "c1"}
    words = shlex.split(re.sub(r"\bs\d\b", lambda found: names[found[0]], line))[1:]
    assert sorted(words[2::2]) == ["PHerc0172=b1", "PHerc0332=a1,a2", "PHercParis4=c1"]
    one = CliRunner().invoke(app, [*words, "--root", str(place / "root"), "--to", str(place / "bundle")])
    assert one.exit_code == 0, one.output
    assert "mean F0.5 of left-out scrolls" in one.output
    assert "does not say which scrolls trained it" in one.output
    with pytest.raises(MismatchError, match="is of other evaluations"):
        list(run(config(place, {"A": ("a1",), "B": ("b1",)}), RunContext()))
    list(run(config(place, {"A": ("a1",), "B": ("b1",)}), RunContext(replace=True)))
    assert len(stored(place)["scrolls"]) == 2


def test_a_page_shows_each_scroll_at_the_threshold_of_the_others_and_at_its_own_best(place):
    bundle = Location.parse(place / "bundle")
    weights = Bundle.open(bundle).document.weights_sha256
    assert calibration_section(bundle, weights) == ()
    list(run(config(place), RunContext()))
    (section,) = calibration_section(bundle, weights)
    chart, table = section.parts
    found = stored(place)
    assert [row[0] for row in table.rows] == ["A", "B", "C", "all"]
    for row, one in zip(table.rows, found["scrolls"], strict=False):
        assert [float(cell) for cell in row[3:]] == pytest.approx(
            [one[key] for key in ("threshold", "f_beta", "best_threshold", "best_f_beta")], abs=1e-4
        )
    assert float(table.rows[-1][3]) == pytest.approx(found["threshold"], abs=1e-4)
    assert f"{found['spread']:.4f}" in table.caption
    assert chart.alt.startswith("F0.5 of 3 scrolls, left out and at best: A 0.")
    with pytest.raises(DataError, match="was made with weights"):
        calibration_section(bundle, "0" * 64)


def test_without_to_the_bundle_is_the_one_that_made_the_maps(place, template):
    before = template / "bundle" / "calibration.json"
    try:
        list(run(config(place).model_copy(update={"to": None}), RunContext()))
        assert before.exists()
    finally:
        before.unlink(missing_ok=True)


def test_one_scroll_alone_is_refused(place):
    with pytest.raises(DataError, match="expected two scrolls or more, got 1"):
        list(run(config(place, {"A": ("a1", "a2")}), RunContext()))
    assert not (place / "bundle" / "calibration.json").exists()


def test_a_segment_that_was_not_evaluated_is_refused(place):
    shutil.rmtree(place / "root/predictions/b1/map/evaluation")
    with pytest.raises(DataError, match="run inkbatch evaluate b1 --name map"):
        list(run(config(place), RunContext()))


def edit(file: Path, change) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def test_a_segment_that_trained_the_network_is_refused(place):
    def train(values):
        values["inputs"]["trained_on"] = {"train": [[0, 0, 16, 16]]}

    edit(place / "root/predictions/b1/map/manifest.json", train)
    with pytest.raises(DataError, match="pixels of segment b1 trained the network"):
        list(run(config(place), RunContext()))


def test_a_scroll_that_trained_the_network_is_refused(place):
    pixels = [{"segment": "b0", "scroll": "B", "shape_yx": [8, 8], "train": [[0, 0, 8, 8]]}]
    edit(place / "bundle/bundle.json", lambda values: values.setdefault("training", {}).update(pixels=pixels))
    with pytest.raises(DataError, match="a segment of scroll B trained the network"):
        list(run(config(place), RunContext()))
    assert not any("careful" in line for line in run(config(place, {"A": ("a1",), "C": ("c1",)}), RunContext()))


def test_maps_of_two_networks_are_refused(place):
    edit(
        place / "root/predictions/c1/map/manifest.json", lambda values: values["inputs"].update(weights_sha256="0" * 64)
    )
    with pytest.raises(MismatchError, match="expected maps of one network"):
        list(run(config(place), RunContext()))


def test_a_calibration_of_other_weights_or_a_damaged_one_is_refused(place):
    list(run(config(place), RunContext()))
    file = place / "bundle/calibration.json"
    edit(file, lambda values: values.update(weights_sha256="0" * 64))
    with pytest.raises(DataError, match="was made with weights 000000000000"):
        Bundle.open(Location.parse(place / "bundle"))
    edit(file, lambda values: values.update(threshold=2))
    with pytest.raises(CorruptDataError, match="calibration cannot be read"):
        Bundle.open(Location.parse(place / "bundle"))


@pytest.mark.parametrize(("texts", "words"), [(["A"], "expected SCROLL="), (["A=s", "B=s"], "named twice")])
def test_scrolls_are_read_strictly(texts, words):
    with pytest.raises(ConfigError, match=words):
        scrolls_of(texts)


def test_a_scroll_without_ink_is_refused():
    found = ScoreHistogram()
    found.add(np.full((2, 2), 0.5), np.zeros((2, 2), bool), np.ones((2, 2), bool))
    with pytest.raises(DataError, match="scroll A has no ink"):
        calibrated({"A": {"s": found}, "B": {"t": found}}, 0.5, "w", {})

"""Pages of build-dataset, train, ensemble, evaluate and probe say what their files say."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
import yaml

from inkbatch.data.datasets.index import DatasetIndex
from inkbatch.data.maps.calibration import NAME, calibrated
from inkbatch.data.maps.scoring import ScoreHistogram
from inkbatch.io.store.location import Location
from inkbatch.reports.page import Chart, Code, Gallery, Picture, Section, Table
from inkbatch.reports.stored import root_of
from inkbatch.run.finished import open_run
from inkbatch.run.job import RunContext
from inkbatch.run.record import REPORT_NAME
from inkbatch.steps.dataset import page as build_dataset
from inkbatch.steps.ensemble import page as ensemble
from inkbatch.steps.report import job as report
from inkbatch.steps.report.registry import PAGES, write_report
from inkbatch.steps.train import job as step_train
from inkbatch.steps.train import page as train
from inkbatch.testing.reports import MAKERS, faults_of_page
from inkbatch.testing.training import tiny_dataset, tiny_run
from inkbatch.training.settings import TrainConfig


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run of a job; each is made once."""
    made: dict[str, Location] = {}

    def of(job) -> Location:
        if job not in made:
            made[job] = MAKERS[job](tmp_path_factory.mktemp(job))
        return made[job]

    return of


@pytest.fixture(scope="module")
def page_of(finished):
    def make(job):
        folder = finished(job)
        return PAGES[job](open_run(str(folder)), root_of(folder))

    return make


@pytest.mark.parametrize("job", ["train", "soup"])
def test_the_page_of_a_calibrated_bundle_shows_scrolls_that_were_left_out(finished, page_of, job):
    bundle = finished(job) / "bundle"
    scrolls = {name: {f"{name}1": ScoreHistogram()} for name in ("a", "b")}
    for seed, counts in enumerate(scrolls.values()):
        ink = np.indices((8, 8))[0] > 3
        values = np.random.default_rng(seed).random((8, 8)).astype(np.float16) / 2 + ink / np.float16(2)
        next(iter(counts.values())).add(values, ink, np.ones_like(ink), "a map")
    weights = (bundle / "bundle.json").read_mapping()["weights_sha256"]
    assert "Threshold over several scrolls" not in {section.title for section in page_of(job).sections}
    (bundle / NAME).write_json(calibrated(scrolls, 0.5, weights, {}).model_dump(mode="json"))
    try:
        sections = {section.title: section for section in page_of(job).sections}
    finally:
        (bundle / NAME).delete()
    table = sections["Threshold over several scrolls"].parts[1]
    assert [row[:3] for row in table.rows[:2]] == [("a", "a1", "64"), ("b", "b1", "64")]


def test_a_page_is_made_again_without_torch():
    script = "import sys, inkbatch.cli.report, inkbatch.steps.report.registry; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "False\n"


def figures(page) -> dict[str, str]:
    return {figure.label: figure.value for figure in page.figures}


def section(page, title) -> Section:
    return next(one for one in page.sections if one.title == title)


def part(page, title, kind):
    return next(one for one in section(page, title).parts if isinstance(one, kind))


@contextmanager
def changed(place: Location, changes):
    """A stored document with other values, inside the block."""
    kept = place.read_bytes()
    place.write_json({**place.read_json(), **changes})
    try:
        yield
    finally:
        place.write_bytes(kept)


def words(folder) -> str:
    return " ".join(unescape((folder / "report.html").read_bytes().decode()).split())


@pytest.mark.parametrize("job", ["infer", "probe", "preflight", "ensemble", "evaluate", "clean"])
def test_every_page_repeats_what_the_import_of_the_bundle_warned_of(job, finished):
    folder = finished(job)
    run = open_run(str(folder))
    inputs = {**run.manifest["inputs"], "warnings": ["its answers do not move"]}
    page = PAGES[job](replace(run, manifest={**run.manifest, "inputs": inputs}), root_of(folder))
    assert page.warnings[0] == "The bundle was imported with a warning: its answers do not move."


def test_a_dataset_shows_its_samples_with_labels_and_who_is_tested(page_of, finished):
    page, index = page_of("build-dataset"), DatasetIndex.open(finished("build-dataset"))
    samples = [one for one in index.samples if one.split == "validation"]
    assert figures(page)["validation"] == str(len(samples))
    mosaic = part(page, "Samples and their labels", Gallery)
    assert len(mosaic.parts) == 8
    for picture in mosaic.parts:
        name = picture.caption.split(" · ")[0]
        sample = next(one for one in index.samples if one.id == name)
        outlined = (picture.pixels == build_dataset.INK).all(axis=2).any()
        assert outlined == (sample.ink_share > 0), name
    rows = {row[0]: row for row in part(page, "Splits", Table).rows}
    assert rows["training"][1] == str(len(index.samples) - len(samples))
    assert any("Only segment b validates" in text for text in page.warnings)
    assert any("No licence is stated" in text for text in page.warnings)


def test_training_shows_the_figures_of_its_bundle(page_of, finished):
    page, folder = page_of("train"), finished("train")
    document = (folder / "bundle/bundle.json").read_json()
    scores = document["metrics"]["validation"]["overall"]
    shown = figures(page)
    for name, label in train.SCORES.items():
        assert shown[label] == f"{scores[name]:.4f}"
    assert shown["threshold"] == f"{document['contract']['threshold']:.4f}"
    assert "--bundle ROOT/runs/first/bundle" in part(page, "Use it", Code).text


def test_training_shows_validation_maps_of_the_kept_epoch_and_curves(page_of, finished):
    page = page_of("train")
    assert [type(one) for one in page.hero] == [Picture, Chart, Chart]
    assert page.hero[0].alt.startswith("Validation map of s1")
    rows = list(csv.DictReader((finished("train") / "metrics.csv").read_bytes().decode().splitlines()))
    epochs = [row for row in rows if row["segment"] == "overall"]
    table = part(page, "Epoch by epoch", Table)
    assert [row[0] for row in table.rows] == [row["epoch"] for row in epochs] == ["1", "2"]
    assert table.strong + 1 == (finished("train") / "complete.json").read_json()["best_epoch"]
    assert [row[0] for row in part(page, "Scores by area", Table).rows] == ["overall", "s1"]


def test_training_tells_its_data_without_the_dataset(page_of):
    rows = dict(part(page_of("train"), "Data", Table).rows)
    assert rows["training samples"].startswith("25 from 1 segment, ")
    assert rows["dataset"].href == "../../datasets/tiny/README.md"


def test_the_configuration_of_a_training_makes_the_run_again(page_of, finished):
    shown = yaml.safe_load(part(page_of("train"), "Configuration", Code).text)
    again = TrainConfig.checked({**shown, "root": "elsewhere"}, "page")
    kept = (finished("train") / "manifest.json").read_json()["config"]
    assert json.loads(json.dumps(again.result_settings())) == kept


def test_training_of_an_older_run_is_shown_without_its_data(finished, page_of):
    place = finished("train") / "data.json"
    kept = place.read_bytes()
    place.delete()
    try:
        assert "Data" not in [one.title for one in page_of("train").sections]
    finally:
        place.write_bytes(kept)


def test_names_are_shown_and_not_obeyed(finished):
    names = {"dataset": "<script>alert(1)</script>", "card": "/secret/README.md"}
    with changed(finished("train") / "data.json", names):
        data = write_report(finished("train")).read_bytes().decode()
    write_report(finished("train"))
    assert "<script>" not in data
    assert "&lt;script&gt;" in data
    assert 'href="/secret' not in data


def test_an_ensemble_shows_merged_map_disagreement_and_weights(page_of, finished):
    page, folder = page_of("ensemble"), finished("ensemble")
    weights = (folder / "weights.json").read_json()
    assert [type(one) for one in page.hero] == [Picture, Picture]
    assert figures(page)["F0.5"] == f"{weights['score']:.3f}"
    rows = part(page, "Members", Table).rows
    assert [row[1] for row in rows] == [f"{weights['weights'][name]:.2f}" for name in ("good", "poor")]
    assert [row[0].href for row in rows] == ["../good/report.html", "../poor/report.html"]
    assert any("fitted on labels" in text for text in page.warnings)


def test_an_ensemble_leads_to_where_its_members_disagree(page_of, finished, monkeypatch):
    monkeypatch.setattr(ensemble, "PLACE_PX", 32)
    page = page_of("ensemble")
    spread = ensemble.pixels(finished("ensemble") / "disagreement.png").astype(float)
    sums = spread[:96, :128].reshape(3, 32, 4, 32).mean(axis=(1, 3))
    row, column = np.unravel_index(np.argmax(sums), sums.shape)
    first = part(page, "Look here first", Gallery).parts[0]
    assert first.caption.startswith(f"From row {row * 32}, column {column * 32}:")


def test_an_evaluation_shows_its_scores_and_where_it_fails(page_of, finished):
    page, folder = page_of("evaluate"), finished("evaluate")
    found, drawn = (folder / "evaluation.json").read_json(), (folder / "pictures.json").read_json()
    assert figures(page)["best F0.5"] == f"{found['maps'][0]['best']['f_beta']:.3f}"
    assert [type(one) for one in page.hero] == [*[Picture] * 4, *[Chart] * 3]
    worst = part(page, "Where most pixels are wrong", Gallery).parts
    assert len(worst) == len(drawn["worst"])
    assert f"{drawn['worst'][0]['missed_px']:,} px missed" in worst[0].caption
    assert len(part(page, "Region by region", Gallery).parts) == 2
    assert figures(page)["AUC"] == f"{found['maps'][0]['auc']:.3f}"
    assert figures(page)["alarms at recall 0.8"] == f"{found['maps'][0]['alarms_at_recall_0.8']:.3f}"


def test_an_evaluation_of_two_maps_says_which_is_better(page_of, finished):
    found = (finished("evaluate") / "evaluation.json").read_json()
    clear = all(score["low"] > 0 for score in found["comparison"]["scores"].values())
    verdict = section(page_of("evaluate"), "Which map is better").parts[0].text
    assert clear
    assert verdict == "good is better by every score."
    assert any("rough intervals" in text for text in page_of("evaluate").warnings)


def test_labels_made_from_a_prediction_are_warned_of(finished, page_of):
    with changed(finished("evaluate") / "evaluation.json", {"labels_made_from": "poor"}):
        warnings = page_of("evaluate").warnings
    assert any("agrees with that prediction, not with the papyrus" in text for text in warnings)


def test_a_probe_shows_answers_lift_and_verdict(page_of, finished):
    page, found = page_of("probe"), (finished("probe") / "verdict.json").read_json()
    assert [type(one) for one in page.hero] == [Chart, Chart, Chart]
    assert figures(page)["verdict"] == found["verdict"]
    assert not found["usable"]
    assert any("Do not use this bundle on this segment" in text for text in page.warnings)
    assert "refuses this segment" in page.repeat_note
    broken = [row.what for row in page.contract if not row.kept]
    assert broken == ["depth order", "layers"]


def test_a_sweep_of_one_window_has_no_map_of_ranks(finished, page_of):
    assert sum((finished("sweep") / "sweep.json").read_json()["evidence"]["judged"]) == 1
    title = "Windows, the most unlike themselves at other depths first"
    assert Picture not in [type(one) for one in section(page_of("sweep"), title).parts]


def test_a_usable_probe_is_praised(finished, page_of):
    with changed(finished("probe") / "verdict.json", {"usable": True, "verdict": "clear", "displaced_by": 0}):
        page = page_of("probe")
    assert page.warnings == ()
    assert all(row.kept for row in page.contract)


@pytest.mark.parametrize("job", ["build-dataset", "train", "ensemble", "evaluate", "probe"])
def test_every_chart_says_its_main_figures_to_those_who_do_not_see_it(page_of, job):
    for chart in [one for one in page_of(job).hero if isinstance(one, Chart)]:
        assert re.search(r"\d", chart.alt), chart.caption
        assert chart.svg.startswith("<svg")


@pytest.mark.parametrize("job", ["build-dataset", "train", "ensemble", "evaluate", "probe"])
def test_the_sentence_is_one_and_the_page_shows_it(page_of, finished, job):
    sentence = page_of(job).sentence
    assert sentence.endswith(".")
    assert ". " not in sentence
    assert " ".join(sentence.split()) in words(finished(job))


@pytest.mark.parametrize("job", ["build-dataset", "ensemble", "evaluate"])  # whose inputs are equal anywhere
def test_pages_of_equal_runs_differ_in_their_times_alone(finished, tmp_path, job):
    again = MAKERS[job](tmp_path / "again")
    for name in finished(job).names():
        if name.startswith("run"):
            (again / name).write_bytes((finished(job) / name).read_bytes())
    here, there = words(finished(job)), write_report(again).read_bytes().decode()
    elsewhere = " ".join(unescape(there).split())
    for place in (finished(job), again):
        here, elsewhere = (text.replace(str(root_of(place)), "ROOT") for text in (here, elsewhere))
    assert here == elsewhere


def test_folds_have_a_page_over_all_of_them_and_report_makes_it_anew(tmp_path):
    tiny_dataset(tmp_path / "root", folds=3, name="folded")
    asked = tiny_run(tmp_path / "root", dataset="folded", folds="all", epochs=2)
    folder = step_train.run(TrainConfig.checked(asked, "test"), RunContext()).location
    place = folder / REPORT_NAME
    before = place.read_bytes()
    assert faults_of_page(before) == []
    text = before.decode()
    for fold in range(3):
        assert f'<a href="fold-{fold}/{REPORT_NAME}">' in text
        assert (folder / f"fold-{fold}" / REPORT_NAME).exists()
    rows = {row["fold"]: row for row in csv.DictReader((folder / "folds.csv").read_bytes().decode().splitlines())}
    assert f"{float(rows['mean']['f05']):.3f} ± {float(rows['std']['f05']):.3f}" in text
    assert text.count("<svg") == 1 + 2 * 3
    for named in ({"run": folder.uri}, {"run": "first", "root": str(tmp_path / "root")}):
        place.delete()
        assert len(list(report.run(report.ReportConfig(**named)))) == 4
        assert place.read_bytes() == before

"""evaluate: what is written is what independent libraries find in the same pixels, however the work is shared out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import zarr
from sklearn import metrics

from inkbatch.errors import ConfigError, CorruptDataError, DataError, MismatchError, NoLabelsError, Preempted
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.steps.evaluate.job import EvaluateConfig, describe, make_plan, run, summary
from inkbatch.testing.evaluation import COUNTED, GOOD, IGNORED, INK, MASK, POOR, SHAPE
from inkbatch.testing.faults import Notes, preempted_context, stored_bytes
from inkbatch.testing.maps import store_map, store_picture


def document(report) -> dict:
    return json.loads(Path(str(report.location / "evaluation.json")).read_text())


def table(report, name) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(str(report.location / name)).read_text().splitlines()))


def test_scores_are_those_of_scikit_learn_within_the_mask_and_outside_the_ignore_mask(configure):
    report = run(configure(), RunContext())
    found = document(report)
    p, t = GOOD[COUNTED].astype(np.float64), INK[COUNTED]
    one = found["maps"][0]
    assert (found["counted_px"], found["ink_px"]) == (COUNTED.sum(), t.sum())
    assert one["auc"] == pytest.approx(metrics.roc_auc_score(t, p), abs=1e-12)
    assert one["average_precision"] == pytest.approx(metrics.average_precision_score(t, p), abs=1e-12)
    alarms, recalls, thresholds = metrics.roc_curve(t, p, drop_intermediate=False)
    first = int(np.argmax(recalls >= 0.8))
    assert one["alarms_at_recall_0.8"] == pytest.approx(alarms[first], abs=1e-12)
    assert one["threshold_at_recall_0.8"] == pytest.approx(thresholds[first], abs=1e-12)
    assert one["psnr_db"] == pytest.approx(-10 * np.log10(np.mean((p - t) ** 2)), abs=1e-9)
    assert [at["threshold"] for at in one["at"]] == [0.5, 0.6]
    for at in [*one["at"], one["best"]]:
        ink = p >= at["threshold"]
        assert at["f_beta"] == pytest.approx(metrics.fbeta_score(t, ink, beta=0.5), abs=1e-12)
        assert at["dice"] == pytest.approx(metrics.f1_score(t, ink), abs=1e-12)
        assert at["iou"] == pytest.approx(metrics.jaccard_score(t, ink), abs=1e-12)
    assert one["best"]["f_beta"] >= max(metrics.fbeta_score(t, p >= at, beta=0.5) for at in np.linspace(0, 1, 50))


def test_every_region_has_its_own_scores_and_they_add_up(configure):
    report = run(configure(), RunContext())
    rows = table(report, "regions.csv")
    assert sum(int(row["counted_px"]) for row in rows) == COUNTED.sum()
    assert len({(row["y0"], row["x0"]) for row in rows}) == len(rows) == 5 * 6
    best = document(report)["maps"][0]["best"]["threshold"]
    for row in rows:
        window = np.s_[int(row["y0"]) : int(row["y1"]), int(row["x0"]) : int(row["x1"])]
        inside = COUNTED[window]
        p, t = GOOD[window][inside].astype(np.float64), INK[window][inside]
        assert int(row["ink_px"]) == t.sum()
        assert int(row["found_px"]) == (p >= best).sum()
        if not t.any():
            assert (row["f_beta"], row["auc"]) == ("", "")
            continue
        assert float(row["f_beta"]) == pytest.approx(metrics.fbeta_score(t, p >= best, beta=0.5), abs=1e-12)
        if not t.all():
            assert float(row["auc"]) == pytest.approx(metrics.roc_auc_score(t, p), abs=1e-12)


def test_tables_and_plots_are_there(configure):
    report = run(configure(bins=10), RunContext())
    bins = table(report, "calibration.csv")
    assert len(bins) == 10
    assert sum(int(row["pixels"]) for row in bins) == COUNTED.sum()
    exact = GOOD.astype(np.float64)
    inside = (exact >= 0.3) & (exact < 0.4) & COUNTED
    assert float(bins[3]["mean_probability"]) == pytest.approx(exact[inside].mean(), abs=1e-9)
    assert float(bins[3]["ink_share"]) == pytest.approx(INK[inside].mean(), abs=1e-9)
    curve = table(report, "curves.csv")
    assert len(curve) == 101
    middle = curve[50]
    assert float(middle["precision"]) == pytest.approx(metrics.precision_score(INK[COUNTED], GOOD[COUNTED] >= 0.5))
    for picture in ("curves.png", "regions.png"):
        image = cv2.imread(str(report.location / picture))
        assert min(image.shape[:2]) > 100
        assert image.std() > 10
    text = "\n".join(summary(report.location))
    assert "alarms on blank ground" in text
    assert "best F0.5" in text
    assert "calibration error" in text


def test_two_maps_are_compared_on_the_same_pixels(configure):
    report = run(configure(versus="poor"), RunContext())
    assert report.location.name == "evaluation-versus-poor"
    found = document(report)
    scores = found["comparison"]["scores"]
    assert set(scores) == {"f_beta_at_0.5", "f_beta_at_0.6", "f_beta_at_its_best", "average_precision", "auc"}
    for name in ("auc", "average_precision"):
        assert scores[name]["first"] == found["maps"][0][name]
        assert scores[name]["second"] == found["maps"][1][name]
        assert scores[name]["low"] > 0
    assert found["comparison"]["blocks"] == 30
    assert len(table(report, "regions.csv")) == 60
    assert "good is better" in "\n".join(summary(report.location))
    alone = document(run(configure(), RunContext()))
    assert alone["maps"][0] == found["maps"][0]


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("versus", [None, "poor"])
def test_shards_in_any_order_write_the_bytes_of_a_whole_run(configure, tmp_path, count, versus):
    config = configure(versus=versus)
    whole = run(config, RunContext())
    expected = stored_bytes(whole.location.path)
    Path(whole.location.path).rename(tmp_path / "whole")
    reports = [run(config, RunContext(shard=ShardSpec(i, count))) for i in reversed(range(count))]
    assert [report.complete for report in reports].index(True) == count - 1
    assert stored_bytes(whole.location.path) == expected


@pytest.mark.parametrize("after", [0, 3])
def test_a_stopped_evaluation_goes_on_with_what_is_missing(configure, tmp_path, after):
    whole = run(configure(), RunContext())
    expected = stored_bytes(whole.location.path)
    Path(whole.location.path).rename(tmp_path / "whole")
    with pytest.raises(Preempted):
        run(configure(), preempted_context(after))
    done = len((whole.location / "done").names())
    report = run(configure(), RunContext())
    assert (report.skipped, report.stored) == (done, report.units - done)
    assert stored_bytes(whole.location.path) == expected


def test_units_of_another_size_find_the_same_scores(configure, monkeypatch):
    small = document(run(configure(), RunContext()))
    monkeypatch.setattr("inkbatch.data.maps.comparison.UNIT_PX", 512)
    assert document(run(configure(to=str(configure().root) + "/other"), RunContext())) == small


def test_small_regions_make_small_units(configure, monkeypatch):
    monkeypatch.setattr("inkbatch.data.maps.comparison.UNIT_PX", 512)
    monkeypatch.setattr("inkbatch.data.maps.comparison.MOST_REGIONS_YX", 2)
    plan = make_plan(configure(region_px=32))
    assert max(len(plan.comparison.regions(unit)) for unit in plan.comparison.units) == 4
    assert {unit.write_box.shape for unit in plan.comparison.units} >= {(64, 64)}
    plan.comparison.close()


def test_an_area_counts_alone(configure):
    found = document(run(configure(area=(10, 20, 75, 130)), RunContext()))
    inside = np.zeros(SHAPE, bool)
    inside[10:75, 20:130] = True
    inside &= COUNTED
    assert found["counted_px"] == inside.sum()
    expected = metrics.roc_auc_score(INK[inside], GOOD[inside].astype(float))
    assert found["maps"][0]["auc"] == pytest.approx(expected, abs=1e-12)


def test_labels_can_be_a_picture_and_the_ignore_mask_left_out(configure, tmp_path):
    cv2.imwrite(str(tmp_path / "labels.png"), (~INK).astype(np.uint8))
    config = configure(labels=str(tmp_path / "labels.png"), white=1, ignore="none")
    found = document(run(config, RunContext()))
    assert (found["counted_px"], found["ink_px"]) == (MASK.sum(), (MASK & ~INK).sum())
    cv2.imwrite(str(tmp_path / "ignore.png"), (~IGNORED).astype(np.uint8))
    other = configure(ignore=str(tmp_path / "ignore.png"), to=str(tmp_path / "other"))
    assert document(run(other, RunContext()))["counted_px"] == (MASK & IGNORED).sum()


def test_a_picture_of_labels_that_changes_between_two_units_stops_the_evaluation(configure, tmp_path, no_overlap):
    cv2.imwrite(str(tmp_path / "labels.png"), INK.astype(np.uint8))
    context = RunContext()
    context.reporter.unit = lambda name, facts: cv2.imwrite(str(tmp_path / "labels.png"), (~INK).astype(np.uint8))
    with pytest.raises(MismatchError, match=r"changed while they were read \(picture: 1 of 1 changed: labels.png"):
        run(configure(labels=str(tmp_path / "labels.png"), white=1), context)


def test_labels_in_an_array_that_lacks_chunks_are_counted(configure, tmp_path):
    array = zarr.create_array(tmp_path / "ink.zarr", shape=INK.shape, chunks=(32, 32), dtype="uint8")
    array[:32] = 255
    notes = Notes()
    run(configure(labels=str(tmp_path / "ink.zarr")), RunContext(reporter=notes))
    assert any("chunks of" in note and "are not stored" in note for note in notes.said)


def test_labels_that_come_from_a_prediction_are_called_so(configure, root):
    place = root / "segments/s/labels"
    place.mkdir()
    (place / "manifest.json").write_text(json.dumps({"digest": "1", "inputs": {"source": {"prediction": "x/good"}}}))
    (place / "complete.json").write_text(json.dumps({"digest": "1"}))
    notes: list[str] = []
    context = RunContext()
    context.reporter.note = notes.append  # type: ignore[method-assign]
    report = run(configure(), context)
    assert "agrees with that prediction, not with the papyrus" in notes[0]
    assert document(report)["labels_made_from"] == "x/good"
    assert "careful" in "\n".join(summary(report.location))


def test_what_cannot_be_evaluated_is_refused_by_name(configure, root, tmp_path):
    store_map(root, "s", "small", GOOD[:100])
    store_map(root, "s", "half", GOOD, complete=False)
    store_map(root, "bare", "map", GOOD)
    cv2.imwrite(str(tmp_path / "tiny.png"), np.full((5, 5), 255, np.uint8))
    cases = [
        ({"name": None}, ConfigError, "expected one prediction, got 4"),
        ({"name": "half"}, DataError, "prediction s/half: incomplete"),
        ({"name": "small"}, MismatchError, "small: is .100, 210., the mask and labels are .150, 210."),
        ({"versus": "small"}, MismatchError, "prediction small: expected 150 × 210 px .* like good, got 100 × 210 px"),
        ({"versus": "good"}, ConfigError, "compared with itself"),
        ({"thresholds": [1.5]}, ConfigError, r"expected probabilities from 0 to 1, at least one, got \[1.5\]"),
        ({"area": (0, 0, 500, 5)}, ConfigError, "leaves the 150 × 210 px"),
        (
            {"labels": str(tmp_path / "tiny.png")},
            DataError,
            "tiny.png: expected .150, 210. .height, width. like the segment, got .5, 5.",
        ),
        ({"white": 1}, ConfigError, "white belongs to a picture"),
        ({"segment": "bare", "name": "map"}, DataError, "segment bare: expected its mask"),
    ]
    for changes, error, words in cases:
        with pytest.raises(error, match=words):
            make_plan(configure(**changes))


def test_nothing_to_count_and_no_ink_are_refused(configure, tmp_path):
    with pytest.raises(DataError, match="no pixel counts"):
        run(configure(area=(0, 180, 20, 200)), RunContext())
    cv2.imwrite(str(tmp_path / "ones.png"), np.ones(SHAPE, np.uint8))
    with pytest.raises(DataError, match="white=1"):
        run(configure(labels=str(tmp_path / "ones.png"), to=str(tmp_path / "a")), RunContext())
    with pytest.raises(DataError, match="smaller region_px"):
        run(configure(versus="poor", region_px=512, to=str(tmp_path / "b")), RunContext())


def test_no_labels_at_all_are_a_wish_and_no_guess(root):
    store_map(root, "u", "map", GOOD)
    store_picture(root, "u", "mask", MASK * 255, pooling="max")
    config = EvaluateConfig(segment="u", root=str(root))
    with pytest.raises(NoLabelsError, match="no ink labels are known; give --labels"):
        make_plan(config)


def test_a_damaged_map_is_named(configure, root):
    shard = next(path for path in sorted((root / "predictions/s/good/prediction.zarr/0").rglob("c/0/*")))
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 0xFF
    shard.write_bytes(data)
    with pytest.raises(CorruptDataError, match="good"):
        run(configure(), RunContext())


def test_after_other_settings_the_cure_names_the_option_that_evaluate_has(configure):
    run(configure(), RunContext())
    with pytest.raises(MismatchError, match=r"use the same ones, choose another folder \(--to\), or give --replace"):
        run(configure(beta=1.0), RunContext())


def test_the_plan_says_what_will_be_done_and_writes_nothing(configure, root):
    text = describe(configure(versus="poor"))
    for words in ("good versus poor", "0.5, 0.6, and the best one", "35 of 32 px", "12, 0 already done", "result"):
        assert words in text
    assert not (root / "predictions/s/good/evaluation-versus-poor").exists()


@pytest.mark.parametrize("window", [(16, 16), (48, 1000), (1000, 20)])
@pytest.mark.parametrize("changes", [{}, {"area": (7, 30, 141, 203), "region_px": 50}])
def test_counting_piece_by_piece_changes_no_bit(configure, tmp_path, monkeypatch, window, changes):
    whole = run(configure(**changes, to=str(tmp_path / "whole")), RunContext())
    monkeypatch.setattr("inkbatch.data.maps.comparison.PIECE_YX", window)
    cut = run(configure(**changes, to=str(tmp_path / "cut")), RunContext())
    assert stored_bytes(cut.location.path) == stored_bytes(whole.location.path)


def test_on_s3_everything_is_as_on_a_disk(s3_root, configure, root):
    for name, values in (("good", GOOD), ("poor", POOR)):
        store_map(s3_root.uri, "s", name, values, contract={"threshold": 0.6} if name == "good" else {})
    for name, values in (("mask", MASK * 255), ("ink_labels", INK * 255), ("ignore_mask", IGNORED)):
        store_picture(s3_root.uri, "s", name, values, pooling="mean" if name == "ink_labels" else "max")
    with pytest.raises(Preempted):
        run(configure(root=s3_root.uri, versus="poor"), preempted_context(2))
    report = run(configure(root=s3_root.uri, versus="poor"), RunContext())
    assert report.skipped >= 2
    here = run(configure(versus="poor"), RunContext())
    there = (report.location / "evaluation.json").read_json()
    assert there["maps"] == document(here)["maps"]
    assert there["comparison"] == document(here)["comparison"]

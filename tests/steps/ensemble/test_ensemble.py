"""ensemble: the same bytes however it is sharded, stopped or killed; what cannot be combined is refused by name."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from inkbatch.data.maps.consensus import confirmed
from inkbatch.errors import ConfigError, CorruptDataError, DataError, MismatchError, Preempted
from inkbatch.geometry import Box
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.run.progress import QuietReporter
from inkbatch.steps.ensemble.job import DISAGREEMENT_NAME, EnsembleConfig, describe, make_plan, run
from inkbatch.testing.faults import KILLED_WHILE_STORING, Notes, preempted_context, stored_bytes
from inkbatch.testing.maps import store_map, store_picture

SHAPE = (150, 210)
INK = np.zeros(SHAPE, bool)
INK[30:70, 20:120] = INK[90:130, 60:160] = True


def member(noise, seed) -> np.ndarray:
    """A map that shows the ink under smooth noise; 0 in the last columns, as outside the mask."""
    clean = np.where(INK, 0.75, 0.25)
    rough = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), 2) * noise * 5
    values = np.clip(clean + rough, 0.001, 0.999)
    values[:, 170:] = 0
    return values.astype(np.float16)


MAPS = {"good": member(0.2, 0), "fair": member(0.5, 1), "poor": member(2.0, 2)}


@pytest.fixture
def root(tmp_path) -> Path:
    for (name, values), unit_px in zip(MAPS.items(), (64, 128, 32), strict=True):
        store_map(tmp_path / "root", "s", name, values, unit_px=unit_px)
    mask = np.full(SHAPE, 255, np.uint8)
    mask[:, 170:] = 0
    store_picture(tmp_path / "root", "s", "mask", mask, pooling="max")
    store_picture(tmp_path / "root", "s", "ink_labels", INK.astype(np.uint8) * 255)
    return tmp_path / "root"


@pytest.fixture
def configure(root):
    def make(**changes) -> EnsembleConfig:
        values = {"segment": "s", "predictions": list(MAPS), "root": str(root), "unit_px": 64, **changes}
        return EnsembleConfig.checked(values, "test")

    return make


def read(report, name="prediction.zarr") -> np.ndarray:
    found = Prediction.open(report.location, name)
    return found.read(Box(0, 0, *found.shape_yx))


def test_the_mean_and_the_disagreement_of_maps_with_other_units_are_stored(configure):
    report = run(configure(), RunContext())
    values = np.stack([one.astype(np.float32) for one in MAPS.values()])
    assert report.complete
    assert report.location.name == "ensemble-mean"
    np.testing.assert_allclose(read(report), values.mean(axis=0), atol=5e-4)
    np.testing.assert_allclose(read(report, DISAGREEMENT_NAME), values.std(axis=0), atol=5e-4)
    for picture in ("preview.png", "disagreement.png"):
        assert Path(str(report.location / picture)).read_bytes().startswith(b"\x89PNG")
    manifest = json.loads(Path(str(report.location / "manifest.json")).read_text())
    assert [entry["name"] for entry in manifest["inputs"]["predictions"]] == list(MAPS)


def test_the_second_map_can_be_left_out(configure):
    report = run(configure(disagreement=False), RunContext())
    assert not (report.location / DISAGREEMENT_NAME).exists()


@pytest.mark.parametrize("method", ["mean", "median", "maximum", "odds", "ranks", "zscore", "weighted-mean"])
@pytest.mark.parametrize("count", [2, 5])
def test_shards_in_any_order_store_the_bytes_of_a_whole_run(configure, tmp_path, root, method, count):
    fit = {"fit": {"pixels": 5000}} if method == "weighted-mean" else {}
    config = configure(method=method, **fit)
    whole = run(config, RunContext())
    expected = stored_bytes(whole.location.path)
    Path(whole.location.path).rename(tmp_path / "whole")
    reports = [run(config, RunContext(shard=ShardSpec(i, count))) for i in reversed(range(count))]
    assert [report.complete for report in reports].index(True) == count - 1
    assert stored_bytes(whole.location.path) == expected


def test_consensus_keeps_what_a_second_member_marks_too(configure):
    found = read(run(configure(method="consensus", consensus_px=300), RunContext()))
    maps = np.stack([values.astype(np.float64) for values in MAPS.values()])
    marks = [values >= 0.5 for values in MAPS.values()]
    kept = confirmed(marks, 300)
    assert kept.any()
    assert not kept[np.any(marks, axis=0)].all()
    np.testing.assert_allclose(found, np.where(kept, maps.mean(axis=0), maps.min(axis=0)), atol=1e-3)


@pytest.mark.parametrize("unit_px", [32, 128, 512])
@pytest.mark.parametrize("method", ["mean", "odds", "ranks", "zscore", "consensus"])
def test_cutting_into_units_changes_no_pixel(configure, method, unit_px):
    whole = run(configure(method=method, name="a"), RunContext())
    cut = run(configure(method=method, name="b", unit_px=unit_px), RunContext())
    np.testing.assert_array_equal(read(whole), read(cut))
    np.testing.assert_array_equal(read(whole, DISAGREEMENT_NAME), read(cut, DISAGREEMENT_NAME))


def test_progress_speaks_of_no_device_where_none_is_needed(configure):
    told = []
    reporter = QuietReporter()
    reporter.unit = lambda name, facts: told.append(facts)
    report = run(configure(), RunContext(reporter=reporter))
    assert len(told) == report.units
    assert all("loop_s" in facts and "device_share" not in facts for facts in told)


@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_stopped_job_resumes_with_exactly_what_is_missing(configure, tmp_path, after):
    config = configure(method="weighted-mean", fit={"pixels": 5000})
    whole = run(config, RunContext())
    expected = stored_bytes(whole.location.path)
    Path(whole.location.path).rename(tmp_path / "whole")
    with pytest.raises(Preempted, match="run the same command again"):
        run(config, preempted_context(after))
    done = len((whole.location / "done").names())
    report = run(config, RunContext())
    assert (report.skipped, report.stored) == (done, report.units - done)
    assert stored_bytes(whole.location.path) == expected


@pytest.mark.parametrize("after", [1, 4])  # before the first map's unit, and between the two maps of one
def test_a_killed_process_started_again_gives_the_same_bytes(configure, root, tmp_path, after):
    whole = run(configure(name="e"), RunContext())
    expected = stored_bytes(whole.location.path)
    Path(whole.location.path).rename(tmp_path / "whole")
    arguments = ["ensemble", "s", "--root", str(root), "--name", "e", "--set", "unit_px=64"]
    arguments += [word for name in MAPS for word in ("--prediction", name)]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_STORING.format(after=after), *arguments], capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL
    again = subprocess.run([sys.executable, "-m", "inkbatch", *arguments], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert stored_bytes(whole.location.path) == expected


def test_fitted_weights_prefer_the_good_map_and_are_written_down(configure):
    notes: list[str] = []
    context = RunContext()
    context.reporter.note = notes.append  # type: ignore[method-assign]
    report = run(configure(method="weighted-mean", fit={"pixels": 20_000}), context)
    found = json.loads(Path(str(report.location / "weights.json")).read_text())
    weights = found["weights"]
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["good"] > weights["fair"] > weights["poor"]
    assert found["score"] >= max(entry["score"] for entry in found["each_alone"].values())
    assert found["score"] >= found["equal_weights"]["score"]
    complete = json.loads(Path(str(report.location / "complete.json")).read_text())
    assert (complete["weights"], complete["threshold"]) == (weights, found["threshold"])
    expected = sum(weights[name] * MAPS[name].astype(np.float32) for name in MAPS)
    np.testing.assert_allclose(read(report), expected, atol=1e-3)
    assert "with equal weights" in notes[0]


def test_weights_that_are_damaged_are_fitted_again_and_this_is_said(configure):
    config = configure(method="weighted-mean", fit={"pixels": 20_000})
    folder = run(config, RunContext()).location
    place, complete = folder / "weights.json", folder / "complete.json"
    before, end = place.read_bytes(), complete.read_json()
    place.write_bytes(before[:-5])
    notes = Notes()
    run(config, RunContext(reporter=notes))
    assert place.read_bytes() == before
    assert complete.read_json() == end
    assert any("weights: fitted again, for the stored ones are damaged" in note for note in notes.said)


@pytest.mark.parametrize("method", ["weighted-mean", "odds", "ranks"])
@pytest.mark.parametrize("metric", ["f05", "dice"])
def test_the_fitted_score_is_that_of_the_stored_map(configure, method, metric):
    from inkbatch.data.maps.scoring import ScoreHistogram

    report = run(configure(method=method, fit={"pixels": 10**6, "metric": metric}), RunContext())
    found = json.loads(Path(str(report.location / "weights.json")).read_text())
    histogram = ScoreHistogram()
    counted = np.ones(SHAPE, bool)
    counted[:, 170:] = False
    histogram.add(read(report), INK, counted)
    assert found["pixels"] == counted.sum()
    beta = 0.5 if metric == "f05" else 1.0
    assert histogram.f_beta(found["threshold"], beta) == pytest.approx(found["score"], abs=2e-3)
    assert histogram.best_f_beta(beta)[0] == pytest.approx(found["score"], abs=2e-3)


def test_only_the_labelled_area_is_used_for_weights(configure):
    report = run(configure(method="weighted-mean", fit={"area": [20, 10, 80, 100]}), RunContext())
    found = json.loads(Path(str(report.location / "weights.json")).read_text())
    assert (found["pixels"], found["ink_pixels"]) == (60 * 90, INK[20:80, 10:100].sum())


def test_labels_that_change_after_the_weights_were_fitted_stop_the_ensemble(configure, tmp_path, no_overlap):
    np.save(tmp_path / "labels.npy", INK.astype(np.uint8))
    context = RunContext()
    context.reporter.unit = lambda name, facts: np.save(tmp_path / "labels.npy", (~INK).astype(np.uint8))
    with pytest.raises(MismatchError, match=r"changed while they were read \(picture: 1 of 1 changed: labels.npy"):
        run(configure(method="weighted-mean", fit={"labels": str(tmp_path / "labels.npy"), "white": 1}), context)


@pytest.mark.parametrize(
    ("fit", "error", "words"),
    [
        ({"area": [0, 0, 20, 20]}, DataError, "holds no ink"),
        ({"area": [40, 40, 60, 60]}, DataError, "nothing but ink"),
        ({"area": [0, 0, 2000, 20]}, ConfigError, "leaves the 150 × 210 px"),
        ({"labels": "/no/such.png"}, DataError, "/no/such.png"),
    ],
)
def test_areas_that_teach_nothing_are_refused(configure, fit, error, words):
    with pytest.raises(error, match=words):
        run(configure(method="weighted-mean", fit=fit), RunContext())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"predictions": ["good"]}, "expected at least two predictions"),
        ({"weights": [1, 2, 3]}, "method mean has no weights"),
        ({"fit": {}}, "method mean has no weights"),
        ({"method": "weighted-mean"}, "needs weights"),
        ({"method": "odds", "weights": [1, 2]}, "2 weights are given for 3"),
        ({"method": "odds", "weights": [1, -2, 3]}, "not negative"),
        ({"method": "odds", "weights": [1, 2, 3], "fit": {}}, "drop one of them"),
        ({"method": "vote"}, "method"),
        ({"unit_px": 100}, "unit_px 100: expected a power of two of at least 32"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(configure, changes, words):
    with pytest.raises(ConfigError, match=words):
        configure(**changes)


def test_what_cannot_be_combined_is_refused_by_name(configure, root, tmp_path):
    store_map(root, "s", "small", MAPS["good"][:100])
    store_map(root, "s", "fine", MAPS["good"], voxel_size_um=3.24)
    store_map(root, "s", "half", MAPS["good"], complete=False)
    store_map(root, "t", "foreign", MAPS["good"])
    store_map(root, "s", "ranked", MAPS["fair"], method="ranks")
    foreign = str(root / "predictions/t/foreign")
    cases = [
        (["good", "small"], MismatchError, "prediction small: expected 150 × 210 px .* like good, got 100 × 210 px"),
        (["good", "fine"], MismatchError, "prediction fine: expected pixels of 8 µm like good, got 3.24 µm"),
        (["good", "half"], DataError, "prediction s/half: incomplete, 11 of 12 units"),
        (["good", foreign], MismatchError, "expected a map of segment s, got one of t"),
        (["good", "nobody"], DataError, "s/nobody: nothing at .*; available: fair, fine, good"),
        (["good", "good"], ConfigError, "good and good are one prediction"),
        (["good", str(root / "predictions/s/good")], ConfigError, "are one prediction"),
        (["good", "ranked"], MismatchError, "ranked of good, ranked holds ranks"),
    ]
    for predictions, error, words in cases:
        with pytest.raises(error, match=words):
            make_plan(configure(predictions=predictions))
    with pytest.raises(ConfigError, match="would replace its member good"):
        make_plan(configure(name="good"))
    assert not (root / "predictions/s/ensemble-mean").exists()


def test_other_members_under_the_same_name_are_refused(configure):
    run(configure(), RunContext())
    with pytest.raises(MismatchError, match=r"inputs\.predictions"):
        run(configure(predictions=["good", "fair"]), RunContext())


def test_a_damaged_member_is_named(configure, root):
    shard = next(path for path in sorted((root / "predictions/s/fair/prediction.zarr/0").rglob("c/0/*")))
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 0xFF
    shard.write_bytes(data)
    with pytest.raises(CorruptDataError, match="fair"):
        run(configure(), RunContext())


def test_the_plan_says_what_will_be_done_and_writes_nothing(configure, root):
    text = describe(configure(method="odds", fit={}))
    for words in (
        "odds of 3 predictions",
        "member        good",
        "fitted for the best f05",
        "12, 0 already done",
        "peak memory",
    ):
        assert words in text
    assert not (root / "predictions/s/ensemble-odds").exists()


def test_everything_works_on_s3(s3_root, configure, root):
    for name, values in MAPS.items():
        store_map(s3_root.uri, "s", name, values)
    config = configure(root=s3_root.uri)
    with pytest.raises(Preempted):
        run(config, preempted_context(2))
    report = run(config, RunContext())
    assert report.skipped >= 2
    np.testing.assert_array_equal(read(report), read(run(configure(), RunContext())))
    assert Location.parse(f"{report.location}/preview.png").exists()

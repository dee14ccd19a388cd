"""Promises of every job that leaves a manifest: it can be repeated to the byte, compared, and its cost is told."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from inkbatch.errors import DataError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.run.finished import open_run
from inkbatch.run.job import RunContext
from inkbatch.run.run_file import core_count
from inkbatch.run.verifying import verify
from inkbatch.steps.provenance.diff import diff
from inkbatch.steps.provenance.repeatable import holds_no_clock
from inkbatch.steps.provenance.rerun import rerun
from inkbatch.testing.campaigns import objects_in, unequal
from inkbatch.testing.jobs import EveryJob, run_every_job, steps_of
from inkbatch.testing.training import tiny_dataset

JOBS = (
    "prepare",
    "labels",
    "build-dataset",
    "train",
    "soup",
    "infer",
    "infer-pictures",
    "ensemble",
    "clean",
    "instances",
    "letters",
    "evaluate",
    "probe",
    "preflight",
    "sweep",
    "round",
)
WITH_A_MAP = ("prepare", "labels", "infer", "ensemble", "clean")
STAGES = ("load_s", "compute_s", "store_s")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> EveryJob:
    return run_every_job(tmp_path_factory.mktemp("jobs"))


@pytest.fixture
def own(finished, tmp_path) -> EveryJob:
    """A copy that a test may spoil, at the same address: runs know their inputs by it."""
    shutil.copytree(finished.folder, tmp_path / "kept")
    yield finished
    shutil.rmtree(finished.folder)
    shutil.copytree(tmp_path / "kept", finished.folder)


def test_every_job_with_a_manifest_is_in_the_table(finished):
    assert sorted(finished.runs) == sorted(JOBS)
    found = {json.loads(path.read_text())["job"] for path in finished.root.rglob("manifest.json")}
    stages = ("-components", "-maps", "-control")  # of a job that has several; they lie in its folder
    assert {name for name in found if not name.endswith(stages)} == set(JOBS)


def test_every_finished_run_is_as_it_was_written(finished):
    found = verify(str(finished.root))
    assert found.faults == []
    assert found.runs >= len(JOBS)


def kinds_of_objects(folder: Path, job: str) -> list[Path]:
    """List one object of each kind that a job stored: those whose paths differ in more than numbers."""
    found: dict[str, Path] = {}
    others = [
        place.parent
        for place in folder.rglob("manifest.json")
        if not json.loads(place.read_text())["job"].startswith(job)
    ]
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).as_posix()
        its_own = re.search(r"(^|/)(done/|manifest|complete|run)", inside) or inside.endswith(".html")
        if path.is_file() and not its_own and not any(path.is_relative_to(other) for other in others):
            found.setdefault(re.sub(r"\d+", "#", inside), path)
    return list(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("how", ["missing", "cut"])
@pytest.mark.parametrize("job", JOBS)
def test_what_is_missing_or_cut_is_made_again(own, job, how):
    (step, *_) = (step for step in reversed(steps_of(own.folder, str(own.root))) if step.job == job)
    before = objects_in(own.root)
    for folder in open_run(str(own.runs[job])).outputs:
        for place in kinds_of_objects(Path(folder.path), job):
            if how == "missing":
                place.unlink()
            elif place.parent.name not in ("checkpoints", "validation"):  # refused; pictures are tested with training
                place.write_bytes(place.read_bytes()[:-2])
    step.run(RunContext())
    assert unequal(objects_in(own.root), before) == []
    assert verify(str(own.root)).faults == []


@pytest.mark.parametrize("job", JOBS)
def test_a_repeated_job_stores_the_same_bytes(finished, tmp_path, job):
    before = {path: path.stat().st_mtime_ns for path in finished.root.rglob("*") if path.is_file()}
    found = rerun(str(finished.runs[job]), str(tmp_path / "again"), RunContext())
    assert found.unequal == ()
    assert found.objects >= 3
    assert found.report.complete
    assert {path: path.stat().st_mtime_ns for path in finished.root.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("job", JOBS)
def test_a_manifest_that_does_not_say_what_was_asked_for_is_refused_in_words(own, tmp_path, job):
    place = own.runs[job] / "manifest.json"
    document = json.loads(place.read_text())
    del document["request"]
    place.write_text(json.dumps(document))
    with pytest.raises(DataError, match="does not say what was asked for"):
        rerun(str(own.runs[job]), str(tmp_path / "again"), RunContext())


def other_labels(own: EveryJob) -> None:
    place = own.folder / "ink.png"
    picture = cv2.imread(str(place), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(place), np.flipud(picture))


def other_bundle(own: EveryJob) -> None:
    place = own.folder / "bundle" / "bundle.json"
    document = json.loads(place.read_text())
    document["weights_sha256"] = "0" * 64
    document.pop("seal", None)
    place.write_text(json.dumps(document))


def other_prediction(own: EveryJob) -> None:
    for name in ("manifest.json", "complete.json"):
        place = own.root / "predictions/page/first" / name
        place.write_text(json.dumps({**json.loads(place.read_text()), "digest": "f" * 64}))


def other_dataset(own: EveryJob) -> None:
    tiny_dataset(own.root, sample_px=48)


def other_segment_labels(own: EveryJob) -> None:
    labels = Multiscale.open(Location.parse(own.root) / "segments/s0/ink_labels.zarr")
    whole = Box(0, 0, *labels.shape)
    labels.write(whole, np.flipud(labels.levels[0].read(whole.slices)).copy())


@pytest.mark.parametrize(
    ("job", "spoil", "named"),
    [
        ("labels", other_labels, r"inputs\.source\.fingerprint"),
        ("probe", other_bundle, r"inputs\.weights_sha256"),
        ("infer", other_bundle, r"inputs\.weights_sha256"),
        ("infer-pictures", other_bundle, r"inputs\.weights_sha256"),
        ("sweep", other_bundle, r"inputs\.bundles\.0\.weights_sha256"),
        ("ensemble", other_prediction, r"inputs\.predictions\.0\.digest: then '[0-9a-f]+', now 'f+'"),
        ("evaluate", other_prediction, r"inputs\.predictions\.0\.digest"),
        ("clean", other_prediction, r"inputs\.prediction\.digest"),
        ("train", other_dataset, r"inputs\.digest"),
        ("build-dataset", other_segment_labels, r"inputs\.labels\.s0"),
    ],
)
def test_an_input_that_changed_is_named(own, tmp_path, job, spoil, named):
    spoil(own)
    with pytest.raises(MismatchError, match=named):
        rerun(str(own.runs[job]), str(tmp_path / "again"), RunContext())
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("job", JOBS)
def test_run_json_tells_what_every_job_took(finished, job):
    row = json.loads((finished.runs[job] / "run.json").read_text())
    assert row["job"] == job
    assert row["ended"] == "done"
    assert row["device"] == "cpu"
    assert row["seconds"] > 0
    assert row["bytes_read"] > 0
    lying = sum((finished.runs[job] / name).stat().st_size for name in ("manifest.json", "complete.json"))
    assert row["bytes_written"] > lying  # and what the job is for
    assert row["peak_memory_bytes"] > 10 << 20
    assert 0 <= row["waited_share"] <= 1
    assert all(row[key] >= 0 for key in (*STAGES, "waited_s", "setup_s", "loop_s"))
    assert row["setup_s"] + row["loop_s"] <= row["seconds"] + 0.01
    assert row["compute_s"] + row["waited_s"] <= row["loop_s"] + 0.01  # both are of one thread
    idle = row["loop_s"] - row["compute_s"]
    assert row["waited_share"] * row["loop_s"] == pytest.approx(idle, abs=0.003)  # they are rounded to milliseconds
    assert row["units_stored"] == json.loads((finished.runs[job] / "manifest.json").read_text())["units"]
    assert {"cores", "processor", "code_sha256", "packages"} <= row.keys()
    assert row["cores"] == core_count()
    if job in ("train", "infer", "infer-pictures", "probe"):
        assert row["precision"] == "fp32"
        assert row["compute_s"] > 0
        assert row["tiles"] > 0


@pytest.mark.parametrize("job", [pytest.param(job, marks=pytest.mark.slow) if job == "sweep" else job for job in JOBS])
def test_two_runs_of_every_job_can_be_compared(finished, tmp_path, job):
    rerun(str(finished.runs[job]), str(tmp_path / "again"), RunContext())
    kinds = {json.loads(path.read_text())["job"]: path for path in (tmp_path / "again").rglob("manifest.json")}
    found = diff(str(finished.runs[job]), str(kinds[job]))
    assert all(rows == [] for name, rows in found.groups.items())
    if job in WITH_A_MAP:
        assert found.maps is not None
        assert found.maps.maximum == 0
        assert found.maps.values > 0
    else:
        assert "has no map" in found.maps_note
    changed = json.loads(kinds[job].read_text())
    changed["inputs"] = {**changed["inputs"], "weights_sha256": "0", "surface": "1"}
    changed["config"] = {**changed["config"], "unit_px": 1}
    kinds[job].write_text(json.dumps(changed))
    groups = {
        name: [key for key, _, _ in rows]
        for name, rows in diff(str(finished.runs[job]), str(kinds[job]), maps=False).groups.items()
    }
    assert "inputs.weights_sha256" in groups["bundle"]
    assert "inputs.surface" in groups["data"]
    assert "config.unit_px" in groups["config"]


def test_what_holds_a_clock_is_not_compared():
    clocks = ("run.json", "run-0-of-4.json", "components/run.json", "tensorboard/events.out", "manifest.json")
    assert [path for path in clocks if holds_no_clock(path)] == []
    kept = ("runs/a.json", "bundle/bundle.json", "run-1.json", "metrics.csv", "done/run-unit.json")
    assert [path for path in kept if not holds_no_clock(path)] == []

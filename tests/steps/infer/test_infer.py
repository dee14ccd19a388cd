"""infer: the same bytes however it is cut, sharded, stopped or killed; mismatches are refused by name."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from inkbatch.errors import (
    ConfigError,
    CorruptDataError,
    DataError,
    LayerRangeError,
    MismatchError,
    Preempted,
    StorageError,
)
from inkbatch.geometry import Box
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.run.progress import QuietReporter
from inkbatch.steps.infer.job import InferConfig, run
from inkbatch.steps.infer.plan import make_plan
from inkbatch.testing.datasets import labelled_segment
from inkbatch.testing.faults import KILLED_WHILE_STORING, preempted_context, stored_bytes
from inkbatch.testing.segments import identity_bundle, network_bundle


def config_for(segment, bundle, **changes) -> InferConfig:
    values = {"segment": segment.segment, "root": str(segment.root), "bundle": str(bundle), "device": "cpu"}
    return InferConfig(**{**values, "unit_px": 64, **changes})


def read_map(report) -> np.ndarray:
    prediction = Prediction.open(report.location)
    return prediction.read(Box(0, 0, *prediction.shape_yx))


@pytest.fixture(params=["identity", "network"])
def any_bundle(request, tmp_path):
    make = identity_bundle if request.param == "identity" else network_bundle
    make(tmp_path / request.param)
    return tmp_path / request.param


def test_identity_gives_back_the_middle_layer(tiny_segment, bundle_folder):
    report = run(config_for(tiny_segment, bundle_folder), RunContext())
    np.testing.assert_allclose(read_map(report), tiny_segment.layers[2] / 255, atol=5e-4)
    assert report.complete
    assert (Path(str(report.location)) / "preview.png").stat().st_size > 1000
    assert zarr.open_group(str(report.location / "prediction.zarr"), mode="r")["0"].dtype == np.float16


def test_a_broken_catalog_is_said_once_and_the_map_is_whole(tiny_segment, bundle_folder, tmp_path):
    (tmp_path / "catalog.yaml").write_text("segmets: {}")
    notes, context = [], RunContext()
    context.reporter.note = notes.append
    report = run(config_for(tiny_segment, bundle_folder, catalog=str(tmp_path / "catalog.yaml")), context)
    assert report.complete
    assert [note.count("segmets") > 0 for note in notes if note.startswith("score: ")] == [True]


def test_cutting_into_units_changes_no_pixel(tiny_segment, any_bundle):
    whole = read_map(run(config_for(tiny_segment, any_bundle, unit_px=256, name="whole"), RunContext()))
    for unit_px in (32, 64, 128):
        cut = run(config_for(tiny_segment, any_bundle, unit_px=unit_px, name=f"cut{unit_px}"), RunContext())
        np.testing.assert_array_equal(whole, read_map(cut))


@pytest.mark.parametrize("count", [2, 3, 20])
def test_shards_in_any_order_store_the_bytes_of_a_whole_run(tiny_segment, any_bundle, count):
    whole = run(config_for(tiny_segment, any_bundle), RunContext())
    expected = stored_bytes(whole.location.path)
    for path in sorted(Path(whole.location.path).rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    reports = [
        run(config_for(tiny_segment, any_bundle), RunContext(shard=ShardSpec(i, count))) for i in reversed(range(count))
    ]
    assert [report.complete for report in reports].index(True) == count - 1
    assert stored_bytes(whole.location.path) == expected


@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_stopped_job_resumes_with_exactly_what_is_missing(tiny_segment, any_bundle, after):
    whole = run(config_for(tiny_segment, any_bundle, name="a"), RunContext())
    config = config_for(tiny_segment, any_bundle, name="b")
    with pytest.raises(Preempted, match="run the same command again"):
        run(config, preempted_context(after))
    done = len(list((tiny_segment.root / "predictions/tiny/b/done").glob("*.json")))
    assert after <= done <= after + 2
    report = run(config, RunContext())
    assert (report.skipped, report.stored) == (done, report.units - done)
    a, b = stored_bytes(whole.location.path), stored_bytes(report.location.path)
    shards = [name for name in a if "/c/" in name]
    assert shards
    assert all(a[name] == b[name] for name in shards)


@pytest.mark.parametrize("after", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_killed_process_started_again_gives_the_same_bytes(tiny_segment, any_bundle, after):
    arguments = ["infer", "tiny", "--root", str(tiny_segment.root), "--bundle", str(any_bundle)]
    arguments += ["--set", "unit_px=64", "--device", "cpu", "--name"]
    quiet = subprocess.run([sys.executable, "-m", "inkbatch", *arguments, "quiet"], capture_output=True, text=True)
    assert quiet.returncode == 0, quiet.stderr
    dying = [sys.executable, "-c", KILLED_WHILE_STORING.format(after=after)]
    killed = subprocess.run([*dying, *arguments, "killed"], capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    again = subprocess.run([sys.executable, "-m", "inkbatch", *arguments, "killed"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    folder = tiny_segment.root / "predictions" / "tiny"
    a, b = stored_bytes(folder / "quiet"), stored_bytes(folder / "killed")
    assert {name for name in a if "/c/" in name} == {name for name in b if "/c/" in name} != set()
    assert all(a[name] == b[name] for name in a if "/c/" in name or name.endswith("preview.png"))


SLOW = """
import sys, time
from inkbatch.predict.predictor import Predictor
blend = Predictor.blend_windows
def slow(self, unit, loaded, windows):
    sys.stderr.write("computing\\n"); sys.stderr.flush()
    time.sleep(0.5)
    return blend(self, unit, loaded, windows)
Predictor.blend_windows = slow
from inkbatch.cli.app import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_the_job_with_75_and_true_markers(tiny_segment, bundle_folder, number):
    arguments = ["infer", "tiny", "--root", str(tiny_segment.root), "--bundle", str(bundle_folder), "--log", "json"]
    arguments += ["--set", "unit_px=64"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line == "computing\n" and lines.count(line) == 3:
            process.send_signal(number)
            process.send_signal(number) if number != signal.SIGINT else None
            break
    started = time.monotonic()
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 75, "".join(lines) + rest
    assert time.monotonic() - started < 20
    assert "run the same command again" in rest
    folder = tiny_segment.root / "predictions/tiny/tiny-identity-tile16-stride5"
    assert not (folder / "complete.json").exists()
    done = list((folder / "done").glob("*.json"))
    assert 2 <= len(done) <= 3
    assert not list(folder.rglob("*.partial"))
    assert json.loads((folder / "run.json").read_text())["units_stored"] == len(done)


def test_storage_that_gives_up_keeps_what_is_stored_and_a_retry_completes(tiny_segment, any_bundle, monkeypatch):
    whole = run(config_for(tiny_segment, any_bundle, name="a"), RunContext())
    config, write, calls = config_for(tiny_segment, any_bundle, name="b"), Prediction.write, []

    def failing(self, box, probability):
        calls.append(box)
        if len(calls) == 4:
            raise StorageError("s3://bucket/x: storage failed again after retries")
        return write(self, box, probability)

    monkeypatch.setattr(Prediction, "write", failing)
    with pytest.raises(StorageError) as caught:
        run(config, RunContext())
    assert caught.value.exit_code == 75
    report = run(config, RunContext())
    assert report.skipped >= 3
    assert report.complete
    np.testing.assert_array_equal(read_map(whole), read_map(report))


def test_two_processes_doing_the_same_shard_do_no_harm(tiny_segment, any_bundle):
    whole = run(config_for(tiny_segment, any_bundle, name="a"), RunContext())
    arguments = ["infer", "tiny", "--root", str(tiny_segment.root), "--bundle", str(any_bundle)]
    arguments += ["--set", "unit_px=64", "--device", "cpu", "--name", "b"]
    command = [sys.executable, "-m", "inkbatch", *arguments]
    pair = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)]
    for process in pair:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    folder = tiny_segment.root / "predictions" / "tiny" / "b"
    a, b = stored_bytes(whole.location.path), stored_bytes(folder)
    assert all(a[name] == b[name] for name in a if "/c/" in name or name.endswith("preview.png"))


@pytest.mark.parametrize(
    ("contract", "words"),
    [
        ({"voxel_size_um": 3.24}, "voxel_size_um: bundle expects 3.24"),
        ({"dtype": "uint16"}, "dtype: bundle expects uint16, surface is uint8"),
        ({"intensity": ("window:*",)}, "intensity: bundle expects window"),
        ({"lut": ((0, 0), (128, 64), (255, 255))}, "lut: bundle expects"),
        ({"clahe": {"clip_limit": 2.0, "cell_px": 128}}, "clahe: bundle expects"),
    ],
)
def test_a_mismatch_between_bundle_and_surface_is_refused_by_name(tiny_segment, tmp_path, contract, words):
    identity_bundle(tmp_path / "other", **contract)
    with pytest.raises(MismatchError, match=words):
        run(config_for(tiny_segment, tmp_path / "other"), RunContext())
    assert not (tiny_segment.root / "predictions").exists()


def test_an_override_is_possible_and_recorded(tiny_segment, tmp_path):
    identity_bundle(tmp_path / "other", voxel_size_um=3.24)
    config = config_for(tiny_segment, tmp_path / "other", override={"voxel_size_um": 8.0})
    report = run(config, RunContext())
    manifest = json.loads(Path(str(report.location / "manifest.json")).read_text())
    assert manifest["config"]["override"] == {"voxel_size_um": 8.0}


def test_more_layers_than_prepared_are_refused(tiny_segment, tmp_path):
    identity_bundle(tmp_path / "deep", layers=9)
    with pytest.raises(LayerRangeError, match="bundle expects 9 layers, surface has 5"):
        run(config_for(tiny_segment, tmp_path / "deep"), RunContext())


def test_layers_are_chosen_by_source_number(tiny_segment, bundle_folder):
    report = run(config_for(tiny_segment, bundle_folder, layers=(0, 3)), RunContext())
    np.testing.assert_allclose(read_map(report), tiny_segment.layers[1] / 255, atol=5e-4)
    with pytest.raises(LayerRangeError, match="3:6"):
        make_plan(config_for(tiny_segment, bundle_folder, layers=(3, 6)))
    with pytest.raises(LayerRangeError, match="segment tiny: --layers 0:2 are 2 layers, the bundle expects 3"):
        make_plan(config_for(tiny_segment, bundle_folder, layers=(0, 2)))


def test_a_map_that_is_no_probability_stops_with_the_units_name(tiny_segment, tmp_path):
    identity_bundle(tmp_path / "loud", divisor=100)
    with pytest.raises(
        DataError, match=r"unit y00000-x00000: expected a map from 0 to 1, got .* from the network; .* divisor"
    ):
        run(config_for(tiny_segment, tmp_path / "loud"), RunContext())


def test_a_bundle_trained_against_depth_order_gets_its_layers_flipped(tiny_segment, tmp_path):
    identity_bundle(tmp_path / "flipped", layer=0, depth_order="reversed")
    report = run(config_for(tiny_segment, tmp_path / "flipped"), RunContext())
    np.testing.assert_allclose(read_map(report), tiny_segment.layers[3] / 255, atol=5e-4)


def test_an_incomplete_surface_is_refused(tiny_segment, bundle_folder):
    (tiny_segment.folder / "prepare" / "complete.json").unlink()
    with pytest.raises(DataError, match=r"incomplete.*inkbatch prepare tiny"):
        run(config_for(tiny_segment, bundle_folder), RunContext())


def test_a_damaged_surface_stops_the_run_and_names_the_object(tiny_segment, bundle_folder):
    victim = next((tiny_segment.folder / "surface.zarr" / "0" / "c").rglob("1/1"))
    data = bytearray(victim.read_bytes())
    data[100] ^= 1
    victim.write_bytes(data)
    with pytest.raises(CorruptDataError, match="surface.zarr/0/c/0/1/1"):
        run(config_for(tiny_segment, bundle_folder), RunContext())


def test_damaged_weights_are_refused(tiny_segment, tmp_path):
    network_bundle(tmp_path / "net")
    weights = tmp_path / "net" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CorruptDataError, match="sha256"):
        run(config_for(tiny_segment, tmp_path / "net"), RunContext())


def test_a_finished_task_never_builds_the_model(tiny_segment, bundle_folder, monkeypatch):
    run(config_for(tiny_segment, bundle_folder), RunContext())
    monkeypatch.setattr("inkbatch.models.bundle.Bundle.build", lambda *_: pytest.fail("a model was built"))
    report = run(config_for(tiny_segment, bundle_folder), RunContext())
    assert (report.stored, report.complete) == (0, True)


@pytest.mark.parametrize("segment", ["../other", "/etc", "a/b", "a\nb", "", "a..b", "-x"])
def test_ids_that_could_leave_root_are_refused(tiny_segment, bundle_folder, segment):
    with pytest.raises(ConfigError, match="an id is"):
        run(config_for(tiny_segment, bundle_folder).model_copy(update={"segment": segment}), RunContext())


def test_everything_works_on_s3(s3_root, tiny_segment, prepare_config, bundle_folder, tmp_path):
    from inkbatch.steps.prepare.job import run as run_prepare

    run_prepare(prepare_config(tiny_segment.source, root=s3_root.uri), RunContext())
    config = InferConfig(segment="tiny", root=s3_root.uri, bundle=str(bundle_folder), unit_px=64, device="cpu")
    with pytest.raises(Preempted):
        run(config, preempted_context(2))
    report = run(config, RunContext())
    assert report.skipped >= 2
    local = run(config_for(tiny_segment, bundle_folder), RunContext())
    np.testing.assert_array_equal(read_map(report), read_map(local))
    assert Location.parse(f"{report.location}/preview.png").exists()


def test_a_dry_run_states_the_plan_and_writes_nothing(tiny_segment, bundle_folder):
    before = stored_bytes(tiny_segment.root)
    command = [sys.executable, "-m", "inkbatch", "infer", "tiny", "--root", str(tiny_segment.root), "--bundle"]
    result = subprocess.run([*command, str(bundle_folder), "--dry-run"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for word in ("units", "tiles", "reads", "writes", "peak memory", "USD", "0 already done"):
        assert word in result.stdout
    assert stored_bytes(tiny_segment.root) == before


def test_progress_moves_within_a_unit(tmp_path):
    class Parts(QuietReporter):
        def __init__(self) -> None:
            self.shares: list[float] = []
            self.tiles = 0.0

        def advance(self, share, facts):
            self.shares.append(share)
            self.tiles += facts["tiles"]

    labelled_segment(tmp_path, "s", np.zeros((96, 96), np.uint8))
    bundle = identity_bundle(tmp_path / "bundle")
    parts = Parts()
    config = InferConfig(segment="s", bundle=str(bundle.location), root=str(tmp_path), device="cpu")
    report = run(config, RunContext(reporter=parts))
    assert report.units == 1
    assert parts.shares == sorted(parts.shares)
    assert parts.shares[-1] == 1
    assert len(parts.shares) > 3
    assert parts.tiles == report.facts["tiles"]

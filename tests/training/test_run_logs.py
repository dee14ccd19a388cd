"""Logs: TensorBoard's own reader finds what was logged; W&B where its key is set; a log that fails stops nothing."""

from __future__ import annotations

import struct
import sys
import types
from pathlib import Path
from typing import Any

import cv2
import google_crc32c
import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

from inkbatch.errors import Preempted, StorageError
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.steps.train.job import TrainConfig, run
from inkbatch.testing.training import tiny_run
from inkbatch.training import run_logs
from inkbatch.training.run_logs import FLUSH_S, RunLogs, open_logs
from inkbatch.training.tensorboard import TensorBoardLog


def png(height: int = 3, width: int = 5) -> bytes:
    return cv2.imencode(".png", np.full((height, width, 3), 7, np.uint8))[1].tobytes()


def read(folder: Path) -> Any:
    found = event_accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


# --- event files ------------------------------------------------------------------------------------------------------


def test_tensorboard_reads_scalars_and_pictures(tmp_path):
    log = TensorBoardLog(Location.parse(tmp_path), clock=lambda: 1234.5)
    log.scalars(0, {"step/loss": 0.5, "step/rate": 1e-3})
    log.scalars(300, {"step/loss": -0.25})
    log.picture(300, "maps/s1", png())
    log.flush()
    assert scalars(tmp_path, "step/loss") == [(0, 0.5), (300, -0.25)]
    assert scalars(tmp_path, "step/rate") == [(0, pytest.approx(1e-3))]
    image = read(tmp_path).Images("maps/s1")[0]
    assert (image.step, image.height, image.width, image.wall_time) == (300, 3, 5, 1234.5)
    assert image.encoded_image_string == png()


def test_every_record_carries_its_checksums(tmp_path):
    log = TensorBoardLog(Location.parse(tmp_path))
    log.scalars(1 << 20, {"a": 1.0})
    log.flush()
    data = next(tmp_path.iterdir()).read_bytes()
    records = 0
    while data:
        length = struct.unpack("<Q", data[:8])[0]
        for part, stored in ((data[:8], data[8:12]), (data[12 : 12 + length], data[12 + length : 16 + length])):
            crc = google_crc32c.value(part)
            assert struct.unpack("<I", stored)[0] == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32
        data, records = data[16 + length :], records + 1
    assert records == 2


def test_what_a_dead_process_wrote_beyond_the_checkpoint_is_written_again_once(tmp_path):
    dead = TensorBoardLog(Location.parse(tmp_path))
    for step in (0, 2, 4):
        dead.scalars(step, {"a": float(step)})
        dead.scalars(step + 1, {"a": step + 1.0})
        dead.flush()
    (tmp_path / "notes.txt").write_text("not ours")
    heir = TensorBoardLog(Location.parse(tmp_path))
    heir.start(2)
    heir.scalars(2, {"a": 20.0})
    heir.close("done")
    assert scalars(tmp_path, "a") == [(0, 0.0), (1, 1.0), (2, 20.0)]
    assert (tmp_path / "notes.txt").exists()


def test_event_files_go_to_an_object_store_as_whole_objects(s3_root, tmp_path):
    log = TensorBoardLog(s3_root / "runs/r/tensorboard")
    log.scalars(0, {"a": 1.0})
    log.flush()
    log.flush()
    log.scalars(1, {"a": 2.0})
    log.close("done")
    names = (s3_root / "runs/r/tensorboard").names()
    assert len(names) == 2
    for name in names:
        (tmp_path / name).write_bytes((s3_root / "runs/r/tensorboard" / name).read_bytes())
    assert scalars(tmp_path, "a") == [(0, 1.0), (1, 2.0)]


# --- a whole run ------------------------------------------------------------------------------------------------------


def config_of(root: Path, **changes: Any) -> TrainConfig:
    return TrainConfig.checked(tiny_run(root, **changes), "test")


def test_a_run_that_was_stopped_leaves_every_step_once(root):
    context = RunContext()
    with pytest.raises(Preempted):
        run(config_of(root), context, lambda steps: context.stop.set("a test") if steps == 8 else None)
    run(config_of(root), RunContext())
    folder = root / "runs" / "first"
    losses = [float(line.split(",")[1]) for line in (folder / "losses.csv").read_text().splitlines()[1:]]
    assert scalars(folder / "tensorboard", "step/loss") == [
        (step, pytest.approx(loss, rel=1e-6)) for step, loss in enumerate(losses)
    ]
    assert [step for step, _ in scalars(folder / "tensorboard", "validation/f05")] == [6, 12]
    assert [step for step, _ in scalars(folder / "tensorboard", "loss/validation")] == [6, 12]
    assert [image.step for image in read(folder / "tensorboard").Images("maps/s1")] == [6, 12]
    rates = [rate for _, rate in scalars(folder / "tensorboard", "step/rate")]
    assert max(rates) == pytest.approx(3e-3, rel=0.1)
    assert rates[-1] < rates[3]


class Notes(RunContext):
    """A context that keeps what is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.reporter.note = self.texts.append  # type: ignore[method-assign]


def test_a_log_that_fails_is_named_once_and_changes_no_result(root, monkeypatch):
    run(config_of(root), RunContext())

    def broken(self: TensorBoardLog) -> None:
        raise StorageError("the bucket is gone")

    monkeypatch.setattr(TensorBoardLog, "flush", broken)
    context = Notes()
    run(config_of(root, run="second"), context)
    assert [text for text in context.texts if "TensorBoard" in text] == [
        "TensorBoard failed and is left out from here on: StorageError: the bucket is gone"
    ]
    first, second = (root / "runs" / name for name in ("first", "second"))
    for name in ("losses.csv", "metrics.csv", "bundle/weights.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


# --- W&B --------------------------------------------------------------------------------------------------------------


class FakeWandb(types.ModuleType):
    """Keeps what a run would send."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.started: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.codes: list[int] = []

    def Settings(self, **values: Any) -> dict[str, Any]:
        return values

    def Image(self, pixels: np.ndarray) -> tuple[int, ...]:
        return pixels.shape

    def init(self, **values: Any) -> FakeWandb:
        self.started.append(values)
        (Path(values["dir"]) / "wandb").mkdir()
        (Path(values["dir"]) / "wandb" / "run.wandb").write_bytes(b"offline")
        return self

    def log(self, values: dict[str, Any], step: int) -> None:
        self.logged.append((step, values))

    def finish(self, exit_code: int) -> None:
        self.codes.append(exit_code)


@pytest.fixture
def wandb(monkeypatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return fake


def test_with_a_key_the_run_goes_to_wandb_under_one_id_whatever_happens(root, wandb):
    context = RunContext()
    with pytest.raises(Preempted):
        run(config_of(root), context, lambda steps: context.stop.set("a test") if steps == 8 else None)
    run(config_of(root), RunContext())
    assert len({start["id"] for start in wandb.started}) == 1
    assert wandb.started[0]["config"]["optimiser"]["rate"] == 3e-3
    assert "root" not in wandb.started[0]["config"]
    assert wandb.codes == [1, 0]
    assert [step for step, values in wandb.logged if "step/loss" in values] == list(range(12))
    pictures = [values["maps/s1"] for _, values in wandb.logged if "maps/s1" in values]
    assert len(pictures) == 2
    assert pictures[0][2] == 3
    assert not (root / "runs/first/wandb").exists()
    assert not Path(wandb.started[0]["dir"]).exists()


def test_an_offline_wandb_run_is_stored_with_the_others_files(s3_root, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    logs = open_logs(s3_root / "runs/r", "r", "r-1", {}, print)
    logs.close("done")
    assert (s3_root / "runs/r/wandb/wandb/run.wandb").read_bytes() == b"offline"


def test_without_a_key_wandb_is_not_touched(tmp_path, wandb, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY")
    assert [log.name for log in open_logs(Location.parse(tmp_path), "r", "r", {}, print).logs] == ["TensorBoard"]
    assert not wandb.started


@pytest.mark.parametrize(
    ("fault", "words"),
    [(ImportError("no wandb"), "pip install wandb"), (RuntimeError("no network"), "RuntimeError: no network")],
)
def test_wandb_that_cannot_be_had_is_noted_and_left_out(tmp_path, wandb, monkeypatch, fault, words):
    def fails(**values: Any) -> None:
        raise fault

    monkeypatch.setattr(wandb, "init", fails)
    notes: list[str] = []
    logs = open_logs(Location.parse(tmp_path), "r", "r", {}, notes.append)
    assert [log.name for log in logs.logs] == ["TensorBoard"]
    assert words in notes[0]
    assert "secret" not in notes[0]


# --- the front --------------------------------------------------------------------------------------------------------


class Kept:
    name = "kept"

    def __init__(self) -> None:
        self.found: list[tuple[int, dict[str, float]]] = []
        self.flushes = 0

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.found.append((step, values))

    def flush(self) -> None:
        self.flushes += 1


def test_scores_that_are_no_numbers_are_left_out():
    kept = Kept()
    RunLogs([kept]).steps(3, [0.5, float("nan")], [0.1, 0.2])
    assert kept.found == [(3, {"step/loss": 0.5, "step/rate": 0.1}), (4, {"step/rate": 0.2})]


def test_a_long_epoch_can_be_followed_while_it_runs():
    kept, now = Kept(), [0.0]
    logs = RunLogs([kept], clock=lambda: now[0])
    logs.steps(0, [1.0], [0.1])
    assert kept.flushes == 0
    now[0] = FLUSH_S + 1
    logs.steps(1, [1.0], [0.1])
    logs.steps(2, [1.0], [0.1])
    assert kept.flushes == 1
    assert run_logs.FLUSH_S <= 120

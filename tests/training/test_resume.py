"""Resume: a run that was killed or stopped at any step ends with the bytes of one that never was."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from inkbatch.errors import CorruptDataError, MismatchError, Preempted
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.steps.train.job import TrainConfig, run
from inkbatch.testing.training import tiny_run
from inkbatch.training.validate import Validator

SAME = (
    "bundle/weights.safetensors",
    "bundle/bundle.json",
    "bundle/reference.safetensors",
    "metrics.csv",
    "losses.csv",
    "curves.png",
    "complete.json",
    "data.json",
)
STEPS = 12  # of tiny_run


class KilledError(Exception):
    """Stands for SIGKILL: nothing of the trainer runs after it."""


def config_of(root: Path, run_name: str, **changes: Any) -> TrainConfig:
    return TrainConfig.checked(tiny_run(root, run=run_name, **changes), "test")


def files_of(root: Path, run_name: str) -> dict[str, bytes]:
    folder = root / "runs" / run_name
    found = {name: (folder / name).read_bytes() for name in SAME}
    return {**found, **{path.name: path.read_bytes() for path in (folder / "validation").iterdir()}}


def stop_after(step: int) -> tuple[RunContext, Any]:
    context = RunContext()

    def on_step(steps: int) -> None:
        if steps == step:
            context.stop.set("a scripted preemption")

    return context, on_step


RICH = {
    **{"ema": 0.9, "accumulate": 2, "batch": 2, "clip_gradient": 1.0, "dataset": "folded", "fold": 0},
    "sampler": {"ink_share": 0.5, "quotas": {"s0": 1, "s1": 1}},
    "augment": {"warp": 0.5, "noise": 0.3, "mix_up": 0.3, "cut_mix": 0.3},
    "loss": {"deep_supervision": 1},
}


@pytest.fixture(scope="module")
def quiet(dataset_template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Train without an interruption, once for each kind of settings."""
    root = tmp_path_factory.mktemp("quiet")
    for name in ("segments", "datasets"):
        (root / name).symlink_to(dataset_template / name)
    for name, changes in (("plain", {}), ("rich", RICH)):
        run(config_of(root, name, **changes), RunContext())
    return {name: files_of(root, name) for name in ("plain", "rich")}


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("plain", 6),
        ("rich", 7),
        *(pytest.param(*place, marks=pytest.mark.slow) for place in (("plain", 1), ("rich", 3), ("rich", 12))),
    ],
)
def test_a_stopped_run_goes_on_at_the_very_step(root, quiet, kind, step):
    config = config_of(root, kind, **({} if kind == "plain" else RICH))
    context, on_step = stop_after(step)
    with pytest.raises(Preempted, match=f"checkpoint of step {step} is stored"):
        run(config, context, on_step)
    assert context.stop.watched
    seen: list[int] = []
    assert run(config, RunContext(), seen.append).complete
    assert seen == list(range(step + 1, STEPS + 1))
    assert files_of(root, kind) == quiet[kind]


@pytest.mark.parametrize("step", [5, *(pytest.param(step, marks=pytest.mark.slow) for step in (2, 9))])
def test_a_killed_run_ends_with_the_same_bytes(root, quiet, step):
    config = config_of(root, "rich", **RICH, save_every_steps=2)

    def die(steps: int) -> None:
        if steps == step:
            raise KilledError

    with pytest.raises(KilledError):
        run(config, RunContext(), die)
    assert not (root / "runs/rich/complete.json").exists()
    seen: list[int] = []
    run(config, RunContext(), seen.append)
    assert seen == list(range((step - 1) // 2 * 2 + 1, STEPS + 1))
    assert files_of(root, "rich") == quiet["rich"]


def test_a_stop_during_validation_repeats_the_validation_alone(root, quiet, monkeypatch):
    context, area = RunContext(), Validator.validate_area

    def stopping(self: Validator, *arguments: Any) -> Any:
        context.stop.set("a scripted preemption")
        return area(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Validator, "validate_area", stopping)
        with pytest.raises(Preempted, match="checkpoint of step 6 is stored"):
            run(config_of(root, "rich", **RICH), context)
    seen: list[int] = []
    run(config_of(root, "rich", **RICH), RunContext(), seen.append)
    assert seen == list(range(7, STEPS + 1))
    assert files_of(root, "rich") == quiet["rich"]


KILLED_AT = ("checkpoints/step-", "checkpoints/pointer.json", "validation/", "curves.png", "bundle/", "report.html")
KILLED_QUICK = {"checkpoints/pointer.json", "bundle/"}  # the others with the slow tests


@pytest.mark.parametrize(
    "place", [place if place in KILLED_QUICK else pytest.param(place, marks=pytest.mark.slow) for place in KILLED_AT]
)
def test_a_run_killed_right_after_it_stored_a_file_ends_with_the_same_bytes(root, quiet, monkeypatch, place):
    """At the end of each epoch in turn, and while the bundle is made: whatever was stored last."""
    config = config_of(root, "rich", **RICH)
    write = Location.write_bytes
    for time in (1, 2, 3):
        seen = 0

        def dying(self: Location, data: bytes, last: int = time) -> None:
            nonlocal seen
            write(self, data)
            seen += f"/runs/rich/{place}" in self.uri
            if seen == last:
                raise KilledError

        with monkeypatch.context() as patch, contextlib.suppress(KilledError):
            patch.setattr(Location, "write_bytes", dying)
            run(config, RunContext())
    run(config, RunContext())
    assert files_of(root, "rich") == quiet["rich"]


def test_a_run_killed_again_and_again_ends_with_the_same_bytes(root, quiet):
    config = config_of(root, "plain", save_every_steps=1)
    for step in range(2, STEPS + 1, 3):

        def die(steps: int, last: int = step) -> None:
            if steps == last:
                raise KilledError

        with pytest.raises(KilledError):
            run(config, RunContext(), die)
    run(config, RunContext())
    assert files_of(root, "plain") == quiet["plain"]


def test_a_complete_run_does_nothing_and_other_settings_are_refused(root):
    config = config_of(root, "plain", epochs=1)
    assert run(config, RunContext()).stored == 1
    before = (root / "runs/plain/bundle/weights.safetensors").stat().st_mtime_ns
    report = run(config, RunContext())
    assert (report.stored, report.skipped, report.complete) == (0, 1, True)
    assert (root / "runs/plain/bundle/weights.safetensors").stat().st_mtime_ns == before
    with pytest.raises(MismatchError, match="seed"):
        run(config_of(root, "plain", epochs=1, seed=1), RunContext())


def test_threads_and_checkpoints_change_no_byte(root, quiet):
    run(config_of(root, "plain", threads=1, save_every_steps=5, save_every_minutes=1e-9), RunContext())
    assert files_of(root, "plain") == quiet["plain"]


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(root, quiet):
    config = config_of(root, "plain", save_every_steps=2)
    context, on_step = stop_after(4)
    with pytest.raises(Preempted):
        run(config, context, on_step)
    folder = root / "runs/plain/checkpoints"
    newest = max(folder.glob("step-*.ckpt"))
    assert "step-000000004" in newest.name
    newest.write_bytes(newest.read_bytes()[:-100])
    seen: list[int] = []
    run(config, RunContext(), seen.append)
    assert seen[0] == 3
    assert files_of(root, "plain") == quiet["plain"]


def test_a_run_without_any_whole_checkpoint_is_refused(root):
    config = config_of(root, "plain")
    context, on_step = stop_after(1)
    with pytest.raises(Preempted):
        run(config, context, on_step)
    for path in (root / "runs/plain/checkpoints").glob("step-*.ckpt"):
        path.unlink()
    with pytest.raises(CorruptDataError, match="none of 1 checkpoints is whole; remove it to start over"):
        run(config, RunContext())


SLOW = """
import sys, time
from inkbatch.training.loop import Trainer
step = Trainer.take_step
def slow(self, one):
    sys.stderr.write("training\\n"); sys.stderr.flush()
    time.sleep(0.3)
    return step(self, one)
Trainer.take_step = slow
from inkbatch.cli.app import main
main(sys.argv[1:])
"""


DYING = """
import os, signal, sys
from inkbatch.training.loop import Trainer
step = Trainer.take_step
def dying(self, one):
    if self.progress.total_steps == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, one)
Trainer.take_step = dying
from inkbatch.cli.app import main
main(sys.argv[1:])
"""


def command_of(root: Path, **changes: Any) -> list[str]:
    settings = root / "run.yaml"
    settings.write_text(yaml.safe_dump(tiny_run(root, run="plain", **changes)))
    return ["train", "--config", str(settings), "--log", "json"]


@pytest.mark.slow
def test_a_process_that_was_killed_goes_on_from_its_newest_checkpoint(root, quiet):
    arguments = command_of(root, save_every_steps=4)
    killed = subprocess.run([sys.executable, "-c", DYING, *arguments], capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    again = subprocess.run([sys.executable, "-m", "inkbatch", *arguments], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "going on after step 8" in again.stderr
    assert files_of(root, "plain") == quiet["plain"]


@pytest.mark.slow
def test_sigterm_saves_and_exits_75_and_the_same_command_goes_on(root, quiet):
    arguments = command_of(root)
    process = subprocess.Popen([sys.executable, "-c", SLOW, *arguments], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    seen = 0
    for line in process.stderr:
        seen += line == "training\n"
        if seen == 3:
            process.send_signal(signal.SIGTERM)
            break
    rest = process.communicate(timeout=120)[1]
    assert process.returncode == 75, rest
    assert "run the same command again" in rest
    again = subprocess.run([sys.executable, "-m", "inkbatch", *arguments], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "going on after step 3" in again.stderr
    assert files_of(root, "plain") == quiet["plain"]

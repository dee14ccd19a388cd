"""A real Slurm (`make test-slurm`): an array of prepare and infer shards on the demo, one task killed and requeued."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from inkbatch.launch.commands import Request
from inkbatch.launch.plan import plan_chain
from inkbatch.launch.slurm import SlurmLauncher, SlurmSettings
from inkbatch.testing.faults import stored_bytes

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(900),  # a requeued task is held for a while
    pytest.mark.skipif(
        shutil.which("scontrol") is None or subprocess.run(["scontrol", "ping"], capture_output=True).returncode != 0,
        reason="no Slurm answers here; make test-slurm starts one",
    ),
]

PYTHON = (sys.executable, "-m", "inkbatch")
SETTINGS = {"prepare": ["shard_px=128"], "infer": ["unit_px=128"]}


@pytest.fixture(autouse=True)
def tracked_tree(monkeypatch):
    """Tasks run this very tree."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent.parent))


def request(root: Path, shards: int = 3) -> Request:
    return Request(
        jobs=("prepare", "infer"),
        subject="demo",
        root=str(root),
        bundles=("demo",),
        shards={"prepare": shards, "infer": shards},
        sets=SETTINGS,
        resources={"gpus": 0, "cpus": 1, "memory": "1GiB"},
    )


def until(what: str, check: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.2)


def logs(folder: Path) -> str:
    return "\n".join(f"== {path.name}\n{path.read_text()}" for path in sorted(folder.glob("*.log")))


@pytest.fixture
def launcher() -> SlurmLauncher:
    return SlurmLauncher(SlurmSettings(program=PYTHON))


def test_a_killed_and_requeued_array_equals_the_whole_run(tmp_path, launcher):
    chain = plan_chain(request(tmp_path / "array"), "infer-demo-20261121-120000-slrm")
    work = tmp_path / "work"
    submitted = launcher.submit(chain, work)
    first_log = work / "infer-0.log"
    until("the first unit of infer", lambda: first_log.exists() and '"event": "unit"' in first_log.read_text())
    task = f"{submitted.jobs['infer'][0]}_0"
    subprocess.run(["scontrol", "requeue", task], check=True)
    until("the requeue", lambda: launcher.status(submitted)[1].counts["waiting"] > 0, 90)
    # Slurm holds a requeued task for two minutes; a test need not wait.
    release = ["scontrol", "update", f"JobId={task}", "StartTime=now"]
    until("the release", lambda: subprocess.run(release, capture_output=True).returncode == 0, 60)
    complete = tmp_path / "array" / "predictions" / "demo"
    until("the array", lambda: any(complete.glob("*/complete.json")))
    until("its end", lambda: launcher.status(submitted)[1].counts["done"] == 3, 60)

    words = first_log.read_text()
    assert "SIGTERM" in words, words
    begun = [json.loads(line)["done"] for line in words.splitlines() if line.startswith('{"event": "start"')]
    assert begun[0] == 0
    assert begun[1] > 0, words  # it went on with what was stored
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for spec in plan_chain(request(tmp_path / "whole", 1), "whole").jobs:
        subprocess.run([*PYTHON, *spec.command], check=True, env=environment, capture_output=True)
    for folder in ("segments", "predictions"):
        assert stored_bytes(tmp_path / "array" / folder) == stored_bytes(tmp_path / "whole" / folder), logs(work)


def test_a_failed_array_takes_its_dependants_with_it(tmp_path, launcher):
    wanted = replace(request(tmp_path / "array", 2), sets={"prepare": ["no_such_setting=1"]})
    chain = plan_chain(wanted, "infer-demo-20261121-120001-slrm")
    submitted = launcher.submit(chain, tmp_path / "work")
    until("the end", lambda: launcher.status(submitted)[0].counts["failed"] == 2, 120)
    until("the dependants' end", lambda: launcher.status(submitted)[1].counts["cancelled"] == 2, 120)
    assert "unknown key" in logs(tmp_path / "work")


def test_a_cancelled_array_stays_cancelled_and_keeps_what_is_stored(tmp_path, launcher):
    chain = plan_chain(request(tmp_path / "array"), "infer-demo-20261121-120002-slrm")
    submitted = launcher.submit(chain, tmp_path / "work")
    until("a running task", lambda: launcher.status(submitted)[0].counts["running"] > 0)
    launcher.cancel(submitted)
    until("the end", lambda: not any(state.counts["running"] for state in launcher.status(submitted)), 90)
    time.sleep(2)
    assert not any(state.counts["running"] or state.counts["waiting"] for state in launcher.status(submitted))
    assert launcher.cancel(submitted)

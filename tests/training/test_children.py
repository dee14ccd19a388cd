"""Several processes: where one fails, all end, and the first one exits with its code."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml

from inkbatch.errors import DataError
from inkbatch.testing.training import NETWORK, tiny_run
from inkbatch.training.children import ChildFailed, watched_children


def fabric_with(*scripts: str) -> SimpleNamespace:
    children = [subprocess.Popen([sys.executable, "-c", script]) for script in scripts]
    return SimpleNamespace(strategy=SimpleNamespace(launcher=SimpleNamespace(procs=children)))


def children_of(fabric) -> list[subprocess.Popen]:
    return list(fabric.strategy.launcher.procs)


def test_an_error_that_follows_a_childs_failure_becomes_that_failure():
    fabric = fabric_with("import sys; sys.exit(65)", "import time; time.sleep(60)")
    children = children_of(fabric)
    children[0].wait()
    with pytest.raises(ChildFailed, match="process 1 of this run .* exit code 65") as found, watched_children(fabric):
        raise RuntimeError("connection closed by peer")
    assert found.value.exit_code == 65
    assert children[1].wait(timeout=10) == -9


def test_an_error_of_ours_stays_what_it_is_and_ends_the_children():
    fabric = fabric_with("import time; time.sleep(60)")
    (child,) = children_of(fabric)
    with pytest.raises(DataError, match="labels"), watched_children(fabric):
        raise DataError("labels")
    assert child.wait(timeout=10) == -9


def test_another_error_stays_what_it_is_where_no_child_failed():
    fabric = fabric_with("pass")
    children_of(fabric)[0].wait()
    with pytest.raises(RuntimeError, match="a bug"), watched_children(fabric, grace_s=0.3):
        raise RuntimeError("a bug")


def test_a_process_without_children_is_left_alone():
    with watched_children(SimpleNamespace(strategy=SimpleNamespace())):
        pass


BLOCKED = """
import subprocess, sys, time
from types import SimpleNamespace
from inkbatch.training.children import watched_children
child = subprocess.Popen([sys.executable, "-c", {script!r}])
with watched_children(SimpleNamespace(strategy=SimpleNamespace(launcher=SimpleNamespace(procs=[child]))), 0.2):
    time.sleep(200)
"""


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("import sys; sys.exit(65)", 65, "failed with exit code 65"),
        ("import os; os.kill(os.getpid(), 9)", 75, "was killed by signal 9; lack of memory"),
    ],
)
def test_a_first_process_that_waits_for_a_dead_one_ends_with_its_code(script, code, words):
    command = [sys.executable, "-c", BLOCKED.format(script=script)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert found.returncode == code, found.stderr
    assert words in found.stderr


FAILING = """
import os, sys
from inkbatch.errors import DataError
from inkbatch.training.loop import Trainer
step = Trainer.take_step
def broken(self, one):
    if os.environ.get("LOCAL_RANK") == "1" and self.progress.total_steps == 2:
        raise DataError("a layer of this process is damaged")
    step(self, one)
Trainer.take_step = broken
from inkbatch.cli.app import main
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.timeout(600)  # two starts of torch
def test_a_run_whose_second_process_meets_bad_data_exits_with_65(root):
    script, settings = root / "failing.py", root / "failing.yaml"
    script.write_text(FAILING)
    model = {"architecture": "smp", "config": NETWORK}
    settings.write_text(yaml.safe_dump(tiny_run(root, run="failing", model=model, devices=2)))
    command = [sys.executable, str(script), "train", "--config", str(settings), "--log", "plain"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    found = subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)
    assert found.returncode == 65, found.stderr
    assert "a layer of this process is damaged" in found.stderr
    assert "this is a bug in inkbatch" not in found.stderr

"""The Makefile hands arguments on word by word, and its help leads users first."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PROGRAM = f"""#!{sys.executable}
import json, sys
print(json.dumps(sys.argv[1:]))
"""
QUOTED = """--name "a b" --labels 'it$$s "here".png'"""
WORDS = ["--name", "a b", "--labels", 'it$s "here".png']

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def make(tmp_path):
    """Run make with an environment whose ``inkbatch`` prints its arguments; returns them, one list per call."""
    tools = tmp_path / "venv" / "bin"
    tools.mkdir(parents=True)
    (tools / "inkbatch").write_text(PROGRAM)
    (tools / "inkbatch").chmod(0o755)
    for made in (tools / "uv", tools.parent / ".runtime"):
        made.touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}

    def run(*words: str) -> list[list[str]]:
        command = ["make", "-s", *words, f"VENV={tools.parent}"]
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]

    return run


@pytest.mark.parametrize("target", ["export", "status", "view"])
def test_quotes_in_arguments_survive(make, target):
    (called,) = make(target, "SEGMENT=page", f"ARGS={QUOTED}")
    assert called[-len(WORDS) :] == WORDS


@pytest.mark.parametrize("target", ["evaluate", "ensemble", "infer", "prepare", "doctor"])
def test_quotes_in_arguments_survive_a_launch(make, target):
    (called,) = make(target, "SEGMENT=page", "ENGINE=slurm", f"ARGS={QUOTED}")
    assert f"--args={QUOTED.replace('$$', '$')}" in called  # the command line splits it as a shell does


def test_each_job_of_a_launch_gets_its_own_arguments(make):
    (called,) = make("infer", "SEGMENT=page", "SHARDS=2", 'PREPARE_ARGS=--memory "2 GiB"', "ARGS=--tta none")
    assert {'--prepare-args=--memory "2 GiB"', "--args=--tta none"} <= set(called)


def test_help_lists_every_target_once_and_users_first():
    said = subprocess.run(["make", "-s", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    listed = re.findall(r"^  make ([a-z-]+)", said, re.MULTILINE)
    targets = re.findall(r"^\.PHONY: ([a-z-]+)", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(set(targets) - {"need-segment"})
    sections = re.findall(r"^\w.*[^:]$", said.split("\nSettings:")[0], re.MULTILINE)
    assert sections[0] == "Start here"
    assert all(name.startswith("Development") for name in sections[-2:])

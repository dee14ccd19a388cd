"""The Makefile hands arguments on word by word, and its help leads users first."""

from __future__ import annotations

import importlib.util
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
    listed = re.findall(r"^  make ([a-z0-9-]+)", said, re.MULTILINE)
    targets = re.findall(r"^\.PHONY: ([a-z0-9-]+)", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(set(targets) - {"need-segment"})
    sections = re.findall(r"^\w.*[^:]$", said.split("\nSettings:")[0], re.MULTILINE)
    assert sections[0] == "Start here"
    assert all(name.startswith("Development") for name in sections[-2:])


def set_up(tmp_path, driver: str | None, *words: str) -> subprocess.CompletedProcess:
    """Run ``make setup`` with an nvidia-smi that names a driver, and a uv that prints what it is asked to install."""
    tools, bin_folder = tmp_path / "tools", tmp_path / "venv" / "bin"
    tools.mkdir()
    bin_folder.mkdir(parents=True)
    (bin_folder / "uv").write_text('#!/bin/sh\necho "uv $UV_TORCH_BACKEND $*"\n')
    (bin_folder / "python").symlink_to(sys.executable)
    programs = [bin_folder / "uv"]
    if driver is not None:
        (tools / "nvidia-smi").write_text(f"#!/bin/sh\necho {driver}\n")
        programs.append(tools / "nvidia-smi")
    for program in programs:
        program.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "UV_"))}
    environment["PATH"] = f"{tools}:{environment['PATH']}"
    stub = f"{tmp_path}/none.mk"
    Path(stub).write_text("lock-flavour:\n\t@echo locked for $(FLAVOUR)\n")
    command = ["make", "-s", "-f", "Makefile", "-f", stub, "setup", f"VENV={bin_folder.parent}", *words]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("driver", "words", "flavour"),
    [("580.65.06", [], "locked"), ("590.10", [], "locked"), (None, [], "locked")],
)
def test_setup_takes_the_torch_that_fits_the_driver_and_says_so(tmp_path, driver, words, flavour):
    if driver is None and shutil.which("nvidia-smi"):
        pytest.skip("this machine has a driver of its own")
    done = set_up(tmp_path, driver, *words)
    assert done.returncode == 0, done.stderr
    assert f"torch: FLAVOUR={flavour}" in done.stderr
    assert "--require-hashes -r requirements/runtime.lock" in done.stdout
    assert (tmp_path / "venv/.runtime").read_text() == f"{flavour}\n"


@pytest.mark.parametrize(
    ("asked", "driver", "flavour"),
    [
        ("auto", "550.54.14", "cu126"),
        ("auto", "525.60.13", "cu126"),
        ("auto", None, "locked"),
        ("cu126", "580.1", "cu126"),
        ("cpu", "390.1", "cpu"),
    ],
)
def test_an_older_driver_gets_the_older_cuda(asked, driver, flavour):
    assert torch_flavour().choose(asked, driver)[0] == flavour


@pytest.mark.parametrize(
    ("words", "driver", "said"),
    [
        ([], "470.82.01", "expected driver 525.60.13 or newer for FLAVOUR=cu126, got 470.82.01"),
        (
            ["FLAVOUR=locked"],
            "550.54.14",
            "expected driver 580 or newer for FLAVOUR=locked, got 550.54.14; FLAVOUR=cu126",
        ),
    ],
)
def test_setup_refuses_a_driver_that_is_too_old_before_anything_is_installed(tmp_path, words, driver, said):
    done = set_up(tmp_path, driver, *words)
    assert done.returncode != 0
    assert said in done.stderr
    assert "pip install" not in done.stdout


def torch_flavour():
    spec = importlib.util.spec_from_file_location("torch_flavour", REPOSITORY / "scripts" / "torch_flavour.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

"""Statements of the pages about engines are so: files that are named are there, and the steps for adding one work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import inkbatch.launch  # noqa: F401  # registers the engines
from inkbatch.launch.base import launcher_class, launcher_names
from inkbatch.launch.jobfile import LaunchBlock

REPOSITORY = Path(__file__).parent.parent.parent
ADDING = (REPOSITORY / "docs" / "adding-an-engine.md").read_text(encoding="utf-8")
LAUNCHING = (REPOSITORY / "docs" / "launching.md").read_text(encoding="utf-8")


def blocks(page: str) -> dict[str, str]:
    """Code blocks by the file that the line before them names."""
    return dict(re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL))


@pytest.fixture
def checkout(tmp_path):
    """A copy of what a contributor changes, with the steps of the page applied."""
    unneeded = shutil.ignore_patterns("__pycache__", "*.pyc", "*.tif", "*.png", "weights.safetensors")
    shutil.copytree(REPOSITORY / "inkbatch", tmp_path / "inkbatch", ignore=unneeded)
    shutil.copytree(REPOSITORY / "jobs", tmp_path / "jobs")
    (tmp_path / "tests" / "launch").mkdir(parents=True)
    shutil.copy(REPOSITORY / "tests" / "launch" / "conftest.py", tmp_path / "tests" / "launch")
    for path, content in blocks(ADDING).items():
        assert not (tmp_path / path).exists(), "the page must not overwrite anything"
        (tmp_path / path).write_text(content, encoding="utf-8")
    line = re.search(r"^from inkbatch\.launch import lsf.*$", ADDING, flags=re.MULTILINE)
    registry = tmp_path / "inkbatch" / "launch" / "__init__.py"
    registry.write_text(f"{registry.read_text(encoding='utf-8')}{line[0]}\n", encoding="utf-8")
    return tmp_path


def run_there(folder: Path, *command: str, **environment: str) -> str:
    ended = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout


@pytest.mark.slow
def test_the_steps_for_adding_an_engine_work(checkout):
    """The contract suite passes on the page's engine, and the command line knows it."""
    pytest_there = ("-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", "tests/launch")
    run_there(checkout, *pytest_there, INKBATCH_WRITE_GOLDEN="1")
    assert "passed" in run_there(checkout, *pytest_there)
    rendered = run_there(
        checkout, "-m", "inkbatch", "launch", "infer", "demo", "--bundle", "demo", "--engine", "lsf", "--dry-run"
    )
    assert "#BSUB -n 4" in rendered


def test_the_page_has_all_its_files():
    assert sorted(blocks(ADDING)) == ["inkbatch/launch/lsf.py", "tests/launch/test_lsf.py"]


@pytest.mark.parametrize("page", [ADDING, LAUNCHING], ids=["adding-an-engine", "launching"])
def test_links_and_files_that_are_named_are_there(page):
    assert all((REPOSITORY / "docs" / link).exists() for link in re.findall(r"\]\(([\w./-]+)\)", page))
    own = re.findall(r"^`([\w./-]+)`:$", page, flags=re.MULTILINE)
    named = [path for path in re.findall(r"`((?:inkbatch|jobs|tests)/[\w./-]+)`", page) if path not in own]
    assert all((REPOSITORY / path).exists() for path in named), named


def test_the_table_lists_every_engine_and_the_example_settings_are_valid():
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", LAUNCHING, flags=re.MULTILINE)) == launcher_names()
    job, engines = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", LAUNCHING, flags=re.DOTALL))
    assert LaunchBlock.checked(job["launch"], "page").resources.gpus == 1
    assert sorted(engines) == launcher_names()
    for name, values in engines.items():
        launcher_class(name).settings_class.checked(values, name)

"""Workflows and templates of the Git host: they call make, and test both ends of the supported Pythons."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yaml"))
FORMS = sorted((REPOSITORY / ".github" / "ISSUE_TEMPLATE").glob("*.yaml"))
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^\.PHONY: ([a-z0-9-]+)", MAKEFILE, re.MULTILINE))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(path: Path) -> dict:
    return yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)  # "on" stays a word


def steps(path: Path) -> list[dict]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_command_of_a_workflow_is_a_make_target(path):
    commands = [step["run"] for step in steps(path) if "run" in step]
    assert commands
    for command in commands:
        program, target, *settings = command.split()
        assert program == "make"
        assert target in TARGETS
        assert [word for word in settings if not re.match(r"[A-Z]+=", word)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_and_ends_in_time(path):
    assert read(path)["permissions"] == {"contents": "read"}
    assert all(int(job["timeout-minutes"]) <= 60 for job in read(path)["jobs"].values())


def test_the_oldest_and_the_newest_supported_python_are_tested():
    prefix = "Programming Language :: Python :: 3."
    minors = sorted(int(text.removeprefix(prefix)) for text in PROJECT["classifiers"] if text.startswith(prefix))
    (ci,) = (path for path in WORKFLOWS if path.stem == "ci")
    assert read(ci)["jobs"]["test"]["strategy"]["matrix"]["python"] == [f"3.{minors[0]}", f"3.{minors[-1]}"]
    assert PROJECT["requires-python"] == f">=3.{minors[0]}"


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_has_what_the_host_requires(path):
    form = read(path)
    assert {"name", "description", "body"} <= set(form)
    inputs = [entry for entry in form["body"] if entry["type"] != "markdown"]
    assert all(entry["id"] and entry["attributes"]["label"] for entry in inputs)
    assert any(entry.get("validations", {}).get("required") == "true" for entry in inputs)

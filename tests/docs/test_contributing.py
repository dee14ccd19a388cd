"""CONTRIBUTING.md sends nobody to a folder that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`((?:inkbatch|tests|docs|jobs|requirements)/[\w./-]*)`", TEXT)))
GENERAL = {"jobs/NAME.yaml"}  # the reader's own
ROOMS = sorted(path.name for path in (REPOSITORY / "inkbatch").iterdir() if (path / "__init__.py").is_file())


def test_every_file_and_folder_that_the_page_names_is_there():
    assert len(NAMED) > 25
    assert [name for name in NAMED if name not in GENERAL and not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize("room", ROOMS)
def test_the_page_says_what_belongs_into_each_room(room):
    assert f"`inkbatch/{room}/" in TEXT


def test_a_command_that_runs_tests_names_tests_that_are_there():
    named = re.findall(r"pytest (?:-m slow )?(tests\S+)", TEXT)
    assert len(named) == 3
    assert [name for name in named if not (REPOSITORY / name).exists()] == []

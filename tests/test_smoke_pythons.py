"""`make test-pythons` chooses the oldest and the newest Python that starts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "smoke_pythons.py"


@pytest.fixture(scope="module")
def smoke():
    spec = importlib.util.spec_from_file_location("smoke_pythons", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def python(smoke):
    return lambda minor, micro=0, program="": smoke.Interpreter(
        (3, minor, micro), program or f"/usr/bin/python3.{minor}"
    )


def test_both_ends_are_tested_and_none_between(smoke, python):
    assert smoke.oldest_and_newest([python(13), python(11), python(12)], python(12, 4)) == [python(11), python(13)]


def test_what_is_installed_already_stands_for_its_version(smoke, python):
    own = python(11, 7, ".venv/bin/python")
    assert smoke.oldest_and_newest([python(11, 2), python(13)], own) == [own, python(13)]
    assert smoke.oldest_and_newest([python(11, 2)], own) == [own]


def test_a_python_that_is_not_supported_is_left_out(smoke, python):
    assert smoke.oldest_and_newest([python(10), python(15)], python(12)) == [python(12)]


def test_a_program_says_which_python_it_is_and_a_shim_that_fails_is_none(smoke, tmp_path):
    assert smoke.interpreter_of(sys.executable).version == sys.version_info[:3]
    shim = tmp_path / "python3.13"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    assert smoke.interpreter_of(str(shim)) is None
    assert smoke.interpreter_of(str(tmp_path / "missing")) is None


def test_an_environment_under_pyenvs_root_is_found(smoke, tmp_path, monkeypatch):
    program = tmp_path / "versions" / "3.13.0" / "bin" / "python3.13"
    program.parent.mkdir(parents=True)
    program.touch()
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert str(program) in smoke.programs()

"""The command line in this process: what it prints, and its exit code, without a new interpreter for each command."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import pytest

from inkbatch.cli.app import main


class Said(NamedTuple):
    """Output of a command."""

    stdout: str
    stderr: str


@pytest.fixture
def inkbatch(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command in a folder, with the INKBATCH_ variables that are given alone; `code` is how it has to end."""

    def run(*arguments: object, code: int = 0, cwd: object = None, **environment: str) -> Said:
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("INKBATCH_")]:
                patch.delenv(name)
            for name, value in environment.items():
                patch.setenv(name, value)
            if cwd is not None:
                patch.chdir(str(cwd))
            capfd.readouterr()
            with pytest.raises(SystemExit) as stopped:
                main([str(argument) for argument in arguments])
        said = Said(*capfd.readouterr())
        assert stopped.value.code == code, said.stdout + said.stderr
        return said

    return run

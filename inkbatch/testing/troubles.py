"""The messages of docs/troubleshooting.md, and a desk at which they are provoked."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inkbatch.cli import app as cli
from inkbatch.cli.outcome import run_command
from inkbatch.testing.segments import identity_bundle, random_papyrus, write_layers

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ENTRIES = dict(re.findall(r"^### `(.+)`\n(\d+)", PAGE, re.MULTILINE))
SHAPE = (5, 90, 120)
SLOW = {"cannot be shared evenly by … devices"}  # starts processes

Provoker = Callable[..., tuple[int, str]]


class Desk:
    """A folder with layers, a bundle and the command line.

    Attributes:
        folder: Folder of all files.
        layers: Five layers.
        bundle: An identity bundle of three layers.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.monkeypatch, self._capsys = folder, monkeypatch, capsys
        self.layers = write_layers(folder / "layers", random_papyrus(SHAPE))
        self.bundle = folder / "bundle"
        identity_bundle(self.bundle)
        monkeypatch.setattr("inkbatch.run.signals.install_handlers", lambda stop: None)
        monkeypatch.chdir(folder)

    def says(self, *arguments: object) -> tuple[int, str]:
        """Run a command; returns its exit code and message."""
        words = [str(argument) for argument in arguments]
        code = run_command(lambda: cli.app(args=words, standalone_mode=False))
        return code, self._capsys.readouterr().err

    def prepare(self, *arguments: object, source: object = None, stated: bool = True) -> tuple[int, str]:
        """Prepare the layers, or another source; `stated` says what a folder cannot know."""
        facts = ["--depth-order", "forward", "--voxel-size-um", "8"] if stated else []
        return self.says("prepare", "tiny", "--source", source or self.layers, *facts, *arguments)

    def infer(self, *arguments: object, bundle: object = None) -> tuple[int, str]:
        """Run infer with the bundle, or another one."""
        return self.says("infer", "tiny", "--bundle", bundle or self.bundle, *arguments)

    def prepared(self) -> Desk:
        """Prepare the layers; returns the desk."""
        assert self.prepare()[0] == 0
        return self

    def inferred(self) -> Desk:
        """Prepare and infer; returns the desk."""
        assert self.prepared().infer("--name", "a")[0] == 0
        return self


class Troubles:
    """Functions that provoke messages, by the heading under which the page explains them."""

    def __init__(self) -> None:
        self._provokers: dict[str, Provoker] = {}

    def provokes(self, heading: str) -> Callable[[Provoker], Provoker]:
        """Register a function that provokes a message; it gets the desk and fixtures by name."""

        def register(function: Provoker) -> Provoker:
            self._provokers[heading] = function
            return function

        return register

    def headings(self) -> list[Any]:
        """Return the parameters of a test, one per message."""
        return [
            pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in sorted(self._provokers)
        ]

    def check(self, heading: str, desk: Desk, fixture: Callable[[str], Any]) -> None:
        """Check that a message has the words of the page (``…`` stands for anything) and the page's exit code."""
        provoker = self._provokers[heading]
        code = provoker.__code__
        exit_code, said = provoker(desk, *(fixture(name) for name in code.co_varnames[1 : code.co_argcount]))
        assert re.search(".*?".join(map(re.escape, heading.split("…"))), said, re.DOTALL), said
        assert exit_code == int(ENTRIES[heading])
        assert "Traceback" not in said

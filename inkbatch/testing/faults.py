"""Faults on a script: a preemption after so many units, and how looks at what a run stored compare."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inkbatch.run.job import RunContext
from inkbatch.run.progress import QuietReporter
from inkbatch.run.record import REPORT_NAME
from inkbatch.run.signals import StopFlag


class Notes(QuietReporter):
    """Reporter that keeps what a job notes, in `said`."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        """Keep a note."""
        self.said.append(text)


class StopsAt(QuietReporter):
    """Reporter that asks for a stop when a note holds a word."""

    def __init__(self, word: str, stop: StopFlag) -> None:
        self.word, self.stop = word, stop

    def note(self, text: str) -> None:
        """Look for the word."""
        if self.word in text:
            self.stop.set("test")


class _StopAfterUnits(QuietReporter):
    def __init__(self, stop: StopFlag, count: int) -> None:
        self.stop, self.left = stop, count

    def unit(self, name: str, facts: Mapping[str, Any]) -> None:
        self.left -= 1
        if self.left <= 0:
            self.stop.set("a scripted preemption")


def preempted_context(after_units: int, **changes: Any) -> RunContext:
    """Make a context whose job is stopped once `after_units` units are stored; 0 stops it before the first."""
    stop = StopFlag()
    if after_units == 0:
        stop.set("a scripted preemption")
    return RunContext(stop=stop, reporter=_StopAfterUnits(stop, after_units), **changes)


# A command line killed while it stores a map's unit: `python -c KILLED_WHILE_STORING.format(after=2) infer …`
KILLED_WHILE_STORING = """
import os, sys, signal
from inkbatch.io.prediction import Prediction
write, count = Prediction.write, [0]
def dying(self, box, probability):
    count[0] += 1
    if count[0] == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, box, probability)
Prediction.write = dying
from inkbatch.cli.app import main
main(sys.argv[1:])
"""


def stored_bytes(folder: Path | str) -> dict[str, bytes]:
    """Read every file of a run's folder by relative path, except those with a clock: ``run*.json``, ``report.html``."""
    root = Path(folder)
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.startswith(("run", REPORT_NAME))
    }

"""What a person, or a log collector, sees while a job runs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LogMode = Literal["auto", "plain", "json"]


class Reporter(Protocol):
    """Receives the events of a job."""

    def start(self, job: str, total: int, skipped: int) -> None:
        """The job begins; `skipped` of `total` units are done already."""

    def unit(self, name: str, facts: Mapping[str, Any]) -> None:
        """A unit is stored and marked."""

    def note(self, text: str) -> None:
        """Something a person should know."""

    def close(self) -> None:
        """The job is over."""


class LineReporter:
    """One line per event on standard error: JSON, or plain words."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._started = time.monotonic()
        self._job, self._total, self._done = "", 0, 0

    def start(self, job: str, total: int, skipped: int) -> None:
        """State the job and its size."""
        self._job, self._total, self._done = job, total, skipped
        self._write({"event": "start", "job": job, "units": total, "done": skipped})

    def unit(self, name: str, facts: Mapping[str, Any]) -> None:
        """State one finished unit."""
        self._done += 1
        seconds = round(time.monotonic() - self._started, 3)
        row = {"event": "unit", "job": self._job, "unit": name, "done": self._done, "units": self._total}
        self._write({**row, "seconds": seconds, **facts})

    def note(self, text: str) -> None:
        """State a remark."""
        self._write({"event": "note", "text": text})

    def close(self) -> None:
        """Nothing is left to do."""

    def _write(self, row: Mapping[str, Any]) -> None:
        if self.as_json:
            text = json.dumps(row, ensure_ascii=False)
        elif row["event"] == "note":
            text = str(row["text"])
        elif row["event"] == "start":
            text = f"{row['job']}: {row['units']} units, {row['done']} done already"
        else:
            text = f"{row['job']}: unit {row['unit']} stored ({row['done']}/{row['units']}, {row['seconds']} s)"
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


class BarReporter:
    """A progress bar on a terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("units"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )

    def start(self, job: str, total: int, skipped: int) -> None:
        """Show the bar."""
        self._progress.start()
        self._task = self._progress.add_task(job, total=total, completed=skipped)

    def unit(self, name: str, facts: Mapping[str, Any]) -> None:
        """Advance the bar."""
        self._progress.advance(self._task)

    def note(self, text: str) -> None:
        """Print above the bar."""
        self._console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()


class QuietReporter:
    """Says nothing; for libraries and tests."""

    def start(self, job: str, total: int, skipped: int) -> None:
        """Ignore."""

    def unit(self, name: str, facts: Mapping[str, Any]) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""

    def close(self) -> None:
        """Ignore."""


def make_reporter(mode: LogMode) -> Reporter:
    """A bar on a terminal and plain lines elsewhere (`auto`), or what was asked for."""
    if mode == "auto" and sys.stderr.isatty():
        return BarReporter()
    return LineReporter(as_json=mode == "json")


class Reporting:
    """Closes a reporter, whatever happens."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    def __enter__(self) -> Reporter:
        return self.reporter

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reporter.close()

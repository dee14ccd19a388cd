"""Progress of a job, for people and log collectors."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from inkbatch.redaction import redact
from inkbatch.run.prices import hourly_usd
from inkbatch.text import count_text

LogMode = Literal["auto", "plain", "json"]


class Reporter(Protocol):
    """Receives the events of a job."""

    def start(self, job: str, total: int, skipped: int, noun: str = "unit") -> None:
        """Begin the job; `skipped` of `total` units, or what `noun` says, are already done."""

    def unit(self, name: str, facts: Mapping[str, Any]) -> None:
        """Count a unit that is stored and marked."""

    def advance(self, share: float, facts: Mapping[str, Any]) -> None:
        """Report that `share` of a unit that takes long is done, with its facts since the last report."""

    def note(self, text: str) -> None:
        """Show a line that a person should read."""

    def close(self) -> None:
        """End the job."""


class Pace:
    """Pace of the finished units: tiles (else bytes written) per second, the device's share, money so far.

    Args:
        usd_per_hour: Price of this machine; None leaves money out.
        clock: Seconds that only grow.
    """

    def __init__(self, usd_per_hour: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = usd_per_hour, clock
        self._started, self._tiles, self._bytes = clock(), 0.0, 0
        self._open_tiles = 0.0
        self._share: float | None = None
        self._lock = threading.Lock()  # threads that store count units, the one that computes counts parts of them

    def restart(self) -> None:
        """Begin the job now."""
        self._started, self._tiles, self._open_tiles, self._bytes, self._share = self._clock(), 0, 0, 0, None

    def advance(self, facts: Mapping[str, Any]) -> dict[str, float]:
        """Count a part of a unit: its tiles are not counted again with the unit. See `add`."""
        with self._lock:
            self._open_tiles += float(facts.get("tiles", 0))
        return self.add({key: value for key, value in facts.items() if key != "tiles"})

    def add(self, facts: Mapping[str, Any]) -> dict[str, float]:
        """Count a finished unit.

        Args:
            facts: Its ``tiles`` and ``bytes_written``, and of the whole run so far ``device_share`` and ``loop_s``
                (seconds since units began: building a network slows no tile), where they are known.

        Returns:
            ``seconds`` and, where known, ``tiles_per_s`` (without tiles ``mb_per_s``), ``device_share`` and ``usd``.
        """
        tiles = float(facts.get("tiles", 0))
        with self._lock:
            self._open_tiles = max(self._open_tiles - tiles, 0.0)
            self._tiles += tiles
            self._bytes += int(facts.get("bytes_written", 0))
            tiles = self._tiles + self._open_tiles
        self._share = facts.get("device_share", self._share)
        seconds = max(self._clock() - self._started, 1e-9)
        working = max(facts.get("loop_s", seconds), 1e-9)
        found = {"seconds": round(seconds, 3)}
        if tiles:
            found["tiles_per_s"] = float(f"{tiles / working:.4g}")
        elif self._bytes:
            found["mb_per_s"] = float(f"{self._bytes / working / 1e6:.4g}")
        if self._share is not None:
            found["device_share"] = round(self._share, 3)
        if self._rate is not None:
            found["usd"] = round(seconds / 3600 * self._rate, 4)
        return found


def pace_text(row: Mapping[str, float]) -> str:
    """Format the pace for people, for example ``1,240 tiles/s · device 87 % · 0.42 USD``."""
    parts = []
    if "tiles_per_s" in row:
        rate = row["tiles_per_s"]
        parts.append(f"{rate:,.0f} tiles/s" if rate >= 10 else f"{rate:.2g} tiles/s")
    elif "mb_per_s" in row:
        parts.append(f"{row['mb_per_s']:,.3g} MB/s written")
    if "device_share" in row:
        parts.append(f"device {row['device_share']:.0%}".replace("%", " %"))
    if "usd" in row:
        parts.append(f"{row['usd']:.2f} USD")
    return " · ".join(parts)


class LineReporter:
    """One line per event on standard error: JSON, or plain words."""

    def __init__(self, as_json: bool, usd_per_hour: float | None = None) -> None:
        self.as_json = as_json
        self._pace = Pace(usd_per_hour)
        self._job, self._noun, self._total, self._done = "", "unit", 0, 0

    def start(self, job: str, total: int, skipped: int, noun: str = "unit") -> None:
        """State the job and its size."""
        self._job, self._total, self._done = job, total, skipped
        self._pace.restart()
        self._noun = noun
        self._write({"event": "start", "job": job, "units": total, "done": skipped})

    def unit(self, name: str, facts: Mapping[str, Any]) -> None:
        """State one finished unit."""
        self._done += 1
        row = {"event": "unit", "job": self._job, "unit": name, "done": self._done, "units": self._total}
        self._write({**row, **facts, **self._pace.add(facts)})

    def advance(self, share: float, facts: Mapping[str, Any]) -> None:
        """Count, and say nothing: a log gets one line per unit."""
        self._pace.advance(facts)

    def note(self, text: str) -> None:
        """State a remark."""
        self._write({"event": "note", "text": text})

    def close(self) -> None:
        """Do nothing: the line is finished."""

    def _write(self, row: Mapping[str, Any]) -> None:
        if self.as_json:
            text = json.dumps({key: _clean(value) for key, value in row.items()}, ensure_ascii=False)
        elif row["event"] == "note":
            text = redact(str(row["text"]))
        elif row["event"] == "start":
            text = f"{row['job']}: {count_text(row['units'], self._noun)}, {row['done']:,} already done"
        else:
            parts = [f"{row['done']}/{row['units']}", f"{row['seconds']} s", pace_text(row)]
            beside = ", ".join(part for part in parts if part)
            said = f"unit {row['unit']} stored" if "said" not in row else f"{row['unit']}: {row['said']}"
            text = f"{row['job']}: {said} ({beside})"
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _clean(value: Any) -> Any:
    return redact(value) if isinstance(value, str) else value


class BarReporter:
    """A progress bar on a terminal."""

    def __init__(self, usd_per_hour: float | None = None) -> None:
        self._console = Console(stderr=True)
        self._pace = Pace(usd_per_hour)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[noun]}s"),
            TextColumn("{task.fields[pace]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            transient=True,
        )

    def start(self, job: str, total: int, skipped: int, noun: str = "unit") -> None:
        """Show the bar."""
        self._pace.restart()
        self._progress.start()
        self._done = skipped
        self._task = self._progress.add_task(job, total=total, completed=skipped, pace="", noun=noun)

    def unit(self, name: str, facts: Mapping[str, Any]) -> None:
        """Advance the bar; print what is said of the unit above it."""
        self._done += 1
        if "said" in facts:
            self.note(f"{name}: {facts['said']}")
        self._progress.update(self._task, completed=self._done, pace=pace_text(self._pace.add(facts)))

    def advance(self, share: float, facts: Mapping[str, Any]) -> None:
        """Advance the bar within a unit."""
        share = min(share, 0.99)  # the unit itself is counted when it is stored
        self._progress.update(self._task, completed=self._done + share, pace=pace_text(self._pace.advance(facts)))

    def note(self, text: str) -> None:
        """Print above the bar."""
        self._console.print(redact(text), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()


class QuietReporter:
    """Says nothing; for libraries and tests."""

    def start(self, job: str, total: int, skipped: int, noun: str = "unit") -> None:
        """Ignore."""

    def unit(self, name: str, facts: Mapping[str, Any]) -> None:
        """Ignore."""

    def advance(self, share: float, facts: Mapping[str, Any]) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""

    def close(self) -> None:
        """Ignore."""


def make_reporter(mode: LogMode) -> Reporter:
    """Make a bar on a terminal and plain lines elsewhere (`auto`), or what was asked for."""
    rate = hourly_usd()
    if mode == "auto" and sys.stderr.isatty():
        return BarReporter(rate)
    return LineReporter(mode == "json", rate)


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

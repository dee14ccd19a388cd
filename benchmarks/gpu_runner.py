"""Runs the steps of the GPU check, each in a process of its own that is ended when its time is over."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

CPU_PATIENCE = 6  # a rehearsal on a CPU that others use, too, may take so much longer
SHORTEST_S = 5.0  # a step that has less time left is not begun
KILLED_WITHIN_S = 5.0
Row = dict[str, Any]


@dataclass(frozen=True)
class Given:
    """Surroundings of a step.

    Attributes:
        device: ``cuda`` or ``cpu``.
        quick: Tiny sizes: shows that the step runs, measures nothing.
        folder: A folder of its own, removed afterwards.
    """

    device: str
    quick: bool
    folder: Path


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: Its name.
        limit_s: Seconds after which it is ended.
        where: ``module:function``; the function takes `Given` and yields rows. A row with ``"ok": False`` fails the
            step, an exception does too.
    """

    name: str
    limit_s: float
    where: str

    def function(self) -> Callable[[Given], Iterator[Row]]:
        """Import what the step calls."""
        module, _, name = self.where.partition(":")
        found: Callable[[Given], Iterator[Row]] = getattr(importlib.import_module(module), name)
        return found


def _child(step: Step, given: Given, lines: Connection) -> None:
    """Run a step in this process, which leads a group that can be ended as a whole."""
    os.setsid()
    try:
        for row in step.function()(given):
            lines.send(row)
    except BaseException as error:
        last = traceback.format_exc().strip().splitlines()[-6:]
        lines.send({"ok": False, "error": f"{type(error).__name__}: {error}"[:2000], "trace": last})
    finally:
        lines.close()


def run_step(step: Step, given: Given, limit_s: float, tell: Callable[[Row], None]) -> bool:
    """Run one step and tell its rows, then how it ended.

    Args:
        step: The step.
        given: What it is given.
        limit_s: Seconds that it may take.
        tell: Takes each row as soon as it is there.

    Returns:
        Whether it ended well.
    """
    began = time.monotonic()
    context = multiprocessing.get_context("forkserver")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(step, given, writer))
    process.start()
    writer.close()
    good, ended, told = True, "", 0
    with reader:
        for row in _rows(reader, began + limit_s):
            good &= row.get("ok", True)
            told += 1
            tell({"step": step.name, **row})
    if process.is_alive():
        process.join(max(0.0, min(KILLED_WITHIN_S, began + limit_s - time.monotonic())))
    if process.is_alive():
        good, ended = False, f"not done after {limit_s:.0f} s; ended"
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)  # what it started, too
    process.join()
    if not ended and process.exitcode:
        good, ended = False, f"crashed with exit code {process.exitcode}"
    if not ended and not told:
        good, ended = False, "found nothing"
    facts = {"seconds": round(time.monotonic() - began, 1), **({"error": ended} if ended else {})}
    tell({"step": step.name, "ended": "well" if good else "FAILED", **facts})
    return good


def _rows(reader: Connection, until: float) -> Iterator[Row]:
    """Rows until the step closes its end, or until a moment of the monotonic clock."""
    while reader.poll(max(0.0, until - time.monotonic())):
        try:
            yield reader.recv()
        except EOFError:
            return


def run_steps(
    steps: Sequence[Step], given: Mapping[str, Any], minutes: float, tell: Callable[[Row], None]
) -> list[str]:
    """Run steps within so many minutes; returns the names of those that did not end well."""
    until, failed = time.monotonic() + 60 * minutes, []
    for step in steps:
        left = until - time.monotonic()
        if left < SHORTEST_S:
            tell({"step": step.name, "ended": "FAILED", "error": f"not begun: the {minutes:g} minutes are over"})
            failed.append(step.name)
            continue
        with tempfile.TemporaryDirectory(prefix=f"inkbatch-{step.name}-", ignore_cleanup_errors=True) as folder:
            limit_s = min(step.limit_s * (CPU_PATIENCE if given["device"] == "cpu" else 1), left)
            if not run_step(step, Given(folder=Path(folder), **given), limit_s, tell):
                failed.append(step.name)
    return failed

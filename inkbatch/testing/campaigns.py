"""Campaigns of faults: a ROOT on a disk or an S3 server that can be put back, and jobs in forked processes.

A campaign runs every tiny job (`inkbatch.testing.jobs`) once without faults and keeps what lies in ROOT before and
after each. A trial puts the first back, lets the job suffer, and compares with the second. Processes are forked from
one that has everything imported and has started no thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import json
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from inkbatch.errors import EXIT_BUG, EXIT_DONE, InkbatchError
from inkbatch.io.store.local_files import TEMPORARY
from inkbatch.run.job import RunContext
from inkbatch.testing.jobs import Step, more_steps_of, steps_of, write_inputs, write_more_inputs
from inkbatch.testing.s3 import S3Server
from inkbatch.text import bytes_text

HANG_S = 60.0
SLOWER = 10.0  # a job that needs many requests may take this many times what it takes without faults
SOUND_S = 600.0  # a run without faults may take so long on a busy machine
MOST_GROWTH = 1 << 30  # bytes that a job of a few small pictures may take beside what the campaign itself holds
BUCKET = "bucket"

_HOLDS_A_CLOCK = re.compile(
    r"(.*/)?(run(-\d+-of-\d+)?\.json|report\.html)|(.*/)?(tensorboard|wandb)/.*|labels/[^/]+/v\d+/(claim|version)\.json"
)

StoreKind = Literal["local", "s3"]
Objects = dict[str, bytes]  # by path in ROOT
Action = Callable[[], Any]


class Place:
    """A ROOT that campaigns put back; on the S3 server it keeps its address, but not its port.

    Args:
        folder: For the store's files.
        kind: The store.
    """

    def __init__(self, folder: Path, kind: StoreKind) -> None:
        self.kind = kind
        self._server = S3Server(folder / "buckets") if kind == "s3" else None
        self.files = folder / "buckets" / BUCKET / "root" if kind == "s3" else folder / "root"
        self.root = f"s3://{BUCKET}/root" if kind == "s3" else str(self.files)
        self.files.mkdir(parents=True)

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that lead the jobs here."""
        return self._server.environment if self._server else {}

    @property
    def endpoint(self) -> str:
        """Address of the S3 server; empty for a disk."""
        return self._server.endpoint if self._server else ""

    def put_back(self, kept: Path | None) -> None:
        """Make ROOT what it was; None makes it empty. The server starts again, for it remembers listings."""
        if self._server:
            self._server.stop()
        shutil.rmtree(self.files)
        if kept is None:
            self.files.mkdir()
        else:
            shutil.copytree(kept, self.files)
        if self._server:
            self._server.start()

    def keep(self, to: Path) -> None:
        """Copy what lies in ROOT."""
        shutil.copytree(self.files, to)

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server:
            self._server.stop()


def stop_at_sigterm() -> None:
    """Let SIGTERM end this process as Ctrl-C does: servers are ended, and what was found is printed."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def die_with_parent() -> None:
    """Ask Linux to kill this forked process when the campaign's own ends."""
    call = getattr(ctypes.CDLL(None), "prctl", None)
    if call is not None:
        call(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def objects_in(root: Path) -> Objects:
    """Read every file below a folder, except temporary ones and those that hold a clock: run files, pages, logs."""
    paths = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}
    passed_over = (_HOLDS_A_CLOCK.fullmatch, TEMPORARY.search)
    return {name: path.read_bytes() for name, path in paths.items() if not any(test(name) for test in passed_over)}


def leftovers_in(root: Path, age_s: float = 0.0) -> list[Path]:
    """List temporary files that a killed process left; they are made older by `age_s`."""
    found = [path for path in root.rglob("*.partial") if TEMPORARY.search(path.name)]
    for path in found:
        os.utime(path, (time.time() - age_s,) * 2)
    return found


def unequal(found: Objects, expected: Objects) -> list[str]:
    """List the objects that differ, are missing or are new."""
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


@dataclass(frozen=True)
class Ended:
    """End of a forked process.

    Attributes:
        code: Exit code; None where it was killed.
        seconds: Its life.
        hung: It had to be ended because it took too long.
        words: The end of what it said.
        facts: What it left, see `forked`.
        growth: Most bytes of memory that it held at once, less those that it was born with.
    """

    code: int | None
    seconds: float
    hung: bool
    words: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    growth: int = 0

    def faults(self, when: str, accepted: Container[int | None]) -> list[str]:
        """List what is wrong with this end: it hung, took too much memory, or its exit code is none of `accepted`."""
        words = self.words.strip()[-1500:]
        found = [f"{when}: hung: {words}"] if self.hung else []
        if not self.hung and self.code not in accepted:
            found.append(f"{when}: exit code {self.code}: {words}")
        if self.growth > MOST_GROWTH:
            found.append(
                f"{when}: {bytes_text(self.growth)} of memory, at most {bytes_text(MOST_GROWTH)} were expected"
            )
        return found


def forked(
    action: Action,
    folder: Path,
    environment: Mapping[str, str],
    *,
    kill_after_s: float | None = None,
    limit_s: float = HANG_S,
    excused_s: Callable[[], float] = float,
) -> Ended:
    """Carry out `action` in a fork of this process, as the command line would: exit codes are those of its errors.

    Args:
        action: Its result, JSON, comes back as facts.
        folder: For what the process says and leaves.
        environment: Variables to set there.
        kill_after_s: Seconds until it is killed.
        limit_s: Seconds after which it counts as hung, less those in which it waited for a core.
        excused_s: Tells how many seconds more do not count so far, such as those of answers that were held back.
    """
    said, left = folder / "said.txt", folder / "left.json"
    left.unlink(missing_ok=True)
    begun = time.monotonic()
    faulthandler.cancel_dump_traceback_later()  # pytest's: its thread is not forked, and the child would wait for it
    child = os.fork()
    if child == 0:
        _be_the_job(action, said, left, environment, limit_s)
    born_with = _resident_bytes(child)
    killed_at = None if kill_after_s is None else begun + kill_after_s
    hung, status = False, None
    while status is None:
        done, found, used = os.wait4(child, os.WNOHANG)
        now = time.monotonic()
        if done:
            status = found
        elif (late := _is_late(child, now - begun, limit_s, excused_s)) or (killed_at is not None and now >= killed_at):
            hung = hung or late
            os.kill(child, signal.SIGKILL)
            time.sleep(0.001)
        else:
            time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # its own children, should it have left some
    code = os.waitstatus_to_exitcode(status)
    words = _end_of(said.read_text(errors="replace"), hung)
    facts = json.loads(left.read_text()) if code == EXIT_DONE and left.exists() else {}
    growth = max(0, used.ru_maxrss * 1024 - born_with)
    return Ended(None if code < 0 else code, time.monotonic() - begun, hung, words, facts, growth)


def _end_of(said: str, hung: bool) -> str:
    """Return the end of what a process said; of one that hung, the innermost calls of the main thread's stack."""
    stack = said.rfind("(most recent call first)") if hung else -1
    return said[-3000:] if stack < 0 else said[stack : stack + 1500]


def _is_late(process: int, seconds: float, limit_s: float, excused_s: Callable[[], float]) -> bool:
    return seconds > limit_s and seconds > limit_s + _starved_s(process) + excused_s()


def _starved_s(process: int) -> float:
    """Return the seconds in which the thread that waited longest could have run, had a core been free."""
    waits = [0]
    for place in Path(f"/proc/{process}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, IndexError):  # a thread that has just ended
            waits.append(int(place.read_text().split()[1]))
    return max(waits) / 1e9


def _resident_bytes(process: int) -> int:
    """Return the bytes of memory that a process holds, by Linux' own count."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _be_the_job(action: Action, said: Path, left: Path, environment: Mapping[str, str], limit_s: float) -> None:
    code = EXIT_BUG
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak of its memory counts from now
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        die_with_parent()
        os.environ.update(environment)
        log = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        faulthandler.dump_traceback_later(limit_s - 5, file=log)
        facts = action()
        left.write_text(json.dumps(facts))
        code = EXIT_DONE
    except InkbatchError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        code = error.exit_code
    except BaseException:  # whatever it is, it must not return into the parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@dataclass(frozen=True)
class Scene:
    """One job of a campaign, and ROOT before and after it.

    Attributes:
        number: Its place among all jobs.
        step: The job.
        before: What lies in ROOT before it.
        after: What lies there after a run without faults, except clocks.
        seconds: What that run took.
        facts: What `watched` gave.
    """

    number: int
    step: Step
    before: Path
    after: Objects
    seconds: float
    facts: Mapping[str, Any]

    @property
    def limit_s(self) -> float:
        """Seconds after which a run of it counts as hung."""
        return max(HANG_S, SLOWER * self.seconds)


def scenes_of(place: Place, folder: Path, watched: Callable[[Action], Any] = lambda run: run()) -> list[Scene]:
    """Run every job without faults.

    What the jobs import is imported here, too, for the forks to come.

    Args:
        place: An empty ROOT.
        folder: For inputs and copies.
        watched: Is given each run to carry out, and what it returns is kept.

    Raises:
        RuntimeError: A job failed; the message holds its words.
    """
    inputs, scenes = folder / "inputs", []
    inputs.mkdir()
    place.put_back(None)
    _must(forked(partial(_write_all_inputs, inputs, place.root), folder, place.environment, limit_s=SOUND_S), "inputs")
    for number, step in enumerate([*steps_of(inputs, place.root), *more_steps_of(inputs, place.root)]):
        before = folder / f"before-{number}"
        place.keep(before)
        act = partial(_watched, step.run, watched)
        ended = _must(forked(act, folder, place.environment, limit_s=SOUND_S), step.job)
        _import_all(ended.facts["modules"])
        scenes.append(Scene(number, step, before, objects_in(place.files), ended.seconds, ended.facts["found"] or {}))
    gc.collect()
    gc.freeze()
    return scenes


def _write_all_inputs(folder: Path, root: str) -> None:
    write_inputs(folder, root)
    write_more_inputs(folder)


def _watched(run: Callable[[RunContext], Any], watched: Callable[[Action], Any]) -> dict[str, Any]:
    found = watched(lambda: run(RunContext()) and None)
    return {"found": found, "modules": sorted(sys.modules)}


def _must(ended: Ended, what: str) -> Ended:
    if ended.code != EXIT_DONE:
        raise RuntimeError(f"{what}: ended with {ended.code} without any fault:\n{ended.words}")
    return ended


def _import_all(names: list[str]) -> None:
    for name in names:
        if name not in sys.modules:
            with contextlib.suppress(Exception):  # some modules are made by hand
                importlib.import_module(name)

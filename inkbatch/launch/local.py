"""The engine of this machine: n worker processes, one per GPU or as asked, restarted by exit code."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue
from typing import ClassVar

from pydantic import Field

from inkbatch.errors import EXIT_DONE, EXIT_TRY_AGAIN
from inkbatch.launch.base import EngineSettings, Feature, JobState, Launcher, Submitted, register_launcher, tail
from inkbatch.launch.events import EventLog, read_events
from inkbatch.launch.plan import ArraySpec, Chain
from inkbatch.run.deadline import DEADLINE_VARIABLE
from inkbatch.run.signals import StopFlag, install_handlers

GRACE_S = 20.0
KILLED = 137


class LocalSettings(EngineSettings):
    """Settings of the local engine.

    Attributes:
        workers: Processes at once; None: one per GPU for jobs that want one, else as many as cores allow.
        gpus: Ids of the GPUs to use; None takes those that ``CUDA_VISIBLE_DEVICES`` or the driver names.
        require_gpu: Refuse jobs that want a GPU where there is none, instead of computing on the CPU.
        program: What starts inkbatch; empty takes the running one.
        retry_wait: Seconds before a task that ended with 75 is started again.
    """

    workers: int | None = Field(None, ge=1)
    gpus: tuple[str, ...] | None = None
    require_gpu: bool = False
    program: tuple[str, ...] = ()
    retry_wait: float = Field(2.0, ge=0)


@register_launcher
class LocalLauncher(Launcher):
    """Worker processes on this machine; `submit` returns when all have ended."""

    name: ClassVar[str] = "local"
    settings_class: ClassVar[type[EngineSettings]] = LocalSettings
    supports: ClassVar[frozenset[Feature]] = frozenset(Feature)
    settings: LocalSettings

    def variables(self, spec: ArraySpec, chain: Chain) -> dict[str, str]:
        """Collect the variables, without a deadline: nothing ends a task of this machine by the clock."""
        found = super().variables(spec, chain)
        return {key: value for key, value in found.items() if key != DEADLINE_VARIABLE}

    def render(self, chain: Chain) -> dict[str, str]:
        """Render a shell script that does the same, without restarts."""
        self.check(chain)
        program = self.settings.program or ("inkbatch",)
        rows = ["#!/bin/sh", f"# {chain.launch}: what the local engine runs, without its restarts.", "set -eu"]
        for spec in chain.jobs:
            rows += ["", f"# {spec.job}: {spec.shards} tasks of at most {spec.attempts} attempts, code 75 is retried"]
            for index in range(spec.shards):
                pairs = {**self.variables(spec, chain), **task_variables(spec, chain, index, 1)}
                rows.append(" ".join([*(f"{k}={shlex.quote(v)}" for k, v in pairs.items()), "\\"]))
                rows.append("  " + shlex.join([*program, *spec.command]) + (" &" if spec.shards > 1 else ""))
            if spec.shards > 1:
                rows.append("wait")
        return {f"{self.name}.sh": "\n".join(rows) + "\n"}

    def submit(self, chain: Chain, folder: Path) -> Submitted:
        """Run the chain to its end; SIGTERM and Ctrl-C stop the workers, which keep stored units (exit 75)."""
        self.write(chain, folder)
        stop = StopFlag()
        if threading.current_thread() is threading.main_thread():
            install_handlers(stop)
        return self.run_chain(chain, folder, stop)

    def run_chain(self, chain: Chain, folder: Path, stop: StopFlag) -> Submitted:
        """Run every job of the chain; the first that fails ends the chain."""
        stop.watch()
        (folder / "pid").write_text(str(os.getpid()))
        events = EventLog(folder / "events.jsonl")
        code = EXIT_DONE
        for spec in chain.jobs:
            code = _Job(self, spec, chain, folder, events, stop).run()
            if code != EXIT_DONE:
                break
        (folder / "pid").unlink(missing_ok=True)
        shards = {spec.job: spec.shards for spec in chain.jobs}
        ids = {spec.job: [str(os.getpid())] for spec in chain.jobs}
        return Submitted(self.name, chain.launch, ids, shards, str(folder.resolve()), socket.gethostname(), code)

    def task_command(self, spec: ArraySpec, chain: Chain, index: int, attempt: int, gpu: str | None) -> list[str]:
        """Build the arguments of one task."""
        return [*(self.settings.program or (sys.executable, "-m", "inkbatch")), *spec.command]

    def task_environment(
        self, spec: ArraySpec, chain: Chain, index: int, attempt: int, gpu: str | None
    ) -> dict[str, str]:
        """Build the environment of one task: this one, and the task's own variables."""
        found = {**os.environ, **self.variables(spec, chain), **task_variables(spec, chain, index, attempt)}
        if gpu is not None:
            found["CUDA_VISIBLE_DEVICES"] = gpu
        elif not self.settings.require_gpu:
            found.pop("INKBATCH_REQUIRE_GPU", None)
        return found

    def gpus(self) -> list[str]:
        """List the ids of the GPUs to use."""
        if self.settings.gpus is not None:
            return list(self.settings.gpus)
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            return [word.strip() for word in visible.split(",") if word.strip() not in ("", "-1")]
        try:
            listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            return []
        return [str(number) for number, row in enumerate(listed.stdout.splitlines()) if row.startswith("GPU ")]

    def status(self, submitted: Submitted) -> list[JobState]:
        """Report the states in the event log of the launch."""
        rows = read_events(Path(submitted.folder) / "events.jsonl")
        running = _is_running(Path(submitted.folder) / "pid")
        states = []
        for job, shards in submitted.shards.items():
            counts = dict.fromkeys(("waiting", "running", "done", "failed", "lost"), 0)
            last = {row["shard"]: row for row in rows if row.get("job") == job and "shard" in row}
            for shard in range(shards):
                event = last.get(shard, {}).get("event", "waiting")
                state = {"done": "done", "failed": "failed", "waiting": "waiting"}.get(event, "running")
                counts[state if running or state in ("done", "failed") else "lost"] += 1
            states.append(JobState(job, counts, () if running else ("the launcher has ended",)))
        return states

    def cancel(self, submitted: Submitted) -> list[str]:
        """Send SIGTERM to the launching process, which stops its workers."""
        pid = Path(submitted.folder) / "pid"
        if submitted.place != socket.gethostname():
            return [f"{submitted.launch} runs on {submitted.place}; cancel it there"]
        if not _is_running(pid):
            return [f"{submitted.launch}: has ended already"]
        os.kill(int(pid.read_text()), signal.SIGTERM)
        return [f"{submitted.launch}: asked to stop; what is whole is kept"]

    def logs(self, submitted: Submitted, job: str, shard: int) -> Iterable[str]:
        """Return the last lines of a task's log, of all its attempts."""
        return tail(Path(submitted.folder) / "logs" / f"{job}-{shard}.log")


class _Job:
    """One array job while it runs on this machine."""

    def __init__(
        self, launcher: LocalLauncher, spec: ArraySpec, chain: Chain, folder: Path, events: EventLog, stop: StopFlag
    ) -> None:
        self.launcher, self.spec, self.chain, self.folder = launcher, spec, chain, folder
        self.events, self.stop = events, stop
        self.failed = threading.Event()
        self.lock = threading.Lock()
        self.running: set[subprocess.Popen[bytes]] = set()
        (folder / "logs").mkdir(parents=True, exist_ok=True)

    def run(self) -> int:
        """Run all tasks; the first code that is not 0, or 75 after a stop."""
        slots = self._slots()
        self.events.add("job", job=self.spec.job, tasks=self.spec.shards, workers=len(slots))
        free: SimpleQueue[str | None] = SimpleQueue()
        for slot in slots:
            free.put(slot)

        def attend(index: int) -> int:
            gpu = free.get()
            try:
                return self._attend(index, gpu)
            finally:
                free.put(gpu)

        with ThreadPoolExecutor(len(slots), thread_name_prefix="inkbatch-worker") as pool:
            futures = [pool.submit(attend, index) for index in range(self.spec.shards)]
            while wait(futures, timeout=0.1).not_done:
                if self.stop.is_set:
                    self._end_all()
                    break
        codes = [future.result() for future in futures]
        if self.stop.is_set and any(codes):
            self.events.add("stopped", job=self.spec.job, reason=self.stop.reason)
            return EXIT_TRY_AGAIN
        return next((code for code in codes if code not in (EXIT_DONE, EXIT_TRY_AGAIN)), max(codes))

    def _slots(self) -> Sequence[str | None]:
        """List the GPU of each process that may run at once; None is the CPU."""
        gpus = self.launcher.gpus() if self.spec.resources.gpus else []
        workers = self.launcher.settings.workers or len(gpus) or os.cpu_count() or 1
        most = min(workers, self.spec.shards, self.spec.parallel or self.spec.shards)
        return [gpus[number % len(gpus)] if gpus else None for number in range(most)]

    def _attend(self, index: int, gpu: str | None) -> int:
        """Run one task until it ends for good."""
        for attempt in range(1, self.spec.attempts + 1):
            if self.stop.is_set or self.failed.is_set():
                return EXIT_TRY_AGAIN
            code = self._attempt(index, attempt, gpu)
            facts = {"job": self.spec.job, "shard": index, "attempt": attempt, "exit": code}
            if code == EXIT_DONE:
                self.events.add("done", **facts)
                return code
            last = self._last_line(index)
            if code != EXIT_TRY_AGAIN:
                self.failed.set()
                self.events.add("failed", **facts, said=last, why=_why(code))
                return code
            if attempt < self.spec.attempts and not self.stop.is_set:
                self.events.add("again", **facts, said=last)
                self._pause()
        self.events.add("stopped" if self.stop.is_set else "failed", **facts, said=last, why="no attempt is left")
        return EXIT_TRY_AGAIN

    def _attempt(self, index: int, attempt: int, gpu: str | None) -> int:
        task = (self.spec, self.chain, index, attempt, gpu)
        with open(self.folder / "logs" / f"{self.spec.job}-{index}.log", "ab") as log:
            with self.lock:
                if self.stop.is_set:
                    return EXIT_TRY_AGAIN
                process = subprocess.Popen(
                    self.launcher.task_command(*task),
                    env=self.launcher.task_environment(*task),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C reaches the launcher alone, which passes it on once
                )
                self.running.add(process)
            pid = process.pid
            self.events.add("start", job=self.spec.job, shard=index, attempt=attempt, pid=pid, gpu=gpu)
            code = process.wait()
        with self.lock:
            self.running.discard(process)
        return code if code >= 0 else 128 - code

    def _end_all(self) -> None:
        with self.lock:
            left = set(self.running)
            for process in left:
                process.terminate()  # a container's client passes it on
        deadline = time.monotonic() + GRACE_S
        while any(process.poll() is None for process in left) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in left:
            if process.poll() is None:
                process.kill()

    def _pause(self) -> None:
        deadline = time.monotonic() + self.launcher.settings.retry_wait
        while time.monotonic() < deadline and not self.stop.is_set:
            time.sleep(0.05)

    def _last_line(self, index: int) -> str:
        lines = tail(self.folder / "logs" / f"{self.spec.job}-{index}.log", 1)
        return lines[0] if lines else ""


def task_variables(spec: ArraySpec, chain: Chain, index: int, attempt: int) -> dict[str, str]:
    """Describe a task in variables that win over every scheduler's."""
    return {
        "INKBATCH_ARRAY_INDEX": str(index),
        "INKBATCH_ARRAY_COUNT": str(spec.shards),
        "INKBATCH_ATTEMPT": str(attempt),
        "INKBATCH_JOB_ID": f"{chain.launch}:{spec.job}",
    }


def _why(code: int) -> str:
    if code == KILLED:
        return "killed from outside, most often for want of memory: give it fewer workers or more memory"
    return "a retry cannot cure this code"


def _is_running(pid: Path) -> bool:
    try:
        os.kill(int(pid.read_text()), 0)
    except (OSError, ValueError):
        return False
    return True

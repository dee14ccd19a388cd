"""A rehearsal of AWS Batch: a small test double of its hosts.

It reads what the (emulated) API recorded, expands arrays into children, sets exactly the variables that AWS documents,
runs each command as a process, ends processes with SIGTERM where the test says so, and applies the job's own retry
rules. It proves the shape of the requests, the reading of the environment, resuming and the retry rules. It proves
nothing about capacity, permissions, networks, GPUs, real reclaims or image pulls.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEPT_VARIABLES = ("PATH", "PYTHONPATH", "HOME", "OMP_NUM_THREADS", "LANG")
LONGEST_S = 280
RECLAIM = "Host EC2 (instance i-0123456789abcdef0) terminated."


@dataclass(frozen=True)
class End:
    """End of an attempt."""

    exit_code: int | None
    reason: str = ""
    status_reason: str = "Essential container in task exited"


def decide(rules: Sequence[Mapping[str, str]], end: End) -> str:
    """``RETRY`` or ``EXIT``, as AWS documents it: the first rule all of whose conditions match; no match is a retry."""
    for rule in rules:
        conditions = [
            ("onExitCode", "" if end.exit_code is None else str(end.exit_code)),
            ("onReason", end.reason),
            ("onStatusReason", end.status_reason),
        ]
        if all(_matches(rule[key], text) for key, text in conditions if key in rule):
            return rule["action"].upper()
    return "RETRY"


def _matches(pattern: str, text: str) -> bool:
    """A pattern may end in ``*``; nothing else is special."""
    if pattern.endswith("*"):
        return text.startswith(pattern[:-1])
    return text == pattern


@dataclass
class Host:
    """Runs what was submitted.

    Attributes:
        batch: A boto3 client of the emulated API.
        environment: What the job role and the network give on AWS: here the way to the S3 server.
        folder: Where logs go.
        disturb: Called with (job name, child, attempt, process, its log); may end the process, and return what AWS
            would call that.
        history: (job name, child, attempt, exit code, decision) in order.
    """

    batch: Any
    environment: Mapping[str, str]
    folder: Path
    disturb: Callable[[str, int, int, subprocess.Popen[bytes], Path], End | None] = lambda *_: None
    history: list[tuple[str, int, int, int | None, str]] = field(default_factory=list)

    def run(self, job_ids: Sequence[str]) -> dict[str, str]:
        """Run jobs in the order of their dependencies; status by job id. A job whose dependency failed fails, too."""
        rows = {row["jobId"]: row for row in self.batch.describe_jobs(jobs=list(job_ids))["jobs"]}
        ended: dict[str, str] = {}
        while len(ended) < len(rows):
            ready = [
                row for job, row in rows.items() if job not in ended and all(d["jobId"] in ended for d in _waits(row))
            ]
            assert ready, "the dependencies form a circle"
            for row in ready:
                broken = any(ended[wait["jobId"]] == "FAILED" for wait in _waits(row))
                ended[row["jobId"]] = "FAILED" if broken else self._run_job(row)
        return ended

    def _run_job(self, row: Mapping[str, Any]) -> str:
        definition = self.batch.describe_job_definitions(jobDefinitions=[row["jobDefinition"]])["jobDefinitions"][0]
        size = (row.get("arrayProperties") or {}).get("size")
        states = [self._run_child(row, definition, index, size) for index in range(size or 1)]
        return "FAILED" if "FAILED" in states else "SUCCEEDED"

    def _run_child(self, row: Mapping[str, Any], definition: Mapping[str, Any], index: int, size: int | None) -> str:
        strategy = definition["retryStrategy"]
        for attempt in range(1, strategy["attempts"] + 1):
            end = self._attempt(row, definition, index, size, attempt)
            decision = "DONE" if end.exit_code == 0 else decide(strategy["evaluateOnExit"], end)
            self.history.append((row["jobName"], index, attempt, end.exit_code, decision))
            if decision == "DONE":
                return "SUCCEEDED"
            if decision == "EXIT":
                return "FAILED"
        return "FAILED"

    def _attempt(
        self, row: Mapping[str, Any], definition: Mapping[str, Any], index: int, size: int | None, attempt: int
    ) -> End:
        documented = {
            "AWS_BATCH_CE_NAME": "rehearsal",
            "AWS_BATCH_JQ_NAME": row["jobQueue"].rsplit("/", 1)[-1],
            "AWS_BATCH_JOB_ID": row["jobId"] if size is None else f"{row['jobId']}:{index}",
            "AWS_BATCH_JOB_ATTEMPT": str(attempt),
        }
        if size is not None:
            documented |= {"AWS_BATCH_JOB_ARRAY_INDEX": str(index), "AWS_BATCH_JOB_ARRAY_SIZE": str(size)}
        own = {pair["name"]: pair["value"] for pair in row["container"]["environment"]}
        reserved = [name for name in own if name.startswith("AWS_BATCH_")]
        assert all(own[name] == row["jobId"] or name != "AWS_BATCH_JOB_ID" for name in reserved)
        own = {name: value for name, value in own.items() if name not in reserved}
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        log = self.folder / f"{row['jobName']}-{index}-{attempt}.log"
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "inkbatch", *row["container"]["command"]],
                env={**kept, **self.environment, **own, **documented},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        end = self.disturb(row["jobName"], index, attempt, process, log)
        code = process.wait(timeout=LONGEST_S)
        return end or End(code if code >= 0 else 128 - code)

    def logs(self) -> str:
        """All logs, for a message."""
        return "\n".join(f"== {path.name}\n{path.read_text()}" for path in sorted(self.folder.glob("*.log")))


def terminate_when(process: subprocess.Popen[bytes], log: Path, word: str) -> None:
    """SIGTERM as soon as the log holds a word, as a stopping host sends it."""
    while process.poll() is None and word not in log.read_text():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)


def _waits(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(row.get("dependsOn") or [])


__all__ = ["RECLAIM", "End", "Host", "decide", "terminate_when"]

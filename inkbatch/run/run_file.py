"""``run.json``: what a process took (seconds, bytes, tiles, device, memory, waiting, money), and what code it ran.

A run that was stopped and begun again keeps the rows of its earlier processes under ``earlier``, and their sums under
``all_processes``: what a preempted machine cost is paid as well.
"""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from inkbatch import __version__
from inkbatch.errors import DataError
from inkbatch.io.store.location import Location
from inkbatch.io.store.meter import READ, WRITTEN
from inkbatch.run.identity import ShardSpec
from inkbatch.run.pipeline import StageSeconds
from inkbatch.run.prices import price_here
from inkbatch.run.record import RunFolder

KEPT_PROCESSES = 100
_SUMMED = ("seconds", "units_stored", "tiles", "bytes_read", "bytes_written", "usd_on_demand", "usd_stated")
_PACKAGES = ("numpy", "torch", "opencv-python-headless", "zarr")


class Usage:
    """The clocks of one process of a run, from its construction on.

    Raises:
        ConfigError: The environment names a machine or a price that cannot be read (before anything is done).
    """

    def __init__(self) -> None:
        self.price = price_here()
        self.started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._begun = time.perf_counter()
        self._read_before, self._written_before = READ.total, WRITTEN.total
        self._loop: float | None = None
        self._cpu_before = self._cpu_after = 0.0
        self._loop_end: float | None = None

    @property
    def seconds(self) -> float:
        """Wall-clock seconds so far."""
        return time.perf_counter() - self._begun

    @property
    def bytes_read(self) -> int:
        """Bytes that came from storage so far, as they are stored."""
        return READ.total - self._read_before

    @property
    def bytes_written(self) -> int:
        """Bytes that went to storage so far, markers and pictures included."""
        return WRITTEN.total - self._written_before

    def loop_begins(self) -> None:
        """Start the clock of the units; the model is built."""
        self._loop, self._cpu_before = time.perf_counter(), time.process_time()

    def loop_ends(self) -> None:
        """Stop the clock of the units; the last one is stored."""
        self._loop_end, self._cpu_after = time.perf_counter(), time.process_time()

    def device_share(self, stages: StageSeconds) -> float:
        """Return the share of the loop's time so far in which the device computed."""
        return min(1.0, stages.compute / max(self._loop_seconds(), 1e-9))

    def pace(self, stages: StageSeconds | None) -> dict[str, float]:
        """Return what a reporter is told with every unit.

        Args:
            stages: Busy seconds; None where no device computes.

        Returns:
            ``loop_s``, the seconds since units began, and ``device_share``.
        """
        share = {} if stages is None else {"device_share": self.device_share(stages)}
        return {**share, "loop_s": round(self._loop_seconds(), 3)}

    def stage_facts(self, stages: StageSeconds) -> dict[str, float]:
        """Return the seconds per stage.

        ``load_s`` and ``store_s`` are summed over threads; ``waited_s`` is how long the computing thread waited for
        them; ``waited_share`` is the share of the loop in which nothing was computed, its first load and last store
        included. ``cpu_s`` is what all threads took of all cores in the loop: far less than loop and cores promise is
        a busy machine, or one that waits.
        """
        facts = {
            "load_s": round(stages.load, 3),
            "compute_s": round(stages.compute, 3),
            "store_s": round(stages.store, 3),
            "waited_s": round(stages.waited, 3),
        }
        if self._loop is None:
            return {**facts, "setup_s": round(self.seconds, 3), "loop_s": 0.0, "waited_share": 0.0}
        facts["setup_s"] = round(self._loop - self._begun, 3)
        facts["loop_s"] = round(self._loop_seconds(), 3)
        facts["cpu_s"] = round((self._cpu_after or time.process_time()) - self._cpu_before, 3)
        facts["waited_share"] = round(1 - self.device_share(stages), 4)
        return facts

    def _loop_seconds(self) -> float:
        if self._loop is None:
            return 0.0
        return (self._loop_end or time.perf_counter()) - self._loop


def write_run_file(
    folder: RunFolder, shard: ShardSpec, attempt: int, usage: Usage, ended: str, facts: Mapping[str, Any]
) -> None:
    """Write this process's row, with those of the processes before it.

    Args:
        folder: The run.
        shard: The part of it that this process did.
        attempt: The scheduler's attempt number, from 1.
        usage: The process's clocks.
        ended: ``done``, or why it stopped.
        facts: What the job counted: units, tiles, stage seconds, device; bytes are those of storage itself.
    """
    seconds = usage.seconds
    row: dict[str, Any] = {
        "job": folder.manifest.job,
        "digest": folder.manifest.digest,
        "shard": str(shard),
        "attempt": attempt,
        "started": usage.started_at,
        "seconds": round(seconds, 3),
        "ended": ended,
        "peak_memory_bytes": peak_memory_bytes(),
        "cores": core_count(),
        "processor": processor_name(),
        **software(),
        **facts,
        "bytes_read": usage.bytes_read,
        "bytes_written": usage.bytes_written,
        **usage.price.run_facts(seconds),
    }
    place = folder.location / run_file_name(shard)
    earlier = _earlier(place, folder.manifest.digest)
    if earlier:
        row["earlier"] = earlier[-KEPT_PROCESSES:]
        row["all_processes"] = {"processes": len(earlier) + 1, **_sums([*earlier, row])}
    place.write_json(row)


def run_file_name(shard: ShardSpec) -> str:
    """Return the name of a shard's run file."""
    return "run.json" if shard.count == 1 else f"run-{shard.index}-of-{shard.count}.json"


def run_rows(folder: Location, digest: str) -> list[dict[str, Any]]:
    """Read the rows of every process of a run that left one, earlier processes included.

    Args:
        folder: The run's folder.
        digest: The manifest's digest; rows of other runs are left out.
    """
    found = []
    for name in folder.names():
        if name == "run.json" or (name.startswith("run-") and name.endswith(".json")):
            row = (folder / name).read_mapping()
            if row.get("digest") == digest:
                found += [*row.get("earlier", []), row]
    return found


@lru_cache(maxsize=1)
def software() -> dict[str, Any]:
    """Name the software: version and digest of this package's code, versions of what results depend on."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "inkbatch": __version__,
        "code_sha256": _code_digest(),
        "python": platform.python_version(),
        "packages": packages,
        "system": f"{platform.system()} {platform.machine()}",
    }


@lru_cache(maxsize=1)
def processor_name() -> str:
    """Name the processor as its maker does."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as rows:
            return next(row.split(":", 1)[1].strip() for row in rows if row.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def core_count() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory_bytes() -> int:
    """Return the largest resident memory of this process so far.

    Linux states it in ``VmHWM``; ``ru_maxrss`` of a child also counts its parent at the fork. Elsewhere ``ru_maxrss``
    is in bytes on macOS and in KiB on other systems.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _code_digest() -> str:
    """Hash this package's Python files (SHA-256): tells two states of one version apart."""
    root = Path(__file__).parent.parent
    total = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def _earlier(place: Location, digest: str) -> list[dict[str, Any]]:
    try:
        row = place.read_mapping()
    except (FileNotFoundError, DataError):  # the first process; or a damaged file, which says nothing
        return []
    if row.get("digest") != digest:
        return []
    before = row.pop("earlier", [])
    row.pop("all_processes", None)
    return [*before, row]


def _sums(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    listed = list(rows)
    sums = {key: sum(row.get(key, 0) for row in listed) for key in _SUMMED if any(key in row for row in listed)}
    return {key: round(value, 4) for key, value in sums.items()}

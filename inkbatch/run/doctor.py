"""Checks of `inkbatch doctor` without torch: driver, memory, ``/dev/shm``, disk, identity, ROOT."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from inkbatch.errors import ConfigError, DataError, InkbatchError
from inkbatch.io.store.location import Location
from inkbatch.run.identity import TaskIdentity, task_identity
from inkbatch.run.spot import watched_endpoint
from inkbatch.text import bytes_text

GIB = 1 << 30
SMALL_SHARED_MEMORY_BYTES = 1 * GIB
PROC_DRIVER = Path("/proc/driver/nvidia/version")
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

# First driver branch that runs programs of a CUDA major version (NVIDIA's minor-version compatibility).
OLDEST_DRIVER = {12: (525, 60, 13), 13: (580,)}

IDENTITY_PREFIXES = ("AWS_BATCH_JOB_", "SLURM_ARRAY_", "JOB_COMPLETION_INDEX", "INKBATCH_")

State = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        what: Name of the check.
        state: ``good``, ``note`` (worth knowing) or ``bad`` (a stated need is not met).
        detail: The finding in words.
        error: Error of a bad finding: its exit code, and in its message the cure.
    """

    what: str
    state: State
    detail: str
    error: InkbatchError | None = None

    @staticmethod
    def bad(what: str, error: InkbatchError) -> Finding:
        """Make a finding that fails doctor."""
        return Finding(what, "bad", str(error), error)

    def row(self) -> dict[str, str]:
        """Return the finding as JSON."""
        return {"check": self.what, "state": self.state, "finding": self.detail}


# ---- machine --------------------------------------------------------------------------------------------------------


def check_shared_memory(needed_bytes: int | None, folder: str = "/dev/shm") -> Finding:
    """Check the free space of ``/dev/shm``, through which loader processes hand over samples."""
    try:
        total, _, free = shutil.disk_usage(folder)
    except OSError as error:
        return Finding("/dev/shm", "note", f"not available ({error.strerror}); loader processes need it")
    detail = f"{bytes_text(free)} free of {bytes_text(total)}"
    if needed_bytes is not None and free < needed_bytes:
        cure = "give the container more (docker run --shm-size 4g; AWS Batch: sharedMemorySize), or lower --set shm"
        return _too_little("/dev/shm", needed_bytes, detail, cure)
    if free < SMALL_SHARED_MEMORY_BYTES:
        return Finding("/dev/shm", "note", f"{detail}; training with loader processes needs 4 GiB (--shm-size 4g)")
    return Finding("/dev/shm", "good", detail)


def check_disk(needed_bytes: int | None, folder: str) -> Finding:
    """Check the free space for temporary files."""
    total, _, free = shutil.disk_usage(folder)
    detail = f"{bytes_text(free)} free of {bytes_text(total)} at {folder}"
    if needed_bytes is not None and free < needed_bytes:
        return _too_little(
            "disk", needed_bytes, detail, "give the machine a larger volume, set TMPDIR, or lower --set disk"
        )
    return Finding("disk", "good", detail)


def check_memory(needed_bytes: int | None) -> Finding:
    """Check main memory: the container's limit if there is one, else the machine's."""
    total = memory_bytes()
    detail = f"{bytes_text(total)}, {len(os.sched_getaffinity(0))} CPU cores"
    if needed_bytes is not None and total < needed_bytes:
        return _too_little("memory", needed_bytes, detail, "give the task more, or lower --set memory")
    return Finding("memory", "good", detail)


def memory_bytes(limits: tuple[Path, ...] = CGROUP_LIMITS) -> int:
    """Count the bytes of main memory that this process may use."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in limits:
        try:
            text = file.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal():
            return min(machine, int(text))
    return machine


def _too_little(what: str, needed: int, found: str, cure: str) -> Finding:
    return Finding.bad(what, ConfigError(f"{what}: expected {bytes_text(needed)}, got {found}; {cure}"))


# ---- driver ---------------------------------------------------------------------------------------------------------


def driver_version(proc: Path = PROC_DRIVER) -> str | None:
    """Read the version of the NVIDIA driver, such as ``580.65.06``; None without a driver."""
    try:
        match = re.search(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)", proc.read_text(encoding="utf-8"))
    except OSError:
        match = None
    return match.group(1) if match else _driver_by_smi()


def _driver_by_smi() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = answer.stdout.split()
    return lines[0] if answer.returncode == 0 and lines else None


def driver_shortage(driver: str | None, cuda: str | None) -> str | None:
    """Explain why a driver cannot run programs of a CUDA version; None if it can, or if that is unknown.

    Args:
        driver: Version of the driver, or None.
        cuda: CUDA version that torch was built for, such as ``13.2``.
    """
    if cuda is None:
        return "this torch was built without CUDA; take an image or wheel of a CUDA flavour"
    if driver is None:
        return "no NVIDIA driver found; start the container with --gpus all, and check the driver of the machine"
    oldest = OLDEST_DRIVER.get(int(cuda.split(".")[0]))
    if oldest is None or tuple(int(part) for part in driver.split(".")) >= oldest:
        return None
    needed = ".".join(str(part) for part in oldest)
    return (
        f"driver {driver} is too old for torch's CUDA {cuda}, which needs {needed}; update the driver, or take an "
        "image of an older CUDA flavour (docs/image.md)"
    )


def check_driver(required: bool, cuda: str | None) -> Finding:
    """Compare the driver with torch's CUDA version; bad only if a GPU was asked for."""
    driver = driver_version()
    shortage = driver_shortage(driver, cuda)
    if shortage is None:
        return Finding("driver", "good", f"NVIDIA {driver}, torch's CUDA {cuda}")
    if required:
        return Finding.bad("driver", DataError(f"driver: expected a usable GPU, got none: {shortage}"))
    return Finding("driver", "note", shortage)


# ---- who and where --------------------------------------------------------------------------------------------------


def check_identity(environment: Mapping[str, str] | None = None) -> Finding:
    """Check the scheduler's variables: which task this process is."""
    env = os.environ if environment is None else environment
    seen = sorted(name for name in env if name.startswith(IDENTITY_PREFIXES))
    try:
        identity = task_identity(env)
    except InkbatchError as error:
        return Finding.bad("identity", error)
    where = f"{identity.source}: shard {identity.shard}, attempt {identity.attempt}"
    job = f", job {identity.job_id}" if identity.job_id else ""
    return Finding("identity", "good", f"{where}{job}; set: {', '.join(seen) or 'nothing'}")


def check_spot_watch() -> Finding:
    """Check that a notice of a spot reclaim would be seen."""
    try:
        endpoint = watched_endpoint()
    except InkbatchError as error:
        return Finding.bad("spot watch", error)
    return Finding("spot watch", "good", f"asks {endpoint}" if endpoint else "off: this machine is not reclaimed")


def check_root(root: str, name: str, identity: TaskIdentity, report: Mapping[str, Any]) -> Finding:
    """Write, list and read the report under ROOT; it stays there, since jobs need no right to delete.

    Args:
        root: ROOT.
        name: Name of the report.
        identity: The tasks of an array write objects of their own.
        report: What is written: ``ROOT/doctor/{name}-{index}-of-{count}.json``.
    """
    started = time.perf_counter()
    try:
        folder = Location.parse(root) / "doctor"
        target = folder / f"{name}-{identity.shard.index}-of-{identity.shard.count}.json"
        target.write_json(report)
        listed = target.name in folder.names()
        returned = target.read_json()
    except InkbatchError as error:
        return Finding.bad("ROOT", error)
    except OSError as error:
        return Finding.bad("ROOT", ConfigError(f"{root}: cannot be written and read: {error}; mount or allow it"))
    if not listed or returned != dict(report):
        wrong = "the object read differs from the one written" if listed else "the object written is not listed"
        return Finding.bad("ROOT", DataError(f"{target}: {wrong}; the store is not consistent, choose another ROOT"))
    return Finding("ROOT", "good", f"{target} written, listed and read in {time.perf_counter() - started:.2f} s")

"""What a machine offers a job, without torch: driver, memory, ``/dev/shm``, disk, identity, ROOT. `inkbatch doctor`."""

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

MIB, GIB = 1 << 20, 1 << 30
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
        state: ``good``, ``note`` (worth knowing) or ``bad`` (what was asked for cannot be had).
        detail: What was found, for people.
        error: What a bad finding raises: its exit code, and in its message the cure.
    """

    what: str
    state: State
    detail: str
    error: InkbatchError | None = None

    @staticmethod
    def bad(what: str, error: InkbatchError) -> Finding:
        """A finding that fails the check-up."""
        return Finding(what, "bad", str(error), error)

    def row(self) -> dict[str, str]:
        """As JSON."""
        return {"check": self.what, "state": self.state, "finding": self.detail}


# ---- machine --------------------------------------------------------------------------------------------------------


def check_shared_memory(wanted_bytes: int | None, folder: str = "/dev/shm") -> Finding:
    """Room in ``/dev/shm``, through which loader processes hand over samples."""
    try:
        total, _, free = shutil.disk_usage(folder)
    except OSError as error:
        return Finding("/dev/shm", "note", f"there is none ({error.strerror}); loader processes need it")
    detail = f"{_size(free)} free of {_size(total)}"
    if wanted_bytes is not None and free < wanted_bytes:
        cure = "give the container more (docker run --shm-size 4g; AWS Batch: sharedMemorySize), or lower --set shm"
        return _too_little("/dev/shm", wanted_bytes, detail, cure)
    if free < SMALL_SHARED_MEMORY_BYTES:
        return Finding("/dev/shm", "note", f"{detail}; training with loader processes wants 4 GiB (--shm-size 4g)")
    return Finding("/dev/shm", "good", detail)


def check_disk(wanted_bytes: int | None, folder: str) -> Finding:
    """Free room where temporary files go."""
    total, _, free = shutil.disk_usage(folder)
    detail = f"{_size(free)} free of {_size(total)} at {folder}"
    if wanted_bytes is not None and free < wanted_bytes:
        return _too_little(
            "disk", wanted_bytes, detail, "give the machine a larger volume, set TMPDIR, or lower --set disk"
        )
    return Finding("disk", "good", detail)


def check_memory(wanted_bytes: int | None) -> Finding:
    """Main memory: the container's limit where there is one, else the machine's."""
    total = memory_bytes()
    detail = f"{_size(total)}, {len(os.sched_getaffinity(0))} CPU cores"
    if wanted_bytes is not None and total < wanted_bytes:
        return _too_little("memory", wanted_bytes, detail, "give the task more, or lower --set memory")
    return Finding("memory", "good", detail)


def memory_bytes(limits: tuple[Path, ...] = CGROUP_LIMITS) -> int:
    """Bytes of main memory that this process may use."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in limits:
        try:
            text = file.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal():
            return min(machine, int(text))
    return machine


def _too_little(what: str, wanted: int, found: str, cure: str) -> Finding:
    return Finding.bad(what, ConfigError(f"{what}: {_size(wanted)} were asked for, there are {found}; {cure}"))


# ---- driver ---------------------------------------------------------------------------------------------------------


def driver_version(proc: Path = PROC_DRIVER) -> str | None:
    """Version of the NVIDIA driver, such as ``580.65.06``; None where there is none."""
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
    """Why this driver cannot run programs of this CUDA version, in words; None where it can, or nobody knows.

    Args:
        driver: Version of the driver, or None.
        cuda: CUDA version that torch was built for, such as ``13.2``.
    """
    if cuda is None:
        return "this torch was built without CUDA; take an image or wheel of a CUDA flavour"
    if driver is None:
        return "no NVIDIA driver is seen; start the container with --gpus all, and check the driver of the machine"
    oldest = OLDEST_DRIVER.get(int(cuda.split(".")[0]))
    if oldest is None or tuple(int(part) for part in driver.split(".")) >= oldest:
        return None
    wanted = ".".join(str(part) for part in oldest)
    return (
        f"driver {driver} is too old for torch's CUDA {cuda}, which needs {wanted}; update the driver, or take an "
        "image of an older CUDA flavour (docs/image.md)"
    )


def check_driver(wanted: bool, cuda: str | None) -> Finding:
    """Driver against torch's CUDA version; bad only where a GPU was asked for."""
    driver = driver_version()
    shortage = driver_shortage(driver, cuda)
    if shortage is None:
        return Finding("driver", "good", f"NVIDIA {driver}, torch's CUDA {cuda}")
    if wanted:
        return Finding.bad("driver", DataError(f"driver: a GPU was asked for, {shortage}"))
    return Finding("driver", "note", shortage)


# ---- who and where --------------------------------------------------------------------------------------------------


def check_identity(environment: Mapping[str, str] | None = None) -> Finding:
    """What the scheduler's variables say this process is."""
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
    """Whether a reclaim notice would be seen."""
    try:
        endpoint = watched_endpoint()
    except InkbatchError as error:
        return Finding.bad("spot watch", error)
    return Finding("spot watch", "good", f"asks {endpoint}" if endpoint else "off: not a machine that can be reclaimed")


def check_root(root: str, name: str, identity: TaskIdentity, report: Mapping[str, Any]) -> Finding:
    """Write, list and read an object under ROOT; it is the report itself and stays there, for a job may not delete.

    Args:
        root: ROOT.
        name: Of the check-up.
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
        wrong = "what was read is not what was written" if listed else "what was written is not listed"
        return Finding.bad("ROOT", DataError(f"{target}: {wrong}; the store is not consistent, choose another ROOT"))
    return Finding("ROOT", "good", f"{target} written, listed and read in {time.perf_counter() - started:.2f} s")


def _size(number: int) -> str:
    return f"{number / GIB:.1f} GiB" if number >= GIB else f"{number // MIB} MiB"

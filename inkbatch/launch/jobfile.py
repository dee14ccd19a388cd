"""Job files, ``jobs/{job}.yaml``: a job's settings, and in their ``launch`` block how an engine is to run it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from inkbatch.config import LAUNCH_KEY, JobConfig, located, parse_bytes, read_yaml
from inkbatch.errors import ConfigError
from inkbatch.text import near_matches

PACKAGE = Path(__file__).parent.parent
# Inside an installed package, and beside it in a working tree.
FOLDERS = (PACKAGE / "jobs", PACKAGE.parent / "jobs")
MOST_ATTEMPTS = 10  # AWS Batch takes no more
SHORTEST_LIMIT_S = 60  # AWS Batch takes no less

_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d)\s*$")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def parse_duration(text: str | int) -> int:
    """Read ``90s``, ``30m``, ``6h``, ``2d`` or a number of seconds.

    Raises:
        ConfigError: Not a duration.
    """
    if isinstance(text, int):
        return text
    match = _DURATION.match(text)
    if not match:
        raise ConfigError(f"duration: expected for example 90s, 30m, 6h or 2d, got {text!r}")
    return int(float(match.group(1)) * _SECONDS[match.group(2)])


def _bytes(value: Any) -> Any:
    try:
        return parse_bytes(value) if isinstance(value, str) else value
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _seconds(value: Any) -> Any:
    try:
        return parse_duration(value) if isinstance(value, str) else value
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _whole_mebibytes(value: int) -> int:
    if value < 1 << 20:
        raise ValueError("is less than 1 MiB; give a unit, for example 4GiB")
    return value


Bytes = Annotated[int, BeforeValidator(_bytes), AfterValidator(_whole_mebibytes)]
Seconds = Annotated[int, BeforeValidator(_seconds)]


class Resources(JobConfig):
    """Resources of one array task. Sizes are written as ``14GiB``.

    Attributes:
        gpus: GPUs; 0 for a job that computes on the CPU.
        cpus: CPU cores.
        memory: Main memory, bytes.
        shared_memory: ``/dev/shm``, bytes.
        scratch: Free space on a local disk, bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpus: int = Field(0, ge=0, le=16)
    cpus: int = Field(2, ge=1, le=512)
    memory: Bytes = 8 << 30
    shared_memory: Bytes = 1 << 30
    scratch: Bytes = 20 << 30


class ShardPolicy(JobConfig):
    """The number of array tasks that a job may be cut into.

    Attributes:
        default: Array tasks if no number is given.
        most: Largest number; 1 for a job that is not cut.
        parallel: Array tasks that may run at once; None leaves it to the engine.
    """

    default: int = Field(1, ge=1)
    most: int = Field(1, ge=1, le=200_000)
    parallel: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> ShardPolicy:
        if self.default > self.most:
            raise ValueError(f"default {self.default} is more than most {self.most}")
        return self


class LaunchBlock(JobConfig):
    """The ``launch`` block of a job file.

    Attributes:
        resources: What one array task needs.
        needed_by: By setting: resources that replace those where the setting is given (and is not ``none``).
        time_limit: Of one attempt of one array task, seconds; written as ``6h``.
        attempts: Attempts of an array task that ends with 75 or loses its machine.
        shards: Number of array tasks.
    """

    resources: Resources = Field(default_factory=Resources)
    needed_by: dict[str, dict[str, Any]] = Field(default_factory=dict)
    time_limit: Seconds = Field(6 * 3600, ge=SHORTEST_LIMIT_S)
    attempts: int = Field(5, ge=1, le=MOST_ATTEMPTS)
    shards: ShardPolicy = Field(default_factory=ShardPolicy)


@dataclass(frozen=True)
class JobFile:
    """The content of a job file.

    Attributes:
        job: Name of the job, which is the command of inkbatch.
        settings: The job's settings.
        launch: Its ``launch`` block.
    """

    job: str
    settings: dict[str, Any]
    launch: LaunchBlock

    @staticmethod
    def load(job: str, file: str | None = None) -> JobFile:
        """Read the shipped file of a job, and over it the user's own.

        Args:
            job: Name of the job.
            file: A user's job file; its settings and the keys of its ``launch`` block win one by one.

        Raises:
            ConfigError: There is no such job, or a file does not validate.
        """
        path = _shipped(job)
        values = read_yaml(str(path))
        block = _mapping(values.pop(LAUNCH_KEY, {}), str(path))
        if file:
            own = located(read_yaml(file), Path(file).parent)
            block = _merged(block, _mapping(own.pop(LAUNCH_KEY, {}), file))
            values |= own
        return JobFile(job, values, LaunchBlock.checked(block, f"{file or path}: {LAUNCH_KEY}"))


def job_names() -> list[str]:
    """List the jobs that have a job file."""
    return sorted({path.stem for folder in FOLDERS for path in folder.glob("*.yaml")})


def _shipped(job: str) -> Path:
    for folder in FOLDERS:
        if job in job_names() and (folder / f"{job}.yaml").is_file():
            return folder / f"{job}.yaml"
    raise _no_such(job)


def require_jobs(jobs: Sequence[str]) -> None:
    """Refuse what is no job that `inkbatch run` and engines can run.

    Raises:
        ConfigError: Names the jobs.
    """
    if unknown := [job for job in jobs if job not in job_names()]:
        raise _no_such(unknown[0])


def _no_such(job: str) -> ConfigError:
    names = job_names()
    return ConfigError(f"job {job!r}: there is no such job{near_matches(job, names)} (jobs: {', '.join(names)})")


def _mapping(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{place}: {LAUNCH_KEY} expected a mapping of keys to values, got a {type(value).__name__}")
    return value


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged

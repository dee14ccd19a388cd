"""The base of all engines: they render a chain, submit it, report its state, and cancel it."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import Field, field_validator

from inkbatch.config import JobConfig
from inkbatch.errors import ConfigError, DataError
from inkbatch.launch.plan import ArraySpec, Chain, refuse_secret_values, refuse_secrets
from inkbatch.text import near_matches


class Feature(StrEnum):
    """A capability of an engine beyond rendering a single task."""

    ARRAY = "array jobs"
    CHAIN = "jobs that wait for jobs"
    LOCAL_FILES = "folders of this machine"
    SUBMIT = "submission"


class UnsupportedFeature(ConfigError):  # noqa: N818  # named for what it says
    """A chain needs a capability that the engine does not have."""


class EngineSettings(JobConfig):
    """Settings that all engines have; each adds its own.

    Attributes:
        environment: Variables for every task. Credentials are refused.
    """

    environment: dict[str, str] = Field(default_factory=dict)

    @field_validator("environment")
    @classmethod
    def _no_secrets(cls, value: dict[str, str]) -> dict[str, str]:
        try:
            refuse_secrets(list(value), "environment")
            refuse_secret_values(list(value.values()), "environment")
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return value


@dataclass(frozen=True)
class Submitted:
    """A launch as its engine knows it; stored, so that every machine can ask for it.

    Attributes:
        engine: Name of the engine.
        launch: Name of the launch.
        jobs: Scheduler ids by job; several where an array was split.
        shards: Array tasks by job.
        folder: Folder of the rendered files and, for engines of this machine, of the logs.
        place: Host, cluster or region to ask.
        exit_code: Exit code of an engine that ran the jobs itself.
        said: Lines for the person who submitted.
    """

    engine: str
    launch: str
    jobs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    shards: Mapping[str, int] = field(default_factory=dict)
    folder: str = ""
    place: str = ""
    exit_code: int | None = None
    said: Sequence[str] = ()

    def document(self) -> dict[str, Any]:
        """Return the stored form."""
        return asdict(self)


@dataclass(frozen=True)
class JobState:
    """The state of one job of a chain, as its engine tells it.

    Attributes:
        job: Name of the job.
        counts: Array tasks by state: ``waiting``, ``running``, ``done``, ``failed``, ``cancelled``, ``lost``.
        notes: Reasons and cures, links to logs.
    """

    job: str
    counts: Mapping[str, int]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        counts = ", ".join(f"{number} {state}" for state, number in self.counts.items() if number) or "nothing known"
        return "\n".join([f"{self.job}: {counts}", *(f"  {note}" for note in self.notes)])


@dataclass(frozen=True)
class Ended:
    """The exit code and output of a program that ended."""

    code: int
    out: str
    err: str


RunProgram = Callable[[Sequence[str], str], Ended]


def run_program(argv: Sequence[str], stdin: str = "") -> Ended:
    """Run a program to its end.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        done = subprocess.run(list(argv), input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ConfigError(f"{argv[0]}: not found on this machine; run this where it is installed") from error
    return Ended(done.returncode, done.stdout, done.stderr)


class Launcher(ABC):
    """One engine.

    Attributes:
        name: What ``--engine`` calls it.
        settings_class: Its settings.
        supports: What it can do; asking for more raises `UnsupportedFeature`.
    """

    name: ClassVar[str]
    settings_class: ClassVar[type[EngineSettings]] = EngineSettings
    supports: ClassVar[frozenset[Feature]] = frozenset()

    def __init__(self, settings: EngineSettings | None = None, run: RunProgram = run_program) -> None:
        self.settings = settings or self.settings_class()
        self.run = run

    @abstractmethod
    def render(self, chain: Chain) -> dict[str, str]:
        """Render files, by name, in the engine's own form. Pure: no clock, no environment, no program is run.

        Raises:
            UnsupportedFeature: The chain needs a capability that this engine does not have.
        """

    @abstractmethod
    def submit(self, chain: Chain, folder: Path) -> Submitted:
        """Write the rendered files to `folder` and hand them to the engine."""

    def status(self, submitted: Submitted) -> list[JobState]:
        """Report the state of each job; tasks that the engine forgot are ``lost``, and only markers tell of them."""
        raise self.lacks(Feature.SUBMIT, "ask the engine's own program")

    def cancel(self, submitted: Submitted) -> list[str]:
        """End all jobs of a launch, and say what was done; a job that has ended is no error."""
        raise self.lacks(Feature.SUBMIT, "cancel with the engine's own program")

    def logs(self, submitted: Submitted, job: str, shard: int) -> Iterable[str]:
        """Return the last lines of a task's log, or the place to read them."""
        raise self.lacks(Feature.SUBMIT, "read them with the engine's own program")

    def check(self, chain: Chain) -> None:
        """Refuse a chain that this engine cannot run.

        Raises:
            UnsupportedFeature: Names the engine and the feature.
        """
        if len(chain.jobs) > 1 and Feature.CHAIN not in self.supports:
            raise self.lacks(Feature.CHAIN, "launch the jobs one by one, each when the one before is complete")
        if any(spec.shards > 1 for spec in chain.jobs) and Feature.ARRAY not in self.supports:
            raise self.lacks(Feature.ARRAY, "launch it with one shard")
        if Feature.LOCAL_FILES not in self.supports and chain.local_places:
            raise UnsupportedFeature(
                f"engine {self.name}: {chain.local_places[0]} is a folder of this machine, which its jobs cannot see; "
                "keep ROOT, SOURCE and BUNDLE on s3:// (or another store that the jobs reach)"
            )

    def lacks(self, feature: Feature, cure: str) -> UnsupportedFeature:
        """Build the error that names engine and feature."""
        return UnsupportedFeature(f"engine {self.name}: has no {feature.value}; {cure}")

    def write(self, chain: Chain, folder: Path) -> dict[str, str]:
        """Render into a folder.

        Returns:
            What `render` returned.
        """
        files = self.render(chain)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        return files

    def variables(self, spec: ArraySpec, chain: Chain) -> dict[str, str]:
        """Collect the variables of every task of a job, sorted by name."""
        found = {**spec.environment, "INKBATCH_LAUNCH": chain.launch, **self.settings.environment}
        return dict(sorted(found.items()))


_LAUNCHERS: dict[str, type[Launcher]] = {}
L = TypeVar("L", bound=type[Launcher])


def register_launcher(launcher: L) -> L:
    """Register an engine under its name."""
    _LAUNCHERS[launcher.name] = launcher
    return launcher


def launcher_names() -> list[str]:
    """List the names of all engines."""
    return sorted(_LAUNCHERS)


def launcher_class(name: str) -> type[Launcher]:
    """Find the engine of that name.

    Raises:
        ConfigError: There is none.
    """
    if name not in _LAUNCHERS:
        names = launcher_names()
        raise ConfigError(f"engine {name!r}: not known{near_matches(name, names)} (engines: {', '.join(names)})")
    return _LAUNCHERS[name]


def tail(path: Path, lines: int = 200) -> list[str]:
    """Read the last lines of a log file.

    Raises:
        DataError: It is not there.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such log; the task has not started, or ran on another machine") from error


def split_array(shards: int, most: int) -> list[tuple[int, int]]:
    """Cut an array into arrays of at most `most` tasks: (first shard, number of tasks)."""
    return [(first, min(most, shards - first)) for first in range(0, shards, most)]

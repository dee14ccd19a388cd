"""What every engine is: it renders a chain, submits it, says how it goes, and cancels it."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import Field, field_validator

from inkbatch.config import JobConfig, near_matches
from inkbatch.errors import ConfigError, DataError
from inkbatch.launch.plan import ArraySpec, Chain, refuse_secrets


class Feature(StrEnum):
    """What an engine can do beyond rendering one single task."""

    ARRAY = "array jobs"
    CHAIN = "jobs that wait for jobs"
    LOCAL_FILES = "folders of this machine"
    SUBMIT = "submission"


class UnsupportedFeature(ConfigError):  # noqa: N818  # named for what it says
    """The engine cannot do what the chain needs."""


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
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return value


@dataclass(frozen=True)
class Submitted:
    """What a scheduler was given; stored, so that every machine can ask for it.

    Attributes:
        engine: Name of the engine.
        launch: Name of the launch.
        jobs: Scheduler ids by job; several where an array was split.
        shards: Array tasks by job.
        folder: Where the rendered files and, on engines of this machine, the logs lie.
        place: What the engine must be asked about: host, cluster or region.
        exit_code: Of an engine that ran the jobs itself.
        said: For the person who submitted.
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
        """The stored form."""
        return asdict(self)


@dataclass(frozen=True)
class JobState:
    """How one job of a chain goes, as its engine tells.

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
    """How a program ended."""

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
        """File names and texts in the engine's own words. Pure: no clock, no environment, no program is run.

        Raises:
            UnsupportedFeature: The chain needs what this engine has not.
        """

    @abstractmethod
    def submit(self, chain: Chain, folder: Path) -> Submitted:
        """Write the rendered files to `folder` and hand them to the engine."""

    def status(self, submitted: Submitted) -> list[JobState]:
        """How each job goes; what the engine has forgotten is ``lost`` here, and markers tell the truth."""
        raise self.lacks(Feature.SUBMIT, "ask the engine's own program")

    def cancel(self, submitted: Submitted) -> list[str]:
        """End all jobs of a launch; one that has ended already is not an error. Says what was done."""
        raise self.lacks(Feature.SUBMIT, "cancel with the engine's own program")

    def logs(self, submitted: Submitted, job: str, shard: int) -> Iterable[str]:
        """Lines, or where they are to be read."""
        raise self.lacks(Feature.SUBMIT, "read them with the engine's own program")

    def check(self, chain: Chain) -> None:
        """Refuse a chain that this engine cannot carry out.

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
        """The error that names engine and feature."""
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
        """Variables of every task of a job, sorted by name."""
        found = {**spec.environment, "INKBATCH_LAUNCH": chain.launch, **self.settings.environment}
        return dict(sorted(found.items()))


_LAUNCHERS: dict[str, type[Launcher]] = {}
L = TypeVar("L", bound=type[Launcher])


def register_launcher(launcher: L) -> L:
    """Make an engine known under its name."""
    _LAUNCHERS[launcher.name] = launcher
    return launcher


def launcher_names() -> list[str]:
    """All engines."""
    return sorted(_LAUNCHERS)


def launcher_class(name: str) -> type[Launcher]:
    """The engine of that name.

    Raises:
        ConfigError: There is none.
    """
    if name not in _LAUNCHERS:
        names = launcher_names()
        raise ConfigError(f"engine {name!r}: there is none{near_matches(name, names)} (there are {', '.join(names)})")
    return _LAUNCHERS[name]


def tail(path: Path, lines: int = 200) -> list[str]:
    """Last lines of a log file.

    Raises:
        DataError: It is not there.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such log; the task has not started, or ran on another machine") from error


def split_array(shards: int, most: int) -> list[tuple[int, int]]:
    """Cut an array into arrays of at most `most` tasks: (first shard, number of tasks)."""
    return [(first, min(most, shards - first)) for first in range(0, shards, most)]

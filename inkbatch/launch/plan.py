"""From a request ("infer this segment in eight parts") to a chain of array jobs, which engines only render."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from inkbatch.config import digest
from inkbatch.data.segments.catalog import check_segment_id
from inkbatch.errors import ConfigError
from inkbatch.io.store.location import Location
from inkbatch.launch.commands import Request, arrays_of, task_command, with_subject
from inkbatch.launch.jobfile import JobFile, Resources
from inkbatch.launch.members import require_order
from inkbatch.redaction import holds_secret, redact, shown
from inkbatch.run.deadline import DEADLINE_VARIABLE

DEADLINE_SHARE = 0.95  # a job ends itself with 75 before an engine's time-out, which would not be retried


@dataclass(frozen=True)
class ArraySpec:
    """One array job.

    Attributes:
        job: Name of the job in its chain: the command of inkbatch, and behind a dot the prediction's name where a chain
            has several of a kind (``infer.letters``).
        subject: Segment, dataset or run.
        command: Arguments after the program ``inkbatch``.
        shards: Array tasks; each does its share of the units.
        resources: What one array task needs.
        time_limit_s: Of one attempt of one array task.
        attempts: How often an array task is tried at most.
        parallel: Array tasks at once; None leaves it to the engine.
        after: Jobs of the same chain that must be complete before this one starts.
    """

    job: str
    subject: str
    command: tuple[str, ...]
    shards: int = 1
    resources: Resources = field(default_factory=Resources)
    time_limit_s: int = 6 * 3600
    attempts: int = 5
    parallel: int | None = None
    after: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The command of inkbatch."""
        return self.job.partition(".")[0]

    @property
    def name(self) -> str:
        """Name for a scheduler: letters, digits, ``_`` and ``-``."""
        return re.sub(r"[^A-Za-z0-9_-]", "-", f"inkbatch-{self.job}-{self.subject}")[:100]

    @property
    def environment(self) -> dict[str, str]:
        """Variables that every task of this job gets, whatever the engine."""
        found = {DEADLINE_VARIABLE: str(int(self.time_limit_s * DEADLINE_SHARE)), "OMP_WAIT_POLICY": "PASSIVE"}
        if self.resources.gpus:
            found["INKBATCH_REQUIRE_GPU"] = "1"
        return found


@dataclass(frozen=True)
class Chain:
    """One request: jobs in an order in which each can run.

    Attributes:
        launch: Name of this launch.
        root: ROOT.
        jobs: The array jobs.
    """

    launch: str
    root: str
    jobs: tuple[ArraySpec, ...]

    def __post_init__(self) -> None:
        known: set[str] = set()
        for spec in self.jobs:
            if spec.job in known or not set(spec.after) <= known:
                raise ConfigError(f"chain {'>'.join(job.job for job in self.jobs)}: {spec.job} is in the wrong place")
            known.add(spec.job)

    @property
    def local_places(self) -> list[str]:
        """Absolute paths of this machine that the jobs are told to use: ROOT first."""
        words = [self.root, *(word.rpartition("=")[2] for spec in self.jobs for word in spec.command)]
        return list(dict.fromkeys(word.strip('"') for word in words if word.strip('"').startswith("/")))


def plan_chain(request: Request, launch: str) -> Chain:
    """Turn a request into a chain; nothing is read but job files and the catalog.

    Raises:
        ConfigError: An unknown job or segment, a number of shards that the job's policy forbids, a bad value, or a
            credential among the commands' words.
    """
    request = with_subject(request)
    check_segment_id(str(request.subject))
    require_order(request.jobs)
    root = Location.parse(request.root).uri
    specs: list[ArraySpec] = []
    before: tuple[str, ...] = ()
    for job in request.jobs:
        file = JobFile.load(job, request.config.get(job))
        arrays = [
            _array(request, file, name, task_command(request, file, root, member), before)
            for name, member in arrays_of(job, request.members)
        ]
        before = tuple(spec.job for spec in arrays)
        specs += arrays
    return Chain(launch, root, tuple(specs))


def _array(request: Request, file: JobFile, name: str, command: tuple[str, ...], after: tuple[str, ...]) -> ArraySpec:
    block, job = file.launch, file.job
    shards = request.shards.get(job, block.shards.default)
    if not 1 <= shards <= block.shards.most:
        raise ConfigError(
            f"{job}: expected 1 to {block.shards.most} shards, as its job file allows, got {shards}; "
            "ask for fewer, or raise launch.shards.most in a job file of your own"
        )
    refuse_secret_values(command, job)
    return ArraySpec(
        job=name,
        subject=str(request.subject),
        command=command,
        shards=shards,
        resources=Resources.checked(
            {**block.resources.model_dump(), **_needed(request, file), **request.resources}, f"{job}: resources"
        ),
        time_limit_s=block.time_limit,
        attempts=block.attempts,
        parallel=block.shards.parallel,
        after=after,
    )


def _needed(request: Request, file: JobFile) -> dict[str, Any]:
    """Collect the resources that the settings of a request ask for beyond the job's own."""
    stated = {key: str(value) for key, value in file.settings.items() if value is not None}
    stated |= {key: value for key, _, value in (item.partition("=") for item in request.sets.get(file.job, ()))}
    words = tuple(request.extra.get(file.job, ()))
    stated |= {word.removeprefix("--"): value for word, value in itertools.pairwise(words)}
    found: dict[str, Any] = {}
    for key, resources in file.launch.needed_by.items():
        if stated.get(key, "none") != "none":
            found |= resources
    return found


def launch_name(request: Request, moment: str) -> str:
    """Name a launch by job, subject and time, and by a digest so that two of one second differ."""
    what = {"jobs": request.jobs, "subject": request.subject, "root": request.root, "shards": dict(request.shards)}
    return f"{request.jobs[-1]}-{str(request.subject)[:60]}-{moment}-{digest([what, moment])[:4]}"


def refuse_secrets(names: Sequence[str], place: str) -> None:
    """Refuse variables that look like credentials: rendered files and schedulers would keep them.

    Raises:
        ConfigError: There is one.
    """
    for name in names:
        if holds_secret(name):
            raise ConfigError(
                f"{place}: {name} looks like a credential, and rendered jobs are stored; leave it to the environment, "
                "the AWS config or the machine's role"
            )


def refuse_secret_values(words: Sequence[str], place: str) -> None:
    """Refuse words that carry a credential: users or queries of addresses, values of telling names, known keys.

    Raises:
        ConfigError: There is one; it is named without the credential.
    """
    for word in words:
        if redact(word) != word:
            raise ConfigError(
                f"{place}: {shown(word)} carries a credential, and rendered jobs are stored; leave it to the "
                "environment, the AWS config or the machine's role"
            )

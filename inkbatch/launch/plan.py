"""From a request ("infer this segment in eight parts") to a chain of array jobs, which engines only render."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from inkbatch.config import digest
from inkbatch.data.segments.catalog import Catalog, check_segment_id, shipped_catalog
from inkbatch.errors import ConfigError
from inkbatch.io.store.location import Location
from inkbatch.launch.jobfile import JobFile, Resources
from inkbatch.launch.members import Member, members_of, require_order
from inkbatch.run.deadline import DEADLINE_VARIABLE

BUNDLE_JOBS = frozenset({"probe", "infer"})  # take --bundle; one array per bundle
NAMING_JOBS = frozenset({"ensemble", "evaluate", "clean", "report"})  # take --name, as infer does
LOGGING_JOBS = frozenset(
    {"prepare", "labels", "build-dataset", "train", "probe", "infer", "ensemble", "evaluate", "clean"}
)
PREPARE_KEYS = (
    *("source", "layers", "depth_order", "voxel_size_um", "z_spacing_um", "intensity", "mask", "axes", "level"),
    *("volume", "layers_count", "step_um", "volume_um", "flip_normals", "max_outside"),
    *("resample", "resample_depth", "resample_finer"),
)  # of a catalog's entry that a job far from the catalog is told
DEADLINE_SHARE = 0.95  # a job ends itself with 75 before an engine's time-out, which would not be retried

_SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|CREDENTIAL|ACCESS_KEY", re.IGNORECASE)


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
                raise ConfigError(f"chain {'>'.join(job.job for job in self.jobs)}: {spec.job} stands in a wrong place")
            known.add(spec.job)

    @property
    def local_places(self) -> list[str]:
        """Absolute paths of this machine that the jobs are told to use: ROOT first."""
        words = [self.root, *(word.rpartition("=")[2] for spec in self.jobs for word in spec.command)]
        return list(dict.fromkeys(word.strip('"') for word in words if word.strip('"').startswith("/")))


@dataclass(frozen=True)
class Request:
    """What a person asks for.

    Attributes:
        jobs: Names of jobs in the order of the chain.
        subject: Segment, dataset or run.
        root: ROOT.
        shards: Array tasks by job; what is not there follows the job file.
        source: Where a segment's layers are; replaces the catalog's.
        bundles: The bundles of infer and probe, ``PLACE`` or ``NAME=PLACE``; each gets arrays of its own.
        predictions: Members of ensemble beside those that the chain makes.
        name: Name of the chain's prediction: of the ensemble, where it has one.
        catalog: The user's catalog file.
        config: The user's own job file by job.
        sets: ``key=value`` by job.
        extra: More arguments of a job's command line, by job.
        resources: Values that replace the job file's resources, all jobs: ``{"gpus": 0}``.
    """

    jobs: tuple[str, ...]
    subject: str
    root: str = "root"
    shards: Mapping[str, int] = field(default_factory=dict)
    source: str | None = None
    bundles: tuple[str, ...] = ()
    predictions: tuple[str, ...] = ()
    name: str | None = None
    catalog: str | None = None
    config: Mapping[str, str] = field(default_factory=dict)
    sets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)


def plan_chain(request: Request, launch: str) -> Chain:
    """Turn a request into a chain; nothing is read but job files and the catalog.

    Raises:
        ConfigError: An unknown job or segment, a number of shards that the job's policy forbids, or a bad value.
    """
    check_segment_id(request.subject)
    require_order(request.jobs)
    root = Location.parse(request.root).uri
    members = members_of(request.bundles, request.name, request.jobs)
    specs: list[ArraySpec] = []
    before: tuple[str, ...] = ()
    for job in request.jobs:
        file = JobFile.load(job, request.config.get(job))
        arrays = [
            _array(request, file, name, _command(request, file, root, members, member), before)
            for name, member in _arrays(job, members)
        ]
        before = tuple(spec.job for spec in arrays)
        specs += arrays
    return Chain(launch, root, tuple(specs))


def _arrays(job: str, members: Sequence[Member]) -> list[tuple[str, Member]]:
    """Names of a job's arrays, and the bundle of each: one array, or one per bundle."""
    if job not in BUNDLE_JOBS or len(members) == 1:
        return [(job, members[0])]
    return [(f"{job}.{member.name or number}", member) for number, member in enumerate(members, start=1)]


def _array(request: Request, file: JobFile, name: str, command: tuple[str, ...], after: tuple[str, ...]) -> ArraySpec:
    block, job = file.launch, file.job
    shards = request.shards.get(job, block.shards.default)
    if not 1 <= shards <= block.shards.most:
        raise ConfigError(
            f"{job}: {shards} shards are asked for, its job file allows 1 to {block.shards.most}; "
            "ask for fewer, or raise launch.shards.most in a job file of your own"
        )
    return ArraySpec(
        job=name,
        subject=request.subject,
        command=command,
        shards=shards,
        resources=Resources.checked({**block.resources.model_dump(), **request.resources}, f"{job}: resources"),
        time_limit_s=block.time_limit,
        attempts=block.attempts,
        parallel=block.shards.parallel,
        after=after,
    )


def launch_name(request: Request, moment: str) -> str:
    """A name for a launch: what, when, and enough of a digest that two of one second differ."""
    what = {"jobs": request.jobs, "subject": request.subject, "root": request.root, "shards": dict(request.shards)}
    return f"{request.jobs[-1]}-{request.subject[:60]}-{moment}-{digest([what, moment])[:4]}"


def refuse_secrets(names: Sequence[str], place: str) -> None:
    """Refuse variables that look like credentials: rendered files and the schedulers' records would keep them.

    Raises:
        ConfigError: There is one.
    """
    for name in names:
        if _SECRET.search(name):
            raise ConfigError(
                f"{place}: {name} looks like a credential, and rendered jobs are stored; leave it to the environment, "
                "the AWS config or the machine's role"
            )


def _command(request: Request, file: JobFile, root: str, members: Sequence[Member], member: Member) -> tuple[str, ...]:
    job, settings = file.job, dict(file.settings)
    words = [job, *(["--run", request.subject] if job == "train" else [request.subject]), "--root", root]
    if job == "prepare":
        settings |= _layers_of(request)
    if job in BUNDLE_JOBS:
        bundle = member.bundle or settings.pop("bundle", None)
        if bundle is None:
            raise ConfigError(f"{job}: no bundle is given; pass --bundle (BUNDLE=…)")
        words += ["--bundle", _absolute(bundle)]
        settings.pop("bundle", None)
    if job == "ensemble":
        made = [made.name for made in members if made.name] if "infer" in request.jobs else []
        words += [word for name in (*made, *request.predictions) for word in ("--prediction", name)]
    if job == "train" and "build-dataset" in request.jobs and "dataset" not in settings:
        words += ["--dataset", request.subject]
    name = _result_name(request, job, members, member)
    words += ["--name", name] if name else []
    for key, value in settings.items():
        words += ["--set", f"{key}={_yaml_word(value)}"]
    for item in request.sets.get(job, ()):
        words += ["--set", item]
    if job in LOGGING_JOBS:
        words += ["--log", "json"]
    return (*words, *request.extra.get(job, ()))


def _result_name(request: Request, job: str, members: Sequence[Member], member: Member) -> str | None:
    """The prediction that a job makes or, where it reads one, the one that the chain ends with."""
    if job == "infer":
        return member.name
    if job not in NAMING_JOBS:
        return None
    read = "evaluate" in request.jobs  # evaluate takes one prediction, whose name it must know
    if "ensemble" in request.jobs:
        return request.name or ("ensemble" if read else None)
    if "infer" not in request.jobs or not read:
        return request.name
    if len(members) > 1:
        names = ", ".join(str(one.name) for one in members)
        raise ConfigError(f"{job}: there will be several predictions, {names}; put ensemble before it")
    return members[0].name


def _layers_of(request: Request) -> dict[str, Any]:
    """The catalog's entry of a segment as settings of prepare; a shipped segment is known wherever inkbatch is."""
    catalog = Catalog.load(request.catalog)
    entry = catalog.entry(request.subject, request.source)
    shipped = str(shipped_catalog().parent)
    if request.source is None and (entry.source or "").startswith(shipped):
        return {}
    found = {key: value for key in PREPARE_KEYS if (value := getattr(entry, key)) is not None}
    return {key: _absolute(value) if key in ("source", "mask", "volume") else value for key, value in found.items()}


def _absolute(place: str) -> str:
    return place if place == "demo" else Location.parse(place).uri


def _yaml_word(value: Any) -> str:
    """A value as YAML on one line: plain text stays plain where YAML reads it back as the same text."""
    if isinstance(value, str):
        try:
            plain = yaml.safe_load(value) == value
        except yaml.YAMLError:
            plain = False
        return value if plain else json.dumps(value)
    return json.dumps(value)

"""Arguments of the jobs of a request: for the array tasks of an engine, and for this process."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from inkbatch.config import ROOT_KEY, named_place
from inkbatch.data.segments.catalog import Catalog, check_segment_id, shipped_catalog
from inkbatch.data.segments.prepared import segment_folder
from inkbatch.documents import parse_yaml
from inkbatch.errors import ConfigError
from inkbatch.io.store.location import Location
from inkbatch.launch.jobfile import JobFile
from inkbatch.launch.members import Member, members_of, require_order

BUNDLE_JOBS = frozenset({"probe", "infer"})  # take --bundle; one array per bundle
BUNDLES_JOB = "sweep"  # takes all bundles at once
NAMING_JOBS = frozenset({"ensemble", "evaluate", "clean", "instances", "report"})  # take --name, as infer does
CATALOG_JOBS = frozenset({"prepare", "labels", "build-dataset", "infer", "ensemble", "evaluate"})  # take --catalog
SUBJECT_KEYS = {"train": "run", "build-dataset": "name", "round": "name"}  # settings of job files that name the subject
DOCTOR_REPORT = "first-try"  # name of doctor's report if none is given
LOGGING_JOBS = frozenset(
    {"prepare", "labels", "build-dataset", "train", "round", "preflight", "probe", "sweep", "infer"}
    | {"ensemble", "evaluate", "clean", "instances"}
)
PREPARE_KEYS = (
    *("source", "layers", "depth_order", "voxel_size_um", "z_spacing_um", "intensity", "mask", "axes", "level"),
    *("volume", "layers_count", "step_um", "volume_um", "flip_normals", "max_outside"),
    *("resample", "resample_depth", "resample_finer"),
)  # of a catalog's entry that a job far from the catalog is told


@dataclass(frozen=True)
class Request:
    """A request for jobs, as a person makes it.

    Attributes:
        jobs: Names of jobs in the order of the chain.
        subject: Segment, dataset or run; None where a job's own file names it.
        root: ROOT.
        shards: Array tasks by job; a job that is missing follows its job file.
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
    subject: str | None
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

    @property
    def members(self) -> tuple[Member, ...]:
        """The bundles, each with the name of its prediction where that must be known."""
        return members_of(self.bundles, self.name, self.jobs)


def arrays_of(job: str, members: Sequence[Member]) -> list[tuple[str, Member]]:
    """Name a job's arrays, with the bundle of each: one array, or one per bundle."""
    if job not in BUNDLE_JOBS or len(members) == 1:
        return [(job, members[0])]
    return [(f"{job}.{member.name or number}", member) for number, member in enumerate(members, start=1)]


def task_command(request: Request, file: JobFile, root: str, member: Member) -> tuple[str, ...]:
    """Build the arguments of a job's array tasks: every setting is stated, so that ROOT is all that machines share.

    Args:
        request: The request.
        file: The job's file.
        root: ROOT as every machine can read it.
        member: The bundle, and the name of its prediction.

    Raises:
        ConfigError: No bundle for a job that needs one, or a segment that the catalog does not know.
    """
    job, settings = file.job, {key: value for key, value in file.settings.items() if key != ROOT_KEY}
    words = [*_job_and_subject(request, job), "--root", root]
    if job == "prepare":
        settings |= _layers_of(request)
    if job in BUNDLE_JOBS:
        bundle = member.bundle or settings.get("bundle")
        if bundle is None:
            raise ConfigError(f"{job}: expected a bundle, got none; pass --bundle (BUNDLE=…)")
        words += ["--bundle", _absolute(bundle)]
        settings.pop("bundle", None)
    if job == BUNDLES_JOB:
        words += [word for text in request.bundles for word in ("--bundle", _named(text))]
        if not request.bundles and not settings.get("bundles"):
            raise ConfigError(f"{job}: expected bundles, got none; pass --bundle, once for each")
    words += _results(request, job, member, "dataset" in settings)
    for key, value in settings.items():
        words += ["--set", f"{key}={_yaml_word(value)}"]
    words += _sets(request, job)
    if job in LOGGING_JOBS:
        words += ["--log", "json"]
    return (*words, *request.extra.get(job, ()))


def commands_here(request: Request, shard: str | None = None, *, planning: bool = False) -> list[tuple[str, ...]]:
    """Build the commands that do a request on this machine, as a person would type them.

    Args:
        request: The request; its shards and resources are an engine's, and are left out.
        shard: ``i/n``: only this part of the last job; the jobs before it must be complete.
        planning: For ``--dry-run``: infer is told the source, too, as prepare has not run.

    Raises:
        ConfigError: Jobs that cannot follow each other.
    """
    require_order(request.jobs)
    found = []
    for job in request.jobs if shard is None else request.jobs[-1:]:
        for _, member in arrays_of(job, request.members):
            words = [*_job_and_subject(request, job), "--root", request.root]
            words += ["--catalog", request.catalog] if request.catalog and job in CATALOG_JOBS else []
            sourced = ("prepare", "infer") if planning else ("prepare",)
            words += ["--source", request.source] if request.source and job in sourced else []
            words += ["--config", request.config[job]] if job in request.config else []
            words += ["--bundle", member.bundle] if member.bundle and job in BUNDLE_JOBS else []
            words += [word for one in request.bundles if job == BUNDLES_JOB for word in ("--bundle", one)]
            words += _results(request, job, member, has_dataset=job in request.config)
            words += _sets(request, job)
            words += ["--shard", shard] if shard is not None else []
            found.append((*words, *request.extra.get(job, ())))
    return found


def with_subject(request: Request) -> Request:
    """Name the subject of a request that leaves it to the last job's own file.

    Raises:
        ConfigError: The file does not name it either.
    """
    job = request.jobs[-1]
    if request.subject is not None:
        return request
    key = SUBJECT_KEYS.get(job)
    stated = JobFile.load(job, request.config.get(job)).settings.get(key) if key else None
    if job == "doctor":
        stated = DOCTOR_REPORT
    if not isinstance(stated, str):
        raise ConfigError(f"{job}: expected the name of a segment, dataset or training run, got none")
    return replace(request, subject=stated)


def without_complete_prepare(request: Request) -> Request:
    """Leave prepare out of a chain whose segment is prepared and whose source is not available on this machine.

    With a source at hand prepare stays: it compares the source with what it read.
    """
    told = (request.source, request.config.get("prepare"), request.sets.get("prepare"), request.extra.get("prepare"))
    if request.jobs[0] != "prepare" or len(request.jobs) == 1 or any(told):
        return request
    segment = check_segment_id(str(request.subject))
    complete = (segment_folder(request.root, segment) / "prepare" / "complete.json").exists()
    if not complete or _has_source(Catalog.load(request.catalog), segment):
        return request
    return replace(request, jobs=request.jobs[1:])


def _has_source(catalog: Catalog, segment: str) -> bool:
    """Look for a segment's source: named by the catalog, and there if it is a local folder or file."""
    try:
        source = catalog.entry(segment).source
    except ConfigError:  # not in the catalog
        return False
    location = Location.parse(source) if source else None
    return location is not None and (not location.is_local or os.path.exists(location.path))


def _job_and_subject(request: Request, job: str) -> list[str]:
    if request.subject is None:
        return [job]
    return [job, "--run", request.subject] if job == "train" else [job, request.subject]


def _results(request: Request, job: str, member: Member, has_dataset: bool) -> list[str]:
    """Name what a job takes from the jobs before it, and what it makes."""
    words: list[str] = []
    if job == "ensemble":
        made = [made.name for made in request.members if made.name] if "infer" in request.jobs else []
        words += [word for name in (*made, *request.predictions) for word in ("--prediction", name)]
    if job == "train" and "build-dataset" in request.jobs and not has_dataset and request.subject:
        words += ["--dataset", request.subject]
    name = _result_name(request, job, member)
    return [*words, "--name", name] if name else words


def _result_name(request: Request, job: str, member: Member) -> str | None:
    """Name the prediction that a job makes or, where it reads one, the one that the chain ends with."""
    if job == "infer":
        return member.name
    if job == BUNDLES_JOB:
        return request.name if request.jobs[-1] == BUNDLES_JOB else None
    if job not in NAMING_JOBS:
        return None
    read = "evaluate" in request.jobs  # evaluate takes one prediction, whose name it must know
    if "ensemble" in request.jobs:
        return request.name or ("ensemble" if read else None)
    if "infer" not in request.jobs or not read:
        return request.name
    if len(request.members) > 1:
        names = ", ".join(str(one.name) for one in request.members)
        raise ConfigError(f"{job}: expected one prediction, got {names}; put ensemble before it")
    return request.members[0].name


def _sets(request: Request, job: str) -> list[str]:
    """Hand settings on; ROOT is one for all jobs and an option of its own."""
    kept = [item for item in request.sets.get(job, ()) if item.partition("=")[0] != ROOT_KEY]
    return [word for item in kept for word in ("--set", item)]


def _layers_of(request: Request) -> dict[str, Any]:
    """Turn the catalog's entry of a segment into settings of prepare; a shipped segment is known everywhere."""
    catalog = Catalog.load(request.catalog)
    entry = catalog.entry(str(request.subject), request.source)
    shipped = str(shipped_catalog().parent)
    if request.source is None and (entry.source or "").startswith(shipped):
        return {}
    found = {key: value for key in PREPARE_KEYS if (value := getattr(entry, key)) is not None}
    return {key: _absolute(value) if key in ("source", "mask", "volume") else value for key, value in found.items()}


def _absolute(place: str) -> str:
    return place if place == "demo" else Location.parse(place).uri


def _named(text: str) -> str:
    """Make the place of a bundle absolute, with its name in front where it has one."""
    name, place = named_place(text)
    return f"{name}={_absolute(place)}" if name else _absolute(place)


def _yaml_word(value: Any) -> str:
    """Write a value as YAML on one line: plain text stays plain where YAML reads it back as the same text."""
    if isinstance(value, str):
        try:
            plain = parse_yaml(value, "value") == value
        except ConfigError:
            plain = False
        return value if plain else json.dumps(value)
    return json.dumps(value)

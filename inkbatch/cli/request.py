"""The options of a request for jobs, in groups, and the request that they make."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from inkbatch.cli.options import CatalogFile, Root, chosen_root
from inkbatch.config import ROOT_KEY
from inkbatch.documents import parse_yaml
from inkbatch.errors import ConfigError
from inkbatch.redaction import shown

if TYPE_CHECKING:
    from inkbatch.launch.base import Launcher
    from inkbatch.launch.commands import Request

DEFAULT_ROOT = "root"
WORK_FOLDER = ".inkbatch"

Jobs = Annotated[
    str, typer.Argument(metavar="JOBS", help="Jobs in order, for example prepare,infer.", show_default=False)
]
EngineSettings = Annotated[
    list[str] | None, typer.Option("--option", help="A setting of the engine, key=value; repeatable.")
]
EnginesFile = Annotated[
    str | None, typer.Option(help="Engine settings file (default: INKBATCH_ENGINES, then engines.yaml).")
]


@dataclass(frozen=True)
class InputOptions:
    """Options that say what the jobs read and what their result is called."""

    root: Root = None
    source: Annotated[
        str | None, typer.Option(help="Folder or URI of the layers; {segment} is replaced by the id.")
    ] = None
    bundle: Annotated[
        list[str] | None,
        typer.Option(
            help="The bundle: a folder or URI. Repeatable, also as NAME=PLACE: infer runs once per bundle, and "
            "ensemble, if the chain has it, combines their predictions."
        ),
    ] = None
    prediction: Annotated[
        list[str] | None, typer.Option(help="A finished prediction that ensemble takes in; repeatable.")
    ] = None
    name: Annotated[str | None, typer.Option(help="Name of the prediction; of the ensemble, if there is one.")] = None
    catalog: CatalogFile = None


@dataclass(frozen=True)
class SettingOptions:
    """Options that hand settings on to the jobs."""

    config: Annotated[
        list[str] | None, typer.Option("--config", help="Your own job file for the last job, or JOB=FILE; repeatable.")
    ] = None
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the last job, key=value, or JOB:key=value; repeatable."),
    ] = None
    args: Annotated[str, typer.Option(help="More arguments for the last job's command.")] = ""
    prepare_args: Annotated[str, typer.Option(help="More arguments for prepare.")] = ""


@dataclass(frozen=True)
class ResourceOptions:
    """Options that replace the resources of the job files."""

    gpus: Annotated[int | None, typer.Option(help="GPUs per array task; 0 computes on the CPU.")] = None
    cpus: Annotated[int | None, typer.Option(help="CPU cores per array task.")] = None
    memory: Annotated[str | None, typer.Option(help="Memory per array task, for example 30GiB.")] = None


@dataclass(frozen=True)
class EngineOptions:
    """Options that choose and set up an engine."""

    engine: Annotated[str, typer.Option(help="local, docker, slurm, aws-batch, kubernetes or skypilot.")] = "local"
    shards: Annotated[
        str | None, typer.Option(help="Number of array tasks: 8 for every job that can be cut, or prepare=2,infer=8.")
    ] = None
    option: EngineSettings = None
    engines: EnginesFile = None
    work: Annotated[str, typer.Option(help="Folder for rendered files and logs.")] = WORK_FOLDER


def make_request(
    jobs: str,
    subject: str | None,
    inputs: InputOptions,
    settings: SettingOptions,
    resources: ResourceOptions,
    shards: str | None = None,
) -> Request:
    """Build the request that a command's options make.

    Raises:
        ConfigError: No job is named, `shards` is not understood, jobs state several ROOTs, or arguments have a quote
            without its partner.
    """
    from inkbatch.launch.commands import Request

    chosen = tuple(part.strip() for part in jobs.split(",") if part.strip())
    if not chosen:
        raise ConfigError("JOBS: expected names of jobs, got none; for example prepare,infer")
    config = {job: files[-1] for job, files in _by_job(settings.config or (), chosen, "=").items()}
    sets = _by_job(settings.sets or (), chosen, ":")
    given = {"gpus": resources.gpus, "cpus": resources.cpus, "memory": resources.memory}
    return Request(
        jobs=chosen,
        subject=subject,
        root=inputs.root or _stated_root(chosen, config, sets) or str(chosen_root(None) or DEFAULT_ROOT),
        shards=_shards(shards, chosen),
        source=inputs.source,
        bundles=tuple(inputs.bundle or ()),
        predictions=tuple(inputs.prediction or ()),
        name=inputs.name,
        catalog=inputs.catalog,
        config=config,
        sets=sets,
        extra=_arguments(settings, chosen),
        resources={key: value for key, value in given.items() if value is not None},
    )


def _stated_root(jobs: Sequence[str], config: Mapping[str, str], sets: Mapping[str, Sequence[str]]) -> str | None:
    """Return the ROOT that a job's ``--set root=`` or file states, for all jobs; None where none does."""
    from inkbatch.launch.jobfile import JobFile

    found: dict[str, str] = {}
    for job in jobs:
        in_file = JobFile.load(job, config[job]).settings.get(ROOT_KEY) if job in config else None
        in_sets = [text for key, _, text in (item.partition("=") for item in sets.get(job, ())) if key == ROOT_KEY]
        if root := (parse_yaml(in_sets[-1], f"--set {ROOT_KEY}=…") if in_sets else in_file):
            found[job] = str(root)
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{root} for {job}" for job, root in found.items())
        raise ConfigError(f"ROOT: expected one for all jobs, got {listed}; state it once, with --root")
    return next(iter(found.values()), None)


def make_launcher(engine: str, options: Sequence[str] | None, file: str | None, require_gpu: bool = False) -> Launcher:
    """Build an engine with its settings.

    Raises:
        ConfigError: An unknown engine or setting.
    """
    import inkbatch.launch
    from inkbatch.launch.base import launcher_class
    from inkbatch.launch.settings import engine_settings

    assert inkbatch.launch  # importing it registers the engines
    settings = engine_settings(engine, options or (), file)
    if require_gpu and "require_gpu" in type(settings).model_fields:
        settings = settings.model_copy(update={"require_gpu": True})
    return launcher_class(engine)(settings)


def _arguments(settings: SettingOptions, jobs: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Split further arguments by job; as the last job, prepare takes its own before those of --args."""
    found = {"prepare": split_words("--prepare-args", settings.prepare_args)}
    found[jobs[-1]] = [*found.get(jobs[-1], []), *split_words("--args", settings.args)]
    return found


def split_words(option: str, text: str) -> list[str]:
    """Split a text into words as a shell does.

    Raises:
        ConfigError: A quote that is not closed.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{option} {shown(text)}: expected words as a shell reads them, got {error}") from error


def _shards(text: str | None, jobs: Sequence[str]) -> dict[str, int]:
    """Read ``8`` (every job that can be cut, as far as it can) or ``prepare=2,infer=8``."""
    from inkbatch.launch.jobfile import JobFile

    if text is None:
        return {}
    if text.isdecimal():
        return {job: min(int(text), JobFile.load(job).launch.shards.most) for job in jobs}
    found = {}
    for part in text.split(","):
        job, _, number = part.partition("=")
        if job not in jobs or not number.isdecimal():
            raise ConfigError(
                f"--shards {text!r}: expected a number, or JOB=number,… for jobs of {', '.join(jobs)}, got {part!r}"
            )
        found[job] = int(number)
    return found


def _by_job(items: Sequence[str], jobs: Sequence[str], mark: str) -> dict[str, list[str]]:
    """Sort ``JOB{mark}rest`` by job; an item that names none of `jobs` belongs to the last one."""
    found: dict[str, list[str]] = {}
    for item in items:
        job, found_mark, rest = item.partition(mark)
        named = bool(found_mark) and job in jobs
        found.setdefault(job if named else jobs[-1], []).append(rest if named else item)
    return found

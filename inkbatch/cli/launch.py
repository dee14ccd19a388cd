"""Commands around launches: launch, status, logs, cancel, pull; `register` adds them to an app."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inkbatch.cli.options import USAGE_ERROR, CatalogFile, Root, chosen_root
from inkbatch.errors import EXIT_TRY_AGAIN, ConfigError, InkbatchError

if TYPE_CHECKING:
    from inkbatch.launch.base import Launcher
    from inkbatch.launch.plan import Request
    from inkbatch.launch.record import LaunchRecord

DEFAULT_ROOT = "root"
WORK_FOLDER = ".inkbatch"

EngineOptions = Annotated[
    list[str] | None, typer.Option("--option", help="One setting of the engine, key=value; may be repeated.")
]
EnginesFile = Annotated[str | None, typer.Option(help="Settings of engines (else INKBATCH_ENGINES, engines.yaml).")]
LaunchName = Annotated[str, typer.Argument(help="A launch, or a segment, whose newest launch is meant.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (launch, status, logs, cancel, pull):
        app.command(command.__name__)(command)


def launch(
    context: typer.Context,
    jobs: Annotated[str, typer.Argument(help="Jobs in their order, for example prepare,infer.", show_default=False)],
    subject: Annotated[str, typer.Argument(help="Segment, dataset or run.", show_default=False)],
    engine: Annotated[str, typer.Option(help="local, docker, slurm, aws-batch, kubernetes or skypilot.")] = "local",
    shards: Annotated[
        str | None, typer.Option(help="Array tasks: 8 for the jobs that can be cut, or prepare=2,infer=8.")
    ] = None,
    root: Root = None,
    source: Annotated[str | None, typer.Option(help="Where the layers are; may hold {segment}.")] = None,
    bundle: Annotated[
        list[str] | None,
        typer.Option(
            help="The model: a bundle's folder or URI. May be repeated, also as NAME=PLACE: infer runs once for each, "
            "and ensemble, if it stands in the chain, makes one prediction of theirs."
        ),
    ] = None,
    prediction: Annotated[
        list[str] | None, typer.Option(help="A finished prediction that ensemble takes in; may be repeated.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the prediction; of the ensemble, where there is one.")
    ] = None,
    catalog: CatalogFile = None,
    config: Annotated[
        list[str] | None, typer.Option("--config", help="A job file of your own for the last job, or JOB=FILE.")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the last job, key=value, or JOB:key=value.")
    ] = None,
    args: Annotated[str, typer.Option(help="More arguments for the last job's own command.")] = "",
    prepare_args: Annotated[str, typer.Option(help="More arguments for prepare.")] = "",
    gpus: Annotated[int | None, typer.Option(help="GPUs per array task; 0 computes on the CPU.")] = None,
    cpus: Annotated[int | None, typer.Option(help="CPU cores per array task.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory per array task, for example 30GiB.")] = None,
    option: EngineOptions = None,
    engines: EnginesFile = None,
    work: Annotated[str, typer.Option(help="Folder for rendered files and logs.")] = WORK_FOLDER,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be submitted; do nothing.")] = False,
) -> None:
    """Run a job, or a chain of jobs, on an engine.

    The job files (jobs/*.yaml) say what each job needs; settings of engines (image, queue, partition, …) come from
    engines.yaml and --option. Launching again is safe: what is stored is skipped. Settings of all jobs are read before
    anything is submitted; a wrong one is refused with exit code 64.
    """
    from inkbatch.launch.checks import check_bundles, check_settings
    from inkbatch.launch.plan import Request, launch_name, plan_chain
    from inkbatch.launch.record import LaunchRecord

    chosen = tuple(part.strip() for part in jobs.split(",") if part.strip())
    if not chosen:
        raise ConfigError("launch: no job is named; for example inkbatch launch prepare,infer demo --bundle demo")
    extra = {chosen[-1]: shlex.split(args), "prepare": [*shlex.split(prepare_args)]}
    if chosen[-1] == "prepare":
        extra["prepare"] = [*shlex.split(prepare_args), *shlex.split(args)]
    given = {"gpus": gpus, "cpus": cpus, "memory": memory}
    request = Request(
        jobs=chosen,
        subject=subject,
        root=chosen_root(root) or DEFAULT_ROOT,
        shards=_shards(shards, chosen),
        source=source,
        bundles=tuple(bundle or ()),
        predictions=tuple(prediction or ()),
        name=name,
        catalog=catalog,
        config=_by_job(config or (), chosen, "="),
        sets=_sets(sets or (), chosen),
        extra=extra,
        resources={key: value for key, value in given.items() if value is not None},
    )
    chain = plan_chain(request, launch_name(request, time.strftime("%Y%m%d-%H%M%S", time.gmtime())))
    launcher = _launcher(engine, option or (), engines, require_gpu=bool(gpus))
    check_settings(chain, lambda words: _run_here(context, words))
    unseen = check_bundles(chain, ask_stores=not dry_run)
    if dry_run:
        for file, text in launcher.render(chain).items():
            typer.echo(f"# ---- {file}\n{text}")
        return
    launcher.check(chain)
    submitted = launcher.submit(chain, Path(work) / chain.launch)
    LaunchRecord.write(chain, submitted)
    for line in (*unseen, *submitted.said):
        typer.echo(line)
    if submitted.exit_code is None:
        typer.echo(f"{chain.launch}: on {engine}; inkbatch status {subject} --root {chain.root} says how it goes")
        return
    _say_progress(chain.root, request)
    if submitted.exit_code:
        raise typer.Exit(submitted.exit_code)


def status(
    name: Annotated[
        str | None, typer.Argument(help="A launch, segment, dataset or training; none lists the launches.")
    ] = None,
    root: Root = None,
    option: EngineOptions = None,
    engines: EnginesFile = None,
) -> None:
    """How far a segment, dataset or training is: what is stored, and what the engine says of its newest launch."""
    from inkbatch.launch.progress import progress_under
    from inkbatch.launch.record import find_launch, launches_of

    place = chosen_root(root) or DEFAULT_ROOT
    if name is None:
        records = launches_of(place)
        for record in records[-20:]:
            typer.echo(f"{record.submitted.launch}\t{record.submitted.engine}\t{', '.join(record.commands)}")
        if not records:
            typer.echo(f"no launches under {place}")
        return
    found: LaunchRecord | None = None
    progress = progress_under(place, name)
    if progress:
        with contextlib.suppress(ConfigError):
            found = find_launch(place, name)
    else:
        found = find_launch(place, name)
        with contextlib.suppress(ConfigError):
            progress = progress_under(place, found.subject)
    for row in progress:
        typer.echo(str(row))
    if found is None:
        return
    typer.echo(f"launch {found.submitted.launch} on {found.submitted.engine}")
    try:
        for state in _launcher(found.submitted.engine, option or (), engines).status(found.submitted):
            typer.echo(f"  {state}")
    except InkbatchError as error:
        typer.echo(f"  {error}")


def logs(
    name: LaunchName,
    job: Annotated[str | None, typer.Option(help="Job of the chain; the last one if none is given.")] = None,
    shard: Annotated[int, typer.Option(help="Which array task.")] = 0,
    root: Root = None,
    option: EngineOptions = None,
    engines: EnginesFile = None,
) -> None:
    """The last lines of one task's log, and where all of it is."""
    found = _found(root, name)
    shards = found.submitted.shards
    chosen = job or list(shards)[-1]
    if chosen not in shards or not 0 <= shard < shards[chosen]:
        there = ", ".join(f"{key} 0..{count - 1}" for key, count in shards.items())
        raise ConfigError(f"launch {found.submitted.launch}: has no task {chosen} {shard}; there are {there}")
    for line in _launcher(found.submitted.engine, option or (), engines).logs(found.submitted, chosen, shard):
        typer.echo(line)


def cancel(
    name: LaunchName,
    root: Root = None,
    option: EngineOptions = None,
    engines: EnginesFile = None,
) -> None:
    """End all jobs of a launch; what is stored is kept, and launching again goes on."""
    found = _found(root, name)
    for line in _launcher(found.submitted.engine, option or (), engines).cancel(found.submitted):
        typer.echo(line)


def pull(
    segment: Annotated[str, typer.Argument(help="Segment id.", show_default=False)],
    name: Annotated[
        list[str] | None, typer.Option(help="Name of a prediction; may be repeated. None takes all.")
    ] = None,
    to: Annotated[
        str, typer.Option(help="Folder on this machine; commands that only read take it as ROOT.")
    ] = "pulled",
    root: Root = None,
) -> None:
    """Bring a segment's finished predictions here: map, previews, report, manifest.

    Only what is new is copied, and checked by size and digest; a pull that was stopped goes on. Predictions that are
    not finished are named; where none is finished the exit code is 75.
    """
    from inkbatch.launch.pull import pull as bring

    report = bring(chosen_root(root) or DEFAULT_ROOT, segment, Path(to), name or ())
    for folder in report.finished:
        typer.echo(f"finished: {folder}")
    for progress in report.unfinished:
        typer.echo(f"not finished: {progress}")
    size = f"{report.fetched_bytes / (1 << 20):.1f} MiB"
    typer.echo(f"pull: {report.fetched} files copied ({size}), {report.kept} were here already")
    if not report.finished:
        raise typer.Exit(EXIT_TRY_AGAIN)


def _run_here(context: typer.Context, words: Sequence[str]) -> None:
    """Run a command of inkbatch in this process; a wrong word is an error of ours."""
    program: Any = context.find_root().command
    try:
        program.main(args=list(words), prog_name="inkbatch", standalone_mode=False)
    except USAGE_ERROR as error:
        raise ConfigError(str(error.format_message()).rstrip(".")) from error


def _launcher(engine: str, options: Sequence[str], file: str | None, require_gpu: bool = False) -> Launcher:
    import inkbatch.launch
    from inkbatch.launch.base import launcher_class
    from inkbatch.launch.settings import engine_settings

    assert inkbatch.launch  # importing it registers the engines
    settings = engine_settings(engine, options, file)
    if require_gpu and "require_gpu" in type(settings).model_fields:
        settings = settings.model_copy(update={"require_gpu": True})
    return launcher_class(engine)(settings)


def _found(root: str | None, name: str) -> LaunchRecord:
    from inkbatch.launch.record import find_launch

    return find_launch(chosen_root(root) or DEFAULT_ROOT, name)


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
            raise ConfigError(f"--shards {text!r}: wanted a number, or JOB=number,… for jobs of {', '.join(jobs)}")
        found[job] = int(number)
    return found


def _by_job(items: Sequence[str], jobs: Sequence[str], mark: str) -> dict[str, str]:
    found = {}
    for item in items:
        job, found_mark, rest = item.partition(mark)
        named = bool(found_mark) and job in jobs
        found[job if named else jobs[-1]] = rest if named else item
    return found


def _sets(items: Sequence[str], jobs: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in items:
        job, mark, rest = item.partition(":")
        named = bool(mark) and job in jobs
        found.setdefault(job if named else jobs[-1], []).append(rest if named else item)
    return found


def _say_progress(root: str, request: Request) -> None:
    from inkbatch.launch.progress import progress_under

    rows: list[Any] = []
    with contextlib.suppress(InkbatchError):
        rows = progress_under(root, request.subject)
    for row in rows:
        typer.echo(str(row))
        picture = (row.folder / "preview.png").uri
        if row.complete and row.what != "prepare" and os.path.exists(picture):
            typer.echo(f"  picture: {picture}")

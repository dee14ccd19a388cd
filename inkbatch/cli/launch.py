"""Commands around launches: run, launch, status, logs, cancel, pull; `register` adds them to an app."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inkbatch.cli.options import Root, chosen_root, for_each, option_groups, segments_asked
from inkbatch.cli.outcome import USAGE_ERROR
from inkbatch.cli.request import (
    DEFAULT_ROOT,
    EngineOptions,
    EngineSettings,
    EnginesFile,
    InputOptions,
    Jobs,
    ResourceOptions,
    SettingOptions,
    make_launcher,
    make_request,
)
from inkbatch.errors import EXIT_TRY_AGAIN, ConfigError, IncompleteError, InkbatchError
from inkbatch.text import bytes_text, count_text

if TYPE_CHECKING:
    from inkbatch.launch.commands import Request
    from inkbatch.launch.record import LaunchRecord

DRY_RUN = "--dry-run"

Subject = Annotated[
    str | None,
    typer.Argument(
        metavar="SUBJECT",
        help="Segment, dataset or training run; not needed if a job file names it.",
        show_default=False,
    ),
]
Every = Annotated[bool, typer.Option("--all", help="Do it for every segment of the catalog, one after another.")]
LaunchName = Annotated[str, typer.Argument(help="A launch, or a segment (its newest launch).")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (run, launch, status, logs, cancel, pull):
        app.command(command.__name__)(command)


@option_groups
def run(
    context: typer.Context,
    jobs: Jobs,
    inputs: InputOptions,
    settings: SettingOptions,
    resources: ResourceOptions,
    engine: EngineOptions,
    subject: Subject = None,
    shard: Annotated[
        str | None, typer.Option(help="Do only part i of n of the last job, on this machine, for example 0/4.")
    ] = None,
    every: Every = False,
    dry_run: Annotated[bool, typer.Option(DRY_RUN, help="Print the plan of every job; do nothing.")] = False,
) -> None:
    """Run jobs one after another, here or on an engine.

    Without --engine and --shards the jobs run here, one after another, just as their own commands do. With them this is
    inkbatch launch. A chain that begins with prepare leaves it out if the segment is prepared already and its source is
    not available here.
    """
    for_each(
        segments_asked(subject, every, inputs.catalog),
        lambda one: _run(
            context, make_request(jobs, one, inputs, settings, resources, engine.shards), engine, shard, dry_run
        ),
    )


def _run(context: typer.Context, request: Request, engine: EngineOptions, shard: str | None, dry_run: bool) -> None:
    if shard is None and (engine.engine != "local" or engine.shards is not None):
        _launch(context, request, engine, dry_run)
        return
    from inkbatch.launch.commands import commands_here
    from inkbatch.launch.jobfile import require_jobs

    require_jobs(request.jobs)
    commands = commands_here(_without_complete_prepare(request), shard, planning=dry_run)
    if len(commands) > 1:
        for command in commands:
            _check(context, command)
    for place, command in enumerate(commands):
        if dry_run:
            _plan_one(context, command, follows=place > 0)
        else:
            _run_one(context, command)


@option_groups
def launch(
    context: typer.Context,
    jobs: Jobs,
    inputs: InputOptions,
    settings: SettingOptions,
    resources: ResourceOptions,
    engine: EngineOptions,
    subject: Subject = None,
    every: Every = False,
    dry_run: Annotated[bool, typer.Option(DRY_RUN, help="Print what would be submitted; do nothing.")] = False,
) -> None:
    """Submit a job or a chain of jobs to an engine.

    The job files (jobs/*.yaml) say what each job needs; settings of engines (image, queue, partition, …) come from
    engines.yaml and --option. Launching again is safe: what is stored is skipped. Settings of all jobs are read before
    anything is submitted; a wrong one is refused with exit code 64.
    """
    for_each(
        segments_asked(subject, every, inputs.catalog),
        lambda one: _launch(
            context, make_request(jobs, one, inputs, settings, resources, engine.shards), engine, dry_run
        ),
    )


def status(
    name: Annotated[
        str | None, typer.Argument(help="A launch, segment, dataset or training run; without it all launches.")
    ] = None,
    root: Root = None,
    option: EngineSettings = None,
    engines: EnginesFile = None,
) -> None:
    """Show the progress of segments, datasets or runs.

    Counts what is stored, and asks the engine about the newest launch. Without a name all launches are listed.
    """
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
        for state in make_launcher(found.submitted.engine, option, engines).status(found.submitted):
            typer.echo(f"  {state}")
    except InkbatchError as error:
        typer.echo(f"  {error}")


def logs(
    name: LaunchName,
    job: Annotated[str | None, typer.Option(help="Job of the chain; without it the last one.")] = None,
    shard: Annotated[int, typer.Option(help="Number of the array task, from 0.")] = 0,
    root: Root = None,
    option: EngineSettings = None,
    engines: EnginesFile = None,
) -> None:
    """Print the log of an array task: its last lines."""
    found = _found(root, name)
    shards = found.submitted.shards
    chosen = job or list(shards)[-1]
    if chosen not in shards or not 0 <= shard < shards[chosen]:
        there = ", ".join(f"{key} 0..{count - 1}" for key, count in shards.items())
        raise ConfigError(f"launch {found.submitted.launch}: expected one of {there}, got {chosen} {shard}")
    for line in make_launcher(found.submitted.engine, option, engines).logs(found.submitted, chosen, shard):
        typer.echo(line)


def cancel(
    name: LaunchName,
    root: Root = None,
    option: EngineSettings = None,
    engines: EnginesFile = None,
) -> None:
    """Cancel a launch.

    All its jobs end; what is stored is kept, and launching again continues.
    """
    found = _found(root, name)
    for line in make_launcher(found.submitted.engine, option, engines).cancel(found.submitted):
        typer.echo(line)


def pull(
    segment: Annotated[str, typer.Argument(help="Segment id.", show_default=False)],
    name: Annotated[list[str] | None, typer.Option(help="Name of a prediction; repeatable. Without it all.")] = None,
    to: Annotated[
        str, typer.Option(help="Folder on this machine; commands that only read take it as ROOT.")
    ] = "pulled",
    root: Root = None,
) -> None:
    """Copy finished predictions to this machine.

    Map, previews, report and manifest of each. Only new files are copied; sizes and digests are checked; a pull that
    was stopped continues. Unfinished predictions are listed; if none is finished, the exit code is 75.
    """
    from inkbatch.launch.pull import pull as bring

    report = bring(chosen_root(root) or DEFAULT_ROOT, segment, Path(to), name or ())
    for folder in report.finished:
        typer.echo(f"finished: {folder}")
    for progress in report.unfinished:
        typer.echo(f"not finished: {progress}")
    copied = f"{count_text(report.fetched, 'file')} copied ({bytes_text(report.fetched_bytes)})"
    typer.echo(f"pull: {copied}, {report.kept:,} already here")
    if not report.finished:
        raise typer.Exit(EXIT_TRY_AGAIN)


def _launch(context: typer.Context, request: Request, options: EngineOptions, dry_run: bool) -> None:
    """Submit a request to an engine, or print what would be submitted."""
    from inkbatch.launch.base import Feature
    from inkbatch.launch.checks import check_bundles, check_settings
    from inkbatch.launch.commands import with_subject
    from inkbatch.launch.plan import launch_name, plan_chain
    from inkbatch.launch.record import LaunchRecord

    request = _without_complete_prepare(with_subject(request))
    chain = plan_chain(request, launch_name(request, time.strftime("%Y%m%d-%H%M%S", time.gmtime())))
    launcher = make_launcher(options.engine, options.option, options.engines, bool(request.resources.get("gpus")))
    check_settings(chain, lambda words: _run_here(context, words))
    unseen = check_bundles(chain, ask_stores=not dry_run)
    if dry_run:
        for file, text in launcher.render(chain).items():
            typer.echo(f"# ---- {file}\n{text}")
        return
    launcher.check(chain)
    submitted = launcher.submit(chain, Path(options.work) / chain.launch)
    LaunchRecord.write(chain, submitted)
    for line in (*unseen, *submitted.said):
        typer.echo(line)
    if Feature.SUBMIT not in launcher.supports:
        typer.echo(f"{chain.launch}: rendered, nothing is submitted yet; run the command above to submit it")
        return
    if submitted.exit_code is None:
        follow = f"inkbatch status {request.subject} --root {chain.root}"
        typer.echo(f"{chain.launch}: submitted to {options.engine}; {follow} shows its progress")
        return
    _say_progress(chain.root, str(request.subject))
    if submitted.exit_code:
        raise typer.Exit(submitted.exit_code)


def _without_complete_prepare(request: Request) -> Request:
    """Leave prepare out where it is complete and has no source any more, and say so."""
    from inkbatch.launch.commands import without_complete_prepare

    found = without_complete_prepare(request)
    if found.jobs != request.jobs:
        typer.echo("prepare: left out; the segment is prepared, and its source is not available here")
    return found


def _check(context: typer.Context, words: Sequence[str]) -> None:
    from inkbatch.launch.checks import check_command

    check_command(words[0], words, lambda words: _run_here(context, words))


def _plan_one(context: typer.Context, words: Sequence[str], *, follows: bool) -> None:
    """Print the plan of a job, or its words where it has none.

    Args:
        context: Of the command.
        words: The job's own command.
        follows: Jobs of the chain come before it: what they make may be missing, then there is no plan yet.
    """
    program: Any = context.find_root().command
    command = program.commands.get(words[0])
    if command is not None and all(DRY_RUN not in parameter.opts for parameter in command.params):
        typer.echo(shlex.join(["inkbatch", *words]))
        return
    try:
        _run_one(context, [*words, DRY_RUN])
    except IncompleteError as error:
        if not follows:
            raise
        typer.echo(f"{words[0]}: no plan before the jobs ahead of it are done ({error})")


def _run_one(context: typer.Context, words: Sequence[str]) -> None:
    """Run a job's own command in this process."""
    program: Any = context.find_root().command
    code = program.main(args=list(words), prog_name="inkbatch", standalone_mode=False)
    if code:
        raise typer.Exit(code)


def _run_here(context: typer.Context, words: Sequence[str]) -> None:
    """Run a command of inkbatch in this process; a word that it does not take is a ConfigError."""
    program: Any = context.find_root().command
    try:
        program.main(args=list(words), prog_name="inkbatch", standalone_mode=False)
    except USAGE_ERROR as error:
        raise ConfigError(str(error.format_message()).rstrip(".")) from error


def _found(root: str | None, name: str) -> LaunchRecord:
    from inkbatch.launch.record import find_launch

    return find_launch(chosen_root(root) or DEFAULT_ROOT, name)


def _say_progress(root: str, subject: str) -> None:
    from inkbatch.launch.progress import progress_under

    rows: list[Any] = []
    with contextlib.suppress(InkbatchError):
        rows = progress_under(root, subject)
    for row in rows:
        typer.echo(str(row))
        picture = (row.folder / "preview.png").uri
        if row.complete and row.what != "prepare" and os.path.exists(picture):
            typer.echo(f"  picture: {picture}")

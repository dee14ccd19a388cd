"""Options that several commands share, the context of this process, and the line that ends a job."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from inkbatch.config import Assumed, JobConfig, ends_with_check, is_checking
from inkbatch.errors import ConfigError, InkbatchError, TryAgainError
from inkbatch.text import count_text, seconds_text

if TYPE_CHECKING:
    from inkbatch.io.store.location import Location
    from inkbatch.run.job import JobReport, RunContext

Settings = TypeVar("Settings", bound=JobConfig)

Segment = Annotated[str, typer.Argument(help="Segment id, as in the catalog (segments.yaml).", show_default=False)]
Device = Annotated[str | None, typer.Option(help="Device that computes: auto, cuda, mps or cpu.")]
Precision = Annotated[str | None, typer.Option(help="Precision of the forward passes: auto, fp32, bf16 or fp16.")]
PreflightUse = Annotated[
    str | None,
    typer.Option(
        "--preflight",
        help="Take what inkbatch preflight found: mask leaves out tiles without a sheet, warn only prints them.",
    ),
]
ConfigFile = Annotated[str | None, typer.Option("--config", help="YAML file with settings of the job.")]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset", help="A preset: a name that inkbatch presets lists, or a YAML file with one section per job."
    ),
]
Sets = Annotated[list[str] | None, typer.Option("--set", help="A setting, key=value; repeatable.")]
Root = Annotated[
    str | None,
    typer.Option(
        help="Folder or s3://bucket/prefix that holds everything (default: INKBATCH_ROOT, then that of the workspace, "
        "then root)."
    ),
]
CatalogFile = Annotated[
    str | None,
    typer.Option(
        "--catalog",
        help="Catalog of segments, a YAML file; several with commas between, later ones win (default: "
        "INKBATCH_CATALOG, then segments.yaml, then those of the workspace).",
    ),
]
Shard = Annotated[str | None, typer.Option(help="Do only shard i of n, for example 0/4.")]
Replace = Annotated[
    bool, typer.Option("--replace", help="Remove a result of other settings or inputs that is at this place first.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and what is already done; do nothing.")]
Log = Annotated[str, typer.Option(help="auto (a progress bar on a terminal), plain or json (one line per unit).")]


@dataclass(frozen=True)
class JobOptions:
    """Options of every job, as a group (see `option_groups`)."""

    config: ConfigFile = None
    sets: Sets = None
    shard: Shard = None
    replace: Replace = False
    dry_run: DryRun = False
    log: Log = "auto"

    def context(self) -> RunContext:
        """Build the context of this process; see `run_context`."""
        return run_context(self.shard, self.log, replace=self.replace)

    def run_job(
        self,
        settings: Settings,
        context: RunContext,
        describe: Callable[[Settings], str],
        run: Callable[[Settings, RunContext], JobReport],
        summary: Callable[[Location], Iterable[str]] | None = None,
    ) -> JobReport | None:
        """Do a job, or print its plan; a summary follows a complete one. Returns its report, None without one."""
        if ends_with_check(settings):
            return None
        if self.dry_run:
            typer.echo(describe(settings))
            return None
        report = run(settings, context)
        print_report(report)
        if summary is not None and report.complete:
            for line in summary(report.location):
                typer.echo(line)
        return report


def option_groups(command: Callable[..., Any]) -> Callable[..., Any]:
    """Expand parameters that are dataclasses of options: typer sees one option per field, `command` the dataclass.

    Args:
        command: A function whose parameters are typer's, or dataclasses whose fields are annotated as such parameters.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}

    @functools.wraps(command)
    def expanded(**given: Any) -> Any:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        return command(**given)

    signature = inspect.signature(command)
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        group = groups.get(parameter.name)
        parameters += [parameter.replace(annotation=hints[parameter.name])] if group is None else _options_of(group)
    ordered = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    expanded.__signature__ = signature.replace(parameters=ordered, return_annotation=None)  # type: ignore[attr-defined]
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in ordered}
    return expanded


def _options_of(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    kind, empty = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
    return [
        inspect.Parameter(
            field.name,
            kind,
            default=empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]


def preset_settings(preset: str | None, job: str) -> dict[str, Any] | None:
    """Read a preset's settings for one job; None without a preset.

    Raises:
        ConfigError: There is no such preset, or it has no section for this job.
    """
    from inkbatch import presets

    return presets.preset_settings(preset, job)


def chosen_root(root: str | None) -> str | None:
    """Take the option, else ``INKBATCH_ROOT`` of the environment, else the workspace's ROOT; None outside of all."""
    from inkbatch.workspace import find_workspace

    if root:
        return root
    if from_environment := os.environ.get("INKBATCH_ROOT"):
        return Assumed(from_environment)
    workspace = find_workspace()
    return Assumed(workspace.root) if workspace else None


def segments_asked(segment: str | None, every: bool, catalog: str | None) -> list[str | None]:
    """List the segments of a command: the one that is named, or with ``--all`` those of the catalog.

    Raises:
        ConfigError: Both, or a catalog without segments.
    """
    if not every:
        return [segment]
    if segment is not None:
        raise ConfigError(f"--all: expected it alone, got segment {segment} as well; leave one of them out")
    from inkbatch.data.segments.catalog import Catalog

    found: list[str | None] = list(Catalog.load(catalog).own)
    if not found:
        raise ConfigError("--all: expected segments in the catalog, got none; add them to segments.yaml")
    return found


def for_each(segments: Sequence[str | None], do: Callable[[str | None], Any]) -> None:
    """Do each segment; of several, one that cannot be done is named at the end and does not stop the others.

    Raises:
        InkbatchError: That of the one segment; of several the first one's kind, with the names of all that failed.
    """
    if len(segments) == 1:
        do(segments[0])
        return
    failed: list[tuple[str, InkbatchError]] = []
    for segment in segments:
        typer.echo(f"-- {segment}")
        try:
            do(segment)
        except TryAgainError:
            raise
        except InkbatchError as error:
            typer.echo(f"{segment}: failed: {error}", err=True)
            failed.append((str(segment), error))
    if failed:
        names = ", ".join(name for name, _ in failed)
        raise type(failed[0][1])(
            f"--all: {len(failed)} of {len(segments)} segments failed: {names}; see above for each"
        )


def run_context(shard: str | None, log: str, *, replace: bool = False) -> RunContext:
    """Build the context of this process; call it before torch is imported.

    It installs the signal handlers and starts to watch for a spot reclaim.

    Raises:
        ConfigError: An unknown log form, or a shard that is none.
    """
    from inkbatch.run.deadline import watch_deadline
    from inkbatch.run.identity import ShardSpec, task_identity
    from inkbatch.run.job import RunContext
    from inkbatch.run.progress import make_reporter
    from inkbatch.run.signals import StopFlag, install_handlers
    from inkbatch.run.spot import start_watch

    if log not in ("auto", "plain", "json"):
        raise ConfigError(f"--log: expected auto, plain or json, got {log!r}")
    if is_checking():
        return RunContext(ShardSpec.parse(shard) if shard else ShardSpec(), replace=replace)
    identity = task_identity()
    stop = StopFlag()
    install_handlers(stop)
    watch_deadline(stop)
    chosen = ShardSpec.parse(shard) if shard else identity.shard
    reporter = make_reporter(log)  # type: ignore[arg-type]
    start_watch(stop, reporter.note)
    return RunContext(chosen, stop, reporter, attempt=identity.attempt, replace=replace)


def print_report(report: JobReport) -> None:
    """Print the result of a job in one line, and the places of further results."""
    state = "complete" if report.complete else f"{report.left} of {count_text(report.units, report.noun)} still missing"
    typer.echo(f"{report.job}: {state} · {report.counts} · {seconds_text(report.seconds)} · {report.location}")
    for location in report.beside:
        typer.echo(f"{report.job}: also · {location}")

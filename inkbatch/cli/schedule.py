"""`inkbatch schedule`: create, list, remove and run schedules in AWS; `register` adds the commands."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inkbatch.cli.options import Log, Root, chosen_root, print_report, run_context
from inkbatch.cli.request import DEFAULT_ROOT
from inkbatch.errors import ConfigError

if TYPE_CHECKING:
    from inkbatch.io.store.location import Location
    from inkbatch.run.job import RunContext

Name = Annotated[str, typer.Argument(help="Name of the schedule: lower-case letters, digits, hyphens.")]
Stack = Annotated[str, typer.Option(help="Name of the CloudFormation stack.")]
Cron = Annotated[str, typer.Option(help="Six cron fields (UTC), such as '0 3 ? * SUN *', or rate(7 days).")]

schedules = typer.Typer(help="Schedule jobs in AWS by the clock.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(schedules, name="schedule")


@schedules.command()
def train(
    name: Name,
    cron: Cron,
    preset: Annotated[str, typer.Option(help="Preset of train: a YAML file, or the name of a shipped one.")],
    root: Root = None,
    stack: Stack = "inkbatch",
) -> None:
    """Create or replace a schedule that trains.

    Each training run is named by the time it was due, and is skipped while the one before is running.
    """
    from inkbatch.launch.schedules import Schedules
    from inkbatch.training.settings import TrainConfig

    file = _preset(preset)
    TrainConfig.load(str(file), (), {"run": name})  # refuse bad settings now, not when the job is due
    folder = Schedules(stack).create(name, "train", cron, {"train.yaml": file.read_text(encoding="utf-8")}, root)
    typer.echo(
        f"schedule {name}: trains at {cron} with the settings in {folder}; inkbatch schedule remove {name} removes it"
    )


@schedules.command()
def catalog(
    name: Name,
    cron: Cron,
    catalog: Annotated[str, typer.Option(help="Catalog of the segments, a YAML file.")],
    bundle: Annotated[str, typer.Option(help="The bundle: a URI that the jobs can read.")],
    root: Root = None,
    stack: Stack = "inkbatch",
) -> None:
    """Create or replace a schedule that infers a catalog.

    Prepares and infers every segment. Complete segments are skipped, so that a nightly run does only new ones.
    """
    import yaml

    from inkbatch.data.segments.catalog import Catalog
    from inkbatch.launch.schedules import Schedules

    Catalog.load(catalog)
    files = {
        "segments.yaml": Path(catalog).read_text(encoding="utf-8"),
        "catalog.yaml": yaml.safe_dump({"bundle": bundle}),
    }
    folder = Schedules(stack).create(name, "catalog", cron, files, root)
    typer.echo(
        f"schedule {name}: infers the catalog at {cron} with the settings in {folder}; "
        f"inkbatch schedule remove {name} removes it"
    )


@schedules.command("list")
def list_(stack: Stack = "inkbatch") -> None:
    """List the schedules of the stack."""
    from inkbatch.launch.schedules import Schedules

    found = Schedules(stack).standing()
    for schedule in found:
        typer.echo(f"{schedule.name}\t{schedule.expression}\t{schedule.state.lower()}\t{schedule.job}")
    if not found:
        typer.echo(f"stack {stack}: no schedules")


@schedules.command()
def remove(name: Name, stack: Stack = "inkbatch") -> None:
    """Remove a schedule; its results stay, and a job that is running continues."""
    from inkbatch.launch.schedules import Schedules

    Schedules(stack).remove(name)
    typer.echo(f"schedule {name}: removed; its runs and settings stay under ROOT")


@schedules.command()
def run(
    name: Name,
    due: Annotated[str, typer.Option(help="Time it was due, such as 2026-11-22T03:00:00Z.")],
    root: Root = None,
    log: Log = "plain",
) -> None:
    """Run the job of a schedule; called by AWS Batch when it is due.

    Inside AWS Batch it is skipped, with a message, while an older job of the same schedule has not ended.
    """
    context = run_context(None, log)
    from inkbatch.launch import schedules as step

    run_id = step.run_name(name, due)
    going = _older_run()
    if going is not None:
        typer.echo(f"schedule {name}: run {run_id} is skipped: {going} of this schedule is still running")
        return
    # Its ROOT is the one that it lies in; a ROOT in its settings is that of the machine where they were written.
    place = str(chosen_root(root) or DEFAULT_ROOT)
    folder = step.folder_of(place, name)
    if step.kind_of(folder) == "train":
        _train(folder, run_id, place, context)
    else:
        _read_catalog(folder, place, context)


def _older_run() -> str | None:
    job_id, queue = os.environ.get("AWS_BATCH_JOB_ID"), os.environ.get("AWS_BATCH_JQ_NAME")
    if not (job_id and queue):
        return None
    from inkbatch.launch import aws_client, schedules

    return schedules.older_run(aws_client.client("batch", None), queue, job_id)


def _train(folder: Location, run_id: str, root: str, context: RunContext) -> None:
    from inkbatch.steps.train import job as step

    with _fetched(folder / "train.yaml") as file:
        report = step.run(step.TrainConfig.load(file, (), {"root": root, "run": run_id}), context)
    if report.facts["rank"] == 0:
        print_report(report)


def _read_catalog(folder: Location, root: str, context: RunContext) -> None:
    from inkbatch.steps.catalog import CatalogConfig
    from inkbatch.steps.catalog import run as run_catalog

    with _fetched(folder / "catalog.yaml") as settings, _fetched(folder / "segments.yaml") as segments:
        config = CatalogConfig.load(settings, (), {"root": root, "catalog": segments})
        for line in run_catalog(config, context):
            typer.echo(line)


@contextmanager
def _fetched(location: Location) -> Iterator[str]:
    """Copy the object to a local file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / location.name
        file.write_bytes(location.read_bytes())
        yield str(file)


def _preset(text: str) -> Path:
    """Find the file of a preset.

    Raises:
        ConfigError: Neither a file nor the name of a shipped preset.
    """
    package = Path(__file__).parent.parent
    folders = [base / "presets" / "training" for base in (package, package / "jobs", package.parent / "jobs")]
    shipped = {file.stem: file for folder in folders for file in sorted(folder.glob("*.yaml"))}
    found = Path(text) if Path(text).is_file() else shipped.get(text)
    if found is None:
        names = ", ".join(sorted(shipped)) or "none is shipped"
        raise ConfigError(f"preset {text!r}: expected a file or the name of a shipped training preset ({names})")
    return found

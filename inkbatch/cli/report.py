"""The command `inkbatch report`; `register` adds it to an app."""

from __future__ import annotations

from typing import Annotated

import typer

from inkbatch.cli.options import ConfigFile, Root, Sets, chosen_root
from inkbatch.config import ends_with_check


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("report")(report)


def report(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="Folder or URI of a run; or a name under ROOT: of a segment, dataset, training run or series.",
            show_default=False,
        ),
    ],
    root: Root = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of one result of the segment: a prediction, probe, sweep, … (default: all)."),
    ] = None,
    config: ConfigFile = None,
    sets: Sets = None,
) -> None:
    """Write the report pages of finished runs again.

    From stored results. Every large job leaves this page, report.html, when it ends: one file with pictures, scores,
    the contract, time and money, warnings, and the command that repeats the run; it opens without a network and can be
    printed. Write it again after inkbatch evaluate, so that the page of infer shows the score, or with a newer
    inkbatch.
    """
    from inkbatch.steps.report import job as step

    options = {"run": run, "root": chosen_root(root), "name": name}
    job = step.ReportConfig.load(config, sets or (), options)
    if ends_with_check(job):
        return
    for line in step.run(job):
        typer.echo(line)

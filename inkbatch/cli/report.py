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
            help="A run's folder or URI; or the name of a segment, dataset or training run under --root.",
            show_default=False,
        ),
    ],
    root: Root = None,
    name: Annotated[str | None, typer.Option(help="One prediction or probe of the segment; without it all.")] = None,
    config: ConfigFile = None,
    sets: Sets = None,
) -> None:
    """Finished runs -> their report.html made anew, from what is stored alone.

    Every big job leaves this page when it ends: one file with pictures, key figures, the contract, time and money,
    warnings and the way to repeat it, to be opened without a network, on a phone, or printed. Make it anew after
    inkbatch evaluate, so that infer's page shows the score, or when a newer inkbatch draws better pages.
    """
    from inkbatch.steps.report import job as step

    options = {"run": run, "root": chosen_root(root), "name": name}
    job = step.ReportConfig.load(config, sets or (), options)
    if ends_with_check(job):
        return
    for line in step.run(job):
        typer.echo(line)

"""The command of the preflight; `register` adds it to an app."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from inkbatch.cli.options import (
    ConfigFile,
    DryRun,
    Log,
    Replace,
    Root,
    Sets,
    Shard,
    chosen_root,
    print_report,
    run_context,
)
from inkbatch.config import ends_with_check


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("preflight")(preflight)


def preflight(
    segment: Annotated[str, typer.Argument(help="Segment id, as in the catalog (segments.yaml).", show_default=False)],
    bundle: Annotated[
        str | None, typer.Option(help="The bundle that is to read it: a folder or URI; demo is the shipped one.")
    ] = None,
    root: Root = None,
    name: Annotated[str | None, typer.Option(help="Name of the result (default: the bundle's, or layers).")] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    shard: Shard = None,
    replace: Replace = False,
    dry_run: DryRun = False,
    log: Log = "auto",
) -> None:
    """Check a segment's layers tile by tile.

    One verdict with a number per tile of 256 px: fine, outside, blank, seam, no sheet, two sheets, off-centre, scale or
    lossy codec, from the layers alone. No GPU and no network is needed. Writes preflight.json, a map and a picture to
    ROOT/preflights/SEGMENT/NAME; infer --preflight mask or warn takes them. Other settings through --set:
    scale_um=7.91 (without a bundle), off_centre_layers=4, unit_px=1024, override={divisor: 200}.
    """
    context = run_context(shard, log, replace=replace)
    from inkbatch.steps.preflight.settings import PreflightConfig

    options: dict[str, Any] = {"segment": segment, "bundle": bundle, "root": chosen_root(root), "name": name}
    job = PreflightConfig.load(config, sets or (), options)
    if ends_with_check(job):
        return
    from inkbatch.steps.preflight import job as step

    if dry_run:
        typer.echo(step.describe(job))
        return
    report = step.run(job, context)
    print_report(report)
    if report.complete:
        for line in step.result_lines(report.location):
            typer.echo(line)

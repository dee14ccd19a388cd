"""The command of the preflight; `register` adds it to an app."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from inkbatch.cli.options import (
    JobOptions,
    Root,
    Segment,
    chosen_root,
    option_groups,
)


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("preflight")(preflight)


@option_groups
def preflight(
    segment: Segment,
    bundle: Annotated[
        str | None,
        typer.Option(help="The bundle that is to read the segment: a folder or URI; demo is the shipped one."),
    ] = None,
    root: Root = None,
    name: Annotated[str | None, typer.Option(help="Name of the result (default: the bundle's, or layers).")] = None,
    *,
    common: JobOptions,
) -> None:
    """Check a segment's layers tile by tile.

    Gives each tile of 256 px a verdict with a number: fine, outside, blank, seam, no sheet, two sheets, off-centre,
    scale or lossy codec. Reads the layers alone: no GPU and no network is needed. Writes preflight.json, a map and a
    picture to ROOT/preflights/SEGMENT/NAME; infer --preflight mask or warn takes them. Other settings through --set:
    scale_um=7.91 (without a bundle), off_centre_layers=4, unit_px=1024, override={divisor: 200}.
    """
    context = common.context()
    from inkbatch.steps.preflight.settings import PreflightConfig

    options: dict[str, Any] = {"segment": segment, "bundle": bundle, "root": chosen_root(root), "name": name}
    job = PreflightConfig.load(common.config, common.sets or (), options)
    from inkbatch.steps.preflight import job as step

    common.run_job(job, context, step.describe, step.run, step.result_lines)

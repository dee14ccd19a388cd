"""The command of the depth probe; `register` adds it to an app."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from inkbatch.cli.options import (
    ConfigFile,
    Device,
    Log,
    Replace,
    Root,
    Segment,
    Sets,
    Shard,
    chosen_root,
    print_report,
    run_context,
)
from inkbatch.config import ends_with_check


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("probe")(probe)


def probe(
    segment: Segment,
    bundle: Annotated[str | None, typer.Option(help="The bundle: a folder or URI; demo is the shipped one.")] = None,
    root: Root = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the probe; infer --layers auto looks under the bundle's name.")
    ] = None,
    windows: Annotated[
        int | None, typer.Option(help="Number of windows, places of the surface volume that are probed.")
    ] = None,
    device: Device = None,
    config: ConfigFile = None,
    sets: Sets = None,
    shard: Shard = None,
    replace: Replace = False,
    log: Log = "auto",
) -> None:
    """Probe which depth order and layers suit a bundle.

    Infers some windows in both depth orders from every first layer, plants ink of known contrast at every depth, and
    feeds null inputs. Writes the verdict (clear, displaced, blind or false positives) and a plot to
    ROOT/probes/SEGMENT/NAME; infer --layers auto takes it. Other settings through --set: at=[[y,x],[y,x]] (corners of
    the windows), window_px=256, step=2 (of the first layers), amplitude=50, width_layers=1.5, stroke_px=24, seed=0,
    override={divisor: 200}.
    """
    context = run_context(shard, log, replace=replace)
    from inkbatch.steps.probe.settings import ProbeConfig

    options: dict[str, Any] = {"segment": segment, "bundle": bundle, "root": chosen_root(root), "name": name}
    options |= {"windows": windows, "device": device}
    job = ProbeConfig.load(config, sets or (), options)
    if ends_with_check(job):
        return
    from inkbatch.steps.probe import job as step

    report = step.run(job, context)
    print_report(report)
    if report.complete:
        for line in step.verdict_lines(report.location):
            typer.echo(line)

"""The command of the depth probe; `register` adds it to an app."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from inkbatch.cli.options import Device, JobOptions, Root, Segment, chosen_root, option_groups


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("probe")(probe)


@option_groups
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
    *,
    common: JobOptions,
) -> None:
    """Probe which depth order and layers suit a bundle.

    Infers some windows in both depth orders from every first layer, plants ink of known contrast at every depth, and
    feeds null inputs. Writes the verdict (clear, displaced, blind, no ink, undecided or false positives) and a plot to
    ROOT/probes/SEGMENT/NAME; infer --layers auto takes it. Other settings through --set: at=[[y,x],[y,x]] (corners of
    the windows), window_px=256, step=2 (of the first layers), amplitude=50, width_layers=1.5, stroke_px=24, seed=0,
    override={divisor: 200}.
    """
    context = common.context()
    from inkbatch.steps.probe.settings import ProbeConfig

    options: dict[str, Any] = {"segment": segment, "bundle": bundle, "root": chosen_root(root), "name": name}
    options |= {"windows": windows, "device": device}
    job = ProbeConfig.load(common.config, common.sets or (), options)
    from inkbatch.steps.probe import job as step

    common.run_job(job, context, step.describe, step.run, step.verdict_lines)

"""The command of the sweep; `register` adds it to an app."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from inkbatch.cli.options import Device, JobOptions, Precision, PreflightUse, Root, Segment, chosen_root, option_groups
from inkbatch.cli.values import parse_names
from inkbatch.config import ends_with_check, named_place

NONE = "none"


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("sweep")(sweep)


@option_groups
def sweep(
    segment: Segment,
    bundle: Annotated[
        list[str] | None,
        typer.Option(help="A bundle: a folder or URI, also as NAME=PLACE; demo is the shipped one; repeatable."),
    ] = None,
    depths: Annotated[
        str | None,
        typer.Option(
            help="Layers by which each bundle's window is moved, START:STOP:STEP, half-open (--depths=-15:16)."
        ),
    ] = None,
    directions: Annotated[
        str | None, typer.Option(help="Direction of the layers: forward (as the bundle reads them), reversed or both.")
    ] = None,
    nulls: Annotated[
        str | None, typer.Option(help="Null inputs to sweep as well: shuffled,repeated, one of them, or none.")
    ] = None,
    phases: Annotated[
        int | None,
        typer.Option(help="Number of phases: the plain tile grid, and others moved by a share of the stride."),
    ] = None,
    preflight: PreflightUse = None,
    keep_depths: Annotated[
        bool, typer.Option("--keep-depths", help="Also store the map of every depth, in 8 bits.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of the sweep.")] = None,
    root: Root = None,
    device: Device = None,
    precision: Precision = None,
    *,
    common: JobOptions,
) -> None:
    """Sweep a segment with bundles, at every depth.

    Takes several bundles, depths and directions of the layers, and null inputs beside them; reads the layers once.
    Writes z values, means, maxima and the best depth of all bundles to ROOT/sweeps/SEGMENT/NAME, each bundle's own
    statistics under maps, and sweep.json. Other settings through --set:
    window_mm=2.5, control_windows=16, blank=[[Y0,X0,Y1,X1]] (without ink),
    seed=0 (of the shuffled layers), unit_px=2048, batch_tiles=0 (0 finds it), compile=true,
    bundles=[{bundle: PLACE, name: NAME, tta: [flips], stride_px: 32, override: {divisor: 200}}]. With shards, the last
    one finishes the sweep.
    """
    context = common.context()
    from inkbatch.steps.sweep.settings import SweepConfig

    options: dict[str, Any] = {"segment": segment, "root": chosen_root(root), "name": name, "depths": depths}
    options |= {"directions": directions, "phases": phases, "keep_depths": keep_depths or None, "device": device}
    options |= {"precision": precision, "preflight": preflight, "nulls": _listed(nulls)}
    options["bundles"] = [_choice(one) for one in bundle] if bundle else None
    job = SweepConfig.load(common.config, common.sets or (), options)
    if ends_with_check(job):
        return
    from inkbatch.steps.sweep import job as step
    from inkbatch.steps.sweep.describe import describe

    common.run_job(job, context, describe, step.run, step.summary_lines)


def _listed(text: str | None) -> list[str] | None:
    """Read ``shuffled,repeated``, or ``none``."""
    if text is None:
        return None
    return [] if text.strip() == NONE else parse_names(text)


def _choice(text: str) -> dict[str, str]:
    name, place = named_place(text)
    return {"bundle": place, **({"name": name} if name else {})}

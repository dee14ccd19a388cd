"""Commands for finished predictions: combine, evaluate, clean, hand on; `register` adds them to an app."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from inkbatch.cli_common import (
    CatalogFile,
    ConfigFile,
    DryRun,
    Log,
    Root,
    Sets,
    Shard,
    chosen_root,
    print_report,
    run_context,
)

Segment = Annotated[str, typer.Argument(help="Segment id.", show_default=False)]
Labels = Annotated[
    str | None, typer.Option(help="Ink labels, a picture of the segment's size; else the segment's own, or the catalog's.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("ensemble")(ensemble)


def ensemble(
    segment: Segment,
    prediction: Annotated[
        list[str] | None, typer.Option(help="A finished prediction of this segment; give it twice at least.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="mean, weighted-mean, median, maximum, odds or ranks.")
    ] = None,
    weight: Annotated[list[float] | None, typer.Option(help="A weight for each prediction, in their order.")] = None,
    fit_weights: Annotated[
        bool, typer.Option("--fit-weights", help="Find weights and threshold on labels; they are written down.")
    ] = False,
    labels: Labels = None,
    name: Annotated[str | None, typer.Option(help="Name of the result.")] = None,
    root: Root = None,
    catalog: CatalogFile = None,
    config: ConfigFile = None,
    sets: Sets = None,
    shard: Shard = None,
    dry_run: DryRun = False,
    log: Log = "auto",
) -> None:
    """Several predictions of one segment -> one.

    Writes prediction.zarr, disagreement.zarr (standard deviation of the members), their previews and a manifest to
    ROOT/predictions/SEGMENT/NAME. Predictions on other grids, of other segments, or not complete are refused. Settings
    for --fit-weights: fit.metric=f05|dice, fit.area=[y0,x0,y1,x1], fit.pixels=1000000, fit.ignore=URI; others:
    disagreement=false, unit_px=2048 (docs/ensembles.md tells them all).
    """
    from inkbatch.steps import ensemble as step

    context = run_context(shard, log)
    options: dict[str, Any] = {"segment": segment, "predictions": prediction or None, "method": method, "name": name}
    options |= {"root": chosen_root(root), "catalog": catalog, "weights": weight or None}
    options["fit_weights"] = fit_weights or None
    wanted = [f"fit.labels={labels}"] if labels is not None else []
    job = step.EnsembleConfig.load(config, [*wanted, *(sets or [])], options)
    if dry_run:
        typer.echo(step.describe(job))
        return
    print_report(step.run(job, context))

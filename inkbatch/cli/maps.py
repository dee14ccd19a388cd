"""Commands for finished predictions: ensemble, evaluate, clean, export; `register` adds them to an app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from inkbatch.cli.options import (
    CatalogFile,
    JobOptions,
    Root,
    chosen_root,
    option_groups,
)
from inkbatch.errors import ConfigError

if TYPE_CHECKING:
    from inkbatch.run.job import RunContext

Segment = Annotated[str, typer.Argument(help="Segment id.", show_default=False)]
Labels = Annotated[
    str | None,
    typer.Option(help="Ink labels, a picture of the segment's size (default: the segment's own, then the catalog's)."),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("ensemble")(ensemble)
    app.command("evaluate")(evaluate)
    app.command("clean")(clean)
    app.command("export-rle")(export_rle)
    app.command("export-folders")(export_folders)


@option_groups
def ensemble(
    segment: Segment,
    prediction: Annotated[
        list[str] | None, typer.Option(help="A finished prediction of this segment; at least two.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Method: mean, weighted-mean, median, maximum, odds, ranks, zscore or consensus.")
    ] = None,
    weight: Annotated[
        list[float] | None, typer.Option(help="Weight of a prediction, in the same order; repeatable.")
    ] = None,
    fit_weights: Annotated[
        bool, typer.Option("--fit-weights", help="Fit weights and threshold on ink labels; they are recorded.")
    ] = False,
    labels: Labels = None,
    name: Annotated[str | None, typer.Option(help="Name of the ensemble.")] = None,
    root: Root = None,
    catalog: CatalogFile = None,
    *,
    common: JobOptions,
) -> None:
    """Combine several predictions of a segment into one.

    Writes prediction.zarr, disagreement.zarr (standard deviation of the members), their previews and a manifest to
    ROOT/predictions/SEGMENT/NAME. Predictions of another size or segment, or unfinished ones, are refused. Settings of
    --fit-weights: fit.metric=f05|dice, fit.area=[y0,x0,y1,x1], fit.pixels=1000000, fit.ignore=URI; others:
    disagreement=false, unit_px=2048 (all of them: docs/ensembles.md).
    """
    from inkbatch.steps.ensemble import job as step

    context = common.context()
    options: dict[str, Any] = {"segment": segment, "predictions": prediction or None, "method": method, "name": name}
    options |= {"root": chosen_root(root), "catalog": catalog, "weights": weight or None}
    options["fit_weights"] = fit_weights or None
    extra = [f"fit.labels={labels}"] if labels is not None else []
    job = step.EnsembleConfig.load(common.config, [*extra, *(common.sets or [])], options)
    common.run_job(job, context, step.describe, step.run)


@option_groups
def evaluate(
    segment: Annotated[
        str | None, typer.Argument(help="Segment id; not needed with --calibrate.", show_default=False)
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the prediction; needed if there are several.")] = None,
    versus: Annotated[str | None, typer.Option(help="A second prediction to compare with.")] = None,
    labels: Labels = None,
    on: Annotated[
        str | None,
        typer.Option(
            help="Pixels that count: unseen (default: those that did not train the network), validation (those that "
            "validated it), or all."
        ),
    ] = None,
    threshold: Annotated[
        list[float] | None, typer.Option(help="Threshold at which F-beta is measured; repeatable.")
    ] = None,
    calibrate: Annotated[
        list[str] | None,
        typer.Option(
            help="Choose the bundle's threshold from evaluated segments: SCROLL=SEGMENT,SEGMENT; repeatable, for two "
            "scrolls or more."
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="Folder for the results (default: beside the prediction); with --calibrate the bundle (default: the "
            "one that made the predictions)."
        ),
    ] = None,
    root: Root = None,
    catalog: CatalogFile = None,
    *,
    common: JobOptions,
) -> None:
    """Evaluate a prediction against ink labels.

    Writes evaluation.json, regions.csv, calibration.csv, curves.csv, curves.png and regions.png. Pixels count inside
    the segment mask and outside the ignore mask. --versus compares two predictions by a paired bootstrap over blocks.
    Settings: area=[y0,x0,y1,x1], beta=0.5, region_px=1024, bins=15, draws=1000, level=0.95, ignore=URI|none, white=255
    (all of them: docs/evaluate.md). --calibrate leaves each scroll out in turn, and stores the threshold in the bundle.
    """
    from inkbatch.steps.evaluate import job as step

    context = common.context()
    if calibrate:
        _calibrate(calibrate, {"name": name, "to": to, "root": chosen_root(root)}, common, context)
        return
    options: dict[str, Any] = {"segment": segment, "name": name, "versus": versus, "labels": labels, "to": to, "on": on}
    options |= {"root": chosen_root(root), "catalog": catalog, "thresholds": threshold or None}
    job = step.EvaluateConfig.load(common.config, common.sets or (), options)
    common.run_job(job, context, step.describe, step.run, step.summary)


def _calibrate(scrolls: list[str], options: dict[str, Any], common: JobOptions, context: RunContext) -> None:
    """Carry out `inkbatch evaluate --calibrate`."""
    from inkbatch.steps.evaluate import calibrate as step

    options["calibrate"] = step.scrolls_of(scrolls)
    for line in step.run(step.CalibrateConfig.load(common.config, common.sets or (), options), context):
        typer.echo(line)


@option_groups
def clean(
    segment: Segment,
    name: Annotated[str | None, typer.Option(help="Name of the prediction; needed if there are several.")] = None,
    result: Annotated[str | None, typer.Option(help="Name of the cleaned prediction (default: NAME-clean).")] = None,
    threshold: Annotated[float | None, typer.Option(help="Probability from which a pixel counts as ink.")] = None,
    min_area_px: Annotated[
        int | None, typer.Option(help="Remove components of ink that are smaller, in pixels.")
    ] = None,
    denoise: Annotated[str | None, typer.Option(help="Filter before the threshold: none, median or gaussian.")] = None,
    root: Root = None,
    *,
    common: JobOptions,
) -> None:
    """Clean a prediction of noise and small components.

    Filters, applies a threshold, and removes small components. Components are those of the whole segment, not of single
    units. Settings: denoise.median_px=3|5, denoise.sigma_px=1.0, max_hole_px=0, values=mask|probability. With shards,
    the last one finishes the prediction.
    """
    from inkbatch.steps.labels import clean as step

    context = common.context()
    options: dict[str, Any] = {"segment": segment, "name": name, "result": result, "threshold": threshold}
    options |= {"min_area_px": min_area_px, "root": chosen_root(root)}
    extra = [f"denoise.method={denoise}"] if denoise is not None else []
    job = step.CleanConfig.load(common.config, [*extra, *(common.sets or [])], options)
    common.run_job(job, context, step.describe, step.run, step.summary)


def export_ome_zarr(
    options: dict[str, Any], config: str | None, sets: list[str] | None, *, surface: bool, scale_bar: str | None
) -> None:
    """Carry out `inkbatch export --as ome-zarr-v2`; the map's page is made again, with the link."""
    from inkbatch.steps.export import ome_zarr as step
    from inkbatch.steps.report.job import ReportConfig
    from inkbatch.steps.report.job import run as report

    if scale_bar is not None:
        raise ConfigError("--scale-bar: an OME-Zarr states its scale, viewers draw the bar; leave it out")
    found = step.run(step.OmeZarrConfig.load(config, sets or (), {**options, "what": "surface" if surface else "map"}))
    typer.echo(str(found))
    if not surface:
        for line in report(ReportConfig(run=found.made_from.uri, root=options["root"])):
            typer.echo(line)


def export_rle(
    segments: Annotated[list[str], typer.Argument(help="Segment ids, one row each.", show_default=False)],
    to: Annotated[str, typer.Option(help="CSV file to write.")],
    name: Annotated[str | None, typer.Option(help="Name of the prediction, the same in every segment.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Probability from which a pixel counts as ink.")] = None,
    root: Root = None,
) -> None:
    """Export predictions as a CSV of run lengths.

    The form of Kaggle's Ink Detection competition, one row per segment: two columns, Id and Predicted. Pixels are
    numbered from 1, row by row; a run is a start and a length. Memory is bounded.
    """
    from inkbatch.steps.export import rle as step

    options = {"segments": segments, "to": to, "name": name, "threshold": threshold, "root": chosen_root(root)}
    typer.echo(str(step.run(step.ExportRunsConfig.load(None, (), options))))


def export_folders(
    segment: Segment,
    to: Annotated[str, typer.Option(help="Folder for npy_files and visualizations.")],
    prediction: Annotated[list[str], typer.Option(help="A finished prediction, one per layer window; repeatable.")],
    root: Root = None,
    memory: Annotated[str | None, typer.Option(help="Memory budget, for example 2GiB.")] = None,
) -> None:
    """Export predictions as folders for the Scroll 5 tools.

    Writes npy_files and visualizations: one float32 array and one 8-bit picture per prediction, named by the first
    layer of its window. Memory is bounded.
    """
    from inkbatch.steps.export import folders as step

    options = {"segment": segment, "to": to, "predictions": prediction, "root": chosen_root(root), "memory": memory}
    typer.echo(str(step.run(step.ExportFoldersConfig.load(None, (), options))))

"""Commands for separate objects; `register` adds them to an app."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from inkbatch.cli.options import (
    ConfigFile,
    JobOptions,
    Preset,
    Replace,
    Root,
    Sets,
    chosen_root,
    option_groups,
    preset_settings,
)
from inkbatch.config import ends_with_check
from inkbatch.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("instances")(instances)
    app.command("evaluate-instances")(evaluate_instances)


@option_groups
def instances(
    subject: Annotated[
        str, typer.Argument(help="Segment id; with --maps a name for the pictures.", show_default=False)
    ],
    name: Annotated[str | None, typer.Option(help="Name of the prediction; needed if there are several.")] = None,
    maps: Annotated[
        str | None, typer.Option(help="Folder of maps of pictures (NAME.npy), as infer-pictures writes them.")
    ] = None,
    pictures: Annotated[
        str | None, typer.Option(help="Folder of the pictures (default: those that infer-pictures read).")
    ] = None,
    pixel_um: Annotated[float | None, typer.Option(help="Edge of a picture's pixel in micrometres.")] = None,
    result: Annotated[str | None, typer.Option(help="Name of the result.")] = None,
    refine: Annotated[
        str | None,
        typer.Option(help="Refine objects with a network: a bundle of import-promptable (default: none)."),
    ] = None,
    kind: Annotated[
        str, typer.Option(help="What to find: objects, or letters (letters and lines of a prediction).")
    ] = "objects",
    root: Root = None,
    preset: Preset = None,
    *,
    common: JobOptions,
) -> None:
    """Turn predictions into separate objects.

    Separates objects that touch, and measures them. Writes labels.zarr and a GeoJSON per picture, instances.csv,
    instances.parquet, coco.json, proposals.csv and overlays to ROOT/instances/SUBJECT/RESULT. Objects do not depend on
    units. Settings: proposals.object_from=0.5, proposals.min_area=50 (or 800um2), proposals.neck, proposals.grow=2,
    selection.edge=4, forms, unit_px, … (all of them: docs/instances.md). With shards, the last one finishes.
    """
    from inkbatch.steps.instances import job as step
    from inkbatch.steps.instances.settings import InstancesConfig

    if kind != "objects":
        asked: dict[str, object] = {"segment": subject, "name": name, "result": result, "root": chosen_root(root)}
        _letters(kind, common, asked, maps or pictures or pixel_um or refine or preset)
        return
    context = common.context()
    options: dict[str, Any] = {"subject": subject, "name": name, "maps": maps, "pictures": pictures}
    options |= {"pixel_um": pixel_um, "result": result, "refine": refine, "root": chosen_root(root)}
    job = InstancesConfig.load(common.config, common.sets or (), options, preset_settings(preset, "instances"))
    common.run_job(job, context, step.describe, step.run, step.summary)


def _letters(kind: str, common: JobOptions, options: dict[str, object], other: object) -> None:
    """Find letters of a segment's prediction."""
    from inkbatch.steps.letters import job as step

    if kind != "letters" or other is not None:
        raise ConfigError(
            f"instances --kind {kind}: expected objects, or letters of a segment's prediction without --maps, "
            "--pictures, --pixel-um, --refine and --preset; leave them out"
        )
    context = common.context()
    job = step.LettersConfig.load(common.config, common.sets or (), options)
    common.run_job(job, context, step.describe, step.run, step.summary)


def evaluate_instances(
    result: Annotated[str, typer.Argument(help="Folder that inkbatch instances wrote.", show_default=False)],
    labels: Annotated[
        str | None,
        typer.Option(
            help="Folder of true labels (NAME.npy, NAME.png or NAME.tif): a number per object, 0 is none (default: the "
            "annotations of the maps' dataset)."
        ),
    ] = None,
    to: Annotated[str | None, typer.Option(help="Folder for the scores (default: evaluation in RESULT).")] = None,
    replace: Replace = False,
    config: ConfigFile = None,
    sets: Sets = None,
) -> None:
    """Evaluate separate objects against true labels.

    Scores every picture by itself and all together: average precision over IoU 0.5 to 0.95, precision, recall and F1 at
    0.5, aggregated Jaccard index, panoptic quality, and sizes. Writes evaluation.json and pictures.csv. Settings:
    given=classes (labels are masks of 0, 1 and 2).
    """
    from inkbatch.steps import evaluate_instances as step

    options = {"result": result, "labels": labels, "to": to}
    job = step.EvaluateInstancesConfig.load(config, sets or (), options)
    if ends_with_check(job):
        return
    for line in step.run(job, replace=replace):
        typer.echo(line)

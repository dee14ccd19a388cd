"""Commands for labels; `register` adds them to an app."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from inkbatch.cli.options import (
    CatalogFile,
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


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("labels")(labels)
    app.command("label-versions")(label_versions)
    app.command("export-labels")(export_labels)
    app.command("import-labels")(import_labels)
    app.command("import-cvat")(import_cvat)
    app.command("vessels")(vessels)


@option_groups
def labels(
    segment: Annotated[str | None, typer.Argument(help="Segment id; the segment must be prepared.")] = None,
    image: Annotated[
        str | None,
        typer.Option(help="Ink labels of the size of the surface: a picture drawn by hand, or a label volume."),
    ] = None,
    prediction: Annotated[str | None, typer.Option(help="Name of a prediction of this segment, or its URI.")] = None,
    painted: Annotated[str | None, typer.Option(help="Label version, for example v001, or its folder.")] = None,
    from_map: Annotated[
        str | None, typer.Option(help="Map of another scan: SEGMENT/NAME, or its URI. Gives soft labels.")
    ] = None,
    onto: Annotated[str | None, typer.Option(help="Segment for --from-map, in place of the argument.")] = None,
    plane: Annotated[
        str | None, typer.Option(help="Plane of a label volume: a number, middle or max (default: the one with ink).")
    ] = None,
    supervision_mask: Annotated[
        str | None, typer.Option(help="Mask of the pixels where labels count; the others are ignored.")
    ] = None,
    validation_mask: Annotated[
        str | None, typer.Option(help="Mask of the pixels that validate a network and never train it.")
    ] = None,
    soft: Annotated[bool, typer.Option("--soft", help="Keep values as probabilities; nothing is cleaned.")] = False,
    root: Root = None,
    catalog: CatalogFile = None,
    *,
    common: JobOptions,
) -> None:
    """Make ink labels from a picture, volume or prediction.

    Writes ink_labels.zarr and ignore_mask.zarr. Cleaning: clean.threshold=0.5, clean.dilation_px=0,
    clean.min_area_px=5000 (smaller components are removed), clean.max_hole_px=500, clean.invert=false. Pixels without
    loss and metrics: ignore.uncertain=[0.3,0.7], ignore.border=surface|papyrus, ignore.image=URI. Of files with
    versions (name_v2 beside name), version=2 takes one. With shards, the last one finishes the labels.

    A map of another scan must have the shape of the surface, at one scale, or both surfaces a mesh: reach_voxels=8.
    Values around its threshold are ignored: band=0.1 on either side.
    """
    from inkbatch.errors import ConfigError
    from inkbatch.steps.labels import job as step

    if onto is not None and from_map is None:
        raise ConfigError("labels: --onto goes with --from-map; name the segment as the argument")
    if (segment is None) == (onto is None):
        raise ConfigError("labels: expected one segment, got none or two; give SEGMENT, or --from-map with --onto")

    context = common.context()
    options: dict[str, Any] = {"segment": segment or onto, "image": image, "prediction": prediction}
    options |= {"painted": painted, "from_map": from_map, "catalog": catalog}
    options |= {"plane": int(plane) if plane is not None and plane.isdigit() else plane, "soft": soft or None}
    options |= {"supervision_mask": supervision_mask, "validation_mask": validation_mask}
    options |= {"root": chosen_root(root)}
    job = step.LabelsConfig.load(common.config, common.sets or (), options)
    common.run_job(job, context, step.describe, step.run)


def label_versions(
    segment: Annotated[str, typer.Argument(help="Segment id.")],
    one: Annotated[str | None, typer.Argument(help="Label version, for example v001.")] = None,
    other: Annotated[str | None, typer.Argument(help="Label version to compare it with.")] = None,
    picture: Annotated[str | None, typer.Option(help="PNG file to write: the ink that changed.")] = None,
    root: Root = None,
) -> None:
    """List a segment's label versions, or compare two.

    Prints square centimetres of ink, not ink, ignored, supervision area, and papyrus without labels.
    """
    from inkbatch.steps.labels import painted as step

    options = {"segment": segment, "one": one, "other": other, "picture": picture, "root": chosen_root(root)}
    typer.echo(step.list_versions(step.VersionsConfig.load(None, (), options)))


def export_labels(
    segment: Annotated[str, typer.Argument(help="Segment id.")],
    version: Annotated[str, typer.Argument(help="Label version, for example v001.")],
    to: Annotated[str, typer.Option(help="File: .png, .tif, .json (COCO), or .zarr (a label volume).")],
    layer: Annotated[
        str | None, typer.Option(help="Layer: ink (default), not_ink, ignore or supervision.", show_default=False)
    ] = None,
    plane: Annotated[
        int | None, typer.Option(help="Plane of the label volume that gets the labels (default: the middle one).")
    ] = None,
    root: Root = None,
) -> None:
    """Export a label version for other programs.

    A label volume has as many planes as the surface; the labels are on one of them.
    """
    from inkbatch.steps.labels import painted as step

    options: dict[str, Any] = {"segment": segment, "version": version, "to": to, "layer": layer, "plane": plane}
    options |= {"root": chosen_root(root)}
    typer.echo(step.export_labels(step.ExportLabelsConfig.load(None, (), options)))


def import_labels(
    segment: Annotated[str, typer.Argument(help="Segment id; the segment must be prepared.")],
    ink: Annotated[str | None, typer.Option(help="Ink: a picture, zarr array or label volume.")] = None,
    not_ink: Annotated[str | None, typer.Option(help="Surely not ink: a picture, zarr array or label volume.")] = None,
    ignore: Annotated[str | None, typer.Option(help="Ignored: a picture, zarr array or label volume.")] = None,
    supervision: Annotated[
        str | None, typer.Option(help="Where labels count: a picture, zarr array or label volume.")
    ] = None,
    plane: Annotated[
        str | None, typer.Option(help="Plane of a label volume: a number, middle or max (default: the one with ink).")
    ] = None,
    author: Annotated[str | None, typer.Option(help="Name stored with the new version.")] = None,
    root: Root = None,
) -> None:
    """Make a label version of labels from elsewhere.

    They must have the size of the surface. The version can be edited: inkbatch view SEGMENT --edit.
    """
    from inkbatch.steps.labels import painted as step

    options: dict[str, Any] = {"segment": segment, "ink": ink, "not_ink": not_ink, "ignore": ignore, "author": author}
    options |= {"supervision": supervision, "root": chosen_root(root)}
    options |= {"plane": int(plane) if plane is not None and plane.isdigit() else plane}
    typer.echo(step.import_labels(step.ImportLabelsConfig.load(None, (), options)))


def import_cvat(
    export: Annotated[str, typer.Argument(help="Zip file of a CVAT export, or its unpacked folder.")],
    output: Annotated[str, typer.Argument(help="Folder for the pictures, one per annotated picture.")],
    ink: Annotated[list[str] | None, typer.Option(help="A label that means ink; repeatable.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="A label to be ignored; repeatable.")] = None,
) -> None:
    """Turn a CVAT export into pictures for inkbatch labels.

    Reads COCO 1.0 and Segmentation mask 1.1.
    """
    from inkbatch.steps.labels import import_cvat as step

    options = {"export": export, "output": output, "ink": ink, "ignore": ignore}
    typer.echo(str(step.run(step.ImportCvatConfig.load(None, (), options))))


def vessels(
    output: Annotated[str, typer.Argument(help="Folder for train, val and test with their annotations.")],
    count: Annotated[int | None, typer.Option(help="Number of drawings.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all drawings.")] = None,
    preset: Preset = None,
    replace: Replace = False,
    config: ConfigFile = None,
    sets: Sets = None,
) -> None:
    """Generate drawings of ceramic vessels with masks.

    Training data for networks on pictures: each drawing comes with the mask of the vessel's section.
    """
    from inkbatch.steps.synthetic import vessels as step

    options = {"output": output, "count": count, "seed": seed}
    job = step.VesselsConfig.load(config, sets or (), options, preset_settings(preset, "vessels"))
    for line in step.run(job, replace=replace):
        typer.echo(line)

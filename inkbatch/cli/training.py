"""Commands from labelled segments to a bundle; `register` adds them to an app."""

from __future__ import annotations

from typing import Annotated

import typer

from inkbatch.cli.options import (
    CatalogFile,
    ConfigFile,
    DryRun,
    JobOptions,
    Log,
    Preset,
    Replace,
    Root,
    Sets,
    chosen_root,
    option_groups,
    preset_settings,
    print_report,
    run_context,
)
from inkbatch.config import ends_with_check


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("phantoms")(phantoms)
    app.command("build-dataset")(build_dataset)
    app.command("train")(train)
    app.command("soup")(soup)
    app.command("round")(labelling_round)
    app.command("infer-pictures")(infer_pictures)
    app.command("evaluate-pictures")(evaluate_pictures)
    app.command("presets")(presets)


def phantoms(
    config: ConfigFile = None,
    sets: Sets = None,
    replace: Replace = False,
) -> None:
    """Make a series of phantoms with exact ink labels.

    Training data: letters, strength, depth and crackle of each phantom are drawn from ranges, on one papyrus. Writes
    one folder per phantom and segments.yaml, which prepare and build-dataset take as --catalog. Settings: source,
    labels, output, count, seed, depth_order, voxel_size_um, and ranges such as amplitude=[30, 70] (docs/datasets.md).
    """
    from inkbatch.steps.synthetic import phantom_series as step

    for line in step.run(step.PhantomSeriesConfig.load(config, sets or ()), replace=replace):
        typer.echo(line)


@option_groups
def build_dataset(
    name: Annotated[
        str | None,
        typer.Argument(help="Name of the dataset; not needed if the YAML file names it.", show_default=False),
    ] = None,
    preset: Preset = None,
    root: Root = None,
    catalog: CatalogFile = None,
    *,
    common: JobOptions,
) -> None:
    """Build a dataset of labelled segments.

    Writes index.json, splits.json, coco.json, previews and a data card (README.md) to ROOT/datasets/NAME; form=pack
    also cuts the samples out. The same YAML file and inputs give the same bytes. Training samples that overlap a
    validation sample are refused. Settings: segments, images or patches, sample_px, sampling, splits,
    pairs, form, seed, card (all of them: docs/datasets.md).
    """
    from inkbatch.steps import chains
    from inkbatch.steps.dataset import job as step

    context = common.context()
    options = {"name": name, "root": chosen_root(root), "catalog": catalog}
    job = step.BuildDatasetConfig.load(
        common.config, common.sets or (), options, preset_settings(preset, "build-dataset")
    )
    common.run_job(job, context, step.describe, chains.build_dataset, step.summary)


@option_groups
def train(
    preset: Preset = None,
    root: Root = None,
    dataset: Annotated[str | None, typer.Option(help="Name of the dataset under ROOT/datasets, or its folder.")] = None,
    run: Annotated[str | None, typer.Option(help="Name of the training run, and of its bundle.")] = None,
    *,
    common: JobOptions,
) -> None:
    """Train a bundle on a dataset.

    Writes checkpoints, metrics.csv, losses.csv, curves.png, a validation picture per epoch, and the bundle to
    ROOT/runs/RUN. The same command continues at the step of a stop, or after a kill at the newest checkpoint. With
    folds=all every fold is a training run of its own, --shard i/n trains a share of them, and folds.csv summarises
    them. Settings: model, loss, sampler, augment, optimiser, schedule, epochs, batch, devices, num_nodes, … (all of
    them: docs/training.md).
    """
    context = common.context()
    from inkbatch.steps.train import job as step

    options = {"root": chosen_root(root), "dataset": dataset, "run": run}
    job = step.TrainConfig.load(common.config, common.sets or (), options, preset_settings(preset, "train"))
    if ends_with_check(job):
        return
    if common.dry_run:
        typer.echo(step.describe(job))
        return
    report = step.run(job, context)
    if report.facts["rank"] == 0:
        print_report(report)


def soup(
    run: Annotated[
        str | None,
        typer.Argument(help="The training run: its name (one fold: NAME/fold-0), or its folder.", show_default=False),
    ] = None,
    last: Annotated[int | None, typer.Option(help="Take the checkpoints of the last epochs: how many.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the result (default: RUN-soup-LAST).")] = None,
    root: Root = None,
    config: ConfigFile = None,
    sets: Sets = None,
    replace: Replace = False,
    dry_run: DryRun = False,
    log: Log = "auto",
) -> None:
    """Average the last checkpoints of a training run.

    The run must have kept them: train with --set keep_epochs=4. Averages the weights in float64, renews the statistics
    of batch normalisation, scores the soup where the run was validated, and writes its bundle to
    ROOT/runs/RUN-soup-LAST. Checkpoints of different runs are refused (min_cosine=0.9 of their weights). Other
    settings: statistics_steps, device, precision, read_cache.
    """
    context = run_context(None, log, replace=replace)
    from inkbatch.steps.train import soup as step

    options = {"run": run, "last": last, "name": name, "root": chosen_root(root)}
    job = step.SoupConfig.load(config, sets or (), options)
    if ends_with_check(job):
        return
    if dry_run:
        typer.echo(step.describe(job))
        return
    print_report(step.run(job, context))


@option_groups
def labelling_round(
    name: Annotated[
        str | None,
        typer.Argument(help="Name of the series; not needed if the YAML file names it.", show_default=False),
    ] = None,
    number: Annotated[
        int | None,
        typer.Option("--round", help="Number (default: the one that is not complete; the next if labels changed)."),
    ] = None,
    root: Root = None,
    *,
    common: JobOptions,
) -> None:
    """Do the next round of labelling.

    Takes the newest labels of some segments, trains a network per fold, reads all papyrus with networks that never saw
    it, compares the round with the one before on a yardstick that never trains, and proposes the regions to label next.
    Writes ROOT/rounds/NAME/round-001 with a page; one YAML file serves all rounds. Settings: segments, folds,
    yardstick, block_px, sample_px, new_share, start, train, proposals, … (all of them: docs/rounds.md).
    """
    context = common.context()
    from inkbatch.steps.round import job as step

    options = {"name": name, "round": number, "root": chosen_root(root)}
    job = step.RoundConfig.load(common.config, common.sets or (), options)
    common.run_job(job, context, step.describe, step.run)


@option_groups
def infer_pictures(
    bundle: Annotated[str | None, typer.Option(help="The bundle: a folder or URI.")] = None,
    images: Annotated[str | None, typer.Option(help="Folder of pictures.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Dataset of pictures instead of a folder: its name or folder.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the dataset: train, validation, test (default) or all.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="Folder for the predictions.")] = None,
    root: Root = None,
    preset: Preset = None,
    *,
    common: JobOptions,
) -> None:
    """Infer pictures with a bundle for pictures.

    For bundles that were trained on pictures (R, G, B or grey). Writes one prediction per picture, NAME.npy (float32, 0
    to 1) and, if asked for, NAME.png. Adaptive histogram equalisation, tiles and blending follow the bundle's contract.
    A stopped job continues with the missing pictures. Settings: forms=[npy, png, mask, overlay], threshold, pixel_um,
    override, device, precision, batch_tiles.
    """
    context = common.context()
    from inkbatch.steps import infer_pictures as step

    options = {"bundle": bundle, "images": images, "dataset": dataset, "split": split, "output": to}
    options["root"] = chosen_root(root)
    settings = preset_settings(preset, "infer-pictures")
    job = step.InferPicturesConfig.load(common.config, common.sets or (), options, settings)
    common.run_job(job, context, step.describe, step.run)


def evaluate_pictures(
    maps: Annotated[str, typer.Argument(help="Folder of maps that infer-pictures wrote.", show_default=False)],
    annotations: Annotated[
        str | None, typer.Option(help="Folder of annotations (default: those of the maps' dataset).")
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            help="Pixels that count: unseen (default: those that did not train the network), validation (those that "
            "validated it), or all."
        ),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Probability from which a pixel counts as object.")] = None,
    to: Annotated[str | None, typer.Option(help="Folder for the result (default: evaluation in MAPS).")] = None,
    replace: Replace = False,
    config: ConfigFile = None,
    sets: Sets = None,
) -> None:
    """Evaluate maps of pictures against annotations.

    Scores every picture by itself and all together: F-beta, Dice, IoU, AUC. Writes evaluation.json and pictures.csv.
    Other settings: label_above=0 (annotation values above it are object; null takes half of full scale), beta=0.5.
    """
    from inkbatch.steps import evaluate_pictures as step

    options = {"maps": maps, "annotations": annotations, "on": on, "threshold": threshold, "to": to}
    job = step.EvaluatePicturesConfig.load(config, sets or (), options)
    if ends_with_check(job):
        return
    for line in step.run(job, replace=replace):
        typer.echo(line)


def presets(
    name: Annotated[str | None, typer.Argument(help="Show this preset.", show_default=False)] = None,
) -> None:
    """List the presets of --preset, or show one.

    Shows its source, where it differs from it, and its commands.
    """
    from inkbatch.presets import describe_preset, load_preset, preset_names

    if name is not None:
        typer.echo("\n".join(describe_preset(name)))
        return
    for known in preset_names():
        typer.echo(f"{known}: {load_preset(known).recipe}")

"""Commands around models: import a checkpoint, list what is known, show a bundle; `register` adds them to an app."""

from __future__ import annotations

import json
from typing import Annotated

import typer
import yaml

from inkbatch.cli.options import Replace

Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, for example contract.divisor=200 or model.depth_layers=30; repeatable."),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("import-checkpoint")(import_checkpoint)
    app.command("import-promptable")(import_promptable)
    app.command("models")(models)
    app.command("bundle")(bundle)


def import_checkpoint(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="Path, s3://…, https://… or hf://owner/repo[/file][@revision].")
    ],
    dest: Annotated[str, typer.Argument(metavar="DEST", help="Folder or URI of the new bundle.")],
    preset: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="Preset of a published checkpoint: a name that inkbatch models lists, or a YAML file "
            "(default: the one that the weights fit).",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the bundle (default: the preset's).")] = None,
    trust_pickle: Annotated[
        bool,
        typer.Option(
            "--trust-pickle",
            help="Run the code inside a pickled checkpoint, in a process without network and secrets.",
        ),
    ] = False,
    weights: Annotated[
        str | None, typer.Option(help="Copy of the weights where a file holds several: model, ema_model, …")
    ] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="Keys of the file that are no part of the network: 'stats.*'; repeatable.")
    ] = None,
    settings: Annotated[
        str | None, typer.Option(help="File with the settings of the training, where it lies apart from the weights.")
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Ask the network a few tiles: do its answers move? One is kept in the bundle.")
    ] = True,
    sets: Sets = None,
    replace: Replace = False,
) -> None:
    """Import a published checkpoint as a bundle.

    Weights are loaded strictly: missing or unexpected tensors are errors. The preset gives the contract.
    """
    from inkbatch.steps import import_checkpoint as step

    options: dict[str, object] = {"source": source, "dest": dest, "preset": preset, "name": name}
    options |= {"trust_pickle": trust_pickle or None, "weights": weights, "settings": settings}
    options |= {"leave_out": leave_out or None, "check": None if check else False}
    for line in step.run(step.ImportConfig.load(None, sets or (), options), replace=replace):
        typer.echo(line)


def import_promptable(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="hf://owner/repo[@revision], or a folder with config.json and weights.")
    ],
    dest: Annotated[str, typer.Argument(metavar="DEST", help="Folder or URI of the new bundle.")],
    name: Annotated[str | None, typer.Option(help="Name of the bundle (default: the source's).")] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the weights (default: the one that the README of the source states).")
    ] = None,
    replace: Replace = False,
) -> None:
    """Import SAM 2 or SAM, to refine objects.

    Weights are loaded strictly: missing or unexpected tensors are errors.
    """
    from inkbatch.steps import import_promptable as step

    options: dict[str, object] = {"source": source, "dest": dest, "name": name, "licence": licence}
    for line in step.run(step.ImportPromptableConfig.load(None, (), options), replace=replace):
        typer.echo(line)


def models(
    preset: Annotated[str | None, typer.Argument(help="Show this preset.", show_default=False)] = None,
) -> None:
    """List networks, and presets by voxel size."""
    from inkbatch.models import known_architectures
    from inkbatch.models.describing import describe_preset, preset_rows
    from inkbatch.models.presets import load_preset, presets_by_scale

    if preset is not None:
        typer.echo("\n".join(describe_preset(load_preset(preset))))
        return
    typer.echo(f"networks: {', '.join(known_architectures())}")
    typer.echo("presets by voxel edge (inkbatch import-checkpoint SRC DEST --as PRESET):")
    for row in preset_rows(presets_by_scale()):
        typer.echo(row)


def bundle(
    location: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="The bundle: a folder or URI; demo is the shipped one.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print bundle.json.")] = False,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Print settings of prepare (--config) that suit this bundle.")
    ] = False,
) -> None:
    """Show a bundle: network, contract and origin."""
    from inkbatch.models.bundle import Bundle, bundle_location
    from inkbatch.models.describing import describe_bundle, prepare_settings

    document = Bundle.open(bundle_location(location)).document
    if as_json:
        typer.echo(json.dumps(document.model_dump(mode="json", exclude_none=True), indent=2, ensure_ascii=False))
        return
    if prepare:
        typer.echo(
            yaml.safe_dump(prepare_settings(document.contract), default_flow_style=None, sort_keys=False).rstrip()
        )
        return
    typer.echo("\n".join(describe_bundle(document)))

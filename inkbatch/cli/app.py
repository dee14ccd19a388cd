"""The command line: one thin command per job, which parses, calls the job's `run`, and exits with the error's code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from inkbatch import __version__
from inkbatch.cli import doctor as cli_doctor
from inkbatch.cli import instances as cli_instances
from inkbatch.cli import labels as cli_labels
from inkbatch.cli import launch as cli_launch
from inkbatch.cli import maps as cli_maps
from inkbatch.cli import models as cli_models
from inkbatch.cli import preflight as cli_preflight
from inkbatch.cli import probe as cli_probe
from inkbatch.cli import provenance as cli_provenance
from inkbatch.cli import report as cli_report
from inkbatch.cli import schedule as cli_schedule
from inkbatch.cli import segments as cli_segments
from inkbatch.cli import sweep as cli_sweep
from inkbatch.cli import training as cli_training
from inkbatch.cli import view as cli_view
from inkbatch.cli.options import (
    CatalogFile,
    ConfigFile,
    Device,
    JobOptions,
    Precision,
    PreflightUse,
    Preset,
    Replace,
    Root,
    Segment,
    Sets,
    chosen_root,
    for_each,
    option_groups,
    preset_settings,
    print_report,
    segments_asked,
)
from inkbatch.cli.outcome import run_command
from inkbatch.cli.streams import guard_streams
from inkbatch.cli.values import parse_box, parse_layers, parse_pairs
from inkbatch.cli.variants import VariantOptions
from inkbatch.config import ends_with_check
from inkbatch.errors import ConfigError

if TYPE_CHECKING:
    from inkbatch.run.job import RunContext
    from inkbatch.steps.infer.settings import InferConfig


def _new_app() -> typer.Typer:
    return typer.Typer(
        name="inkbatch",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


app = _new_app()

Source = Annotated[str | None, typer.Option(help="Folder or URI of the layers; {segment} is replaced by the id.")]
Layers = Annotated[str | None, typer.Option(help="Layer numbers of the source, half-open, for example 17:43.")]
Memory = Annotated[str | None, typer.Option(help="Memory budget, for example 2GiB.")]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"inkbatch {__version__}")
        raise typer.Exit


@app.callback()
def _version_option(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Read ink in X-ray volumes of carbonised scrolls: batch jobs that stream, resume and never guess.

    First steps: inkbatch run prepare,infer demo --bundle demo, then inkbatch view demo. docs/glossary.md explains the
    words.
    """


@app.command()
@option_groups
def prepare(
    segment: Segment,
    root: Root = None,
    source: Source = None,
    depth_order: Annotated[
        str | None, typer.Option(help="Depth order of the layers: forward or reversed; required, never guessed.")
    ] = None,
    voxel_size_um: Annotated[float | None, typer.Option(help="Voxel size in micrometres, for example 7.91.")] = None,
    z_spacing_um: Annotated[float | None, typer.Option(help="Spacing of layers, if not as pixels.")] = None,
    intensity: Annotated[
        str | None,
        typer.Option(help="Mapping of grey values: keep, high-byte, window:LO:HI or percentile:LO:HI (16 to 8 bits)."),
    ] = None,
    layers: Layers = None,
    resample: Annotated[
        str | None, typer.Option(help="Spacing to bring stored layers to: 9.6, or z,y,x, or a pooling rule's name.")
    ] = None,
    volume: Annotated[str | None, typer.Option(help="Volume of the scroll: renders SOURCE, a tifxyz mesh.")] = None,
    layers_count: Annotated[int | None, typer.Option(help="Layers to render, for example 65.")] = None,
    step_um: Annotated[float | None, typer.Option(help="Spacing of rendered layers; else that of pixels.")] = None,
    volume_um: Annotated[float | None, typer.Option(help="Voxel edge of a volume that does not state it.")] = None,
    flip_normals: Annotated[bool | None, typer.Option("--flip-normals", help="Render against the normals.")] = None,
    max_outside: Annotated[float | None, typer.Option(help="Share of a mesh that may leave the volume.")] = None,
    box: Annotated[
        str | None, typer.Option(help="Region to take, for example 0:2048,1024:4096 (rows, columns).")
    ] = None,
    memory: Memory = None,
    catalog: CatalogFile = None,
    preset: Preset = None,
    *,
    common: JobOptions,
) -> None:
    """Prepare a segment: its surface volume and mask.

    Copies the layers into surface.zarr and writes mask.zarr, both under ROOT/segments/SEGMENT. Sources: numbered TIFF,
    PNG or JPG layers, zarr v2/v3, OME-Zarr, one picture; local, s3://, http(s)://, memory://. The catalog gives what
    the options do not. Other settings through --set: mask=URI, axes=zyx, level=0, lut=[[0,0],[128,64],[255,255]],
    clahe={clip_limit: 2.0, cell_px: 128}, shard_px=1024, codec=lz4|lz4-bit|zstd. With --volume the layers are
    rendered from a surface mesh (tifxyz) and the volume of the scroll.
    """
    from inkbatch.steps.prepare import job as step
    from inkbatch.steps.prepare.settings import PrepareConfig

    options: dict[str, Any] = {"segment": segment, "root": chosen_root(root), "source": source, "catalog": catalog}
    options |= {"memory": memory, "depth_order": depth_order, "voxel_size_um": voxel_size_um, "intensity": intensity}
    options |= {"z_spacing_um": z_spacing_um, "resample": resample}
    options |= {"volume": volume, "layers_count": layers_count, "step_um": step_um, "volume_um": volume_um}
    options |= {"flip_normals": flip_normals, "max_outside": max_outside, "box": parse_box(box)}
    options["layers"] = parse_layers(layers)
    job = PrepareConfig.load(common.config, common.sets or (), options, preset_settings(preset, "prepare"))
    from inkbatch.steps.prepare.describe import describe

    common.run_job(job, common.context(), describe, step.run)


@app.command()
@option_groups
def infer(
    segment: Annotated[
        str | None, typer.Argument(help="Segment id, as in the catalog (segments.yaml).", show_default=False)
    ] = None,
    bundle: Annotated[str | None, typer.Option(help="The bundle: a folder or URI; demo is the shipped one.")] = None,
    root: Root = None,
    name: Annotated[str | None, typer.Option(help="Name of the prediction.")] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            help="Layer numbers of the source, half-open, for example 17:43; auto takes what inkbatch probe found."
        ),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(help="Quick look: infer this part alone, for example 0:2048,1024:4096 (rows, columns)."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Infer every segment of the catalog.")] = False,
    device: Device = None,
    precision: Precision = None,
    preflight: PreflightUse = None,
    override: Annotated[
        list[str] | None,
        typer.Option(help="Replace a value of the bundle's contract, key=value; recorded in the manifest; repeatable."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Layers of a segment that is not prepared yet: for the plan of --dry-run alone.")
    ] = None,
    catalog: CatalogFile = None,
    *,
    variants: VariantOptions,
    common: JobOptions,
) -> None:
    """Infer the ink of a prepared segment with a bundle.

    Writes prediction.zarr, preview.png and manifest.json to ROOT/predictions/SEGMENT/NAME. A bundle and a surface
    volume that do not match are refused, with the reason. Each view of --tta and each layer window is one more forward
    pass per tile; --dry-run shows the cost. Other settings through --set: stride_px=32, window=hann|gaussian|uniform,
    unit_px=2048, batch_tiles=0 (0 finds it), compile=true (pays on GPUs).
    """
    context = common.context()
    from inkbatch.steps.infer.settings import InferConfig

    options: dict[str, Any] = {"segment": segment, "bundle": bundle, "root": chosen_root(root), "name": name}
    options |= {
        "box": parse_box(box),
        "source": source if common.dry_run else None,
        "layers": layers if layers == "auto" else parse_layers(layers),
        "device": device,
        "precision": precision,
    }
    options |= {**variants.settings(), "catalog": catalog, "preflight": preflight}
    options["override"] = parse_pairs(override) if override else None

    def one(asked: str | None) -> None:
        settings = InferConfig.load(common.config, common.sets or (), {**options, "segment": asked})
        _infer_one(settings, context, dry_run=common.dry_run)

    for_each(segments_asked(segment, every, catalog), one)


def _infer_one(job: InferConfig, context: RunContext, *, dry_run: bool) -> None:
    if ends_with_check(job):
        return
    from inkbatch.steps import chains

    if dry_run:
        from inkbatch.steps.infer.describe import describe

        typer.echo(describe(job))
        return
    report = chains.infer(job, context)
    print_report(report)
    if report.complete:
        from inkbatch.steps.infer.score import score_line, stored_score

        for location in (report.location, *report.beside):
            typer.echo(f"picture: {location / 'preview.png'}")
            score = stored_score(location)
            if score:
                typer.echo(score_line(score))


@app.command()
def phantom(
    config: ConfigFile = None,
    sets: Sets = None,
    replace: Replace = False,
) -> None:
    """Make a phantom: plant known ink into real layers.

    The ink labels are written beside the layers. Settings: source, labels, output, amplitude, depth_layer,
    width_layers, crackle, seed, label_scale, source_box, …
    """
    from inkbatch.steps.synthetic import phantom as step

    for line in step.run(step.PhantomConfig.load(config, sets or ()), replace=replace):
        typer.echo(line)


@app.command()
def export(
    segment: Segment,
    name: Annotated[str | None, typer.Option(help="Name of the prediction; needed if there are several.")] = None,
    to: Annotated[str | None, typer.Option(help="File to write; its suffix chooses PNG, TIFF, JPG or NPY.")] = None,
    kind: Annotated[
        Literal["tiff", "ome-zarr-v2"], typer.Option("--as", help="A picture, or OME-Zarr for the field's viewers.")
    ] = "tiff",
    surface: Annotated[bool, typer.Option("--surface", help="Export the surface (ome-zarr-v2 only).")] = False,
    scale_bar: Annotated[str | None, typer.Option(help="Draw a scale bar of 1cm or 1mm.")] = None,
    root: Root = None,
    config: ConfigFile = None,
    sets: Sets = None,
) -> None:
    """Export a prediction as PNG, TIFF, JPG, NPY or OME-Zarr.

    At full size or at a level of the pyramid, in bounded memory. Settings through --set: level=0, flip=none|x|y|xy,
    threshold=0.5, boost=3, bits=8|16, crop=[y0,x0,y1,x1], bigtiff=true, quality=90, memory=1GiB,
    stretch=true (the display range that the map's network states), rounding=nearest|truncate. With --as ome-zarr-v2
    (uint8, / between chunk numbers, true scale; threshold=0.5, papyrus=ADDRESS of an exported surface) a Neuroglancer
    link is printed, and shown on the map's page.
    """
    options = {"segment": segment, "name": name, "to": to, "root": chosen_root(root)}
    if kind == "ome-zarr-v2":
        cli_maps.export_ome_zarr(options, config, sets, surface=surface, scale_bar=scale_bar)
        return
    if surface:
        raise ConfigError("--surface: a surface has many layers; give --as ome-zarr-v2 as well")
    from inkbatch.steps.export import picture as step

    typer.echo(step.run(step.ExportConfig.load(config, sets or (), {**options, "scale_bar": scale_bar})))


for _commands in (
    cli_launch,
    cli_view,
    cli_preflight,
    cli_probe,
    cli_sweep,
    cli_maps,
    cli_instances,
    cli_labels,
    cli_training,
    cli_models,
    cli_report,
    cli_provenance,
    cli_doctor,
    cli_schedule,
    cli_segments,
):
    _commands.register(app)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with 0, 64, 65, 75 or 1.

    OpenMP's threads sleep while they wait, which must be set before torch starts them: spinning threads starve those
    that read and write, and on shared cores they made the same inference three times slower.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    guard_streams()
    words = sys.argv[1:] if arguments is None else arguments
    program = _with_one_command(words[0]) if words else app
    sys.exit(run_command(lambda: program(args=arguments, standalone_mode=False), _command_of(words)))


def _with_one_command(word: str) -> typer.Typer:
    """Return an app with the command `word` alone, as typer builds every command before it runs one.

    The whole app is needed where the word is no command, and by commands that run others.
    """
    found = [command for command in app.registered_commands if _name_of(command) == word]
    if not found or getattr(found[0].callback, "__module__", "") == cli_launch.__name__:
        return app
    alone = _new_app()
    alone.registered_callback, alone.registered_commands = app.registered_callback, found
    return alone


def _name_of(command: typer.models.CommandInfo) -> str:
    return str(command.name or getattr(command.callback, "__name__", ""))


def _command_of(arguments: Sequence[str]) -> str:
    """Name the command that arguments ask for, ``inkbatch infer``; without one ``inkbatch``."""
    known = {_name_of(command) for command in app.registered_commands}
    return " ".join(["inkbatch", *[word for word in arguments if word in known][:1]])


if __name__ == "__main__":
    main()

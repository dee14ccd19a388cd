"""The command line: one thin command per step; it parses, calls the step's `run`, and exits with the error's code."""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer
import yaml

from inkbatch import __version__
from inkbatch.cli import doctor as cli_doctor
from inkbatch.cli import labels as cli_labels
from inkbatch.cli import launch as cli_launch
from inkbatch.cli import maps as cli_ensemble
from inkbatch.cli import models as cli_models
from inkbatch.cli import probe as cli_probe
from inkbatch.cli import provenance as cli_provenance
from inkbatch.cli import report as cli_report
from inkbatch.cli import schedule as cli_schedule
from inkbatch.cli import training as cli_training
from inkbatch.cli import view as cli_view
from inkbatch.cli.options import (
    USAGE_ERROR,
    CatalogFile,
    ConfigFile,
    DryRun,
    Log,
    Preset,
    Root,
    Sets,
    Shard,
    chosen_root,
    parse_groups,
    parse_starts,
    preset_settings,
    print_report,
    run_context,
)
from inkbatch.errors import EXIT_BUG, EXIT_CONFIG, ConfigError, InkbatchError, Preempted

app = typer.Typer(
    name="inkbatch",
    help="Read ink in X-ray volumes of carbonised scrolls: batch jobs that stream, resume and never guess.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Segment = Annotated[str, typer.Argument(help="Segment id, as in the catalog (segments.yaml).", show_default=False)]
Source = Annotated[str | None, typer.Option(help="Where the layers are; may hold {segment}.")]
Layers = Annotated[str | None, typer.Option(help="Layer numbers of the source, half-open, for example 17:43.")]
MEMORY_CURE = (
    "give the job less to hold (prepare: a smaller --memory; infer: a smaller unit_px; train: a smaller batch or "
    "tile_px), end what else runs here, or take a larger machine"
)
Memory = Annotated[str | None, typer.Option(help="Memory budget, for example 2GiB.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"inkbatch {__version__}")
        raise typer.Exit


@app.callback()
def _version_option(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Read ink in X-ray volumes of carbonised scrolls: batch jobs that stream, resume and never guess."""


@app.command()
def prepare(
    segment: Segment,
    root: Root = None,
    source: Source = None,
    depth_order: Annotated[str | None, typer.Option(help="forward or reversed; required, never guessed.")] = None,
    voxel_size_um: Annotated[float | None, typer.Option(help="Voxel edge in micrometres, for example 7.91.")] = None,
    z_spacing_um: Annotated[float | None, typer.Option(help="Spacing of layers, if not as pixels.")] = None,
    intensity: Annotated[
        str | None, typer.Option(help="keep, high-byte, window:LO:HI or percentile:LO:HI (16 -> 8 bits).")
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
    config: ConfigFile = None,
    sets: Sets = None,
    shard: Shard = None,
    dry_run: DryRun = False,
    log: Log = "auto",
) -> None:
    """Layers -> surface.zarr and mask.zarr; with --volume they are rendered from a surface mesh.

    Sources: numbered TIFF, PNG or JPG layers, zarr v2/v3, OME-Zarr, one picture; local, s3://, http(s)://, memory://.
    What the options do not say comes from the catalog. Other settings go through --set: mask=URI, axes=zyx, level=0,
    lut=[[0,0],[128,64],[255,255]], clahe={clip_limit: 2.0, cell_px: 128}, shard_px=1024, codec=lz4|lz4-bit|zstd.
    """
    from inkbatch.steps.prepare import job as step
    from inkbatch.steps.prepare.settings import PrepareConfig

    options: dict[str, Any] = {"segment": segment, "root": chosen_root(root), "source": source, "catalog": catalog}
    options |= {"memory": memory, "depth_order": depth_order, "voxel_size_um": voxel_size_um, "intensity": intensity}
    options |= {"z_spacing_um": z_spacing_um, "resample": resample}
    options |= {"volume": volume, "layers_count": layers_count, "step_um": step_um, "volume_um": volume_um}
    options |= {"flip_normals": flip_normals, "max_outside": max_outside, "box": parse_box(box)}
    options["layers"] = parse_layers(layers)
    job = PrepareConfig.load(config, sets or (), options, preset_settings(preset, "prepare"))
    if dry_run:
        from inkbatch.steps.prepare.describe import describe

        typer.echo(describe(job))
        return
    print_report(step.run(job, run_context(shard, log)))


@app.command()
def infer(
    segment: Segment,
    bundle: Annotated[str | None, typer.Option(help="The model: a bundle's folder or URI.")] = None,
    root: Root = None,
    name: Annotated[str | None, typer.Option(help="Name of the prediction.")] = None,
    layers: Annotated[
        str | None,
        typer.Option(help="Layer numbers of the source, half-open, for example 17:43; auto asks a depth probe."),
    ] = None,
    layer_starts: Annotated[
        str | None, typer.Option(help="Sliding windows: their first layers, START:STOP:STEP, half-open (10:20:2).")
    ] = None,
    layer_groups: Annotated[
        str | None, typer.Option(help="Windows one by one: source layers with commas between (10:36,20:46).")
    ] = None,
    store_windows: Annotated[
        bool, typer.Option("--store-windows", help="One map per window, instead of one map of all of them.")
    ] = False,
    tta: Annotated[
        str | None,
        typer.Option(
            help="Views to compute beside the tile as it is, with commas between: flip-y, flip-x, turn-90, turn-180, "
            "turn-270; flips, turns; or allowed: all that the bundle allows."
        ),
    ] = None,
    combine: Annotated[
        str | None, typer.Option(help="mean (default) or max: how views and windows become one.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cuda, mps or cpu.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")] = None,
    override: Annotated[
        list[str] | None, typer.Option(help="Replace a value of the bundle's contract, key=value; it is recorded.")
    ] = None,
    catalog: CatalogFile = None,
    config: ConfigFile = None,
    sets: Sets = None,
    shard: Shard = None,
    dry_run: DryRun = False,
    log: Log = "auto",
) -> None:
    """Surface and bundle -> ink map.

    Writes prediction.zarr, preview.png and manifest.json under ROOT/predictions. What the bundle and the surface do not
    agree on is refused by name. Each view of --tta and each window of layers is one more forward pass per tile:
    --dry-run says what that costs. Other settings go through --set: stride_px=32, window=hann|gaussian|uniform,
    unit_px=2048, batch_tiles=0 (0 finds it), compile=true (pays on GPUs).
    """
    context = run_context(shard, log)
    from inkbatch.steps.infer.settings import InferConfig

    options: dict[str, Any] = {"segment": segment, "bundle": bundle, "root": chosen_root(root), "name": name}
    options |= {
        "layers": layers if layers == "auto" else parse_layers(layers),
        "device": device,
        "precision": precision,
    }
    options |= {"tta": tta and [view.strip() for view in tta.split(",")], "combine": combine}
    options |= {"layer_starts": parse_starts(layer_starts), "layer_groups": parse_groups(layer_groups)}
    options |= {"store_windows": store_windows or None, "catalog": catalog}
    options["override"] = _pairs(override) if override else None
    job = InferConfig.load(config, sets or (), options)
    from inkbatch.steps.infer import job as step

    if dry_run:
        from inkbatch.steps.infer.describe import describe

        typer.echo(describe(job))
        return
    report = step.run(job, context)
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
) -> None:
    """Plant known ink into real layers.

    Settings: source, labels, output, amplitude, depth_layer, width_layers, crackle, seed, label_scale, source_box, …
    The truth is written beside the layers.
    """
    from inkbatch.steps.synthetic import phantom as step

    for line in step.run(step.PhantomConfig.load(config, sets or ())):
        typer.echo(line)


@app.command()
def export(
    segment: Segment,
    name: Annotated[str | None, typer.Option(help="Name of the prediction; needed where there are several.")] = None,
    to: Annotated[str | None, typer.Option(help="File to write; its ending chooses PNG, TIFF, JPG or NPY.")] = None,
    kind: Annotated[
        Literal["tiff", "ome-zarr-v2"], typer.Option("--as", help="A picture, or OME-Zarr for the field's viewers.")
    ] = "tiff",
    surface: Annotated[bool, typer.Option("--surface", help="The surface, not a map (ome-zarr-v2).")] = False,
    scale_bar: Annotated[str | None, typer.Option(help="Draw a bar of 1cm or 1mm.")] = None,
    root: Root = None,
    config: ConfigFile = None,
    sets: Sets = None,
) -> None:
    """Ink map -> PNG, TIFF, JPG or NPY, or OME-Zarr v2.

    In bounded memory, at full size or at a pyramid level. Settings through --set: level=0, flip=none|x|y|xy,
    threshold=0.5, boost=3, bits=8|16, crop=[y0,x0,y1,x1], bigtiff=true, quality=90, memory=1GiB,
    stretch=true (the display range that the map's network states), rounding=nearest|truncate. With --as ome-zarr-v2
    (uint8, / between chunk numbers, true scale; threshold=0.5, papyrus=ADDRESS of an exported surface) a Neuroglancer
    link is printed, and shown on the map's page.
    """
    options = {"segment": segment, "name": name, "to": to, "root": chosen_root(root)}
    if kind == "ome-zarr-v2":
        cli_ensemble.export_ome_zarr(options, config, sets, surface=surface, scale_bar=scale_bar)
        return
    if surface:
        raise ConfigError("--surface: a surface has many layers; give --as ome-zarr-v2 as well")
    from inkbatch.steps.export import picture as step

    typer.echo(step.run(step.ExportConfig.load(config, sets or (), {**options, "scale_bar": scale_bar})))


@app.command()
def segments(
    catalog: CatalogFile = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a catalog.")] = False,
) -> None:
    """List the segments of the catalog."""
    from inkbatch.data.segments.catalog import Catalog, catalog_schema

    if schema:
        typer.echo(json.dumps(catalog_schema(), indent=2))
        return
    for segment, entry in sorted(Catalog.load(catalog).entries.items()):
        typer.echo(f"{segment}\t{entry.source}\t{entry.note or ''}".rstrip())


for _commands in (
    cli_models,
    cli_labels,
    cli_training,
    cli_view,
    cli_ensemble,
    cli_launch,
    cli_schedule,
    cli_doctor,
    cli_probe,
    cli_provenance,
    cli_report,
):
    _commands.register(app)


def parse_layers(text: str | None) -> tuple[int, int] | None:
    """Read ``17:43``.

    Raises:
        ConfigError: Anything else.
    """
    if text is None:
        return None
    start, _, stop = text.partition(":")
    if not (start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise ConfigError(f"--layers {text!r}: wanted START:STOP, half-open, for example 17:43")
    return int(start), int(stop)


def parse_box(text: str | None) -> tuple[int, int, int, int] | None:
    """Read ``Y0:Y1,X0:X1`` as (y0, x0, y1, x1).

    Raises:
        ConfigError: Anything else.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d+):(\d+),(\d+):(\d+)", text.replace(" ", ""))
    y0, y1, x0, x1 = map(int, found.groups()) if found else (0, 0, 0, 0)
    if not (y0 < y1 and x0 < x1):
        raise ConfigError(f"--box {text!r}: expected Y0:Y1,X0:X1, half-open, for example 0:2048,1024:4096")
    return y0, x0, y1, x1


def _pairs(items: list[str]) -> dict[str, Any]:
    pairs = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(f"--override {item!r}: wanted key=value, for example divisor=200")
        try:
            pairs[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--override {item!r}: the value is not YAML: {error}") from error
    return pairs


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with 0, 64, 65, 75 or 1.

    OpenMP's threads are told, before torch starts them, to sleep while they wait: spinning ones starve the threads that
    read and write, and on shared cores they made the same inference three times slower.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(run_command(lambda: app(args=arguments, standalone_mode=False)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine or its GPU has no memory left; told without importing the libraries that say so."""
    words = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in words
        or "Insufficient memory" in words
    )


def run_command(command: Callable[[], Any]) -> int:
    """Run `command`; print errors as one clear message and return the exit code."""
    try:
        code = command()
    except Preempted as error:
        sys.stderr.write(f"inkbatch: {error}\n")
        return error.exit_code
    except InkbatchError as error:
        sys.stderr.write(f"inkbatch: {error}\n")
        return error.exit_code
    except typer.Exit as stop:
        return int(stop.exit_code)
    except USAGE_ERROR as error:
        sys.stderr.write(f"inkbatch: {error.format_message()}\nTry: inkbatch --help\n")
        return EXIT_CONFIG
    except KeyboardInterrupt:
        sys.stderr.write("inkbatch: aborted; markers tell what is stored, run the same command again to go on\n")
        return 130
    except Exception as error:
        if is_out_of_memory(error):
            sys.stderr.write(f"inkbatch: out of memory: {str(error).splitlines()[0]}; {MEMORY_CURE}\n")
            return EXIT_CONFIG
        traceback.print_exc()
        sys.stderr.write("inkbatch: this is a bug of ours; please report it with the lines above\n")
        return EXIT_BUG
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()

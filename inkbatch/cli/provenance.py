"""Commands on runs: estimate one, repeat one, compare two; `register` adds them to an app."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from inkbatch.cli.options import (
    CatalogFile,
    ConfigFile,
    Log,
    Root,
    Sets,
    chosen_root,
    print_report,
    run_context,
)
from inkbatch.cli.values import parse_groups, parse_names, parse_starts
from inkbatch.errors import ConfigError

Run = Annotated[
    str,
    typer.Argument(
        help="Folder of a run, or its manifest.json, for example root/predictions/SEGMENT/NAME.", show_default=False
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("estimate")(estimate)
    app.command("rerun")(rerun)
    app.command("diff")(diff)
    app.command("verify")(verify)


def estimate(
    segment: Annotated[str | None, typer.Argument(help="Segment id, prepared or not.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="Every segment of the catalog.")] = False,
    bundle: Annotated[str | None, typer.Option(help="The bundle: a folder or URI; demo is the shipped one.")] = None,
    tta: Annotated[
        str | None, typer.Option(help="Views, as for infer; each is one more forward pass per tile.")
    ] = None,
    layer_starts: Annotated[str | None, typer.Option(help="Layer windows by their first layers, as for infer.")] = None,
    layer_groups: Annotated[str | None, typer.Option(help="Layer windows one by one, as for infer.")] = None,
    machine: Annotated[
        str | None, typer.Option(help="Machine of the price table, for example g6.xlarge (default: this one).")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure the bundle on this machine for some seconds.")
    ] = False,
    save: Annotated[str | None, typer.Option(help="YAML file that gets the measured figure.")] = None,
    root: Root = None,
    catalog: CatalogFile = None,
    config: ConfigFile = None,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate tiles, seconds and money of infer.

    Prepared segments are counted by their segment mask, others by the size of their layers. Seconds follow from
    --calibrate, from stored figures (INKBATCH_FIGURES names a YAML file with more), or from the GPU's data sheet. If
    ROOT holds a real run of the bundle on the segment, the error of the estimate is shown. INKBATCH_PRICES names
    another price table. Settings of infer through --set: layers=[17,43], stride_px=32, unit_px=2048,
    override.divisor=200, device=cpu, precision=fp32; and calibrate_s=6.
    """
    from inkbatch.steps.estimate.job import EstimateConfig, run

    options: dict[str, Any] = {
        "segment": segment,
        "all": every or None,
        "bundle": bundle,
        "machine": machine,
        "save": save,
    }
    options |= {"tta": parse_names(tta)}
    options |= {"layer_starts": parse_starts(layer_starts), "layer_groups": parse_groups(layer_groups)}
    options |= {"calibrate": calibrate or None, "root": chosen_root(root), "catalog": catalog}
    found = run(EstimateConfig.load(config, sets or (), options))
    typer.echo(json.dumps(found.document, indent=2, ensure_ascii=False) if as_json else str(found))


def rerun(
    manifest: Run,
    root: Annotated[str | None, typer.Option(help="ROOT of the repeated run; not that of the first run.")] = None,
    inputs_root: Annotated[str | None, typer.Option(help="ROOT of the inputs (default: that of the manifest).")] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print the run's settings as YAML for --config; any job.")
    ] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Repeat although code or inputs differ from the manifest.")
    ] = False,
    sets: Sets = None,
    log: Log = "auto",
) -> None:
    """Repeat a finished run and compare the bytes.

    Repeats prepare, labels, build-dataset, train, soup, round, infer, infer-pictures, ensemble, clean, instances,
    evaluate, probe, preflight and sweep. On a CPU the bytes are equal; another device rounds differently, and inkbatch
    diff shows by how much. Name inputs that moved with --set, for example --set bundle=s3://b/my-bundle. The exit code
    is 65 if code, data or bundle changed, or if bytes differ.
    """
    from inkbatch.steps.provenance import rerun as step

    if show:
        typer.echo(step.request_yaml(manifest), nl=False)
        return
    if root is None:
        raise ConfigError(
            "rerun: expected a ROOT for the repeated run, got none; give --root FOLDER (or s3://bucket/prefix)"
        )
    found = step.rerun(manifest, root, run_context(None, log), inputs_root=inputs_root, sets=sets or (), anyway=anyway)
    print_report(found.report)
    found.require_equal()
    typer.echo(f"rerun: equal to the byte: {found.objects} stored objects, {found.bytes:,} bytes")


def diff(
    a: Run,
    b: Run,
    maps: Annotated[bool, typer.Option(help="Also compare the stored predictions.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two runs.

    Compares configuration, code, data, bundle, device and predictions, the latter in bounded memory. Differences under
    "asked" alone (device, memory, places of inputs) do not make another run.
    """
    from inkbatch.steps.provenance.diff import diff as compare

    found = compare(a, b, maps=maps)
    typer.echo(json.dumps(found.document, indent=2, ensure_ascii=False) if as_json else str(found))


def verify(
    place: Annotated[
        str,
        typer.Argument(
            help="A run's folder or manifest.json, or a folder with runs, such as ROOT.", show_default=False
        ),
    ],
) -> None:
    """Verify that every object of a run is what was written.

    Reads all objects that its units stored, in bounded memory and on any store, and compares size and checksum with
    what the units' markers say: missing, cut, damaged and exchanged objects are named, and the exit code is 65. Copies
    without markers are compared with complete.json. Of runs by older versions only the checksums inside arrays are
    tested.
    """
    from inkbatch.run.verifying import verify as check

    found = check(place, lambda text: typer.echo(text, err=True))
    typer.echo(str(found))
    found.require_sound()

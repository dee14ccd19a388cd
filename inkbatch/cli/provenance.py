"""Commands on runs: what one will take, one once more, two side by side; `register` adds them to an app."""

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
    parse_groups,
    parse_starts,
    print_report,
    run_context,
)
from inkbatch.errors import ConfigError

Run = Annotated[
    str,
    typer.Argument(
        help="A run's manifest.json or its folder, for example root/predictions/SEGMENT/NAME.", show_default=False
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("estimate")(estimate)
    app.command("rerun")(rerun)
    app.command("diff")(diff)


def estimate(
    segment: Annotated[str | None, typer.Argument(help="Segment id, prepared or not.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="Every segment of the catalog.")] = False,
    bundle: Annotated[str | None, typer.Option(help="The model: a bundle's folder or URI.")] = None,
    tta: Annotated[str | None, typer.Option(help="Views as infer takes them; each is one more pass per tile.")] = None,
    layer_starts: Annotated[
        str | None, typer.Option(help="Sliding windows as infer takes them, START:STOP:STEP.")
    ] = None,
    layer_groups: Annotated[str | None, typer.Option(help="Windows one by one, as infer takes them.")] = None,
    machine: Annotated[
        str | None, typer.Option(help="A kind of the price table, for example g6.xlarge; without it this machine.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure the bundle on the device at hand for some seconds.")
    ] = False,
    save: Annotated[str | None, typer.Option(help="Add what was measured to this YAML file of figures.")] = None,
    root: Root = None,
    catalog: CatalogFile = None,
    config: ConfigFile = None,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Segments, a bundle and a kind of machine -> units, tiles, seconds and money of infer, before anything is rented.

    Prepared segments are counted by their mask, others by the size of their layers. Seconds follow from --calibrate,
    from stored figures (INKBATCH_FIGURES names a YAML file with more), or from the data sheet. Where ROOT holds a real
    run of the bundle on the segment, the estimate's error is said. Prices: INKBATCH_PRICES names another table. Other
    settings through --set: layers=[17,43], stride_px=32, unit_px=2048, override.divisor=200, device=cpu,
    precision=fp32, calibrate_s=6.
    """
    from inkbatch.steps.estimate import job as step
    from inkbatch.steps.estimate.settings import EstimateConfig

    options: dict[str, Any] = {
        "segment": segment,
        "all": every or None,
        "bundle": bundle,
        "machine": machine,
        "save": save,
    }
    options |= {"tta": tta and [view.strip() for view in tta.split(",")]}
    options |= {"layer_starts": parse_starts(layer_starts), "layer_groups": parse_groups(layer_groups)}
    options |= {"calibrate": calibrate or None, "root": chosen_root(root), "catalog": catalog}
    found = step.run(EstimateConfig.load(config, sets or (), options))
    typer.echo(json.dumps(found.document, indent=2, ensure_ascii=False) if as_json else str(found))


def rerun(
    manifest: Run,
    root: Annotated[
        str | None, typer.Option(help="ROOT of the repeated run; another one than the first run's.")
    ] = None,
    inputs_root: Annotated[
        str | None, typer.Option(help="ROOT of what the job reads, where it is not the manifest's.")
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print what was asked for, as YAML for --config; any job.")
    ] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Repeat it although code or inputs are not what the manifest states.")
    ] = False,
    sets: Sets = None,
    log: Log = "auto",
) -> None:
    """A finished run -> the same once more, and whether the bytes are equal.

    Repeats prepare, labels, build-dataset, train, infer, infer-pictures, ensemble, clean, evaluate and probe. On a CPU
    the bytes are equal; another device rounds otherwise, and inkbatch diff says by how much. Inputs that moved are
    named with --set, for example --set bundle=s3://b/my-bundle.
    Exit code 65 where code, data or bundle changed, or bytes differ.
    """
    from inkbatch.steps.provenance import rerun as step

    if show:
        typer.echo(step.request_yaml(manifest), nl=False)
        return
    if root is None:
        raise ConfigError("rerun: where shall the repeated run go? give --root FOLDER (or s3://bucket/prefix)")
    found = step.rerun(manifest, root, run_context(None, log), inputs_root=inputs_root, sets=sets or (), anyway=anyway)
    print_report(found.report)
    found.require_equal()
    typer.echo(f"rerun: equal to the byte: {found.objects} stored objects, {found.bytes:,} bytes")


def diff(
    a: Run,
    b: Run,
    maps: Annotated[bool, typer.Option(help="Read and compare the maps, too.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Two runs -> what differs: configuration, code, data, bundle, device, and by how much their maps do.

    The maps are read window by window, so their size does not matter. What differs in "asked" alone (device, memory,
    where inputs lie) does not make another run.
    """
    from inkbatch.steps.provenance.diff import diff as compare

    found = compare(a, b, maps=maps)
    typer.echo(json.dumps(found.document, indent=2, ensure_ascii=False) if as_json else str(found))

"""Commands on catalogs: list the segments, write a catalog from what lies in a folder or bucket, make a workspace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from inkbatch.cli.options import CatalogFile
from inkbatch.errors import ConfigError


def segments(
    catalog: CatalogFile = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a catalog.")] = False,
    place: Annotated[
        str | None, typer.Option("--from", help="Write a catalog of the segments in this folder or bucket.")
    ] = None,
    depth_order: Annotated[
        Literal["forward", "reversed"] | None,
        typer.Option(help="With --from: depth order of all segments that are not known to be reversed."),
    ] = None,
    volume: Annotated[str | None, typer.Option(help="With --from: volume of a mesh that names none.")] = None,
    layers_count: Annotated[
        int | None, typer.Option(min=1, help="With --from: layers to render (default: 65).")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="With --from: replace the catalog that is there.")] = False,
) -> None:
    """List the segments of the catalog, or write one.

    --from looks through a folder of segments, or the field's open data (a bucket, or a copy of it), and writes
    segments.yaml (or --catalog): layers, labels and masks of each segment, or its mesh and volume, and what is missing.
    A public bucket needs no credentials.
    """
    from inkbatch.data.segments.catalog import Catalog, catalog_schema

    if place is not None:
        _write(place, catalog, depth_order, volume, layers_count, replace)
        return
    given = {"--depth-order": depth_order, "--volume": volume, "--layers-count": layers_count, "--replace": replace}
    if named := next((name for name, value in given.items() if value), None):
        raise ConfigError(f"{named} is for --from; give the folder or bucket of the segments as well")
    if schema:
        typer.echo(json.dumps(catalog_schema(), indent=2))
        return
    for segment, entry in sorted(Catalog.load(catalog).entries.items()):
        typer.echo(f"{segment}\t{entry.source}\t{entry.note or ''}".rstrip())


def _write(
    place: str,
    catalog: str | None,
    depth_order: Literal["forward", "reversed"] | None,
    volume: str | None,
    layers_count: int | None,
    replace: bool,
) -> None:
    from inkbatch.data.segments import catalog_writing as writing
    from inkbatch.data.segments.catalog import CATALOG_NAME

    file = Path(catalog or CATALOG_NAME)
    count = layers_count or writing.LAYERS_BY_CUSTOM
    rows = writing.write_catalog_from(writing.CatalogRequest(place, file, depth_order, volume, count, replace))
    for row in rows:
        typer.echo(row)
    typer.echo(writing.summary(rows, file))


def init(
    folder: Annotated[str, typer.Argument(help="Folder of the workspace.")] = ".",
) -> None:
    """Make a workspace: a folder for a catalog and ROOT.

    Commands find both from any folder inside it. Writes inkbatch.yaml (where ROOT and catalogs are), segments.yaml and
    .gitignore; files that are there are kept.
    """
    from inkbatch.workspace import make_workspace

    for line in make_workspace(Path(folder)):
        typer.echo(line)


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(segments)
    app.command()(init)

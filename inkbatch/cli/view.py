"""The command `inkbatch view`; `register` adds it to an app."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from inkbatch.cli.options import Root, chosen_root
from inkbatch.reports.viewer_links import VIEWER_PORT


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("view")(view)


def view(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SEGMENT|URI…",
            help="Segment ids, or folders and URIs of prepared segments and predictions; without one, what is there "
            "is listed.",
            show_default=False,
        ),
    ] = None,
    root: Root = None,
    port: Annotated[
        int | None, typer.Option(help=f"Port (default: the first free one from {VIEWER_PORT}).", min=0, max=65535)
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond localhost everyone who reaches it can look.")
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A further host name for browsers, for example behind a proxy; repeatable.")
    ] = None,
    memory: Annotated[str, typer.Option(help="Memory for decoded chunks and rendered tiles.")] = "256MiB",
    edit: Annotated[bool, typer.Option("--edit", help="Draw ink labels in the page, stored in ROOT/labels.")] = False,
    version: Annotated[
        str | None, typer.Option(help="Label version to draw into (default: the newest one, else a new one).")
    ] = None,
    author: Annotated[
        str | None, typer.Option(help="Name stored with a new label version (default: the user's).")
    ] = None,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in this machine's browser.")] = False,
) -> None:
    """View segments and predictions in the browser.

    Serves one page on localhost: papyrus layers, predictions over them or side by side, ink labels, depth profiles,
    saved pictures. Reads pyramids from folders or S3 and copies nothing. Unfinished predictions are shown as far as
    they are stored. Ctrl-C ends it.
    """
    from inkbatch.view import command

    if not targets:
        for line in command.there(chosen_root(root) or "root"):
            typer.echo(line)
        return
    command.run(
        targets,
        root=chosen_root(root) or "root",
        host=host,
        port=port,
        first_port=VIEWER_PORT,
        names=tuple(allow_host or ()),
        memory=memory,
        browser=browser,
        say=typer.echo,
        editing=command.Editing(author or getpass.getuser(), version) if edit else None,
    )

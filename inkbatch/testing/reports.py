"""Checks of every report page, and one small run of each job that has a page.

A new page joins by one entry in `MAKERS`; its tests are those of ``tests/reports``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path

from inkbatch.io.store.location import Location
from inkbatch.reports.render import MOST_BYTES
from inkbatch.run.job import RunContext
from inkbatch.steps.infer import job as infer
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.testing import report_runs
from inkbatch.testing.segments import identity_bundle, random_papyrus, write_layers

Maker = Callable[[Path], Location]
VOID = {"meta", "link", "img", "br", "hr"}


def prepared(folder: Path) -> Location:
    """Run `prepare` below `folder`."""
    source = write_layers(folder / "layers", random_papyrus())
    values = {"segment": "tiny", "root": str(folder / "root"), "source": str(source), "shard_px": 64}
    values |= {"depth_order": "forward", "voxel_size_um": 8.0}
    return prepare.run(PrepareConfig.model_validate(values), RunContext()).location


def inferred(folder: Path) -> Location:
    """Run `infer` below `folder`, and the jobs that it needs."""
    prepared(folder)
    identity_bundle(folder / "bundle")
    values = {"segment": "tiny", "root": str(folder / "root"), "bundle": str(folder / "bundle"), "device": "cpu"}
    return infer.run(infer.InferConfig.model_validate({**values, "unit_px": 64}), RunContext()).location


MAKERS: Mapping[str, Maker] = {
    "prepare": prepared,
    "infer": inferred,
    "build-dataset": report_runs.dataset,
    "train": report_runs.trained,
    "soup": report_runs.averaged,
    "ensemble": report_runs.combined,
    "evaluate": report_runs.evaluated,
    "clean": report_runs.cleaned,
    "instances": report_runs.parted,
    "letters": report_runs.read,
    "probe": report_runs.probed,
    "preflight": report_runs.preflighted,
    "sweep": report_runs.swept,
    "round": report_runs.rounded,
}


def faults_of_page(data: bytes) -> list[str]:
    """List the faults of a page: it must carry all it shows, be small, and speak to people who cannot see it."""
    page = _Page()
    page.feed(data.decode())
    page.close()
    found = list(page.faults)
    if len(data) >= MOST_BYTES:
        found.append(f"{len(data):,} bytes")
    if not data.startswith(b"<!doctype html>") or page.open:
        found.append(f"not whole HTML: {page.open} left open")
    found += [f"no {tag}" for tag in ("html", "title", "h1", "main", "figure", "figcaption") if tag not in page.seen]
    return found


class _Page(HTMLParser):
    """Collector of broken promises."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.seen: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Check an element."""
        values = {name: value or "" for name, value in attrs}
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("script", "iframe", "object", "embed", "base"):
            self.faults.append(f"<{tag}>")
        if tag == "html" and not values.get("lang"):
            self.faults.append("no language")
        if tag == "img" and len(values.get("alt", "")) < 10:
            self.faults.append(f"a picture without words: {values.get('alt')!r}")
        if tag == "th" and not values.get("scope"):
            self.faults.append("a table head without scope")
        for name in ("src", "srcset", "data", "poster"):
            if name in values and not values[name].startswith("data:"):
                self.faults.append(f"{tag} {name}={values[name][:60]} is not carried")
        if tag == "link" and not values.get("href", "").startswith("data:"):
            self.faults.append(f"link to {values.get('href')}")
        if "url(" in values.get("style", "") or any(name.startswith("on") for name in values):
            self.faults.append(f"{tag}: a style with an address, or a handler")
        if tag == "a" and values.get("href", "").startswith(("/", "javascript:")):
            self.faults.append(f"a link that only this machine has: {values['href']}")

    def handle_endtag(self, tag: str) -> None:
        """Close an element."""
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> out of place")

    def handle_data(self, data: str) -> None:
        """Check the style sheet."""
        if self.open and self.open[-1] == "style" and ("url(" in data or "@import" in data):
            self.faults.append("the style sheet loads something")

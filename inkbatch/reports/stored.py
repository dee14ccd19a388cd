"""Reading what a run stored, for its page: what is missing (older runs) is None, and the page leaves it out."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import Any

from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.reports.page import Figure, Link, Pixels
from inkbatch.reports.pictures import decoded
from inkbatch.reports.timing import money_text, stops
from inkbatch.run.finished import StoredRun

LONGEST_PX = 2400
ROOMS = ("segments", "datasets", "runs", "probes", "predictions")  # folders of ROOT
RERUN = "inkbatch rerun manifest.json --root ANOTHER_ROOT"  # in the page's folder


def document(place: Location) -> dict[str, Any] | None:
    """A JSON document."""
    try:
        found = place.read_json()
    except FileNotFoundError:
        return None
    return found if isinstance(found, dict) else None


def table(place: Location) -> list[dict[str, str]]:
    """Rows of a CSV file; none where there is no file."""
    try:
        text = place.read_bytes().decode()
    except FileNotFoundError:
        return []
    return list(csv.DictReader(text.splitlines()))


def number(text: str | float | None) -> float:
    """A value as a number; NaN where there is none."""
    return float("nan") if text is None or text == "" else float(text)


def pixels(place: Location) -> Pixels | None:
    """A stored picture: (Y, X) grey, or (Y, X, 3) red, green, blue.

    Raises:
        CorruptDataError: It is damaged.
    """
    try:
        return decoded(place, LONGEST_PX)
    except FileNotFoundError:
        return None


def pixel_um(array: Location) -> float | None:
    """Edge of a pixel of a stored map in micrometres."""
    if not (array / "zarr.json").exists():
        return None
    return Multiscale.open(array).pixel_um()


def links(folder: Location, named: Sequence[tuple[str, str]]) -> tuple[Link, ...]:
    """Links to the files and folders that are there, of (name, what it is)."""
    there = set(folder.names())
    return tuple(Link(name, name, note) for name, note in named if name.split("/")[0] in there)


def below(folder: Location, root: Location) -> str:
    """A folder as a command names it: with ``ROOT`` where it lies in ROOT."""
    inside = folder.uri.removeprefix(f"{root.uri.rstrip('/')}/")
    return f"ROOT/{inside}" if inside != folder.uri else str(folder)


def up_to(folder: Location, root: Location) -> str | None:
    """The way from a folder to ROOT, as a link starts: ``../../``; None where it lies elsewhere."""
    inside = folder.uri.removeprefix(f"{root.uri.rstrip('/')}/")
    return None if inside == folder.uri else "../" * (inside.count("/") + 1)


def shown(value: float | None, digits: int = 3) -> str:
    """A score for people; a dash where there is none."""
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def money(run: StoredRun) -> tuple[Figure, ...]:
    """The key figure of what a run cost, where a price was stated."""
    found = money_text(run.rows)
    return (Figure(found, "money"),) if found else ()


def interruptions(run: StoredRun) -> tuple[str, ...]:
    """What is said of processes that were stopped."""
    return tuple(f"A process stopped before its part was done: {why}. Later ones went on." for why in stops(run.rows))


def root_of(folder: Location) -> Location:
    """Find ROOT of a run's folder: what lies above ``segments``, ``predictions``, …; else the folder's own parent."""
    place = folder
    while place.parent.uri != place.uri:
        if place.name in ROOMS:
            return place.parent
        place = place.parent
    return folder.parent

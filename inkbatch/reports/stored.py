"""Reading what a run stored, for its page: what is missing (older runs) is None, and the page leaves it out."""

from __future__ import annotations

import csv
from collections.abc import Sequence

from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.reports.page import Figure, Link, Pixels
from inkbatch.reports.pictures import decoded
from inkbatch.reports.timing import money_text, stops
from inkbatch.run.finished import StoredRun

LONGEST_PX = 2400
ROOMS = (
    "segments",
    "datasets",
    "runs",
    "preflights",
    "probes",
    "predictions",
    "sweeps",
    "instances",
    "rounds",
)  # folders of ROOT
RERUN = "inkbatch rerun manifest.json --root ANOTHER_ROOT"  # in the page's folder


def table(place: Location) -> list[dict[str, str]]:
    """Read the rows of a CSV file; none if there is no file."""
    try:
        text = place.read_bytes().decode()
    except FileNotFoundError:
        return []
    return list(csv.DictReader(text.splitlines()))


def number(text: str | float | None) -> float:
    """Convert a value to a number; NaN if there is none."""
    return float("nan") if text is None or text == "" else float(text)


def pixels(place: Location) -> Pixels | None:
    """Read a stored picture: (Y, X) grey, or (Y, X, 3) red, green, blue; None if there is none.

    Raises:
        CorruptDataError: It is damaged.
    """
    try:
        return decoded(place, LONGEST_PX)
    except FileNotFoundError:
        return None


def pixel_um(array: Location) -> float | None:
    """Read the edge of a pixel of a stored map, in micrometres; None if there is no map."""
    if not (array / "zarr.json").exists():
        return None
    return Multiscale.open(array).pixel_um()


def links(folder: Location, named: Sequence[tuple[str, str]]) -> tuple[Link, ...]:
    """Link the files and folders that exist, of (name, what it is)."""
    there = set(folder.names())
    return tuple(Link(name, name, note) for name, note in named if name.split("/")[0] in there)


def below(folder: Location, root: Location) -> str:
    """Name a folder as commands do: with ``ROOT`` where it lies in ROOT."""
    inside = folder.uri.removeprefix(f"{root.uri.rstrip('/')}/")
    return f"ROOT/{inside}" if inside != folder.uri else str(folder)


def up_to(folder: Location, root: Location) -> str | None:
    """Return the start of a link from a folder to ROOT, ``../../``; None if it lies elsewhere."""
    inside = folder.uri.removeprefix(f"{root.uri.rstrip('/')}/")
    return None if inside == folder.uri else "../" * (inside.count("/") + 1)


def shown(value: float | None, digits: int = 3) -> str:
    """Format a score for people; a dash if there is none."""
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def money(run: StoredRun) -> tuple[Figure, ...]:
    """Return the key figure of a run's cost; empty if no price was stated."""
    found = money_text(run.rows)
    return (Figure(found, "money"),) if found else ()


def interruptions(run: StoredRun) -> tuple[str, ...]:
    """Report the processes that were stopped early."""
    return tuple(f"A process stopped before its part was done: {why}. Later ones went on." for why in stops(run.rows))


def bundle_warnings(run: StoredRun) -> tuple[str, ...]:
    """Repeat what the import of a bundle warned of."""
    texts = run.manifest["inputs"].get("warnings", ())
    return tuple(f"The bundle was imported with a warning: {text}." for text in texts)


def root_of(folder: Location) -> Location:
    """Find ROOT of a run's folder: what lies above ``segments``, ``predictions``, …; else the folder's own parent."""
    place = folder
    while place.parent.uri != place.uri:
        if place.name in ROOMS:
            return place.parent
        place = place.parent
    return folder.parent

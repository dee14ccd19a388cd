"""How far a segment is, by its manifests and markers: the truth, whatever a scheduler remembers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inkbatch.data.catalog import check_segment_id
from inkbatch.io.storage import Location

MARKER_DIGEST_CHARS = 12


@dataclass(frozen=True)
class Progress:
    """One run's folder.

    Attributes:
        what: ``prepare``, or ``prediction NAME``.
        folder: Where it lies.
        done: Units with a marker.
        units: Units of the plan.
        complete: Whether ``complete.json`` stands for this very manifest.
    """

    what: str
    folder: Location
    done: int
    units: int
    complete: bool

    def __str__(self) -> str:
        state = "complete" if self.complete else f"{self.done} of {self.units} units, not finished yet"
        return f"{self.what}: {state} · {self.folder}"


def progress_of(what: str, folder: Location) -> Progress | None:
    """Progress of the run in `folder`; None where there is no manifest."""
    manifest = _json(folder / "manifest.json")
    if manifest is None:
        return None
    run_digest = str(manifest.get("digest", ""))
    prefix = f"{run_digest[:MARKER_DIGEST_CHARS]}-"
    done = sum(name.startswith(prefix) for name in (folder / "done").names())
    complete = _json(folder / "complete.json") or {}
    return Progress(what, folder, done, int(manifest.get("units", 0)), complete.get("digest") == run_digest)


def segment_progress(root: str, segment: str) -> list[Progress]:
    """Progress of everything that is stored of a segment: its preparation, then its predictions by name."""
    base = Location.parse(root)
    check_segment_id(segment)
    places = [("prepare", base / "segments" / segment / "prepare")]
    places += [(f"prediction {name}", folder) for name, folder in predictions_of(root, segment)]
    return [found for what, folder in places if (found := progress_of(what, folder)) is not None]


def predictions_of(root: str, segment: str) -> list[tuple[str, Location]]:
    """Names and folders of a segment's predictions, finished or not."""
    folder = Location.parse(root) / "predictions" / check_segment_id(segment)
    return [(name, folder / name) for name in folder.names()]


def _json(place: Location) -> dict[str, Any] | None:
    try:
        found = place.read_json()
    except FileNotFoundError:
        return None
    return found if isinstance(found, dict) else None

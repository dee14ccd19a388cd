"""`inkbatch diff`: what differs between two runs, and by how much their maps do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.run.finished import StoredRun, open_run
from inkbatch.run.states import differences
from inkbatch.steps.provenance.map_difference import MapDifference, compare_maps

GROUPS = ("job", "config", "code", "data", "bundle", "device", "asked")
BUNDLE_INPUTS = ("bundle", "weights_sha256", "architecture", "model")
CODE_KEYS = ("inkbatch", "code_sha256", "python", "packages")
DEVICE_KEYS = ("device", "device_name", "precision", "processor", "cores", "system", "machine")
SHOWN_CHARS = 72


@dataclass(frozen=True)
class RunDifference:
    """Two runs side by side.

    Attributes:
        folders: Their folders.
        groups: For each of `GROUPS` the rows ``(key, value in A, value in B)`` that differ; what differs in ``asked``
            alone (device, memory, places of inputs) does not make another run.
        maps: How the maps differ, or None where they were not compared.
        maps_note: Why not.
    """

    folders: tuple[str, str]
    groups: Mapping[str, list[tuple[str, Any, Any]]]
    maps: MapDifference | None
    maps_note: str

    @property
    def document(self) -> dict[str, Any]:
        """Comparison as JSON."""
        groups = {
            name: [{"key": key, "a": one, "b": other} for key, one, other in rows] for name, rows in self.groups.items()
        }
        return {
            "a": self.folders[0],
            "b": self.folders[1],
            "differences": groups,
            "maps": asdict(self.maps) if self.maps else None,
            "maps_note": self.maps_note,
        }

    def __str__(self) -> str:
        lines = [f"A {self.folders[0]}", f"B {self.folders[1]}"]
        for name in GROUPS:
            rows = self.groups[name]
            lines.append(f"{name:8}{'' if rows else 'the same'}".rstrip())
            lines += [f"  {key}: A {_short(one)}, B {_short(other)}" for key, one, other in rows]
        lines.append(f"{'maps':8}{self.maps or self.maps_note}")
        return "\n".join(lines)


def diff(one: str, other: str, *, maps: bool = True) -> RunDifference:
    """Compare two runs.

    Args:
        one: A run's ``manifest.json`` or folder.
        other: The other's.
        maps: Read and compare the maps, too.

    Raises:
        DataError: One of them is no run; a map is damaged.
    """
    a, b = open_run(one), open_run(other)
    found, note = _maps(a, b) if maps else (None, "not compared, as was asked for")
    return RunDifference((str(a.folder), str(b.folder)), _groups(a, b), found, note)


def _groups(a: StoredRun, b: StoredRun) -> dict[str, list[tuple[str, Any, Any]]]:
    groups: dict[str, list[tuple[str, Any, Any]]] = {name: [] for name in GROUPS}
    for row in differences(a.manifest, b.manifest):
        groups[_group_of(row[0])].append(row)
    for name, keys in (("code", CODE_KEYS), ("device", DEVICE_KEYS)):
        listed = {key for key, _, _ in groups[name]}
        groups[name] += [row for row in differences(_said(a, keys), _said(b, keys)) if row[0] not in listed]
    groups["asked"] = differences(a.manifest.get("request", {}), b.manifest.get("request", {}))
    return groups


def _group_of(key: str) -> str:
    top, _, rest = key.partition(".")
    name = rest.split(".", 1)[0]
    if top == "inkbatch":
        return "code"
    if top == "config":
        return "bundle" if name == "contract" else "config"
    if top == "inputs":
        return "bundle" if name in BUNDLE_INPUTS else "data"
    return "job"


def _said(run: StoredRun, keys: tuple[str, ...]) -> dict[str, Any]:
    """List what the run's processes say of these keys; different values are all listed."""
    found: dict[str, Any] = {}
    for key in keys:
        values: list[Any] = []
        for row in run.rows:
            if key in row and row[key] not in values:
                values.append(row[key])
        if values:
            found[key] = values[0] if len(values) == 1 else values
    return found


def _maps(a: StoredRun, b: StoredRun) -> tuple[MapDifference | None, str]:
    for name, run in (("A", a), ("B", b)):
        if not run.complete:
            return None, f"not compared: {name} is incomplete"
    places: list[Location] = []
    for name, run in (("A", a), ("B", b)):
        place = run.map_place
        if place is None:
            return None, f"not compared: {name} ({run.job}) has no map"
        places.append(place)
    one, other = (Multiscale.open(place) for place in places)
    if one.shape != other.shape:
        return None, f"not compared: A is {one.shape}, B is {other.shape}"
    return compare_maps(one, other), ""


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 1]}…"

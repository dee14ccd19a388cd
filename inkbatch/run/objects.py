"""Objects of a run: those that its markers name, and whether they are still there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from inkbatch.config import digest
from inkbatch.documents import parse_json
from inkbatch.errors import CorruptDataError, StorageError
from inkbatch.geometry import Unit
from inkbatch.io.store.ledger import Ledger, below, whole_checksum
from inkbatch.io.store.listing import objects_below
from inkbatch.io.store.location import Location
from inkbatch.run.record import BESIDE, DIGEST_CHARS, RunFolder

Row = Sequence[Any]  # [bytes, checksum]
Rows = dict[str, Row]  # by path in the run's base

_INSIDE_ARRAY = "/c/"
_METADATA = "zarr.json"


def rows_of(marker: Mapping[str, Any] | None) -> Rows | None:
    """Return the objects that a marker names; None where an older version wrote it, or there is none."""
    found = (marker or {}).get("objects")
    return dict(found) if isinstance(found, dict) else None


def broken_units(run: RunFolder, units: Sequence[Unit]) -> dict[Unit, str]:
    """Find the units whose marker stands although an object is missing, empty or cut; one listing per array.

    A unit of a run by an older version, whose markers name no objects, counts as whole.

    Args:
        run: The run.
        units: Units that have a marker, or should have one.

    Returns:
        What is wrong, by unit.
    """
    markers = run.markers(units)
    named = {unit: rows_of(markers[unit.name]) for unit in units}
    there = _Sizes(run.base, (path for rows in named.values() for path in rows or ()))
    broken: dict[Unit, str] = {}
    for unit, rows in named.items():
        fault = "its marker is damaged" if markers[unit.name] is None else there.fault_of(rows or {})
        if fault:
            broken[unit] = fault
    return broken


def sealed(run: RunFolder, units: Sequence[Unit], ledger: Ledger) -> dict[str, Any]:
    """Collect what ``complete.json`` says of stored objects.

    Args:
        run: The run.
        units: The whole plan; every unit has its marker.
        ledger: What the end of the job stored.

    Returns:
        ``content``, a digest of all that the units stored, and ``files``: objects beside these. Nothing where older
        markers do not say what their units stored.

    Raises:
        CorruptDataError: Metadata of an array are no JSON: a process that was killed, or a stray hand, cut them.
    """
    markers = run.markers(units)
    named = [rows_of(markers[unit.name]) for unit in units]
    if any(rows is None for rows in named):
        return {}
    rows = {path: list(row) for part in named for path, row in (part or {}).items()}
    files = below(ledger, run.base.uri)
    for path in metadata_of([*rows, *files]):
        data = (run.base / path).read_bytes()
        parse_json(data, str(run.base / path), CorruptDataError)
        files[path] = [len(data), whole_checksum(data)]
    content = rows or {path: row for path, row in files.items() if not path.endswith(f"/{_METADATA}")}
    return {"content": digest(content), "files": dict(sorted(files.items()))}


def sealed_files(base: Location, ledger: Ledger, others: Iterable[str]) -> dict[str, Any]:
    """Collect what ``complete.json`` says of a run without units: its files, and a digest of them.

    Args:
        base: The run's folder.
        ledger: What this process stored at its end.
        others: Paths of further files, which are read again: earlier processes may have written them.
    """
    files = below(ledger, base.uri)
    for path in others:
        data = (base / path).read_bytes()
        files[path] = [len(data), whole_checksum(data)]
    files = dict(sorted(files.items()))
    return {"content": digest(files), "files": files}


def lost_files(run: RunFolder) -> dict[str, str]:
    """Find what ``complete.json`` names and is not there in its size, by path: what is wrong; one listing per folder.

    A run by an older version, which names no files, has lost none.
    """
    files: Rows = dict((run.location / "complete.json").read_mapping().get("files") or {})
    there = _Sizes(run.base, files)
    faults = {path: there.fault_of({path: row}, repair=False) for path, row in files.items()}
    return {path: fault for path, fault in faults.items() if fault}


def reopened(
    run: RunFolder, job: str, note: Callable[[str], None], made_once: Callable[[str], bool] = lambda path: False
) -> bool:
    """Take ``complete.json`` from a run whose files are gone or cut, so that it is completed again.

    Metadata of arrays that are cut go, too: the end of a job takes those that are there for its own and seals them.
    So do cut files that no later call makes again.

    Args:
        run: A complete run.
        job: Its job, for the words.
        note: Is told which files are lost.
        made_once: Tells of a path in the run's folder if only the work itself, long done, could make it again.
    """
    lost = lost_files(run)
    if not lost:
        return False
    note(f"{job}: {run.location} must be completed again: {next(iter(lost.values()))}")
    (run.location / "complete.json").delete()
    for path in lost:
        if path.rpartition("/")[2] == _METADATA or made_once(path):
            (run.base / path).delete()
        if made_once(path):
            note(f"{job}: {path} is lost; only the whole job could make it again, so the run is completed without it")
    return True


def metadata_of(paths: Iterable[str]) -> list[str]:
    """List the metadata objects of the zarr arrays, and of their groups, that some shards belong to."""
    arrays = {path.partition(_INSIDE_ARRAY)[0] for path in paths if _INSIDE_ARRAY in path}
    groups = {array.rpartition("/")[0] for array in arrays} - {""}
    return sorted(f"{folder}/{_METADATA}" for folder in arrays | groups)


def named_objects(folder: Location) -> list[Rows]:
    """Read what the markers of a stored run name, unit by unit.

    Args:
        folder: The run's folder. A run that is not there, or whose markers an older version wrote, names nothing.

    Raises:
        StorageError: The listing shows some of a complete run's markers and not all.
    """
    try:
        manifest = (folder / "manifest.json").read_json()
    except FileNotFoundError:
        return []
    prefix = f"{manifest['digest'][:DIGEST_CHARS]}-"
    names = [name for name in (folder / "done").names() if name.startswith(prefix)]
    if 0 < len(names) < int(manifest.get("units", 0)) and (folder / "complete.json").exists():
        raise StorageError(
            f"{folder}: the listing shows {len(names)} markers of {manifest['units']} units although the run is "
            "complete; a listing may lag behind: run the same command again, or inkbatch verify if this stays"
        )
    return [rows_of((folder / "done" / name).read_json()) or {} for name in names]


def holes_of(folder: Location, named: Sequence[Rows]) -> list[str]:
    """List what the markers of a stored run name and is not there: one line per unit.

    Args:
        folder: The run's folder.
        named: From `named_objects`.
    """
    job = (folder / "manifest.json").read_mapping().get("job") if named else None
    there = _Sizes(folder.parent if job in BESIDE else folder, (path for rows in named for path in rows))
    return [fault for fault in (there.fault_of(rows, repair=False) for rows in named) if fault]


class _Sizes:
    """Sizes of stored objects, from one listing of each folder; what it lacks is asked for by name.

    A listing may lag behind what was just stored.
    """

    def __init__(self, base: Location, paths: Iterable[str]) -> None:
        self._base = base
        self._sizes: dict[str, int | None] = {}
        tops = {path.split("/", 1)[0] if "/" in path else "" for path in paths}
        for top in sorted(tops):
            if top:
                self._sizes |= {f"{top}/{row.path}": row.bytes for row in objects_below(base / top)}
            else:
                self._sizes |= dict(base.sizes())

    def fault_of(self, rows: Rows, *, repair: bool = True) -> str:
        """Say what is wrong with a unit's objects; an empty text where nothing is.

        Args:
            rows: The objects.
            repair: Remove empty metadata, which would be refused as damage and not written again.
        """
        for path, (size, _) in rows.items():
            found = self._size(path, int(size))
            if found != size:
                return f"{path} is missing" if found is None else f"{path}: expected {size} bytes, got {found}"
        gone = [path for path in metadata_of(rows) if not self._size(path, None)]
        for path in gone if repair else ():
            (self._base / path).delete()
        return f"{gone[0]} is missing" if gone else ""

    def _size(self, path: str, expected: int | None) -> int | None:
        found = self._sizes.get(path)
        if found is None or (expected is not None and found != expected):
            try:
                found = (self._base / path).size()
            except FileNotFoundError:
                found = None
            self._sizes[path] = found
        return found

"""`inkbatch verify`: compare every object of a run with what was written, in bounded memory, on any store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import google_crc32c

from inkbatch.config import digest
from inkbatch.errors import CorruptDataError, DataError
from inkbatch.io.shards.array import ShardedArray
from inkbatch.io.shards.checking import READ_BYTES, checked_shard
from inkbatch.io.store.ledger import WHOLE
from inkbatch.io.store.listing import objects_below
from inkbatch.io.store.location import Location
from inkbatch.run.finished import MANIFEST_NAME, StoredRun, open_run
from inkbatch.run.objects import Row, Rows, rows_of
from inkbatch.run.record import DIGEST_CHARS
from inkbatch.text import bytes_text, count_text

AT_ONCE = 4  # objects; each holds `READ_BYTES`
SHOWN = 10  # faults in a message

_INSIDE_ARRAY = "/c/"


@dataclass
class Verification:
    """Result of a check.

    Attributes:
        runs: Runs that were checked.
        objects: Objects that were read.
        bytes: Their size.
        faults: What is wrong, one line each.
        notes: What could not be compared: runs that are not complete, or that an older version made.
    """

    runs: int = 0
    objects: int = 0
    bytes: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        objects, runs = count_text(self.objects, "object"), count_text(self.runs, "run")
        state = f"{len(self.faults)} damaged" if self.faults else "all as they were written"
        return "\n".join([f"verify: {runs}, {objects}, {bytes_text(self.bytes)}: {state}", *self.notes])

    def require_sound(self) -> None:
        """Refuse damage.

        Raises:
            DataError: Some object is not what was written; the objects are named.
        """
        if self.faults:
            more = f"\n  and {len(self.faults) - SHOWN} more" if len(self.faults) > SHOWN else ""
            rows = "\n  ".join(self.faults[:SHOWN])
            raise DataError(
                f"verify: {len(self.faults)} of {self.objects} objects are not what was written:\n  {rows}{more}\n"
                "delete them and run the job that made them again, which makes what is missing, or copy them again"
            )


def verify(place: str, note: Callable[[str], None] = lambda text: None) -> Verification:
    """Read every object of a run and of all runs below it, or of all runs below a folder.

    Args:
        place: A run's folder or manifest, or a folder with runs below it, such as a ROOT.
        note: Is told each run before it is read.

    Raises:
        DataError: There is no run.
    """
    found = Verification()
    for run in _runs(place):
        note(f"verify: {run.job} at {run.folder}")
        _check(run, found)
    return found


def _runs(place: str) -> Iterator[StoredRun]:
    """Open a run, if there is one at the place, then those below it: earlier passes of a job have runs of their own."""
    refusal: DataError | None = None
    folder = Location.parse(place)
    try:
        here = open_run(place)
        folder = here.folder
        yield here
    except DataError as error:
        refusal = error
    manifests = [row.path for row in objects_below(folder) if row.path.endswith(f"/{MANIFEST_NAME}")]
    if refusal and not manifests:
        raise refusal
    for path in manifests:
        yield open_run(str((folder / path).parent))


def _check(run: StoredRun, found: Verification) -> None:
    found.runs += 1
    base = run.base
    complete = _complete(run)
    expected, units = _named(run)
    files: Rows = dict(complete.get("files", {}))
    content = complete.get("content")
    if not run.complete:
        found.notes.append(f"  {run.folder}: not complete, {count_text(units, 'unit')} compared")
    elif not expected and not content:
        found.notes.append(f"  {run.folder}: does not say what it stored; only checksums inside its arrays were tested")
    elif 0 < units < int(run.manifest["units"]):
        found.faults.append(f"{run.folder}: {count_text(int(run.manifest['units']) - units, 'unit')} without a marker")
    paths = [*expected, *files] if expected else [*_stored(run), *files]
    named: Rows = {**expected, **files}
    read = _read_all(base, paths, named, found)
    for path, row in named.items():
        if path in read and list(read[path]) != list(row):
            found.faults.append(
                f"{base / path}: expected {row[0]} bytes, {row[1]}, got {read[path][0]}, {read[path][1]}"
            )
    if run.complete and content and content not in map(digest, _contents(expected or read, files)):
        found.faults.append(f"{run.folder}: its content is not the one that complete.json states")


def _contents(rows: Mapping[str, Row], files: Rows) -> list[dict[str, list[Any]]]:
    """Return what the content's digest may be of: units' objects, or files, see `sealed` and `sealed_files`."""
    own = {path: list(row) for path, row in rows.items() if path not in files}
    every = {path: list(row) for path, row in files.items()}
    return [own] if own else [{path: row for path, row in every.items() if not path.endswith("/zarr.json")}, every]


def _complete(run: StoredRun) -> dict[str, Any]:
    if not run.complete:
        return {}
    found: dict[str, Any] = (run.folder / "complete.json").read_json()
    return found


def _named(run: StoredRun) -> tuple[Rows, int]:
    """Return the objects that the markers of a run name, and the number of markers."""
    rows: Rows = {}
    names = [
        name for name in (run.folder / "done").names() if name.startswith(f"{run.manifest['digest'][:DIGEST_CHARS]}-")
    ]
    for name in names:
        rows |= rows_of((run.folder / "done" / name).read_json()) or {}
    return rows, len(names)


def _stored(run: StoredRun) -> list[str]:
    """List the shards of a run that has no markers, or older ones."""
    found = []
    for place in run.outputs:
        inside = "" if place == run.base else f"{place.uri.removeprefix(run.base.uri).lstrip('/')}/"
        found += [f"{inside}{row.path}" for row in objects_below(place) if _INSIDE_ARRAY in f"/{row.path}"]
    return [path for path in found if ".zarr/" in path]


def _read_all(base: Location, paths: list[str], named: Rows, found: Verification) -> dict[str, Row]:
    arrays: dict[str, ShardedArray] = {}
    for array in sorted({path.partition(_INSIDE_ARRAY)[0] for path in paths if _INSIDE_ARRAY in path}):
        try:
            arrays[array] = ShardedArray.open(base / array)
        except (DataError, FileNotFoundError) as error:
            found.faults.append(str(error))
    read: dict[str, Row] = {}
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="inkbatch-verify") as pool:
        for path, row in zip(paths, pool.map(partial(_read, base, arrays, named), paths), strict=True):
            found.objects += 1
            if isinstance(row, str):
                found.faults.append(row)
                continue
            found.bytes += int(row[0])
            read[path] = row
    return read


def _read(base: Location, arrays: Mapping[str, ShardedArray], named: Rows, path: str) -> Row | str:
    """Return size and checksum of an object, or its fault; what is not as it was written is read once more.

    A network may have cut or flipped it.
    """
    found = _read_once(base, arrays, path)
    if not base.is_local and (isinstance(found, str) or list(found) != list(named.get(path, found))):
        found = _read_once(base, arrays, path)
    return found


def _read_once(base: Location, arrays: Mapping[str, ShardedArray], path: str) -> Row | str:
    array, inside, _ = path.partition(_INSIDE_ARRAY)
    place = base / path
    try:
        if inside and array in arrays:
            return list(checked_shard(place, arrays[array].layout))
        return list(_whole(place))
    except FileNotFoundError:
        return f"{place}: is missing"
    except CorruptDataError as error:
        return str(error)


def _whole(place: Location) -> tuple[int, str]:
    size, total = place.size(), 0
    for start in range(0, size, READ_BYTES):
        total = google_crc32c.extend(total, place.read_range(start, min(size, start + READ_BYTES)))
    return size, f"{WHOLE}{total:08x}"

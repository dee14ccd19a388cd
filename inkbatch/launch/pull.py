"""Copy finished predictions from ROOT to this machine: only new files, checked by size and digest, resumable."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inkbatch.config import digest
from inkbatch.errors import ConfigError, CorruptDataError, DataError
from inkbatch.io.shards.array import ShardedArray
from inkbatch.io.store.listing import StoredObject, objects_below, stored_object
from inkbatch.io.store.location import Location
from inkbatch.launch.progress import Progress, predictions_of, progress_of
from inkbatch.run.objects import holes_of, named_objects
from inkbatch.text import count_text

STATE = ".pulled.json"  # in the target folder: size, version and SHA-256 of each file that was checked
LAST = ("manifest.json", "complete.json")  # a folder without complete.json is a partial one, here as under ROOT
MD5_MISMATCHES = "its MD5 differs from the store's"


@dataclass
class PullReport:
    """Result of a pull.

    Attributes:
        finished: Folders of the finished predictions on this machine.
        unfinished: Predictions that are not complete.
        fetched: Files that were copied.
        fetched_bytes: Their bytes.
        kept: Files that were already here.
    """

    finished: list[Path] = field(default_factory=list)
    unfinished: list[Progress] = field(default_factory=list)
    fetched: int = 0
    fetched_bytes: int = 0
    kept: int = 0


@dataclass(frozen=True)
class Transfer:
    """Copy files from a store to this machine.

    Attributes:
        threads: Files at once.
        piece_bytes: Bytes per request; a copy that was killed continues at the last whole piece.
        note_every_s: Seconds between two writes of the list of checked files, so that a killed pull forgets little.
    """

    threads: int = 8
    piece_bytes: int = 32 << 20
    note_every_s: float = 2.0

    def fetch(self, source: Location, row: StoredObject, path: Path) -> None:
        """Copy one object to `path`, in pieces, under a name of its version until it is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{digest([row.version, row.bytes])[:8]}.part")
        if row.md5 is None and not source.is_local and row.bytes <= self.piece_bytes:
            part.write_bytes(source.read_bytes())  # the listing states no digest; the answer may
            os.replace(part, path)
            return
        with open(part, "ab") as file:
            for start in range(file.tell(), row.bytes, self.piece_bytes):
                file.write(source.read_range(start, min(start + self.piece_bytes, row.bytes)))
                file.flush()
        os.replace(part, path)


def pull(root: str, segment: str, to: Path, names: Iterable[str] = (), transfer: Transfer | None = None) -> PullReport:
    """Copy a segment's finished predictions below `to`, as ``predictions/{segment}/{name}``.

    Markers, logs and half-written files are left out. A file that is here with the recorded digest is not read again
    unless its stored version has changed.

    Args:
        root: ROOT.
        segment: Segment id.
        to: Folder on this machine; it can be used as ROOT by the commands that only read.
        names: Predictions; none takes all.
        transfer: Copies the files; None takes `Transfer`.

    Raises:
        DataError: There is no such prediction, or objects of it are missing.
        CorruptDataError: A file arrived damaged twice.
    """
    if Location.parse(root).uri == Location.parse(to).uri:
        raise ConfigError(f"pull: {to} is ROOT itself; choose another folder with --to")
    found = dict(predictions_of(root, segment))
    chosen = list(names) or sorted(found)
    unknown = [name for name in chosen if name not in found]
    if unknown or not found:
        there = f"there are {', '.join(sorted(found))}" if found else "there is none; run inkbatch infer first"
        raise DataError(f"segment {segment}: no prediction {', '.join(unknown) or 'at all'} under {root} ({there})")
    report = PullReport()
    for name in chosen:
        progress = progress_of(f"prediction {name}", found[name])
        if progress is None:
            continue
        if not progress.complete:
            report.unfinished.append(progress)
            continue
        named = named_objects(found[name])
        holes = holes_of(found[name], named)
        if holes:
            raise DataError(
                f"prediction {segment}/{name}: {count_text(len(holes), 'unit')} of it lost objects "
                f"({holes[0]}); run the job that made it again, which does these units once more, then pull"
            )
        target = to / "predictions" / segment / name
        paths = {path for rows in named for path in rows}
        _Folder(found[name], target, transfer or Transfer()).pull(report, paths)
        report.finished.append(target)
    return report


class _Folder:
    """One prediction that is copied."""

    def __init__(self, source: Location, target: Path, transfer: Transfer) -> None:
        self.source, self.target, self.transfer = source, target, transfer
        self.state: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError, DataError):
            self.state = Location.parse(target / STATE).read_mapping()
        self._noting, self._noted = threading.Lock(), time.monotonic()

    def pull(self, report: PullReport, named: Iterable[str]) -> None:
        """Copy what is new; the files that say "complete" come last.

        Args:
            report: Is told what was copied.
            named: Objects that must be there, whether the listing shows them or not: it may lag behind.
        """
        rows = [row for row in objects_below(self.source) if _is_result(row.path)]
        files = (self.source / "complete.json").read_mapping().get("files", {})
        rows += [
            stored_object(self.source, path) for path in sorted({*named, *files, *LAST} - {row.path for row in rows})
        ]
        first = [row for row in rows if row.path not in LAST]
        last = sorted((row for row in rows if row.path in LAST), key=lambda row: LAST.index(row.path))
        if any(not self._is_here(row) for row in rows):
            (self.target / "complete.json").unlink(missing_ok=True)
        try:
            with ThreadPoolExecutor(self.transfer.threads, thread_name_prefix="inkbatch-pull") as pool:
                for fetched in pool.map(self._bring, first):
                    _count(report, fetched)
            for row in last:
                _count(report, self._bring(row))
        finally:
            self._note()

    def _note(self) -> None:
        Location.parse(self.target / STATE).write_json(dict(self.state))
        self._noted = time.monotonic()

    def _bring(self, row: StoredObject) -> int | None:
        """Copy a file; return its bytes, or None if it was already here."""
        if self._is_here(row):
            return None
        for attempt in (1, 2):
            self.transfer.fetch(self.source / row.path, row, self.target / row.path)
            fault = self._fault(row)
            if fault is None:
                break
            (self.target / row.path).unlink()
            if attempt == 2:
                raise CorruptDataError(f"{self.source / row.path}: arrived damaged twice: {fault}; run infer again")
        sha256 = _hashed(self.target / row.path, "sha256")
        with self._noting:  # in the thread that copied the file, so that it waits for no larger one
            self.state[row.path] = {"bytes": row.bytes, "version": row.version, "sha256": sha256}
            if time.monotonic() - self._noted >= self.transfer.note_every_s:
                self._note()
        return row.bytes

    def _is_here(self, row: StoredObject) -> bool:
        known, path = self.state.get(row.path), self.target / row.path
        if not known or not row.version or known["version"] != row.version or not path.is_file():
            return False
        return bool(path.stat().st_size == row.bytes and _hashed(path, "sha256") == known["sha256"])

    def _fault(self, row: StoredObject) -> str | None:
        """Check a copied file by its size, the store's digest and the checksums of a zarr shard; return its fault."""
        path = self.target / row.path
        if path.stat().st_size != row.bytes:
            return f"expected {row.bytes} bytes, got {path.stat().st_size}"
        if row.md5 is not None and _hashed(path, "md5") != row.md5:
            return MD5_MISMATCHES
        array, found, place = row.path.partition("/c/")
        if not found or ".zarr/" not in row.path:
            return None
        try:
            _check_shard(self.source / array, Location.parse(self.target / array), place)
        except CorruptDataError as error:
            return str(error)
        return None


def _check_shard(described: Location, array: Location, place: str) -> None:
    """Decode one zarr shard of the local copy, which checks the checksum of every chunk."""
    layout = ShardedArray.open(described).layout
    coordinates = [int(part) for part in place.split("/")]
    region = [
        slice(c * shard, min((c + 1) * shard, size))
        for c, shard, size in zip(coordinates, layout.shards, layout.shape, strict=True)
    ]
    ShardedArray(array, layout).read(region)


def _is_result(path: str) -> bool:
    """Tell files of the result from those of the work on it."""
    folder, _, rest = path.partition("/")
    if rest:
        return folder not in ("done", "logs", "scratch", "tmp") and not folder.startswith(".")
    return not (path.startswith(".") or path.endswith((".partial", ".tmp")))


def _count(report: PullReport, fetched: int | None) -> None:
    if fetched is None:
        report.kept += 1
    else:
        report.fetched += 1
        report.fetched_bytes += fetched


def _hashed(path: Path, method: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, method).hexdigest()

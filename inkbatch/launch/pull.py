"""Finished predictions come back from ROOT: only what is new, checked by size and digest, resumable."""

from __future__ import annotations

import contextlib
import hashlib
import json
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
from inkbatch.io.store.listing import StoredObject, objects_below
from inkbatch.io.store.location import Location
from inkbatch.launch.progress import Progress, predictions_of, progress_of

STATE = ".pulled.json"  # in the target folder: size, version and SHA-256 of each file that was checked
PIECE_BYTES = 32 << 20
THREADS = 8
NOTE_EVERY_S = 2.0  # what came is noted that often, so that a killed pull forgets little
LAST = ("manifest.json", "complete.json")  # a folder without complete.json is a partial one, here as under ROOT
MD5_MISMATCHES = "its MD5 is not the one that the store states"


@dataclass
class PullReport:
    """What a pull did.

    Attributes:
        finished: Folders of the finished predictions on this machine.
        unfinished: Predictions that are not complete.
        fetched: Files that were copied.
        fetched_bytes: Their bytes.
        kept: Files that were here already.
    """

    finished: list[Path] = field(default_factory=list)
    unfinished: list[Progress] = field(default_factory=list)
    fetched: int = 0
    fetched_bytes: int = 0
    kept: int = 0


def pull(root: str, segment: str, to: Path, names: Iterable[str] = ()) -> PullReport:
    """Copy a segment's finished predictions below `to`, as ``predictions/{segment}/{name}``.

    Markers, logs and half-written files stay where they are. A file that is here with the recorded digest, and whose
    stored version has not changed, is not read again.

    Args:
        root: ROOT.
        segment: Segment id.
        to: Folder on this machine; it can be used as ROOT by the commands that only read.
        names: Predictions; none takes all.

    Raises:
        DataError: There is no such prediction.
        CorruptDataError: A file arrived damaged twice.
    """
    if Location.parse(root).uri == Location.parse(to).uri:
        raise ConfigError(f"pull: {to} is ROOT itself; choose another folder with --to")
    found = dict(predictions_of(root, segment))
    wanted = list(names) or sorted(found)
    unknown = [name for name in wanted if name not in found]
    if unknown or not found:
        there = f"there are {', '.join(sorted(found))}" if found else "there is none; run inkbatch infer first"
        raise DataError(f"segment {segment}: no prediction {', '.join(unknown) or 'at all'} under {root} ({there})")
    report = PullReport()
    for name in wanted:
        progress = progress_of(f"prediction {name}", found[name])
        if progress is None:
            continue
        if not progress.complete:
            report.unfinished.append(progress)
            continue
        target = to / "predictions" / segment / name
        _Folder(found[name], target).pull(report)
        report.finished.append(target)
    return report


class _Folder:
    """One prediction on its way."""

    def __init__(self, source: Location, target: Path) -> None:
        self.source, self.target = source, target
        self.state: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError, ValueError):
            self.state = json.loads((target / STATE).read_text(encoding="utf-8"))
        self._noting, self._noted = threading.Lock(), time.monotonic()

    def pull(self, report: PullReport) -> None:
        """Copy what is new; the files that say "complete" come last."""
        rows = [row for row in objects_below(self.source) if _is_result(row.path)]
        first = [row for row in rows if row.path not in LAST]
        last = sorted((row for row in rows if row.path in LAST), key=lambda row: LAST.index(row.path))
        if any(not self._is_here(row) for row in rows):
            (self.target / "complete.json").unlink(missing_ok=True)
        try:
            with ThreadPoolExecutor(THREADS, thread_name_prefix="inkbatch-pull") as pool:
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
        """Bytes that were copied, or None where the file was here."""
        if self._is_here(row):
            return None
        for attempt in (1, 2):
            self._download(row)
            fault = self._fault(row)
            if fault is None:
                break
            (self.target / row.path).unlink()
            if attempt == 2:
                raise CorruptDataError(f"{self.source / row.path}: arrived damaged twice: {fault}; infer it again")
        sha256 = _hashed(self.target / row.path, "sha256")
        with self._noting:  # by whoever brought the file: nobody waits until a larger one before it has come
            self.state[row.path] = {"bytes": row.bytes, "version": row.version, "sha256": sha256}
            if time.monotonic() - self._noted >= NOTE_EVERY_S:
                self._note()
        return row.bytes

    def _is_here(self, row: StoredObject) -> bool:
        known, path = self.state.get(row.path), self.target / row.path
        if not known or not row.version or known["version"] != row.version or not path.is_file():
            return False
        return bool(path.stat().st_size == row.bytes and _hashed(path, "sha256") == known["sha256"])

    def _download(self, row: StoredObject) -> None:
        """Copy in pieces to a name that holds the version; a killed copy goes on where it was."""
        path, source = self.target / row.path, self.source / row.path
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{digest([row.version, row.bytes])[:8]}.part")
        with open(part, "ab") as file:
            for start in range(file.tell(), row.bytes, PIECE_BYTES):
                file.write(source.read_range(start, min(start + PIECE_BYTES, row.bytes)))
                file.flush()
        os.replace(part, path)

    def _fault(self, row: StoredObject) -> str | None:
        """What is wrong with a file that has just come: size, the store's digest, the checksums of a zarr shard."""
        path = self.target / row.path
        if path.stat().st_size != row.bytes:
            return f"{path.stat().st_size} bytes instead of {row.bytes}"
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
    """Decode one zarr shard of the local copy; every chunk holds a checksum."""
    layout = ShardedArray.open(described).layout
    coordinates = [int(part) for part in place.split("/")]
    region = [
        slice(c * shard, min((c + 1) * shard, size))
        for c, shard, size in zip(coordinates, layout.shards, layout.shape, strict=True)
    ]
    ShardedArray(array, layout).read(region)


def _is_result(path: str) -> bool:
    """Whether a file of a prediction's folder is part of the result, not of the work on it."""
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

"""State of inputs: a version for each object, so that one that was exchanged is noticed although its size is equal.

Versions are modification times on local disks, entity tags on S3, entity tags or dates on the web. The content's
checksum takes their place where a store gives none of these, and for small local inputs, so that a fresh copy of these
(a package that was installed again) is the same input. They belong to the place of the inputs alone: a ROOT
that is moved or copied stays valid, and digests of runs do not depend on them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import google_crc32c

from inkbatch.config import digest
from inkbatch.io.store.listing import objects_below
from inkbatch.io.store.location import Location
from inkbatch.io.store.retrying import retried

CONTENT_BYTES = 64 << 20  # local inputs of up to this size are told apart by their content
MOST_NAMED = 1_000  # objects of one input whose versions are kept one by one; of more, only a digest
MOST_LISTED = 400_000  # chunks of a zarr array that are listed; of more, only its metadata are asked for
READ_BYTES = 8 << 20  # at a time, where only the content tells versions apart
ASKED_AT_ONCE = 16
METADATA_NAMES = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
SHOWN = 3  # names in a message

State = dict[str, Any]


def state_of(place: Location, *, only: Callable[[str], bool] = lambda name: True, chunks: int = 0) -> State:
    """Take the state of an input.

    Args:
        place: A file, or a folder with all that is below it.
        only: Chooses the objects of a folder by their path in it.
        chunks: Objects to expect; of more than `MOST_LISTED` only zarr metadata are looked at.

    Returns:
        ``{"objects": count, "digest": …}`` and, unless they are too many, ``each``: version by path.
    """
    versions = _versions(place, only, chunks)
    state: State = {"objects": len(versions), "digest": digest(versions)}
    return {**state, "each": versions} if len(versions) <= MOST_NAMED else state


def watched(look: Callable[[], Any], states: Callable[[], Mapping[str, State]]) -> Callable[[], Mapping[str, State]]:
    """Make a function that takes states again only where a quick look differs from the one of now.

    Args:
        look: A quick look at the inputs, see `quick_look`.
        states: Takes their states.
    """
    first = look()
    return lambda: {} if look() == first else states()


def watch(places: Mapping[str, Location]) -> tuple[dict[str, State], Callable[[], Mapping[str, State]]]:
    """Take the states of some inputs, and make the function that takes them again, see `watched`.

    Args:
        places: Files and arrays, by their key in a manifest's state.
    """
    states = {key: state_of(place) for key, place in places.items()}

    def look() -> dict[str, dict[str, str]]:
        return {key: quick_look(place, chunks=states[key]["objects"]) for key, place in places.items()}

    return states, watched(look, lambda: {key: state_of(place) for key, place in places.items()})


def quick_look(place: Location, *, only: Callable[[str], bool] = lambda name: True, chunks: int = 0) -> dict[str, str]:
    """Take versions of an input without reading any of its content: times and tags, of at most `MOST_NAMED` objects.

    Args:
        place: See `state_of`.
        only: See `state_of`.
        chunks: See `state_of`; of more than `MOST_NAMED` only zarr metadata are looked at.
    """
    if chunks > MOST_NAMED or not place.is_local:
        return _versions(place, only, MOST_LISTED + 1 if chunks > MOST_NAMED else chunks)
    return {path: version_of(file) for path, file in _local_files(place, only).items()}


def changes(then: State, now: State) -> str:
    """Name what differs between two states of an input; an empty text where nothing does."""
    if then.get("digest") == now.get("digest"):
        return ""
    before, after = then.get("each"), now.get("each")
    if not isinstance(before, dict) or not isinstance(after, dict):
        return f"{then.get('objects')} objects then, {now.get('objects')} now, not all of them as they were"
    rows = [("changed", sorted(name for name in before.keys() & after.keys() if before[name] != after[name]))]
    rows += [("new", sorted(after.keys() - before.keys())), ("gone", sorted(before.keys() - after.keys()))]
    return "; ".join(f"{len(names)} of {len(after)} {what}: {_some(names)}" for what, names in rows if names)


def version_of(place: Location) -> str:
    """Return the version of one object.

    Raises:
        FileNotFoundError: It is not there.
    """
    if place.is_local:
        found = os.stat(place.path)
        return f"{found.st_size}:{found.st_mtime_ns}"
    return _stated(retried(place.uri, lambda: place.fs.info(place.path))) or _content(place)


def _versions(place: Location, only: Callable[[str], bool], chunks: int) -> dict[str, str]:
    if chunks > MOST_LISTED or place.protocol in ("http", "https"):
        return _asked(place, only)
    if place.is_local:
        return _local(place, only)
    rows = [row for row in objects_below(place) if only(row.path)]
    if not rows:
        return {place.name: version_of(place)}
    return {row.path: f"{row.bytes}:{row.version}" if row.version else _content(place / row.path) for row in rows}


def _local_files(place: Location, only: Callable[[str], bool]) -> dict[str, Location]:
    if not os.path.isdir(place.path):
        return {place.name: place}
    paths = (os.path.join(folder, name) for folder, _, names in os.walk(place.path) for name in names)
    inside = sorted(os.path.relpath(path, place.path) for path in paths)
    return {path: place / path for path in inside if only(path)}


def _local(place: Location, only: Callable[[str], bool]) -> dict[str, str]:
    found = _local_files(place, only)
    small = sum(os.stat(file.path).st_size for file in found.values()) <= CONTENT_BYTES
    return {path: _content(file) if small else version_of(file) for path, file in found.items()}


def _asked(place: Location, only: Callable[[str], bool]) -> dict[str, str]:
    """Ask for each object that has a name we know: those of the listing, or a zarr array's metadata."""
    names: Iterable[str] = (name for name in [*METADATA_NAMES] if (place / name).exists())
    chosen = list(names) or [name for name in place.names() if only(name)]
    if not chosen:
        return {place.name: version_of(place)}
    with ThreadPoolExecutor(ASKED_AT_ONCE, thread_name_prefix="inkbatch-state") as pool:
        return dict(zip(chosen, pool.map(lambda name: version_of(place / name), chosen), strict=True))


def _stated(info: Mapping[str, Any]) -> str:
    version = info.get("ETag") or info.get("mtime") or info.get("LastModified") or info.get("created")
    return f"{info.get('size')}:{str(version).strip(chr(34))}" if version else ""


def _content(place: Location) -> str:
    size, total = place.size(), 0
    for start in range(0, size, READ_BYTES):
        total = google_crc32c.extend(total, place.read_range(start, min(size, start + READ_BYTES)))
    return f"{size}:crc32c:{total:08x}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

"""Segments below a folder or bucket: folders of segments, and the layout of the field's open data.

::

    PLACE/<segment>/                                  a folder of segments, or one segment
    PLACE/[samples/]<sample>/segments/<segment>/      open data, with <sample>/volumes/<id>-….zarr
    PLACE/metadata.json                               its index: {"samples": {…}}, perhaps packed with gzip

What lies there is listed; the index adds the volume that a mesh was drawn in, and stands for the listing on web servers
that give none.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from inkbatch.data.segments.found import FoundSegment, artifacts_of_paths, find_in, is_segment, listed_names
from inkbatch.documents import parse_json
from inkbatch.errors import CorruptDataError, DataError
from inkbatch.io.store.faults import ForbiddenError
from inkbatch.io.store.location import Location

INDEX = "metadata.json"
LISTERS = 16  # they mostly wait for the network
LEADING_ID = re.compile(r"(\d{14})(?!\d)")


@dataclass(frozen=True)
class Place:
    """A folder or bucket of segments.

    Attributes:
        segments: In the order of sample and name.
        volumes: Addresses of volumes by sample and id.
    """

    segments: tuple[FoundSegment, ...]
    volumes: Mapping[tuple[str | None, str], str] = field(default_factory=dict)


def find_segments(uri: str) -> Place:
    """Find the segments below a place; names are listed, no values are read.

    Raises:
        DataError: Nothing is there, or nothing that looks like a segment.
        StorageError: Listing failed again after retries.
    """
    place = Location.parse(uri)
    index = _index(place)
    found = _listed(place) if listed_names(place) else None
    if found is None and index is not None:
        found = _indexed(place, index)
    if found is None:
        raise DataError(
            f"{place}: expected segments (folders with layers or a mesh), or open data with its {INDEX}, got "
            "nothing that can be listed; check the location"
        )
    if not any(segment.artifacts for segment in found.segments):
        raise DataError(
            f"{place}: expected segments: folders with layers (<segment>.zarr, 00.tif, surface-volumes/) or a mesh "
            "(x.tif, y.tif, z.tif), got none; name the folder that holds them"
        )
    return found if index is None else _with_originals(found, index)


def _listed(place: Location) -> Place:
    """List samples and segments."""
    top = place / "samples" if "samples" in listed_names(place) else place
    names = _folders(top)
    if "segments" in names:
        samples = [top]
    else:
        with ThreadPoolExecutor(LISTERS, thread_name_prefix="inkbatch-list") as listers:
            inside = dict(zip(names, listers.map(lambda name: listed_names(top / name), names), strict=True))
        samples = [top / name for name, content in inside.items() if "segments" in content]
    if samples:
        volumes = {key: uri for sample in samples for key, uri in _volumes(sample).items()}
        folders = [
            (sample / "segments" / name, sample.name) for sample in samples for name in _folders(sample / "segments")
        ]
        return Place(_look(folders), volumes)
    own = is_segment(top.name, listed_names(top))
    segments = _look([(top, None)] if own else [(top / name, None) for name in names])
    return Place(tuple(segment for segment in segments if segment.artifacts), _volumes(top, None))


def _look(folders: Sequence[tuple[Location, str | None]]) -> tuple[FoundSegment, ...]:
    with ThreadPoolExecutor(LISTERS, thread_name_prefix="inkbatch-list") as listers:
        return tuple(listers.map(lambda folder: find_in(*folder), folders))


def _folders(place: Location) -> list[str]:
    files = place.sizes()
    return [name for name in listed_names(place) if name not in files and not name.startswith(".")]


def _volumes(sample: Location, name: str | None = "") -> dict[tuple[str | None, str], str]:
    """List the volumes of a sample by id; the masked one where an id stands twice."""
    found: dict[tuple[str | None, str], str] = {}
    for volume in listed_names(sample / "volumes"):
        leading = LEADING_ID.match(volume)
        if volume.endswith(".zarr") and leading:
            key = (sample.name if name == "" else name, leading[1])
            if key not in found or "masked" in volume:
                found[key] = (sample / "volumes" / volume).uri
    return found


def _index(place: Location) -> Mapping[str, Any] | None:
    """Read the samples of the index; None where there is none."""
    try:
        data = (place / INDEX).read_bytes()
    except (FileNotFoundError, NotADirectoryError, ForbiddenError):
        return None
    document = parse_json(
        gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data, f"{place / INDEX}", CorruptDataError
    )
    document = document.get("metadata", document) if isinstance(document, dict) else {}
    samples = document.get("samples")
    return samples if isinstance(samples, dict) else None


def _with_originals(place: Place, samples: Mapping[str, Any]) -> Place:
    """Add the volumes that meshes were drawn in."""
    stated = {
        (sample, name): str(segment["original_volume_id"])
        for sample, content in samples.items()
        for key, segment in _mapping(content, "segments").items()
        if isinstance(segment, dict) and segment.get("original_volume_id")
        for name in {key, str(segment.get("long_id") or key)}
    }

    def original(segment: FoundSegment) -> str | None:
        leading = LEADING_ID.match(segment.name)
        keys = [(str(segment.sample), segment.name), (str(segment.sample), leading[1] if leading else "")]
        return next((stated[key] for key in keys if key in stated), None)

    return replace(place, segments=tuple(replace(one, original_volume=original(one)) for one in place.segments))


def _indexed(place: Location, samples: Mapping[str, Any]) -> Place:
    """Take samples, segments and volumes from the index."""
    segments: list[FoundSegment] = []
    volumes: dict[tuple[str | None, str], str] = {}
    for sample, content in sorted(samples.items()):
        for key, volume in _mapping(content, "volumes").items():
            for uri in (_address(place, origin) for origin in _origins(volume)):
                if uri and uri.endswith(".zarr"):
                    volumes.setdefault((sample, key), uri)
        by_folder: dict[str, list[str]] = {}
        for segment in _mapping(content, "segments").values():
            for uri in filter(None, (_address(place, origin) for origin in _origins(segment))):
                folder = re.match(r"(.*/segments/[^/]+)/(.+)", uri)
                if folder:
                    by_folder.setdefault(folder[1], []).append(folder[2])
        for uri, paths in sorted(by_folder.items()):
            folder_of = Location(uri)
            segments.append(FoundSegment(folder_of.name, sample, uri, artifacts_of_paths(folder_of, paths)))
    return Place(tuple(segments), volumes)


def _mapping(document: Any, key: str) -> dict[str, Any]:
    found = document.get(key) if isinstance(document, dict) else None
    return found if isinstance(found, dict) else {}


def _origins(owner: Any) -> list[dict[str, Any]]:
    data = owner.get("data") if isinstance(owner, dict) else None
    rows = data if isinstance(data, list) else []
    lists = [row.get("origins") for row in rows if isinstance(row, dict)]
    return [origin for origins in lists if isinstance(origins, list) for origin in origins if isinstance(origin, dict)]


def _address(place: Location, origin: Mapping[str, Any]) -> str | None:
    """Return where an origin is: below the place, or at the web server that alone has it."""
    path = str(origin.get("path") or "").strip("/")
    if not path or ".." in path.split("/"):
        return None
    roots = [root.get("url", "") for root in origin.get("access_roots") or [] if isinstance(root, dict)]
    if roots and not any(str(root).startswith("s3://") for root in roots):
        return f"{str(roots[0]).rstrip('/')}/{path}"
    return (place / path).uri

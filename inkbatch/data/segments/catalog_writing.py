"""Catalogs written from what lies in a folder or bucket; what is missing is said per segment."""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from inkbatch.data.segments.catalog import LOCATION_KEYS, SEGMENT_ID, SegmentEntry
from inkbatch.data.segments.found import Artifact, FoundSegment, Kind
from inkbatch.data.segments.layouts import LEADING_ID, LISTERS, Place, find_segments
from inkbatch.data.segments.reversed_segments import known_reversed
from inkbatch.errors import ConfigError, InkbatchError
from inkbatch.io.layers.spacing import sizes_beside
from inkbatch.io.layers.zarr_nodes import choose_array, find_node
from inkbatch.io.ome import is_plausible
from inkbatch.io.store.local_files import write_atomically
from inkbatch.io.store.location import Location
from inkbatch.io.surface import DepthOrder
from inkbatch.text import count_text, near_matches

LAYERS_BY_CUSTOM = 65  # that the field renders around a mesh
ENERGY = re.compile(r"(\d+(?:\.\d+)?)keV")
BESIDE_LAYERS: tuple[tuple[str, Kind, str], ...] = (  # keys of an entry
    ("ink_labels", "ink_labels", "labels"),
    ("mask", "mask", "mask"),
    ("supervision_mask", "supervision", "supervision mask"),
    ("validation_mask", "validation", "validation mask"),
)
SIZE = re.compile(r"(\d+(?:\.\d+)?um)")


@dataclass(frozen=True)
class Listed:
    """One segment's place in the catalog.

    Attributes:
        name: Id.
        entry: The entry; None where there is nothing to prepare.
        remarks: What else lies there, in words.
        missing: What is not there, in words.
        taken: What the entry takes, in words.
    """

    name: str
    entry: SegmentEntry | None
    remarks: tuple[str, ...]
    missing: tuple[str, ...]
    taken: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = "; ".join((*self.taken, *self.remarks))
        lacks = f"missing: {', '.join(self.missing)}" if self.missing else ""
        return f"{self.name}\t{' · '.join(part for part in (said, lacks) if part)}"


@dataclass(frozen=True)
class CatalogRequest:
    """Wishes for a catalog.

    Attributes:
        place: Folder or bucket.
        file: Catalog to write.
        depth_order: Depth order of segments that are not known to be reversed; None leaves it out: prepare asks for it.
        volume: Volume of meshes that do not name theirs.
        layers_count: Layers to render where there is only a mesh.
        replace: Whether a file that is there may be replaced.
    """

    place: str
    file: Path
    depth_order: DepthOrder | None = None
    volume: str | None = None
    layers_count: int = LAYERS_BY_CUSTOM
    replace: bool = False


def write_catalog_from(request: CatalogRequest) -> list[Listed]:
    """Write a catalog of the segments at a place.

    Returns:
        All segments that were found, those without an entry included.

    Raises:
        ConfigError: The file is there and may not be replaced, or cannot be written.
        DataError: No segments are there, or none that has layers or a mesh with its volume.
    """
    if request.file.exists() and not request.replace:
        raise ConfigError(
            f"catalog {request.file}: there is one already, and it is never overwritten by itself; give --replace, or "
            "another file with --catalog"
        )
    rows = list_segments(request)
    text = catalog_text(rows, request)
    try:
        request.file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(str(request.file), [text.encode()])
    except OSError as error:
        raise ConfigError(f"catalog {request.file}: cannot be written: {error.strerror or error}") from error
    return rows


def list_segments(request: CatalogRequest) -> list[Listed]:
    """List the segments at a place as entries of a catalog.

    Raises:
        DataError: See `find_segments`.
    """
    place = find_segments(request.place)
    names = Counter(segment.name for segment in place.segments)
    with ThreadPoolExecutor(LISTERS, thread_name_prefix="inkbatch-look") as lookers:

        def look(segment: FoundSegment) -> list[Listed]:
            name = f"{segment.sample}-{segment.name}" if names[segment.name] > 1 and segment.sample else segment.name
            return _rows(name, segment, place, request)

        return [row for rows in lookers.map(look, place.segments) for row in rows]


def _rows(name: str, segment: FoundSegment, place: Place, request: CatalogRequest) -> list[Listed]:
    """Make one row for each surface volume of a segment, or for its meshes where it has none."""
    if not SEGMENT_ID.fullmatch(name) or ".." in name:
        return [
            Listed(name, None, (), ("a name that can be an id (letters, digits, '.', '_', '-'); rename the folder",))
        ]
    layers = _newest(segment.of("layers"))
    meshes = segment.of("mesh")
    if layers:
        names = _distinct(name, layers)
        return [_stored(one, segment, artifact, request) for one, artifact in zip(names, layers, strict=True)]
    if meshes:
        return [
            _rendered(one, segment, mesh, place, request)
            for one, mesh in zip(_distinct(name, meshes), meshes, strict=True)
        ]
    return [Listed(name, None, (), ("layers", "a mesh"))]


def _stored(name: str, segment: FoundSegment, layers: Artifact, request: CatalogRequest) -> Listed:
    """Describe layers that are rendered already."""
    entry, taken, remarks, missing = _shared(segment, layers)
    if not states_size(layers.uri):
        missing.append("voxel size (voxel_size_um)")
    known = known_reversed(segment.name, segment.sample)
    if known:
        entry["depth_order"] = "reversed"
        remarks.append(f"reversed, says {'; '.join(known.said_by)}")
    elif request.depth_order is None:
        missing.append("depth order (depth_order)")
    remarks += [f"mesh {mesh.path or '.'}" for mesh in segment.of("mesh")]
    taken.insert(0, layers.path or "layers")
    return Listed(name, _entry(entry, request, source=layers.uri), tuple(remarks), tuple(missing), tuple(taken))


def _rendered(name: str, segment: FoundSegment, mesh: Artifact, place: Place, request: CatalogRequest) -> Listed:
    """Describe a mesh whose layers prepare renders."""
    entry, taken, remarks, missing = _shared(segment, mesh)
    taken.insert(0, f"mesh {mesh.path or '.'}")
    volume, reason = volume_of(segment, mesh, place, request.volume)
    if volume is None:
        return Listed(name, None, (*taken, *remarks), (f"layers, and the volume of its mesh ({reason})", *missing))
    taken.append(f"layers are rendered from {volume}")
    if not states_size(volume):
        missing.append("voxel size (volume_um)")
    if request.depth_order is None:
        missing.append("depth order (depth_order)")
    entry |= {"volume": volume, "layers_count": request.layers_count}
    return Listed(name, _entry(entry, request, source=mesh.uri), tuple(remarks), tuple(missing), tuple(taken))


def _shared(segment: FoundSegment, surface: Artifact) -> tuple[dict[str, Any], list[str], list[str], list[str]]:
    """Return what layers and meshes have alike: values of the entry, what it takes, remarks, and what is missing."""
    entry: dict[str, Any] = {"sample": segment.sample}
    taken: list[str] = []
    energy = ENERGY.search(surface.path)
    if energy:
        entry["energy_kev"] = float(energy[1])
    for key, kind, words in BESIDE_LAYERS:
        found, _ = _fitting(segment.of(kind), surface)
        if found:
            entry[key] = array_address(found.uri)
            taken.append(f"{words} {found.path}")
    labels, others = _fitting(segment.of("ink_labels"), surface)
    remarks = [f"labels of another surface volume: {one.path}" for one in others]
    remarks += [f"not known: {path}" for path in segment.unknown]
    return entry, taken, remarks, [] if labels else ["ink labels"]


def _entry(values: dict[str, Any], request: CatalogRequest, source: str) -> SegmentEntry:
    home = os.path.abspath(request.file.parent)
    values = {"source": source, **values}
    for key in LOCATION_KEYS:
        place = values.get(key)
        if place and "://" not in place and os.path.commonpath([home, place]) == home:
            values[key] = os.path.relpath(place, home)
    return SegmentEntry.model_validate({key: value for key, value in values.items() if value is not None})


def _newest(artifacts: Sequence[Artifact]) -> list[Artifact]:
    """Keep the highest version of each path."""
    best: dict[str, Artifact] = {}
    for artifact in artifacts:
        key = artifact.path.replace(f"_v{artifact.version}", "")
        if key not in best or artifact.version > best[key].version:
            best[key] = artifact
    return list(best.values())


def _fitting(artifacts: Sequence[Artifact], surface: Artifact) -> tuple[Artifact | None, list[Artifact]]:
    """Choose the labels of a surface: of its own volume, or of none that is named; the latest version and date.

    Returns:
        The choice, and those of other volumes where nothing fits.
    """
    own = surface.volume_id
    fitting = [one for one in artifacts if own is None or one.volume_id in (own, None)]
    if not fitting:
        return None, list(artifacts)
    return max(fitting, key=lambda one: (one.volume_id is not None, one.version, one.path)), []


def _distinct(name: str, artifacts: Sequence[Artifact]) -> list[str]:
    """Name several surfaces of a segment by their spacing, and by their volume where that is not enough."""
    if len(artifacts) == 1:
        return [name]
    sizes = [match[1] if (match := SIZE.search(one.path)) else "" for one in artifacts]
    parts = [
        "_".join(filter(None, (size, one.volume_id if sizes.count(size) > 1 else ""))) or re.sub(r"\W+", "_", one.path)
        for size, one in zip(sizes, artifacts, strict=True)
    ]
    counts = Counter(parts)
    return [f"{name}_{part}" if counts[part] == 1 else f"{name}_{part}_{n}" for n, part in enumerate(parts)]


def states_size(uri: str) -> bool:
    """Tell whether zarr metadata, a file beside it or its name state a plausible voxel size; no values are read."""
    try:
        node = find_node(Location.parse(uri))
        if node is not None and not node.is_array and choose_array(node, None, None).spacing.plane is not None:
            return True
        return any(is_plausible(named.um) for named in sizes_beside(Location.parse(uri)))
    except InkbatchError:  # preparing says what is wrong with it
        return False


def array_address(uri: str) -> str:
    """Return the address at which labels or a mask can be read: level 0 where a group states no levels itself."""
    place = Location.parse(uri)
    if not uri.endswith(".zarr"):
        return uri
    try:
        node = find_node(place)
        if node is not None and not node.is_array:
            choose_array(node, None, None)
    except InkbatchError:
        level = find_node(place / "0")
        return level.location.uri if level is not None and level.is_array else uri
    return uri


def volume_of(segment: FoundSegment, mesh: Artifact, place: Place, stated: str | None) -> tuple[str | None, str]:
    """Find the volume that a mesh was drawn in; a sample's only volume is not taken for it.

    Returns:
        Its address, or None and the reason.
    """
    note = _note_for(segment, mesh)
    volumes = {identifier: uri for (sample, identifier), uri in place.volumes.items() if sample == segment.sample}
    if note is not None:
        folder, text = note
        named = _named_volume(Location.parse(segment.uri) / folder if folder else Location.parse(segment.uri), text)
        identifier = LEADING_ID.search(text.rsplit("/", 1)[-1])
        if named:
            return named, ""
        if identifier and identifier[1] in volumes:
            return volumes[identifier[1]], ""
        return None, f"volume_source.txt names {text!r}, which is not there"
    identifier_of = mesh.volume_id or segment.original_volume
    if identifier_of in volumes:
        return volumes[str(identifier_of)], ""
    if stated:
        return stated, ""
    if identifier_of:
        return None, f"volume {identifier_of} is not there{near_matches(str(identifier_of), sorted(volumes))}"
    return None, "no volume_source.txt; state it with --volume"


def _note_for(segment: FoundSegment, mesh: Artifact) -> tuple[str, str] | None:
    """Choose the note in the mesh's own folder, else one above it."""
    notes = dict(segment.volume_notes)
    place = mesh.path
    while True:
        if notes.get(place):
            return place, notes[place].splitlines()[0].strip()
        if not place:
            return None
        place = place.rpartition("/")[0]


def _named_volume(folder: Location, text: str) -> str | None:
    """Return the address that a note names: a URI, or a path from its folder; None where nothing is there."""
    if "://" in text:
        return text.rstrip("/")
    if folder.is_local:
        path = os.path.normpath(os.path.join(folder.path, os.path.expanduser(text)))
        return path if os.path.exists(path) else None
    protocol, rest = folder.uri.split("://", 1)
    joined = Location(f"{protocol}://{posixpath.normpath(posixpath.join(rest, text))}")
    return joined.uri if find_node(joined) is not None else None


def catalog_text(rows: Sequence[Listed], request: CatalogRequest) -> str:
    """Write rows as a catalog, with remarks above each entry; those without an entry are remarks alone."""
    lines = [f"# Segments found in {request.place}. Paths count from this file."]
    lines.append("# A remark says what else lies there, and what is missing; state that here, or when you prepare.")
    if request.depth_order:
        lines += ["defaults:", f"  depth_order: {request.depth_order}"]
    if not any(row.entry for row in rows):
        lines.append("segments: {}")
    else:
        lines.append("segments:")
    for row in rows:
        lines += [f"  # {remark}" for remark in (*row.remarks, *(f"missing: {one}" for one in row.missing))]
        if row.entry is None:
            lines.append(f"  # {row.name}: no entry")
            continue
        values = row.entry.model_dump(mode="json", exclude_none=True)
        body = yaml.safe_dump({row.name: values}, sort_keys=False, allow_unicode=True, width=1000)
        lines += [f"  {line}" for line in body.splitlines()]
    return "\n".join(lines) + "\n"


def summary(rows: Sequence[Listed], file: Path) -> str:
    """Say in one line what was written."""
    entries = sum(row.entry is not None for row in rows)
    left = len(rows) - entries
    return f"catalog: {count_text(entries, 'segment')}" + (f", {left} without an entry" if left else "") + f" · {file}"

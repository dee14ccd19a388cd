"""Contents of a segment's folder, told by names: layers, surface meshes, labels and masks.

Known forms: ``<segment>.zarr`` or ``layers/00.tif`` beside ``<segment>_inklabels.zarr`` and masks, each perhaps with a
version ``_v<N>``; and that of the field's open data: ``mesh/<id>-on-<volume>-<size>um.tifxyz``,
``surface-volumes/<size>um-…-volume-<volume>.zarr`` (or ``.tifs``), ``ink-labels/<its name>/<date>/inklabels.zarr``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from inkbatch.io.layers.numbered import LAYER_NAME
from inkbatch.io.layers.spacing import VOLUME_NOTE
from inkbatch.io.store.faults import ForbiddenError
from inkbatch.io.store.location import Location

Kind = Literal["layers", "mesh", "ink_labels", "supervision", "validation", "mask"]

MESH_FILES = frozenset({"x.tif", "y.tif", "z.tif"})
MESH_MASK = "mask.tif"  # of vertices, not of pixels
SEGMENT_FOLDERS = frozenset({"mesh", "surface-volumes", "layers"})
PASSED_OVER = frozenset({"ink-detection", "photos", "previews", "intermediate", "representations", "volumes"})
LAYER_STEMS = frozenset({"surface-volume", "surface_volume", "surface", "layers", "render"})
PICTURES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
MOST_FOLDERS_DEEP = 4
VOLUME_ID = re.compile(r"(?:volume-|on-)(\d{14})(?!\d)")
_VERSION = re.compile(r"_v(\d+)$")


@dataclass(frozen=True, order=True)
class Artifact:
    """One thing of a segment.

    Attributes:
        path: Below the segment's folder; empty for the folder itself.
        kind: Kind.
        version: Number after ``_v``; 0 without one.
        uri: Address.
    """

    path: str
    kind: Kind
    version: int
    uri: str

    @property
    def volume_id(self) -> str | None:
        """Id of the scan's volume that its path names (``…-volume-<id>``, ``…-on-<id>``); None where it names none."""
        found = VOLUME_ID.findall(self.path)
        return found[-1] if found else None


@dataclass(frozen=True)
class FoundSegment:
    """A segment's folder.

    Attributes:
        name: Name of the folder.
        sample: Scroll or fragment that the folder lies in; None where that is not known.
        uri: Address of the folder.
        artifacts: What lies in it, sorted by path.
        unknown: Names of zarr folders that no rule names.
        volume_notes: Contents of ``volume_source.txt`` by the folder (below the segment's) that holds it.
        original_volume: Id of the volume that its mesh was drawn in, where ``metadata.json`` states it.
    """

    name: str
    sample: str | None
    uri: str
    artifacts: tuple[Artifact, ...]
    unknown: tuple[str, ...] = ()
    volume_notes: tuple[tuple[str, str], ...] = ()
    original_volume: str | None = None

    def of(self, kind: Kind) -> list[Artifact]:
        """List what is of a kind, by path."""
        return [artifact for artifact in self.artifacts if artifact.kind == kind]


def find_in(folder: Location, sample: str | None = None) -> FoundSegment:
    """Look into a segment's folder; names are listed, of files only notes on the volume are read.

    Raises:
        StorageError: Listing failed again after retries.
    """
    artifacts: list[Artifact] = []
    unknown: list[str] = []
    notes: list[tuple[str, str]] = []
    _walk(folder, folder, "", artifacts, unknown, notes)
    return FoundSegment(folder.name, sample, folder.uri, tuple(sorted(artifacts)), tuple(unknown), tuple(notes))


def is_segment(name: str, names: Iterable[str]) -> bool:
    """Tell by the names in it whether a folder is a segment's own."""
    inside = set(names)
    is_labelled = any(zarr_kind(one, name) == "layers" or LAYER_NAME.fullmatch(one) for one in inside)
    return inside >= MESH_FILES or bool(inside & SEGMENT_FOLDERS) or is_labelled


def _walk(
    segment: Location,
    folder: Location,
    path: str,
    artifacts: list[Artifact],
    unknown: list[str],
    notes: list[tuple[str, str]],
) -> None:
    files = folder.sizes()
    folders = [name for name in listed_names(folder) if name not in files]
    if VOLUME_NOTE in files:
        notes.append((path, (folder / VOLUME_NOTE).read_bytes().decode("utf-8", "replace").strip()))
    if files.keys() >= MESH_FILES:
        artifacts.append(_artifact(segment, path, "mesh"))
    if any(LAYER_NAME.fullmatch(name) for name in files):
        artifacts.append(_artifact(segment, path, "layers"))
    for name in files:
        kind = picture_kind(name)
        if kind and not (name == MESH_MASK and files.keys() >= MESH_FILES):
            artifacts.append(_artifact(segment, _joined(path, name), kind))
    for name in folders:
        place = _joined(path, name)
        kind = zarr_kind(place, segment.name)
        if kind:
            artifacts.append(_artifact(segment, place, kind))
        elif name.endswith(".zarr"):
            unknown.append(place)
        elif name not in PASSED_OVER and not name.startswith(".") and place.count("/") < MOST_FOLDERS_DEEP:
            _walk(segment, segment / place, place, artifacts, unknown, notes)


def listed_names(folder: Location) -> list[str]:
    """List a folder's names; none where a web server does not list it."""
    try:
        return folder.names()
    except ForbiddenError:
        if folder.protocol in ("http", "https"):
            return []
        raise


def picture_kind(name: str) -> Kind | None:
    """Tell labels and masks among picture files."""
    stem, dot, _ = name.lower().rpartition(".")
    if not dot or not name.lower().endswith(PICTURES):
        return None
    return _labelled(stem) or ("mask" if re.fullmatch(r"(.*_)?mask", _VERSION.sub("", stem)) else None)


def zarr_kind(path: str, segment: str) -> Kind | None:
    """Tell layers, labels and masks among zarr folders by their path below the segment's; None for others."""
    if not path.endswith(".zarr"):
        return None
    folder, _, name = path.rpartition("/")
    stem = name.removesuffix(".zarr")
    kind = _labelled(stem.lower())
    if kind:
        return kind
    bare = _VERSION.sub("", stem)
    is_own = not folder and (bare.lower() in LAYER_STEMS or bare in (segment, _VERSION.sub("", segment)))
    return "layers" if is_own or folder.split("/")[-1] == "surface-volumes" else None


def _labelled(stem: str) -> Kind | None:
    kinds: tuple[tuple[str, Kind], ...] = (
        ("supervision", "supervision"),
        ("validation", "validation"),
        ("inklabel", "ink_labels"),
        ("ink_label", "ink_labels"),
    )
    return next((kind for word, kind in kinds if word in stem), None)


def artifacts_of_paths(segment: Location, paths: Iterable[str]) -> tuple[Artifact, ...]:
    """Tell what paths below a segment's folder are, where they cannot be listed."""
    found = []
    for path in paths:
        kind: Kind | None = zarr_kind(path, segment.name) or picture_kind(path.rsplit("/", 1)[-1])
        if kind is None and (path.endswith(".tifxyz") or path.rsplit("/", 1)[-1].startswith("tifxyz")):
            kind = "mesh"
        if kind is None and path.endswith((".tifs", "/layers")):
            kind = "layers"
        if kind is not None and not PASSED_OVER & set(path.split("/")):
            found.append(_artifact(segment, path, kind))
    return tuple(sorted(set(found)))


def _artifact(segment: Location, path: str, kind: Kind) -> Artifact:
    stem = re.sub(r"\.[A-Za-z]+$", "", path.rsplit("/", 1)[-1])
    version = _VERSION.search(stem)
    return Artifact(path, kind, int(version[1]) if version else 0, (segment / path).uri)


def _joined(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name

"""Commands on painted labels: list versions, compare two, export one, import labels made elsewhere."""

from __future__ import annotations

from pathlib import PurePosixPath

from inkbatch.config import JobConfig
from inkbatch.data.labels.painting import LAYERS, LayerName
from inkbatch.data.labels.painting_compare import compare, picture_of_changes
from inkbatch.data.labels.painting_export import ExportFormat, write_export, write_label_volume
from inkbatch.data.labels.painting_import import import_version
from inkbatch.data.labels.painting_version import (
    PaintedVersion,
    labels_folder,
    outdated,
    read_counts,
    read_facts,
    require_shape,
    version_folder,
    version_names,
)
from inkbatch.data.segments.catalog import check_segment_id
from inkbatch.data.segments.prepared import open_prepared, segment_folder, surface_content
from inkbatch.errors import ConfigError
from inkbatch.io.layers.one_plane import Plane
from inkbatch.io.pictures.png import png_bytes
from inkbatch.io.store.atomic_files import delivered
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume

KINDS: dict[str, ExportFormat] = {".png": "png", ".tif": "tiff", ".tiff": "tiff", ".json": "coco"}


class VersionsConfig(JobConfig):
    """Settings of `inkbatch label-versions`.

    Attributes:
        segment: Segment id.
        one: A version to compare with `other`; without both, all are listed.
        other: The other version.
        picture: PNG to write of what changed in the ink.
        root: ROOT.
    """

    segment: str
    one: str | None = None
    other: str | None = None
    picture: str | None = None
    root: str = "root"


class ExportLabelsConfig(JobConfig):
    """Settings of `inkbatch export-labels`.

    Attributes:
        segment: Segment id.
        version: Label version.
        to: File to write: .png, .tif, .json (COCO) or .zarr (a label volume).
        layer: Layer of a picture or volume.
        plane: Plane of a label volume that holds the marks; None: the middle one.
        root: ROOT.
    """

    segment: str
    version: str
    to: str
    layer: LayerName = "ink"
    plane: int | None = None
    root: str = "root"


class ImportLabelsConfig(JobConfig):
    """Settings of `inkbatch import-labels`.

    Attributes:
        segment: Segment id; it must be prepared.
        ink: Picture, zarr array or label volume of the ink.
        not_ink: The same of what is surely bare.
        ignore: The same of what is ignored.
        supervision: The same of where labels count.
        plane: Plane of label volumes; None: the one with marks.
        author: Who made them.
        root: ROOT.
    """

    segment: str
    ink: str | None = None
    not_ink: str | None = None
    ignore: str | None = None
    supervision: str | None = None
    plane: Plane | None = None
    author: str = ""
    root: str = "root"


def list_versions(config: VersionsConfig) -> str:
    """List the versions of a segment, or compare two of them; return the table.

    Raises:
        ConfigError: One version alone is named.
        DataError: A version is not there.
    """
    folder = labels_folder(config.root, check_segment_id(config.segment))
    if config.one is None and config.other is None:
        made = surface_content(config.root, config.segment)
        rows = [_row(folder / name, made) for name in version_names(folder)]
        return "\n".join(rows) or f"no label versions in {folder}"
    if config.one is None or config.other is None:
        raise ConfigError(f"segment {config.segment}: expected two label versions to compare, got one; name both")
    one, other = (PaintedVersion.open(version_folder(folder, name)) for name in (config.one, config.other))
    said = _compared(config, one, other)
    if config.picture is not None:
        Location.parse(config.picture).write_bytes(png_bytes(picture_of_changes(one, other)))
    return said


def _compared(config: VersionsConfig, one: PaintedVersion, other: PaintedVersion) -> str:
    place = segment_folder(config.root, config.segment)
    if not (place / "surface.zarr" / "zarr.json").exists():
        return str(compare(one, other))
    surface, made = SurfaceVolume.open(place), surface_content(config.root, config.segment)
    for version in (one, other):
        require_shape(version.facts, surface.shape_yx, version.folder)
    notes = filter(None, (outdated(version.facts, made) for version in (one, other)))
    return "\n".join([str(compare(one, other, surface.read_mask)), *notes])


def _row(folder: Location, surface: str | None) -> str:
    facts, counts = read_facts(folder), read_counts(folder)
    per_px = (float(facts["voxel_size_um"]) / 1e4) ** 2
    areas = " · ".join(f"{name.replace('_', ' ')} {counts[name] * per_px:.4f}" for name in LAYERS)
    row = f"{folder.name}  {facts['time']}  {facts['author']}  from {facts['started_from']}  cm²: {areas}"
    return "\n  ".join([row, *filter(None, [outdated(facts, surface)])])


def export_labels(config: ExportLabelsConfig) -> str:
    """Write a version for other programs; return a line for the user.

    Raises:
        ConfigError: The ending of the file is not known, or the plane lies outside.
        DataError: The version is not there, or the segment is not prepared.
    """
    folder = labels_folder(config.root, check_segment_id(config.segment))
    version = PaintedVersion.open(version_folder(folder, config.version))
    place = Location.parse(config.to)
    ending = PurePosixPath(place.name).suffix.lower()
    if ending == ".zarr":
        surface, _ = open_prepared(config.root, config.segment)
        plane = surface.layer_count // 2 if config.plane is None else config.plane
        write_label_volume(version, config.layer, place, surface.layer_count, plane)
        return f"export-labels: {place}: {surface.layer_count} planes, {config.layer} on plane {plane}"
    if ending not in KINDS:
        raise ConfigError(f"export {place}: expected a name ending in {', '.join(KINDS)} or .zarr, got {place.name}")
    with delivered(place) as handle:
        write_export(version, config.layer, KINDS[ending], handle)
    return f"export-labels: {place}: {version.name} at stroke {version.revision}"


def import_labels(config: ImportLabelsConfig) -> str:
    """Make a version of labels made elsewhere; return a line for the user.

    Raises:
        ConfigError: No labels are named.
        DataError: The segment is not prepared, or labels cannot be read or are of another size.
    """
    surface, _ = open_prepared(config.root, config.segment)
    named: dict[LayerName, str | None] = {
        "ink": config.ink,
        "not_ink": config.not_ink,
        "ignore": config.ignore,
        "supervision": config.supervision,
    }
    version = import_version(
        labels_folder(config.root, config.segment),
        config.segment,
        surface.shape_yx,
        surface.provenance.voxel_size_um,
        {layer: uri for layer, uri in named.items() if uri is not None},
        author=config.author,
        plane=config.plane,
        surface=surface_content(config.root, config.segment),
    )
    return f"import-labels: {version.folder}: {version.counts['ink']:,} px of ink"

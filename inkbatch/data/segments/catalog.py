"""Catalog of segments: for each id, the address of its layers and how to read them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from inkbatch.config import LayerPair
from inkbatch.documents import read_yaml_file
from inkbatch.errors import ConfigError
from inkbatch.io.store.location import Location
from inkbatch.io.surface import DepthOrder
from inkbatch.redaction import shown
from inkbatch.text import near_matches
from inkbatch.validation import in_words
from inkbatch.workspace import find_workspace

SEGMENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
CATALOG_VARIABLE = "INKBATCH_CATALOG"
CATALOG_NAME = "segments.yaml"
LOCATION_KEYS = ("source", "volume", "mask", "ink_labels", "supervision_mask", "validation_mask")


def spacing_text(value: Any) -> Any:
    """Turn a number or a list of numbers, as YAML has them, into text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:g}"
    if isinstance(value, (list, tuple)) and all(isinstance(part, (int, float)) for part in value):
        return ",".join(f"{part:g}" for part in value)
    return value


class LayerFacts(BaseModel):
    """Facts on the layers of a segment, as a catalog and the settings of `inkbatch prepare` state them.

    Attributes:
        source: Layers: a folder, an OME-Zarr, a zarr array, an image; or a surface mesh (tifxyz) to render. May hold
            ``{segment}``.
        layers: Half-open range of layer numbers to take; None takes all.
        depth_order: ``forward`` if layer 0 lies where depth order begins, ``reversed`` if the stack was stored the
            other way round. Required to prepare; never guessed.
        voxel_size_um: Voxel edge in micrometres, required unless the source states it; of rendered layers the spacing
            of pixels that is wished.
        z_spacing_um: Spacing of layers in micrometres, where it is not that of pixels and the source does not state it.
        intensity: ``keep``, ``high-byte``, ``window:LO:HI`` or ``percentile:LO:HI``; None keeps 8 bits as they are and
            takes the high byte of 16.
        mask: Segment mask, a 2-D image of the surface's size, non-zero where there is papyrus; None derives it: pixels
            that are zero in every layer are outside.
        axes: Axis order of a zarr array without OME metadata, for example ``zyx``.
        level: Pyramid level of an OME-Zarr source, or of the volume.
        volume: The scroll's volume; layers are rendered from it around the mesh.
        layers_count: Layers to render.
        step_um: Spacing of rendered layers in micrometres; None: that of pixels.
        volume_um: Voxel edge of the volume's level 0 in micrometres, where it does not state it.
        flip_normals: Render against the mesh's normals.
        max_outside: Share of the mesh that may leave the volume; None: 0.05.
        resample: Spacing to bring stored layers to, in micrometres (``9.6``, or ``z,y,x``), or a pooling rule's name.
        resample_depth: ``mean`` (default) averages the layers that one covers, ``linear`` interpolates at its centre.
        resample_finer: Interpolate where the target is finer than the source.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str | None = None
    layers: LayerPair | None = None
    depth_order: DepthOrder | None = None
    voxel_size_um: float | None = Field(None, gt=0, allow_inf_nan=False)
    z_spacing_um: float | None = Field(None, gt=0, allow_inf_nan=False)
    intensity: str | None = None
    mask: str | None = None
    axes: str | None = None
    level: int | None = Field(None, ge=0)
    volume: str | None = None
    layers_count: int | None = Field(None, ge=1)
    step_um: float | None = Field(None, gt=0, allow_inf_nan=False)
    volume_um: float | None = Field(None, gt=0, allow_inf_nan=False)
    flip_normals: bool | None = None
    max_outside: float | None = Field(None, ge=0, le=1)
    resample: Annotated[str | None, BeforeValidator(spacing_text)] = None
    resample_depth: Literal["mean", "linear"] | None = None
    resample_finer: bool | None = None


class SegmentEntry(LayerFacts):
    """One segment of a catalog. Paths are relative to the catalog file; ``{segment}`` is replaced by the id.

    Attributes:
        energy_kev: Photon energy of the scan.
        sample: Scroll or fragment, for example ``PHercParis4``.
        ink_labels: Ink labels, a 2-D image of the surface's size, or a label volume.
        supervision_mask: Mask of the pixels where ink labels count; the others are ignored.
        validation_mask: Mask of the pixels that are held out, to score what is trained on the others.
        note: For people.
    """

    energy_kev: float | None = Field(None, gt=0)
    sample: str | None = None
    ink_labels: str | None = None
    supervision_mask: str | None = None
    validation_mask: str | None = None
    note: str | None = None


class CatalogDocument(BaseModel):
    """The content of a ``segments.yaml``.

    Attributes:
        defaults: Values for segments that do not state them; its ``source`` is a template with ``{segment}``.
        segments: Entries by segment id.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    defaults: SegmentEntry = Field(default_factory=SegmentEntry)
    segments: dict[str, SegmentEntry] = Field(default_factory=dict)


@dataclass(frozen=True)
class Catalog:
    """All known segments; later files win over earlier ones.

    Attributes:
        entries: By segment id, defaults filled in and locations made absolute.
        template: Entry for segments that are not listed, or None.
    """

    entries: Mapping[str, SegmentEntry]
    template: SegmentEntry | None = None

    @property
    def own(self) -> list[str]:
        """Ids of the user's segments, sorted: without those that are shipped, unless there are no others."""
        shipped = set(read_catalog(shipped_catalog()).segments)
        return sorted(set(self.entries) - shipped) or sorted(self.entries)

    @staticmethod
    def load(file: str | None = None, folder: str = ".") -> Catalog:
        """Read the shipped catalog and the user's own.

        Args:
            file: The user's catalog, or several with commas between. None looks at ``INKBATCH_CATALOG``, then for
                ``segments.yaml`` in `folder`, then takes the catalogs of the workspace.
            folder: Folder to look in.

        Raises:
            ConfigError: A file that was named is not there, or one does not validate.
        """
        named = file or os.environ.get(CATALOG_VARIABLE)
        paths = [shipped_catalog()]
        if named:
            paths += [Path(name.strip()) for name in named.split(",") if name.strip()]
        elif (Path(folder) / CATALOG_NAME).is_file():
            paths.append(Path(folder) / CATALOG_NAME)
        elif workspace := find_workspace(Path(folder)):
            paths += workspace.catalogs
        entries: dict[str, SegmentEntry] = {}
        template: SegmentEntry | None = None
        for path in paths:
            document = read_catalog(path)
            base = document.defaults
            for segment, entry in document.segments.items():
                entries[check_segment_id(segment)] = _absolute(_merged(base, entry), segment, path.parent)
            if base.source:
                template = _absolute(base, None, path.parent)
        return Catalog(entries, template)

    def entry(self, segment: str, source: str | None = None) -> SegmentEntry:
        """Find the entry of a segment.

        Args:
            segment: Segment id.
            source: A source that replaces the catalog's; may hold ``{segment}``.

        Raises:
            ConfigError: A bad id, or an unknown segment without a source; near matches are listed.
        """
        check_segment_id(segment)
        found = self.entries.get(segment) or self.template
        if source is not None:
            found = (found or SegmentEntry()).model_copy(update={"source": source})
        if found is None:
            known = sorted(self.entries)
            hint = near_matches(segment, known) or f"; known are {', '.join(known)}"
            raise ConfigError(
                f"segment {segment!r}: not in the catalog{hint} (add it to {CATALOG_NAME}, or give its layers with "
                "SOURCE=… / --source …, which may hold {segment})"
            )
        if found.source and "{segment}" in found.source:
            found = found.model_copy(update={"source": found.source.replace("{segment}", segment)})
        return found


def check_segment_id(segment: str) -> str:
    """Refuse ids that are no plain names: they become folders under ROOT.

    Raises:
        ConfigError: Empty, too long, or with characters other than letters, digits, ``.``, ``_`` and ``-``.
    """
    if not SEGMENT_ID.fullmatch(segment) or ".." in segment:
        raise ConfigError(
            f"segment {segment!r}: an id is 1 to 128 letters, digits, '.', '_' or '-', "
            "begins with a letter or digit and never holds '..'"
        )
    return segment


def shipped_catalog() -> Path:
    """Return the catalog inside the package: the demo segment."""
    return Path(__file__).parent.parent.parent / "demo" / CATALOG_NAME


def catalog_schema() -> dict[str, Any]:
    """Return the JSON schema of a ``segments.yaml``."""
    return CatalogDocument.model_json_schema()


def read_catalog(path: Path) -> CatalogDocument:
    """Read one ``segments.yaml``.

    Raises:
        ConfigError: It cannot be read, a key stands twice, or it does not validate.
    """
    values = _content(path)
    values = {} if values is None else values
    segments = values.get("segments") if isinstance(values, dict) else None
    if isinstance(segments, dict) and (bad := [key for key in segments if not isinstance(key, str)]):
        raise ConfigError(f"catalog {path}: segment ids are text; put quotes around {shown(bad[0])}")
    try:
        return CatalogDocument.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"catalog {path}: {in_words(error, values, model=CatalogDocument)}") from error


def _content(path: Path) -> Any:
    try:
        return read_yaml_file(path)
    except ConfigError as error:
        raise ConfigError(f"catalog {error}") from error


def _merged(base: SegmentEntry, entry: SegmentEntry) -> SegmentEntry:
    return base.model_copy(update={key: value for key, value in entry if value is not None})


def _absolute(entry: SegmentEntry, segment: str | None, folder: Path) -> SegmentEntry:
    update = {}
    for key in LOCATION_KEYS:
        value = getattr(entry, key)
        if value is None:
            continue
        if segment is not None:
            value = value.replace("{segment}", segment)
        if "://" not in value:
            value = Location.parse(folder / os.path.expanduser(value)).uri
        update[key] = value
    return entry.model_copy(update=update)

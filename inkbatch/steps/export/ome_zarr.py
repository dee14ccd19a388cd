"""`inkbatch export --as ome-zarr-v2`: a map or a surface as OME-Zarr 0.4, which the field's viewers open."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from inkbatch.config import JobConfig
from inkbatch.data.maps.stored import StoredMap, open_map
from inkbatch.data.segments.prepared import open_prepared, segment_folder
from inkbatch.geometry import Box
from inkbatch.io.pictures.ome_zarr_v2 import LevelValues, write_ome_zarr_v2
from inkbatch.io.pictures.tones import ToneMap
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.steps.export.neuroglancer import ImageLayer, ink_layer, neuroglancer_link, papyrus_layer
from inkbatch.text import bytes_text, seconds_text

VIEWERS_NAME = "viewers.json"  # beside a map: where viewers find it; its page shows the link
REACHABLE = ("http", "https", "s3", "gs")  # what a browser can read by itself


class OmeZarrConfig(JobConfig):
    """Settings of an export as OME-Zarr v2.

    Attributes:
        segment: Segment id.
        name: Name of the prediction; None takes the only one.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        to: Folder of the group; None is ``ome-zarr-v2`` beside the map, or beside the surface.
        what: ``map`` or ``surface``.
        threshold: Probability from which (inclusive) a pixel is 255, and 0 elsewhere; None keeps shades.
        papyrus: Address of the segment's exported surface, for the link: ink is shown over it, at every depth.
    """

    job: ClassVar[str] = "export"

    segment: str
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    root: str = "root"
    to: str | None = None
    what: Literal["map", "surface"] = "map"
    threshold: float | None = Field(None, gt=0, le=1)
    papyrus: str | None = None


@dataclass(frozen=True)
class OmeZarrReport:
    """An export that was written.

    Attributes:
        location: The group.
        shape_zyx: (layers, height, width).
        bytes_written: Bytes of its chunks.
        seconds: Wall-clock seconds.
        link: Neuroglancer's address; None where a browser cannot reach the group.
        made_from: Folder of the map, or of the segment.
    """

    location: Location
    shape_zyx: tuple[int, int, int]
    bytes_written: int
    seconds: float
    link: str | None
    made_from: Location

    def __str__(self) -> str:
        depth, height, width = self.shape_zyx
        text = (
            f"export: {width} × {height} px (width × height), {depth} layers · {bytes_text(self.bytes_written)} · "
            f"{seconds_text(self.seconds)} · {self.location}"
        )
        shown = self.link or "serve the folder over http with CORS, or export to s3:// or gs://, to get a link"
        return f"{text}\nneuroglancer: {shown}"


def run(config: OmeZarrConfig) -> OmeZarrReport:
    """Write a map or a surface as OME-Zarr v2.

    Raises:
        ConfigError: A name that is missing or unknown.
        DataError: The map or the surface is not there, not complete, or damaged.
        StorageError: Reading or writing failed again after retries.
    """
    started = time.perf_counter()
    found: StoredMap | None = None
    if config.what == "surface":
        volume, digest = open_prepared(config.root, config.segment)
        levels, pixel_um = surface_levels(volume), volume.provenance.voxel_size_um
        spacing = (volume.provenance.layer_um, pixel_um, pixel_um)
        beside = segment_folder(config.root, config.segment)
        facts: dict[str, Any] = {"segment": config.segment, "surface": digest}
        if volume.dtype == np.uint16:
            facts["grey_values"] = "uint16 / 257, rounded to nearest"
    else:
        found = open_map(config.root, config.segment, config.name)
        levels, beside = map_levels(found, config.threshold), found.folder
        spacing = (found.pixel_um,) * 3
        facts = {"segment": config.segment, "prediction": found.folder.name, "digest": found.digest}
        if config.threshold is not None:
            facts["threshold"] = config.threshold
    place = Location.parse(config.to) if config.to else beside / "ome-zarr-v2"
    view = _view(config, place.uri, levels[0].shape_zyx, spacing) if place.protocol in REACHABLE else None
    stored = write_ome_zarr_v2(place, levels, spacing, facts)
    link = view.link() if view else None
    if found is not None:
        (found.folder / VIEWERS_NAME).write_json({"ome_zarr": place.uri, "neuroglancer": link})
    seconds = time.perf_counter() - started
    return OmeZarrReport(place, levels[0].shape_zyx, stored, seconds, link, beside)


def map_levels(found: StoredMap, threshold: float | None = None) -> list[LevelValues]:
    """Return the levels of a map as one layer of ``round(p * 255)``, or of 0 and 255 with a threshold."""
    tones = ToneMap(np.dtype(np.uint8), threshold=threshold)
    pyramid = found.prediction.pyramid

    def reader(number: int) -> LevelValues:
        array = pyramid.levels[number]
        height, width = array.layout.shape

        def read(box: Box) -> NDArray[Any]:
            return tones.apply(array.read(box.slices), str(array.location))[None]

        return LevelValues((1, height, width), tones.dtype, read)

    return [reader(number) for number in range(len(pyramid.levels))]


def surface_levels(volume: SurfaceVolume) -> list[LevelValues]:
    """Return the levels of a surface, all layers in depth order, uint8: ``round(value / 257)`` of uint16."""
    table = np.rint(np.arange(1 << 16) / 257).astype(np.uint8)

    def reader(number: int) -> LevelValues:
        array = volume.volume.levels[number]
        depth, height, width = array.layout.shape

        def read(box: Box) -> NDArray[Any]:
            stored = array.read((slice(0, depth), *box.slices))
            return table[stored] if stored.dtype == np.uint16 else stored

        return LevelValues((depth, height, width), np.dtype(np.uint8), read)

    return [reader(number) for number in range(len(volume.volume.levels))]


@dataclass(frozen=True)
class _View:
    """Layers of the link, and the extent and spacing that it shows."""

    layers: list[ImageLayer]
    shape_zyx: tuple[int, int, int]
    spacing_zyx_um: tuple[float, float, float]

    def link(self) -> str:
        return neuroglancer_link(self.layers, self.shape_zyx, self.spacing_zyx_um)


def _view(
    config: OmeZarrConfig,
    address: str,
    shape_zyx: tuple[int, int, int],
    spacing_zyx_um: tuple[float, float, float],
) -> _View:
    """Decide the link's view: a volume at its middle layer, ink over the middle layer of the papyrus.

    Raises:
        DataError: Papyrus is named, and the segment's surface, whose depth and spacing it has, is not in ROOT.
    """
    if config.what == "surface":
        return _View([papyrus_layer(address)], shape_zyx, spacing_zyx_um)
    if config.papyrus is None:
        return _View([ink_layer(address)], shape_zyx, spacing_zyx_um)
    volume, _ = open_prepared(config.root, config.segment)
    layers = [papyrus_layer(config.papyrus), ink_layer(address, plane_px_um=spacing_zyx_um[2])]
    depth = (volume.layer_count, *shape_zyx[1:])
    return _View(layers, depth, (volume.provenance.layer_um, *spacing_zyx_um[1:]))

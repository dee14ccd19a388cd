"""`inkbatch prepare`: a source of layers becomes ``surface.zarr`` and ``mask.zarr``, unit by unit."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from inkbatch.config import JobConfig, digest, parse_bytes
from inkbatch.data.catalog import Catalog, SegmentEntry, check_segment_id
from inkbatch.data.reversed_segments import reversed_segments
from inkbatch.errors import ConfigError, DataError, LayerRangeError, MismatchError
from inkbatch.geometry import Box, Unit
from inkbatch.io.clahe import check_clahe
from inkbatch.io.intensity import IntensityMap, IntensityRule, LutPoints, resolve_percentiles
from inkbatch.io.layers import open_layer_source
from inkbatch.io.layers.base import LayerSource
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.storage import Location
from inkbatch.io.surface import ClaheSettings, DepthOrder, SurfaceProvenance, SurfaceVolume
from inkbatch.run.job import JobReport, RunContext, carry_out
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import RunFolder, RunManifest, require_complete
from inkbatch.steps.prepare_plan import CHUNK_LAYERS, CHUNK_PX, UnitPlan, plan_units
from inkbatch.steps.prepare_unit import (
    LoadedUnit,
    MappedUnit,
    Room,
    load_unit,
    map_unit,
    middle_layer,
    write_mapped,
)
from inkbatch.steps.so_far import drawn, picture_so_far

SAMPLE_WINDOWS = 16
SAMPLE_PX = 256
VOXEL_TOLERANCE = 0.01  # between the stated voxel size and the source's own


class PrepareConfig(JobConfig):
    """Settings of `inkbatch prepare`. What is None comes from the catalog, then from the source.

    Attributes:
        segment: Segment id.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        source: Where the layers are; may hold ``{segment}``.
        catalog: The user's catalog file.
        layers: Half-open range of layer numbers; None takes all.
        depth_order: ``forward`` or ``reversed``.
        voxel_size_um: Voxel edge in micrometres.
        intensity: ``keep``, ``high-byte``, ``window:LO:HI`` or ``percentile:LO:HI``; None keeps 8 bits as they are and
            takes the high byte of 16.
        lut: Control points of a lookup table, for example ``[[0, 0], [128, 64], [255, 255]]``.
        clahe: ``{clip_limit: 2.0, cell_px: 128}``.
        mask: A 2-D image, non-zero where there is papyrus; None derives it: pixels that are zero in every layer are
            outside.
        axes: Axis order of a plain zarr array.
        level: Pyramid level of an OME-Zarr source.
        shard_px: Edge of the surface's zarr shards.
        codec: ``lz4`` (fastest), ``lz4-bit``, ``zstd`` (smallest).
        memory: Memory budget of the process.
        scratch: Local folder for layers that must be decoded whole; None takes the system's.
    """

    job: ClassVar[str] = "prepare"

    segment: str
    root: str = "root"
    source: str | None = None
    catalog: str | None = None
    layers: tuple[int, int] | None = None
    depth_order: DepthOrder | None = None
    voxel_size_um: float | None = Field(None, gt=0)
    intensity: str | None = None
    lut: LutPoints | None = None
    clahe: ClaheSettings | None = None
    mask: str | None = None
    axes: str | None = None
    level: int | None = Field(None, ge=0)
    shard_px: int = 1024
    codec: str = "lz4"
    memory: str = "2GiB"
    scratch: str | None = None


@dataclass(frozen=True)
class PreparePlan:
    """Everything that is settled before a pixel is read.

    Attributes:
        source: Opened layers.
        mask_source: Opened mask image, or None where it is derived.
        provenance: What the surface's attributes will say.
        mapping: Grey values.
        units: The units and their memory.
        folder: ``ROOT/segments/{segment}``.
        manifest: The run's manifest.
    """

    source: LayerSource
    mask_source: LayerSource | None
    provenance: SurfaceProvenance
    mapping: IntensityMap
    units: UnitPlan
    folder: Location
    manifest: RunManifest

    @property
    def layers(self) -> range:
        """Source layer numbers, ascending."""
        return range(*self.provenance.source_layers)

    @property
    def shape_yx(self) -> tuple[int, int]:
        """(height, width) of the surface."""
        return self.source.shape_zyx[1], self.source.shape_zyx[2]


def segment_folder(root: str, segment: str) -> Location:
    """``ROOT/segments/{segment}``; the id was checked by the catalog."""
    return Location.parse(root) / "segments" / segment


def open_prepared(root: str, segment: str) -> tuple[SurfaceVolume, str]:
    """Open a prepared segment; what its attributes say of it must be what `prepare` recorded.

    Returns:
        The surface, and the digest of the manifest that made it.

    Raises:
        ConfigError: A bad segment id.
        DataError: It is not there or not complete.
        MismatchError: Attributes or manifest were edited, or depth cannot be the first axis.
    """
    folder = segment_folder(root, check_segment_id(segment))
    manifest = require_complete(folder / "prepare", f"segment {segment}", f"run inkbatch prepare {segment} first")
    volume = SurfaceVolume.open(folder)
    recorded = manifest["config"]
    edited = [
        f"{key}: the surface says {value!r}, its manifest {recorded.get(key)!r}"
        for key, value in volume.provenance.model_dump(mode="json").items()
        if recorded.get(key) != value
    ]
    if (
        digest({key: value for key, value in manifest.items() if key not in ("digest", "request")})
        != manifest["digest"]
    ):
        edited.append("manifest.json: its digest does not fit its content")
    if edited:
        raise MismatchError(
            f"segment {segment}: edited since it was prepared ({'; '.join(edited)}); remove {folder} and run "
            f"inkbatch prepare {segment} again"
        )
    if volume.layer_count > min(volume.shape_yx):
        raise MismatchError(
            f"segment {segment}: {volume.layer_count} layers of {volume.shape_yx[0]} x {volume.shape_yx[1]} px: deeper "
            "than wide, so its axes were stated in another order than they lie; prepare it again with the right axes"
        )
    return volume, str(manifest["digest"])


def plan(config: PrepareConfig) -> PreparePlan:
    """Open the source, settle every rule, and cut the surface into units.

    Raises:
        ConfigError: A rule that cannot be carried out, or required metadata that nobody stated.
        DataError: The source is not whole, or is not what the rules want.
    """
    entry = Catalog.load(config.catalog).entry(config.segment, config.source)
    memory = parse_bytes(config.memory)
    if entry.source is None:
        raise ConfigError(f"segment {config.segment}: the catalog states no source; give --source")
    if config.clahe:
        check_clahe(config.clahe)
    source = open_layer_source(
        entry.source,
        axes=config.axes or entry.axes,
        level=config.level if config.level is not None else entry.level,
        memory_bytes=memory,
        scratch=config.scratch,
    )
    layers = _layer_range(config, entry, source)
    rule_text = config.intensity or entry.intensity
    asked = IntensityRule.parse(rule_text) if rule_text else IntensityRule.default_for(source.dtype)
    rule = resolve_percentiles(asked, _sample(source, layers) if asked.kind == "percentile" else np.empty(0))
    mapping = IntensityMap(rule, source.dtype, config.lut)
    if config.clahe and mapping.dtype != np.uint8:
        raise ConfigError("clahe: works on 8 bits; choose an intensity rule that gives 8 bits")
    mask_uri = config.mask or entry.mask
    mask_source = _open_mask(config, mask_uri, source, memory) if mask_uri else None
    kept = mask_source.resident_bytes if mask_source else 0
    provenance = SurfaceProvenance(
        segment=config.segment,
        source=source.uri,
        source_dtype=source.dtype.name,
        source_layers=(layers.start, layers.stop),
        depth_order=_required_order(config, entry),
        intensity=str(rule),
        lut=config.lut,
        clahe=config.clahe,
        voxel_size_um=_required_voxel_size(config, entry, source),
        mask=mask_source.uri if mask_source else "derived",
    )
    halo = 2 * config.clahe.cell_px if config.clahe else 0
    folder = segment_folder(config.root, config.segment)
    units = plan_units(
        source, len(layers), mapping.dtype, config.shard_px, memory - kept, halo, local_store=folder.is_local
    )
    settled = {"shard_px": config.shard_px, "codec": config.codec, **provenance.model_dump(mode="json")}
    settled["unit_yx"] = list(units.units[0].write_box.shape)  # markers name units by place: all must be cut alike
    inputs = {"source_shape_zyx": list(source.shape_zyx), "source_fingerprint": source.fingerprint}
    request = config.request(
        source=Location.parse(entry.source).uri,
        catalog=None,
        mask=Location.parse(mask_uri).uri if mask_uri else None,
        layers=list(provenance.source_layers),
        depth_order=provenance.depth_order,
        voxel_size_um=provenance.voxel_size_um,
        intensity=rule_text,
        axes=config.axes or entry.axes,
        level=config.level if config.level is not None else entry.level,
        scratch=None,
    )
    manifest = RunManifest("prepare", settled, inputs, len(units.units), request)
    return PreparePlan(source, mask_source, provenance, mapping, units, folder, manifest)


def run(config: PrepareConfig, context: RunContext) -> JobReport:
    """Prepare a segment, or this shard's part of it.

    Raises:
        InkbatchError: See `plan`; a damaged layer; storage that gave up; a stop signal.
    """
    settled = plan(config)
    context.ahead, context.behind = settled.units.ahead, settled.units.behind
    record = RunFolder(settled.folder / "prepare", settled.manifest)
    with settled.source:
        report = carry_out(
            record,
            settled.units.units,
            lambda: _work(config, settled, record, context),
            context,
            lambda folder: _finish(folder, settled),
        )
    picture_so_far(context, settled.shape_yx, settled.folder / "prepare").place.delete()
    return report


def _work(config: PrepareConfig, settled: PreparePlan, record: RunFolder, context: RunContext) -> UnitWork[Any, Any]:
    shape = (len(settled.layers), *settled.source.shape_zyx[1:])
    common: dict[str, Any] = {
        "shard_px": config.shard_px,
        "voxel_size_um": settled.provenance.voxel_size_um,
        "provenance": settled.provenance.model_dump(mode="json"),
    }
    surface = Multiscale.create(
        settled.folder / "surface.zarr",
        shape,
        dtype=settled.mapping.dtype.name,
        chunk=(min(CHUNK_LAYERS, shape[0]), CHUNK_PX, CHUNK_PX),
        codec=config.codec,
        **common,
    )
    mask = Multiscale.create(
        settled.folder / "mask.zarr",
        shape[1:],
        dtype="uint8",
        chunk=(CHUNK_PX, CHUNK_PX),
        pooling="max",
        codec="zstd",
        **common,
    )

    rooms: deque[Room] = deque()

    def room() -> Room:
        return rooms.pop() if rooms else Room(surface)

    def load(unit: Unit) -> LoadedUnit | MappedUnit:
        return map_unit(settled, unit.write_box) or load_unit(settled, unit.write_box, room())

    def store(unit: Unit, loaded: LoadedUnit | MappedUnit) -> Mapping[str, Any]:
        if isinstance(loaded, MappedUnit):
            used = room()
            stored, inside = write_mapped(settled, surface, unit.write_box, loaded, used)
        else:
            used, inside = loaded.room, loaded.mask
            stored = surface.write_levels(unit.write_box, loaded.levels)
        rooms.append(used)
        stored += mask.write(unit.write_box, inside)
        return {"bytes_written": stored, "mask_pixels": int(np.count_nonzero(inside))}

    work = UnitWork(load=load, compute=lambda unit, loaded: loaded, store=store, mark=record.mark)
    live = picture_so_far(context, settled.shape_yx, settled.folder / "prepare")
    return drawn(work, live, context, lambda loaded: middle_layer(settled, loaded))


def _finish(record: RunFolder, settled: PreparePlan) -> Mapping[str, Any]:
    pixels = sum(record.marker(unit)["mask_pixels"] for unit in settled.units.units)
    if pixels == 0:
        for name in ("surface.zarr", "mask.zarr", "prepare"):
            (settled.folder / name).delete_folder()
        raise DataError(
            f"segment {settled.provenance.segment}: the mask is empty, so there is no papyrus to read; "
            f"check {settled.provenance.mask if settled.mask_source else settled.source.uri}; nothing was kept"
        )
    return {"mask_pixels": pixels}


def _layer_range(config: PrepareConfig, entry: SegmentEntry, source: LayerSource) -> range:
    first, last = source.first_layer, source.first_layer + source.shape_zyx[0]
    wanted = config.layers or entry.layers or (first, last)
    if not first <= wanted[0] < wanted[1] <= last:
        raise LayerRangeError(
            f"segment {config.segment}: layers {wanted[0]}:{wanted[1]} are wanted, {source.uri} holds {first}:{last}; "
            "choose a range inside that"
        )
    return range(*wanted)


def _required_order(config: PrepareConfig, entry: SegmentEntry) -> DepthOrder:
    order = config.depth_order or entry.depth_order
    if order is None:
        known = reversed_segments().get(config.segment)
        hint = f" (published tools read it reversed: {'; '.join(known.said_by)})" if known else ""
        raise ConfigError(
            f"segment {config.segment}: nobody states its depth order, and it is never guessed{hint}; "
            "give --depth-order forward (or reversed), or write it into the catalog"
        )
    return order


def _required_voxel_size(config: PrepareConfig, entry: SegmentEntry, source: LayerSource) -> float:
    stated = config.voxel_size_um or entry.voxel_size_um
    own = source.voxel_size_um
    if stated and own and abs(stated - own) > VOXEL_TOLERANCE * own:
        raise MismatchError(
            f"segment {config.segment}: voxel_size_um {stated:g} is stated, {source.uri} says {own:g} at level "
            f"{config.level or entry.level or 0}; choose the level that has the size you mean, or leave the size out"
        )
    size = stated or own
    if size is None:
        raise ConfigError(
            f"segment {config.segment}: nobody states its voxel size; "
            "give --voxel-size-um 7.91, or write it into the catalog"
        )
    return size


def _open_mask(config: PrepareConfig, uri: str, source: LayerSource, memory: int) -> LayerSource:
    """The given mask; what is decoded of it and kept comes out of the memory that the layers leave."""
    mask = open_layer_source(uri, memory_bytes=max(1, memory - source.resident_bytes) // 2, scratch=config.scratch)
    if mask.shape_zyx[1:] != source.shape_zyx[1:]:
        raise DataError(
            f"segment {config.segment}: mask {mask.uri} is {mask.shape_zyx[1:]}, the layers are {source.shape_zyx[1:]} "
            "(height, width); give the mask of this very surface"
        )
    return mask


def _sample(source: LayerSource, layers: range) -> NDArray[Any]:
    """Grey values on a fixed grid of windows, in the middle layer and two others; the same on every machine."""
    _, height, width = source.shape_zyx
    side = int(SAMPLE_WINDOWS**0.5)
    picks = sorted({layers[len(layers) // 4], layers[len(layers) // 2], layers[3 * len(layers) // 4]})
    found = []
    for i in range(side):
        for j in range(side):
            y = max(0, (2 * i + 1) * height // (2 * side) - SAMPLE_PX // 2)
            x = max(0, (2 * j + 1) * width // (2 * side) - SAMPLE_PX // 2)
            box = Box(y, x, min(height, y + SAMPLE_PX), min(width, x + SAMPLE_PX))
            found += [source.read(range(layer, layer + 1), box).ravel() for layer in picks]
    return np.concatenate(found)

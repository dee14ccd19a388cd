"""`inkbatch prepare`: a source of layers becomes ``surface.zarr`` and ``mask.zarr``, unit by unit."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from inkbatch.config import parse_bytes
from inkbatch.data.segments.catalog import Catalog
from inkbatch.data.segments.prepared import segment_folder
from inkbatch.errors import ConfigError, DataError
from inkbatch.geometry import Unit
from inkbatch.io.clahe import check_clahe
from inkbatch.io.intensity import IntensityMap, IntensityRule, resolve_percentiles
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.shards.layout import MASK_CODEC
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceProvenance
from inkbatch.reports.leave import leave_report
from inkbatch.run.job import JobReport, RunContext, run_job
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.steps.live_preview import drawn, live_preview
from inkbatch.steps.prepare.choices import layer_range, open_mask, required_order, required_voxel_size, sampled
from inkbatch.steps.prepare.page import page as report_page
from inkbatch.steps.prepare.settings import EmptyMaskError, PrepareConfig, PreparePlan
from inkbatch.steps.prepare.source import open_source, rendered_from, rendering_request, z_spacing
from inkbatch.steps.prepare.units import CHUNK_LAYERS, CHUNK_PX, plan_units
from inkbatch.steps.prepare.work import (
    LoadedUnit,
    MappedUnit,
    Room,
    load_unit,
    map_unit,
    middle_layer,
    write_mapped,
)


def make_plan(config: PrepareConfig) -> PreparePlan:
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
    source = open_source(config, entry, memory)
    layers = layer_range(config, entry, source)
    rule_text = config.intensity or entry.intensity
    asked = IntensityRule.parse(rule_text) if rule_text else IntensityRule.default_for(source.dtype)
    rule = resolve_percentiles(asked, sampled(source, layers) if asked.kind == "percentile" else np.empty(0))
    mapping = IntensityMap(rule, source.dtype, config.lut)
    if config.clahe and mapping.dtype != np.uint8:
        raise ConfigError("clahe: works on 8 bits; choose an intensity rule that gives 8 bits")
    mask_uri = config.mask or entry.mask
    mask_source = open_mask(config, mask_uri, source, memory) if mask_uri else None
    kept = mask_source.resident_bytes if mask_source else 0
    provenance = SurfaceProvenance(
        segment=config.segment,
        source=source.uri,
        source_dtype=source.dtype.name,
        source_layers=(layers.start, layers.stop),
        depth_order=required_order(config, entry),
        intensity=str(rule),
        lut=config.lut,
        clahe=config.clahe,
        voxel_size_um=required_voxel_size(config, entry, source),
        mask=mask_source.uri if mask_source else "derived",
        z_spacing_um=z_spacing(source),
        box=config.box,
        rendered=rendered_from(source),
    )
    halo = 2 * config.clahe.cell_px if config.clahe else 0
    folder = segment_folder(config.root, config.segment)
    units = plan_units(
        source, len(layers), mapping.dtype, config.shard_px, memory - kept, halo, local_store=folder.is_local
    )
    recorded = {"shard_px": config.shard_px, "codec": config.codec, **provenance.document()}
    recorded["unit_yx"] = list(units.units[0].write_box.shape)  # markers name units by place: all must be cut alike
    inputs: dict[str, Any] = {"source_shape_zyx": list(source.shape_zyx), "source_axes": source.axes}
    inputs["source_fingerprint"] = source.fingerprint
    if mask_source:
        inputs["mask_fingerprint"] = mask_source.fingerprint
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
        **rendering_request(config, entry),
    )
    manifest = RunManifest("prepare", recorded, inputs, len(units.units), request)
    return PreparePlan(source, mask_source, provenance, mapping, units, folder, manifest)


def run(config: PrepareConfig, context: RunContext) -> JobReport:
    """Prepare a segment, or this shard's part of it.

    What is refused before the first unit is stored leaves nothing behind. (A process that does only a part may not be
    alone, and leaves what others may use.)

    Raises:
        InkbatchError: See `make_plan`; a damaged layer; storage that gave up; a stop signal.
    """
    plan = make_plan(config)
    record = RunFolder(plan.folder / "prepare", plan.manifest)
    with plan.source:
        try:
            report = run_job(
                record,
                plan.units.units,
                lambda: _work(config, plan, record, context),
                context,
                lambda folder: _finish(folder, plan),
                lambda folder, note: leave_report(folder, note, report_page),
            )
        except EmptyMaskError:
            _remove(plan)
            raise
        except DataError:
            if context.shard.count == 1 and record.is_begun() and not record.done():
                _remove(plan)
            raise
    live_preview(context, plan.shape_yx, plan.folder / "prepare").place.delete()
    return report


def _remove(plan: PreparePlan) -> None:
    """Leave nothing of a segment whose source was refused."""
    for name in ("surface.zarr", "mask.zarr", "prepare"):
        (plan.folder / name).delete_folder()


def _work(config: PrepareConfig, plan: PreparePlan, record: RunFolder, context: RunContext) -> UnitWork[Any, Any]:
    shape = (len(plan.layers), *plan.source.shape_zyx[1:])
    common: dict[str, Any] = {
        "shard_px": config.shard_px,
        "voxel_size_um": plan.provenance.voxel_size_um,
        "provenance": plan.provenance.document(),
    }
    surface = Multiscale.create(
        plan.folder / "surface.zarr",
        shape,
        dtype=plan.mapping.dtype.name,
        chunk=(min(CHUNK_LAYERS, shape[0]), CHUNK_PX, CHUNK_PX),
        codec=config.codec,
        z_spacing_um=plan.provenance.z_spacing_um,
        **common,
    )
    mask = Multiscale.create(
        plan.folder / "mask.zarr",
        shape[1:],
        dtype="uint8",
        chunk=(CHUNK_PX, CHUNK_PX),
        pooling="max",
        codec=MASK_CODEC,
        **common,
    )

    rooms: deque[Room] = deque()

    def room() -> Room:
        return rooms.pop() if rooms else Room(surface)

    def load(unit: Unit) -> LoadedUnit | MappedUnit:
        return map_unit(plan, unit.write_box) or load_unit(plan, unit.write_box, room())

    def store(unit: Unit, loaded: LoadedUnit | MappedUnit) -> Mapping[str, Any]:
        if isinstance(loaded, MappedUnit):
            used = room()
            stored, inside = write_mapped(plan, surface, unit.write_box, loaded, used)
        else:
            used, inside = loaded.room, loaded.mask
            stored = surface.write_levels(unit.write_box, loaded.levels)
        rooms.append(used)
        stored += mask.write(unit.write_box, inside)
        left_out = loaded.left_out_pixels if isinstance(loaded, LoadedUnit) else 0
        facts = {"bytes_written": stored, "mask_pixels": int(np.count_nonzero(inside))}
        return facts if plan.provenance.rendered is None else {**facts, "outside_pixels": left_out}

    work = UnitWork(load=load, compute=None, store=store, mark=record.mark, overlap=plan.units.overlap)
    live = live_preview(context, plan.shape_yx, plan.folder / "prepare")
    return drawn(work, live, context, lambda loaded: middle_layer(plan, loaded))


def _finish(record: RunFolder, plan: PreparePlan) -> Mapping[str, Any]:
    pixels = sum(record.marker(unit)["mask_pixels"] for unit in plan.units.units)
    if pixels == 0:
        raise EmptyMaskError(
            f"segment {plan.provenance.segment}: the mask is empty, so there is no papyrus to read; "
            f"check {plan.provenance.mask if plan.mask_source else plan.source.uri}; nothing was kept"
        )
    if plan.provenance.rendered is None:
        return {"mask_pixels": pixels}
    return {"mask_pixels": pixels, "outside_pixels": sum(record.marker(u)["outside_pixels"] for u in plan.units.units)}

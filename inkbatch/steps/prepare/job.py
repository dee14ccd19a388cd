"""`inkbatch prepare`: a source of layers becomes ``surface.zarr`` and ``mask.zarr``, unit by unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from inkbatch.config import parse_bytes
from inkbatch.data.segments.catalog import Catalog, SegmentEntry
from inkbatch.data.segments.prepared import segment_folder
from inkbatch.errors import ConfigError, DataError
from inkbatch.geometry import Unit
from inkbatch.io.clahe import check_clahe
from inkbatch.io.intensity import IntensityMap, IntensityRule, resolve_percentiles
from inkbatch.io.layers import LayerSource
from inkbatch.io.store.location import Location
from inkbatch.io.store.versions import watched
from inkbatch.io.surface import SurfaceProvenance, SurfaceVolume
from inkbatch.io.surface_writer import SurfaceUnit, SurfaceWriter
from inkbatch.reports.leave import leave_report
from inkbatch.run.job import JobReport, RunContext, begin, run_job
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import BESIDE, RunFolder, RunManifest
from inkbatch.steps.live_preview import drawn, live_preview
from inkbatch.steps.prepare.choices import layer_range, missing_chunks, open_mask, required_order, sampled
from inkbatch.steps.prepare.opened import OpenedLayers
from inkbatch.steps.prepare.page import page as report_page
from inkbatch.steps.prepare.resample import open_resampled, resampled, wished
from inkbatch.steps.prepare.settings import EmptyMaskError, PrepareConfig, PreparePlan
from inkbatch.steps.prepare.source import open_source, rendered_from, rendering_request
from inkbatch.steps.prepare.spacing import SurfaceSpacing, source_spacing
from inkbatch.steps.prepare.state import input_states, look_at
from inkbatch.steps.prepare.units import UnitPlan, plan_units

ARRAYS = BESIDE["prepare"]


def make_plan(config: PrepareConfig) -> PreparePlan:
    """Open the source, decide every rule, and cut the surface into units.

    Raises:
        ConfigError: A rule that cannot be applied, or required metadata that is unknown.
        DataError: The source is not whole, or does not fit the rules.
    """
    entry = _entry(config)
    memory = parse_bytes(config.memory)
    if config.clahe:
        check_clahe(config.clahe)
    opened, spacing = open_spaced(config, entry, memory)
    layers, resampling = layer_range(config, entry, opened.read), None
    if wished(config, entry):
        opened, spacing, resampling = resampled(config, entry, opened, layers, spacing)
        layers = range(opened.source.shape_zyx[0])
    source = opened.source
    mapping = _grey_values(config, entry, source, layers)
    mask_uri = config.mask or entry.mask
    mask_source = open_mask(config, mask_uri, opened, memory) if mask_uri else None
    holes = missing_chunks(config, (source, mask_source))
    provenance = SurfaceProvenance(
        segment=config.segment,
        source=source.uri,
        source_dtype=source.dtype.name,
        source_layers=(layers.start, layers.stop),
        depth_order=required_order(config, entry),
        intensity=str(mapping.rule),
        lut=config.lut,
        clahe=config.clahe,
        voxel_size_um=spacing.y,
        mask=mask_source.uri if mask_source else "derived",
        z_spacing_um=spacing.z_apart,
        scale_reading=spacing.reading,
        box=config.box,
        rendered=rendered_from(opened),
        resampled=resampling,
    )
    folder = segment_folder(config.root, config.segment)
    units = plan_units(
        source,
        len(layers),
        mapping.dtype,
        config.shard_px,
        memory - (mask_source.resident_bytes if mask_source else 0),
        2 * config.clahe.cell_px if config.clahe else 0,
        local_store=folder.is_local,
    )
    manifest = RunManifest(
        "prepare",
        _recorded(config, provenance, units),
        _inputs(opened, mask_source),
        len(units.units),
        _request(config, entry, provenance),
        input_states(opened, mask_source),
        watched(lambda: look_at(source, mask_source), lambda: input_states(opened, mask_source)),
    )
    return PreparePlan(opened, mask_source, provenance, mapping, units, folder, manifest, holes)


def open_spaced(config: PrepareConfig, entry: SegmentEntry, memory: int) -> tuple[OpenedLayers, SurfaceSpacing]:
    """Open the layers to read, and decide their spacing.

    Raises:
        InkbatchError: See `open_source`, `source_spacing` and `open_resampled`.
    """
    if wished(config, entry):
        return open_resampled(config, entry, memory)
    opened = open_source(config, entry, memory)
    return opened, source_spacing(config, entry, opened.source)


def _entry(config: PrepareConfig) -> SegmentEntry:
    entry = Catalog.load(config.catalog).entry(config.segment, config.source)
    if entry.source is None:
        raise ConfigError(f"segment {config.segment}: the catalog states no source; give --source")
    return entry


def _grey_values(config: PrepareConfig, entry: SegmentEntry, source: LayerSource, layers: range) -> IntensityMap:
    """Resolve the intensity rule; percentiles are taken from a sample of the layers."""
    text = config.intensity or entry.intensity
    asked = IntensityRule.parse(text) if text else IntensityRule.default_for(source.dtype)
    rule = resolve_percentiles(asked, sampled(source, layers) if asked.kind == "percentile" else np.empty(0))
    mapping = IntensityMap(rule, source.dtype, config.lut)
    if config.clahe and mapping.dtype != np.uint8:
        raise ConfigError("clahe: works on 8 bits; choose an intensity rule that gives 8 bits")
    return mapping


def _recorded(config: PrepareConfig, provenance: SurfaceProvenance, units: UnitPlan) -> dict[str, Any]:
    """Collect the settings that decide the stored bytes."""
    recorded = {"shard_px": config.shard_px, "codec": config.codec, **provenance.document()}
    recorded["unit_yx"] = list(units.units[0].write_box.shape)  # markers name units by place: all must be cut alike
    return recorded


def _inputs(opened: OpenedLayers, mask_source: LayerSource | None) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "source_shape_zyx": list(opened.read.shape_zyx),
        "source_axes": opened.source.axes,
        "source_fingerprint": opened.source.fingerprint,
    }
    if mask_source:
        inputs["mask_fingerprint"] = mask_source.fingerprint
    return inputs


def _request(config: PrepareConfig, entry: SegmentEntry, provenance: SurfaceProvenance) -> dict[str, Any]:
    """Collect the settings with which `inkbatch rerun` makes the surface again, without the catalog."""
    mask_uri = config.mask or entry.mask
    return config.request(
        source=Location.parse(str(entry.source)).uri,
        catalog=None,
        mask=Location.parse(mask_uri).uri if mask_uri else None,
        layers=list(provenance.resampled.layers if provenance.resampled else provenance.source_layers),
        depth_order=provenance.depth_order,
        voxel_size_um=_stated_size(config, entry, provenance),
        z_spacing_um=config.z_spacing_um or entry.z_spacing_um,
        resample=wished(config, entry),
        resample_depth=config.resample_depth or entry.resample_depth,
        resample_finer=config.resample_finer or entry.resample_finer,
        intensity=config.intensity or entry.intensity,
        axes=config.axes or entry.axes,
        level=config.level if config.level is not None else entry.level,
        scratch=None,
        **rendering_request(config, entry),
    )


def _stated_size(config: PrepareConfig, entry: SegmentEntry, provenance: SurfaceProvenance) -> float | None:
    """Return the voxel size for a rerun: what was stated; else, where the reading was plain, what was found."""
    stated = config.voxel_size_um or entry.voxel_size_um
    is_plain = provenance.scale_reading is None and provenance.resampled is None
    return stated or (provenance.voxel_size_um if is_plain else None)


def run(config: PrepareConfig, context: RunContext) -> JobReport:
    """Prepare a segment, or this shard's part of it.

    A refusal before the first unit is stored leaves nothing behind of what this process made, and touches nothing else:
    what was there stays. (A process that does only a part may not be alone, and leaves the files that others may use.)

    Raises:
        InkbatchError: See `make_plan`; a damaged layer; storage that gave up; a stop signal.
    """
    plan = make_plan(config)
    record = RunFolder(plan.folder / "prepare", plan.manifest)
    for said in (*plan.source.notes, *plan.holes):
        context.reporter.note(f"prepare: {said}")
    with plan.source:
        created = begin(record, context)
        own = [name for name in ARRAYS if not (plan.folder / name / "zarr.json").exists()] if created else []
        try:
            report = run_job(
                record,
                plan.units.units,
                lambda: _work(config, plan, record, context),
                context,
                lambda folder: _finish(folder, plan),
                lambda folder, note: leave_report(folder, note, report_page),
            )
        except DataError as error:
            useless = isinstance(error, EmptyMaskError) or not record.done()
            if created and useless and context.shard.count == 1 and record.is_begun():
                _remove(plan, own)
            raise
    live_preview(context, plan.shape_yx, plan.folder / "prepare").place.delete()
    return report


def _remove(plan: PreparePlan, arrays: Sequence[str]) -> None:
    """Remove what this process made of a segment whose source was refused; the manifest last."""
    for name in arrays:
        (plan.folder / name).delete_folder()
    (plan.folder / "prepare" / "complete.json").delete()
    (plan.folder / "prepare" / "done").delete_folder()
    (plan.folder / "prepare").delete_folder()


def _work(
    config: PrepareConfig, plan: PreparePlan, record: RunFolder, context: RunContext
) -> UnitWork[SurfaceUnit, SurfaceUnit]:
    shape = (len(plan.layers), *plan.shape_yx)
    volume = SurfaceVolume.create(
        plan.folder, shape, plan.mapping.dtype, plan.provenance, shard_px=config.shard_px, codec=config.codec
    )
    writer = SurfaceWriter(plan.surface_layers, volume)

    def store(unit: Unit, loaded: SurfaceUnit) -> Mapping[str, Any]:
        stored = writer.store(loaded)
        facts = {"bytes_written": stored.stored_bytes, "mask_pixels": stored.mask_pixels}
        return facts if plan.provenance.rendered is None else {**facts, "outside_pixels": stored.left_out_pixels}

    work = UnitWork(
        load=lambda unit: writer.load(unit.write_box),
        compute=None,
        store=store,
        mark=record.mark,
        overlap=plan.units.overlap,
    )
    live = live_preview(context, plan.shape_yx, plan.folder / "prepare")
    return drawn(work, live, context, lambda unit: unit.thumbnail())


def _finish(record: RunFolder, plan: PreparePlan) -> Mapping[str, Any]:
    states = input_states(plan.opened, plan.mask_source)  # all of them: between units there were only quick looks
    replace(record, manifest=replace(plan.manifest, now=lambda: states)).require_inputs()
    pixels = sum(record.marker(unit)["mask_pixels"] for unit in plan.units.units)
    if pixels == 0:
        raise EmptyMaskError(
            f"segment {plan.provenance.segment}: the mask is empty, so there is no papyrus to read; "
            f"check {plan.provenance.mask if plan.mask_source else plan.source.uri}; nothing was stored"
        )
    missing = {"missing_chunks": sum(holes.missing for holes in plan.holes)} if plan.holes else {}
    if plan.provenance.rendered is None:
        return {"mask_pixels": pixels, **missing}
    return {
        "mask_pixels": pixels,
        **missing,
        "outside_pixels": sum(record.marker(u)["outside_pixels"] for u in plan.units.units),
    }

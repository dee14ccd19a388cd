"""`inkbatch infer`: a prepared surface and a bundle become an ink map, unit by unit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inkbatch.data.datasets.trained_pixels import names_pixels
from inkbatch.data.maps.truth import TruthChoice
from inkbatch.errors import DataError
from inkbatch.geometry import Unit
from inkbatch.io.pictures.preview import write_preview
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.io.surface import in_order
from inkbatch.predict.coverage import covered_tiles
from inkbatch.predict.device import choose_device, choose_precision, device_facts
from inkbatch.predict.predictor import Predictor, SubVolume, require_probabilities
from inkbatch.predict.reference import check_reference
from inkbatch.predict.segment_statistics import stored_statistics
from inkbatch.predict.variants import (
    combined,
)
from inkbatch.reports.leave import leave_report
from inkbatch.run.job import JobReport, RunContext, run_job
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import PerRun, RunFolder, RunFolders
from inkbatch.steps.infer.contract_table import NAMES_TRAINING
from inkbatch.steps.infer.page import page as report_page
from inkbatch.steps.infer.plan import InferPlan, make_plan, trained_share
from inkbatch.steps.infer.score import leave_score
from inkbatch.steps.infer.settings import InferConfig as InferConfig
from inkbatch.steps.live_preview import drawn, live_preview
from inkbatch.steps.stored_preflight import stored_preflight
from inkbatch.text import share_text

LEFT_OUT = "; where nothing can be read the map is 0"


def run(config: InferConfig, context: RunContext) -> JobReport:
    """Infer a segment, or this shard's part of it.

    Raises:
        InkbatchError: See `make_plan`; damaged surface; a model that returns NaN; storage that gave up; a stop signal.
    """
    plan = make_plan(config)
    for text in plan.bundle.notes:
        context.reporter.note(text)
    if config.preflight is not None:
        told = plan.judged or stored_preflight(config.root, config.segment, plan.bundle.document.name)
        context.reporter.note(f"preflight {told.record['name']}: {told.sentence}{LEFT_OUT * (plan.judged is not None)}")
    share = trained_share(plan)
    if share:
        context.reporter.note(
            f"careful: {share_text(share)} of segment {config.segment} trained the network of bundle "
            f"{plan.bundle.document.name}; scores leave these pixels out"
        )
    record = plan.record
    left: list[Location] = []

    def leave(folder: Location, note: Callable[[str], None]) -> None:
        left.append(folder)
        _leave(folder, note, config)

    report = run_job(
        record,
        plan.units,
        lambda: _work(config, plan, record, context),
        context,
        lambda folder: _finish(folder, plan),
        leave,
    )
    if report.complete:
        for folder in (report.location, *report.beside):  # labels may have come since the map was made
            if folder not in left and _scored(folder, context.reporter.note, config):
                leave_report(folder, context.reporter.note, report_page, Location.parse(config.root))
    live_preview(context, plan.volume.shape_yx, plan.folder).place.delete()
    return report


def _leave(folder: Location, note: Callable[[str], None], config: InferConfig) -> None:
    """Write score and page of a finished map."""
    _scored(folder, note, config)
    leave_report(folder, note, report_page, Location.parse(config.root))


def _scored(folder: Location, note: Callable[[str], None], config: InferConfig) -> bool:
    return leave_score(folder, config.root, config.segment, TruthChoice(catalog=config.catalog), note)


def _work(
    config: InferConfig, plan: InferPlan, record: RunFolder | RunFolders, context: RunContext
) -> UnitWork[Any, Any]:
    device = choose_device(config.device)
    predictor = Predictor(
        plan.bundle.build(device),
        plan.contract,
        device,
        choose_precision(config.precision, device),
        config.batch_tiles,
        context.stop,
        config.compile,
        plan.views,
        config.combine,
        stored_statistics(plan.contract, plan.volume, plan.folder, device, context.stop.check),
    )
    check_reference(predictor.model, plan.bundle, device, predictor.dtype)
    outputs = [_created(output, plan) for output in plan.outputs]
    live = live_preview(context, plan.volume.shape_yx, plan.folder)

    def compute(unit: Unit, loaded: SubVolume) -> tuple[list[NDArray[np.float32]], int]:
        started, windows = predictor.tiles_done, len(plan.parts)

        def on_tiles(count: int) -> None:
            share = (predictor.tiles_done - started) / (loaded.tiles.count * windows)
            context.reporter.advance(share, {"tiles": count / windows})

        predictor.on_tiles = on_tiles
        maps = _checked(predictor.blend_windows(unit, loaded, plan.parts), plan, unit)
        if config.store_windows or len(plan.windows) == 1:
            return list(maps), loaded.tiles.count
        together = []
        for _ in plan.orders:
            own = itertools.islice(maps, len(plan.windows))
            found = combined((torch.from_numpy(one) for one in own), config.combine)
            together.append((found.clamp_(0, 1) if plan.contract.activation == "sigmoid" else found).numpy())
        return together, loaded.tiles.count

    def store(unit: Unit, computed: tuple[list[NDArray[np.float32]], int]) -> Mapping[str, Any]:
        maps, tiles = computed
        written = [output.write(unit.write_box, found) for output, found in zip(outputs, maps, strict=True)]
        passes = tiles * plan.passes_per_tile
        if len(written) == 1:
            return {"bytes_written": written[0], "tiles": tiles, "tile_passes": passes}
        per_run = PerRun((passes // len(written),) * len(written))
        return {"bytes_written": PerRun(tuple(written)), "tiles": tiles, "tile_passes": per_run}

    work = UnitWork(
        load=lambda unit: load_unit(plan, unit),
        compute=compute,
        store=store,
        mark=record.mark,
        device=lambda: device_facts(device, predictor.dtype),
    )
    return drawn(work, live, context, lambda computed: computed[0][0])  # of several windows the first


def _checked(maps: Iterator[NDArray[np.float32]], plan: InferPlan, unit: Unit) -> Iterator[NDArray[np.float32]]:
    """Pass maps on; refuse values of a network without activation that leave 0 to 1 by more than float16 rounding."""
    for found in maps:
        if plan.box is not None:
            inside = unit.write_box.intersect(plan.box)
            kept = found[inside.within(unit.write_box)].copy() if inside.area else None
            found[:] = 0
            if kept is not None:
                found[inside.within(unit.write_box)] = kept
        if plan.contract.activation == "none":
            require_probabilities(float(found.min()), float(found.max()), unit)
        yield found


def _created(output: RunFolder, plan: InferPlan) -> Prediction:
    return Prediction.create(
        output.location,
        plan.volume.shape_yx,
        plan.unit_px,
        plan.volume.provenance.voxel_size_um,
        {"kind": "prediction", "digest": output.manifest.digest, **output.manifest.inputs},
    )


def load_unit(plan: InferPlan, unit: Unit) -> SubVolume:
    """Read what one unit needs; layers are not read where the mask is empty."""
    contract = plan.contract
    mask, tiles = covered_tiles(contract, plan.grid, unit.write_box, plan.read_mask, plan.box)
    if tiles.count:
        read = plan.volume.read(plan.layers, unit.read_box)
        layers = np.ascontiguousarray(in_order(read, contract.depth_order))
    else:
        layers = np.zeros((len(plan.layers), 0, 0), plan.volume.dtype)
    return SubVolume(layers, mask, tiles)


def _finish(record: RunFolder, plan: InferPlan) -> Mapping[str, Any]:
    shown = plan.contract.display_range
    write_preview(Prediction.open(record.location).pyramid, record.location / "preview.png", display_range=shown)
    tiles = sum(record.marker(unit)["tiles"] for unit in plan.units)
    if tiles == 0:
        raise DataError(f"segment {plan.volume.provenance.segment}: {_no_tiles(plan)}")
    return {"tiles": tiles, NAMES_TRAINING: names_pixels(plan.bundle.document.training)}


def _no_tiles(plan: InferPlan) -> str:
    rules, edge = plan.contract.stitching, plan.grid.tile_px
    if rules.last_tile == "none" and min(plan.grid.shape_yx) < edge:
        height, width = plan.grid.shape_yx
        return f"no tile of {edge} px fits its {height} x {width} px; state --override stitching.last_tile=flush"
    if rules.tiles == "whole":
        return f"no tile of {edge} px lies on papyrus as a whole; check its mask, or take another bundle"
    return "no tile holds papyrus; check its mask"

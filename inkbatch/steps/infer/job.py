"""`inkbatch infer`: a prepared surface and a bundle become an ink map, unit by unit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inkbatch.data.datasets.trained_pixels import TrainedPixels, pixels_on
from inkbatch.data.maps.area import area_box
from inkbatch.data.maps.series import Series
from inkbatch.data.maps.truth import TruthChoice
from inkbatch.data.segments.prepared import open_prepared, surface_now, surface_state
from inkbatch.errors import DataError
from inkbatch.geometry import Box, TileGrid, Unit
from inkbatch.io.pictures.preview import write_preview
from inkbatch.io.prediction import Prediction
from inkbatch.io.shard_size import require_shard_px
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume, in_order
from inkbatch.models.bundle import Bundle, Contract, bundle_address, bundle_location
from inkbatch.predict.coverage import covered_tiles, grid_of, usual_unit_px
from inkbatch.predict.device import choose_device, choose_precision, device_facts
from inkbatch.predict.predictor import Predictor, SubVolume, require_probabilities
from inkbatch.predict.reference import check_reference
from inkbatch.predict.segment_statistics import stored_statistics
from inkbatch.predict.variants import (
    LayerWindow,
    View,
    combined,
    hull_of,
    layer_windows,
    parts_of,
    views_of,
)
from inkbatch.reports.leave import leave_report
from inkbatch.run.job import JobReport, RunContext, run_job
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import PerRun, RunFolder, RunFolders, RunManifest
from inkbatch.steps.infer.choices import stored_override
from inkbatch.steps.infer.names import box_name, prediction_name, series_name, variants_name
from inkbatch.steps.infer.page import page as report_page
from inkbatch.steps.infer.score import leave_score
from inkbatch.steps.infer.settings import InferConfig as InferConfig
from inkbatch.steps.live_preview import drawn, live_preview
from inkbatch.steps.stored_preflight import StoredPreflight, stored_preflight
from inkbatch.steps.stored_probe import stored_layers
from inkbatch.text import share_text

LEFT_OUT = "; where nothing can be read the map is 0"


@dataclass(frozen=True)
class InferPlan:
    """Everything that is known before a model is built.

    Attributes:
        volume: The surface.
        bundle: The bundle with the user's overrides.
        contract: The bundle's contract with what this run chose.
        windows: What the network is fed, one window after the other.
        views: Views of each tile, for every window.
        orders: For each order of the layers: for each layer that the network is given, its place in a window.
        grid: The global tile grid.
        unit_px: Edge of a unit.
        units: All units, row-major; those without papyrus are stored as zeros by the same loop.
        outputs: The predictions, order by order: one of all windows together, or one per window, in their order.
        box: The part that is computed; None is all of it.
        judged: Verdicts of a preflight whose unreadable tiles are left out; None leaves out nothing.
    """

    volume: SurfaceVolume
    bundle: Bundle
    contract: Contract
    windows: tuple[LayerWindow, ...]
    views: tuple[View, ...]
    orders: tuple[NDArray[np.intp], ...]
    grid: TileGrid
    unit_px: int
    units: list[Unit]
    outputs: tuple[RunFolder, ...]
    box: Box | None = None
    judged: StoredPreflight | None = None

    @property
    def read_mask(self) -> Callable[[Box], NDArray[np.bool_]]:
        """Reader of the mask in any box: the segment's, less what a preflight found unreadable."""
        return self.volume.read_mask if self.judged is None else self.judged.readable(self.volume.read_mask)

    @property
    def layers(self) -> range:
        """Indices of the layers that are read, depth order of the surface: all that any window takes."""
        return hull_of(self.windows)

    @property
    def parts(self) -> tuple[NDArray[np.intp], ...]:
        """Places, in the layers that `load_unit` reads, that the network is given: order by order, for each window."""
        windows = parts_of(self.windows, reverse=self.contract.depth_order == "reversed")
        return tuple(window[order] for order in self.orders for window in windows)

    @property
    def passes_per_tile(self) -> int:
        """Variants: forward passes that each tile takes."""
        return len(self.orders) * len(self.windows) * len(self.views)

    @property
    def folder(self) -> Location:
        """The (first) prediction's folder."""
        return self.outputs[0].location

    @property
    def manifest(self) -> RunManifest:
        """The (first) prediction's manifest."""
        return self.outputs[0].manifest

    @property
    def record(self) -> RunFolder | RunFolders:
        """Run folder of the job, or those of all its predictions."""
        return self.outputs[0] if len(self.outputs) == 1 else RunFolders(self.outputs)


def make_plan(config: InferConfig) -> InferPlan:
    """Open surface and bundle, compare them, and cut the surface into units; no model is built.

    Raises:
        ConfigError: A value that cannot be carried out.
        DataError: The surface is not complete, or does not match the bundle.
    """
    volume, surface_digest = open_prepared(config.root, config.segment)
    asked, probed, choices = config.layers, {}, config.choices
    if asked == "auto":
        auto = stored_layers(config.segment, config.bundle, config.root, config.override)
        asked, probed = auto.layers, {"probe": auto.record}
        choices = replace(choices, depth_order=auto.depth_order)
    bundle = Bundle.open(bundle_location(config.bundle), config.override)
    bundle.require_matches(volume)
    contract = choices.applied(bundle.contract)
    windows = _windows(config, asked, contract, volume)
    views = views_of(config.tta, contract, bundle.document.name)
    unit_px = chosen_unit_px(config, contract)
    grid = grid_of(contract, volume.shape_yx)
    units = grid.units(unit_px)
    box = None if config.box is None else area_box(config.box, volume.shape_yx)
    judged = None
    if config.preflight == "mask":
        judged = stored_preflight(config.root, config.segment, bundle.document.name)
        probed |= {"preflight": judged.record}
    inputs: dict[str, Any] = {
        "surface": surface_digest,
        "bundle": bundle.document.name,
        "weights_sha256": bundle.document.weights_sha256,
        "architecture": bundle.document.architecture,
        "model": bundle.document.model,
        **bundle.document.noted,
    }
    trained_on = pixels_on(bundle.document.training, volume, str(bundle.location)).document
    if trained_on:
        inputs["trained_on"] = trained_on
    request = config.request(bundle=bundle_address(config.bundle), catalog=None, source=None)
    state = surface_state(config.root, config.segment)
    now = partial(surface_now, config.root, config.segment)
    outputs = []
    each = [(window,) for window in windows] if config.store_windows else [windows]
    for series, fed in [(series, fed) for series in config.series for fed in each]:
        variants = variants_name(views, fed, config.combine, stored_each=config.store_windows)
        variants += box_name(config.box) + "-preflight" * (judged is not None)
        name = prediction_name(
            config.name,
            bundle.document.name,
            contract,
            variants,
            series_name(series),
            stored_each=config.store_windows,
        )
        settings: dict[str, Any] = {
            "segment": config.segment,
            "name": name,
            "layers": [hull_of(fed).start, hull_of(fed).stop],
            "unit_px": unit_px,
            "override": stored_override(config.override, choices),
            "contract": contract.model_dump(mode="json"),
            "precision": config.precision,
            "compile": config.compile,
            **probed,
        }
        if box is not None:
            settings["box"] = [box.y0, box.x0, box.y1, box.x1]
        if series != Series():
            settings["series"] = {"name": series.name, "seed": config.seed}
        if len(fed) * len(views) > 1:
            settings["variants"] = {"tta": [view.name for view in views[1:]], "combine": config.combine}
        if len(fed) > 1:
            settings["variants"]["layer_groups"] = [list(window.source or ()) for window in fed]
        folder = Location.parse(config.output_root or config.root) / "predictions" / config.segment / name
        outputs.append(RunFolder(folder, RunManifest("infer", settings, inputs, len(units), request, state, now)))
    count = contract.layers.count
    orders = tuple(one.order(count, segment=config.segment, seed=config.seed) for one in config.series)
    return InferPlan(
        volume, bundle, contract, windows, views, orders, grid, unit_px, units, tuple(outputs), box, judged
    )


def _windows(
    config: InferConfig, layers: tuple[int, int] | None, contract: Contract, volume: SurfaceVolume
) -> tuple[LayerWindow, ...]:
    ranges = asked_ranges(config, contract)
    if ranges:
        return layer_windows(contract, volume, ranges)
    return (LayerWindow(layers, contract.layer_indices(volume, layers)),)


def asked_ranges(config: InferConfig, contract: Contract) -> Sequence[tuple[int, int]]:
    """List the half-open ranges of source layer numbers if several windows are asked for, else none."""
    if config.layer_starts is not None:
        return [(start, start + contract.layers.count) for start in range(*config.layer_starts)]
    return config.layer_groups or ()


def chosen_unit_px(config: InferConfig, contract: Contract) -> int:
    """Choose the edge of a unit: as stated, or larger for large tiles.

    Raises:
        ConfigError: No power of two of at least 32.
    """
    unit_px = config.unit_px or usual_unit_px(contract.tile_px)
    require_shard_px("unit_px", unit_px)
    return unit_px


def run(config: InferConfig, context: RunContext) -> JobReport:
    """Infer a segment, or this shard's part of it.

    Raises:
        InkbatchError: See `make_plan`; damaged surface; a model that returns NaN; storage that gave up; a stop signal.
    """
    plan = make_plan(config)
    for text in plan.bundle.document.notes:
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


def trained_share(plan: InferPlan) -> float:
    """Share of the surface's pixels, papyrus or not, that trained the network."""
    whole = Box(0, 0, *plan.volume.shape_yx)
    return TrainedPixels.of(plan.manifest.inputs.get("trained_on", {})).share([whole])


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
    return {"tiles": tiles}


def _no_tiles(plan: InferPlan) -> str:
    rules, edge = plan.contract.stitching, plan.grid.tile_px
    if rules.last_tile == "none" and min(plan.grid.shape_yx) < edge:
        height, width = plan.grid.shape_yx
        return f"no tile of {edge} px fits its {height} x {width} px; state --override stitching.last_tile=flush"
    if rules.tiles == "whole":
        return f"no tile of {edge} px lies on papyrus as a whole; check its mask, or take another bundle"
    return "no tile holds papyrus; check its mask"

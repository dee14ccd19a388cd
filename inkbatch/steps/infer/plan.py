"""The plan of `inkbatch infer`: units, layer windows, views and manifests; no pixel is read, no model built."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.trained_pixels import TrainedPixels, pixels_on
from inkbatch.data.maps.area import area_box
from inkbatch.data.maps.series import Series
from inkbatch.data.segments.prepared import open_prepared, surface_now, surface_state
from inkbatch.geometry import Box, TileGrid, Unit
from inkbatch.io.shard_size import require_shard_px
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.models.bundle import Bundle, Contract, bundle_address, bundle_location
from inkbatch.predict.coverage import grid_of, usual_unit_px
from inkbatch.predict.variants import (
    LayerWindow,
    View,
    hull_of,
    layer_windows,
    parts_of,
    views_of,
)
from inkbatch.run.record import RunFolder, RunFolders, RunManifest
from inkbatch.steps.infer.auto_layers import stored_layers
from inkbatch.steps.infer.choices import RunChoices, stored_override
from inkbatch.steps.infer.names import box_name, prediction_name, series_name, variants_name
from inkbatch.steps.infer.settings import InferConfig as InferConfig
from inkbatch.steps.stored_preflight import StoredPreflight, stored_preflight

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
    layers, choices, read = _chosen(config)
    bundle = Bundle.open(bundle_location(config.bundle), config.override)
    bundle.require_matches(volume)
    contract = choices.applied(bundle.contract)
    judged = None
    if config.preflight == "mask":
        judged = stored_preflight(config.root, config.segment, bundle.document.name)
        read["preflight"] = judged.record
    unit_px = chosen_unit_px(config, contract)
    grid = grid_of(contract, volume.shape_yx)
    count = contract.layers.count
    plan = InferPlan(
        volume=volume,
        bundle=bundle,
        contract=contract,
        windows=_windows(config, layers, contract, volume),
        views=views_of(config.tta, contract, bundle.document.name),
        orders=tuple(one.order(count, segment=config.segment, seed=config.seed) for one in config.series),
        grid=grid,
        unit_px=unit_px,
        units=grid.units(unit_px),
        outputs=(),
        box=None if config.box is None else area_box(config.box, volume.shape_yx),
        judged=judged,
    )
    read["override"] = stored_override(config.override, choices)
    return replace(plan, outputs=_outputs(config, plan, surface_digest, read))


def _chosen(config: InferConfig) -> tuple[tuple[int, int] | None, RunChoices, dict[str, Any]]:
    """Return the layers and values that this run chose, and the record of the probe where it says them."""
    if config.layers != "auto":
        return config.layers, config.choices, {}
    auto = stored_layers(config.segment, config.bundle, config.root, config.override)
    return auto.layers, replace(config.choices, depth_order=auto.depth_order), {"probe": auto.record}


def _outputs(
    config: InferConfig, plan: InferPlan, surface_digest: str, read: Mapping[str, Any]
) -> tuple[RunFolder, ...]:
    """Name the predictions and make their manifests; `read` is recorded beside the settings."""
    inputs = _inputs(plan, surface_digest)
    request = config.request(bundle=bundle_address(config.bundle), catalog=None, source=None)
    state = surface_state(config.root, config.segment)
    now = partial(surface_now, config.root, config.segment)
    folder = Location.parse(config.output_root or config.root) / "predictions" / config.segment
    found = []
    for series, windows in itertools.product(config.series, _windows_by_output(config, plan)):
        settings = {**_settings(config, plan, series, windows), **read}
        manifest = RunManifest("infer", settings, inputs, len(plan.units), request, state, now)
        found.append(RunFolder(folder / settings["name"], manifest))
    return tuple(found)


def _windows_by_output(config: InferConfig, plan: InferPlan) -> list[tuple[LayerWindow, ...]]:
    return [(window,) for window in plan.windows] if config.store_windows else [plan.windows]


def _inputs(plan: InferPlan, surface_digest: str) -> dict[str, Any]:
    """Collect what is read, as the manifest keeps it."""
    document = plan.bundle.document
    trained_on = pixels_on(document.training, plan.volume, str(plan.bundle.location)).document
    return {
        "surface": surface_digest,
        "bundle": document.name,
        "weights_sha256": document.weights_sha256,
        "architecture": document.architecture,
        "model": document.model,
        **document.noted,
        **({"trained_on": trained_on} if trained_on else {}),
    }


def _settings(config: InferConfig, plan: InferPlan, series: Series, windows: tuple[LayerWindow, ...]) -> dict[str, Any]:
    """Collect the settings that decide the stored bytes of one prediction."""
    layers, views = hull_of(windows), plan.views
    settings: dict[str, Any] = {
        "segment": config.segment,
        "name": _name(config, plan, series, windows),
        "layers": [layers.start, layers.stop],
        "unit_px": plan.unit_px,
        "contract": plan.contract.model_dump(mode="json"),
        "precision": config.precision,
        "compile": config.compile,
    }
    if plan.box is not None:
        settings["box"] = [plan.box.y0, plan.box.x0, plan.box.y1, plan.box.x1]
    if series != Series():
        settings["series"] = {"name": series.name, "seed": config.seed}
    if len(windows) * len(views) > 1:
        settings["variants"] = {"tta": [view.name for view in views[1:]], "combine": config.combine}
    if len(windows) > 1:
        settings["variants"]["layer_groups"] = [list(window.source or ()) for window in windows]
    return settings


def _name(config: InferConfig, plan: InferPlan, series: Series, windows: tuple[LayerWindow, ...]) -> str:
    each = config.store_windows
    variants = variants_name(plan.views, windows, config.combine, stored_each=each)
    variants += box_name(config.box) + "-preflight" * (plan.judged is not None)
    bundle = plan.bundle.document.name
    return prediction_name(config.name, bundle, plan.contract, variants, series_name(series), stored_each=each)


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


def trained_share(plan: InferPlan) -> float:
    """Share of the surface's pixels, papyrus or not, that trained the network."""
    whole = Box(0, 0, *plan.volume.shape_yx)
    return TrainedPixels.of(plan.manifest.inputs.get("trained_on", {})).share([whole])

"""`inkbatch infer`: a prepared surface and a bundle become an ink map, unit by unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from inkbatch.config import JobConfig
from inkbatch.errors import ConfigError, DataError
from inkbatch.geometry import TileGrid, Unit
from inkbatch.io.pictures import write_preview
from inkbatch.io.prediction import Prediction
from inkbatch.io.storage import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.models.bundle import Bundle, Contract, bundle_address, bundle_location
from inkbatch.predict.device import DeviceName, PrecisionName, choose_device, choose_precision, device_facts
from inkbatch.predict.predictor import Predictor, SubVolume
from inkbatch.predict.tiles import tiles_of
from inkbatch.predict.variants import (
    Combine,
    LayerWindow,
    View,
    ViewName,
    combined,
    hull_of,
    layer_windows,
    parts_of,
    views_of,
)
from inkbatch.run.job import JobReport, RunContext, carry_out
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import RunFolder, RunFolders, RunManifest
from inkbatch.steps.prediction_names import prediction_name, variants_name
from inkbatch.steps.prepare import open_prepared
from inkbatch.steps.probe_use import require_probe, stored_layers
from inkbatch.steps.so_far import drawn, picture_so_far

LARGE_TILE_PX = 64  # larger tiles get larger units: the share of tiles computed twice stays small
UNIT_PX, LARGE_UNIT_PX = 1024, 4096


class InferConfig(JobConfig):
    """Settings of `inkbatch infer`.

    Attributes:
        segment: Segment id.
        bundle: Folder or URI of the bundle; ``demo`` is the shipped one.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        output_root: ROOT of the prediction, where it is not to lie beside the surface.
        name: Name of the prediction; None makes one from the bundle, tile and stride.
        layers: Half-open range of source layer numbers; ``auto`` is what a depth probe found, together with the depth
            order; None is what the bundle says.
        layer_starts: First source layers of sliding windows, half-open with a step: ``[10, 20, 2]`` is 10, 12, … 18.
        layer_groups: Windows one by one: half-open ranges of source layer numbers.
        store_windows: Store a prediction per window, as ``layers`` would make it, instead of one of them all.
        tta: Views that are averaged with the tile as it is: names of the contract's `tta_axes`; ``turns``, ``flips``,
            ``allowed``.
        combine: ``mean`` or ``max``: how the maps of views and of windows become one.
        stride_px: Step between tiles; None is what the bundle says.
        window: Blending window; None is what the bundle says.
        unit_px: Edge of a unit, a power of two of at least 32; None follows from the tile.
        override: Contract values that are to be replaced; recorded in the manifest.
        device: ``auto`` takes CUDA, then MPS, then the CPU.
        precision: ``auto`` is bf16 (or fp16) on CUDA and fp32 elsewhere.
        batch_tiles: Tiles per forward pass; 0 finds it.
        compile: Compile the network first (minutes; pays on GPUs and long runs). Maps differ by rounding.
    """

    job: ClassVar[str] = "infer"

    segment: str
    bundle: str
    root: str = "root"
    output_root: str | None = None
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    layers: tuple[int, int] | Literal["auto"] | None = None
    layer_starts: tuple[int, int] | tuple[int, int, int] | None = None
    layer_groups: tuple[tuple[int, int], ...] | None = Field(None, min_length=1)
    store_windows: bool = False
    tta: tuple[ViewName, ...] = ()
    combine: Combine = "mean"
    stride_px: int | None = Field(None, ge=1)
    window: Literal["hann", "gaussian", "uniform"] | None = None
    unit_px: int | None = None
    override: dict[str, Any] = Field(default_factory=dict)
    device: DeviceName = "auto"
    precision: PrecisionName = "auto"
    batch_tiles: int = Field(0, ge=0)
    compile: bool = False

    @model_validator(mode="after")
    def _windows_agree(self) -> InferConfig:
        given = [key for key in ("layers", "layer_starts", "layer_groups") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both say which layers to take; give one of them")
        if self.layer_starts and not (
            0 <= self.layer_starts[0] < self.layer_starts[1] and min(self.layer_starts[2:], default=1) > 0
        ):
            raise ValueError(
                f"layer_starts {list(self.layer_starts)}: wanted START, STOP (half-open) and a STEP of 1 or more"
            )
        if self.store_windows and given not in (["layer_starts"], ["layer_groups"]):
            raise ValueError("store_windows: there are no windows to store; give layer_starts or layer_groups, too")
        return self


@dataclass(frozen=True)
class InferPlan:
    """Everything that is settled before a model is built.

    Attributes:
        volume: The surface.
        bundle: The bundle with all overrides.
        windows: What the network is fed, one window after the other.
        views: How each tile is looked at, for every window.
        grid: The global tile grid.
        unit_px: Edge of a unit.
        units: All units, row-major; those without papyrus are stored as zeros by the same loop.
        outputs: The predictions: one of all windows together, or one per window, in their order.
    """

    volume: SurfaceVolume
    bundle: Bundle
    windows: tuple[LayerWindow, ...]
    views: tuple[View, ...]
    grid: TileGrid
    unit_px: int
    units: list[Unit]
    outputs: tuple[RunFolder, ...]

    @property
    def layers(self) -> range:
        """Indices of the layers that are read, depth order of the surface: all that any window takes."""
        return hull_of(self.windows)

    @property
    def parts(self) -> tuple[slice, ...]:
        """Where each window lies in what `load_unit` reads."""
        return parts_of(self.windows, reverse=self.bundle.contract.depth_order == "reversed")

    @property
    def passes_per_tile(self) -> int:
        """Variants: forward passes that each tile takes."""
        return len(self.windows) * len(self.views)

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
        """What the job is recorded in."""
        return self.outputs[0] if len(self.outputs) == 1 else RunFolders(self.outputs)


def plan(config: InferConfig) -> InferPlan:
    """Open surface and bundle, compare them, and cut the surface into units; no model is built.

    Raises:
        ConfigError: A value that cannot be carried out.
        DataError: The surface is not complete, or does not match the bundle.
    """
    volume, surface_digest = open_prepared(config.root, config.segment)
    overrides = dict(config.override)
    asked, probed = config.layers, {}
    if asked == "auto":
        auto = stored_layers(config.segment, config.bundle, config.root, overrides)
        asked, probed = auto.layers, {"probe": auto.record}
        overrides["depth_order"] = auto.depth_order
    for key in ("stride_px", "window"):
        value = getattr(config, key)
        if value is not None:
            overrides[key] = value
    bundle = Bundle.open(bundle_location(config.bundle), overrides)
    bundle.require_matches(volume)
    contract = bundle.contract
    windows = _windows(config, asked, contract, volume)
    views = views_of(config.tta, contract, bundle.document.name)
    unit_px = chosen_unit_px(config, contract)
    grid = TileGrid(volume.shape_yx, contract.tile_px, contract.stride_px)
    units = grid.units(unit_px)
    inputs = {
        "surface": surface_digest,
        "bundle": bundle.document.name,
        "weights_sha256": bundle.document.weights_sha256,
        "architecture": bundle.document.architecture,
        "model": bundle.document.model,
    }
    request = config.request(bundle=bundle_address(config.bundle))
    outputs = []
    for fed in [(window,) for window in windows] if config.store_windows else [windows]:
        variants = variants_name(views, fed, config.combine, stored_each=config.store_windows)
        name = prediction_name(config.name, bundle, variants, stored_each=config.store_windows)
        settings: dict[str, Any] = {
            "segment": config.segment,
            "name": name,
            "layers": [hull_of(fed).start, hull_of(fed).stop],
            "unit_px": unit_px,
            "override": dict(overrides),
            "contract": contract.model_dump(mode="json"),
            "precision": config.precision,
            "compile": config.compile,
            **probed,
        }
        if len(fed) * len(views) > 1:
            settings["variants"] = {"tta": [view.name for view in views[1:]], "combine": config.combine}
        if len(fed) > 1:
            settings["variants"]["layer_groups"] = [list(window.source or ()) for window in fed]
        folder = Location.parse(config.output_root or config.root) / "predictions" / config.segment / name
        outputs.append(RunFolder(folder, RunManifest("infer", settings, inputs, len(units), request)))
    return InferPlan(volume, bundle, windows, views, grid, unit_px, units, tuple(outputs))


def _windows(
    config: InferConfig, layers: tuple[int, int] | None, contract: Contract, volume: SurfaceVolume
) -> tuple[LayerWindow, ...]:
    if config.layer_starts is not None:
        ranges = [(start, start + contract.layers.count) for start in range(*config.layer_starts)]
        return layer_windows(contract, volume, ranges)
    if config.layer_groups is not None:
        return layer_windows(contract, volume, config.layer_groups)
    return (LayerWindow(layers, contract.layer_indices(volume, layers)),)


def chosen_unit_px(config: InferConfig, contract: Contract) -> int:
    """Edge of a unit: as stated, or larger for large tiles.

    Raises:
        ConfigError: No power of two of at least 32.
    """
    unit_px = config.unit_px or (UNIT_PX if contract.tile_px <= LARGE_TILE_PX else LARGE_UNIT_PX)
    if unit_px < 32 or unit_px & (unit_px - 1):
        raise ConfigError(f"unit_px {unit_px}: wanted a power of two of at least 32")
    return unit_px


def run(config: InferConfig, context: RunContext) -> JobReport:
    """Infer a segment, or this shard's part of it.

    Raises:
        InkbatchError: See `plan`; a damaged surface; a model that returns NaN; storage that gave up; a stop signal.
    """
    if config.layers == "auto":
        how = {"device": config.device, "precision": config.precision, "batch_tiles": config.batch_tiles}
        require_probe(config.segment, config.bundle, config.root, config.override, context, **how)
    settled = plan(config)
    record = settled.record
    report = carry_out(
        record,
        settled.units,
        lambda: _work(config, settled, record, context),
        context,
        lambda folder: _finish(folder, settled),
    )
    picture_so_far(context, settled.volume.shape_yx, settled.folder).place.delete()
    return report


def _work(
    config: InferConfig, settled: InferPlan, record: RunFolder | RunFolders, context: RunContext
) -> UnitWork[Any, Any]:
    device = choose_device(config.device)
    predictor = Predictor(
        settled.bundle.build(device),
        settled.bundle.contract,
        device,
        choose_precision(config.precision, device),
        config.batch_tiles,
        context.stop,
        config.compile,
        settled.views,
        config.combine,
    )
    outputs = [_created(output, settled) for output in settled.outputs]
    live = picture_so_far(context, settled.volume.shape_yx, settled.folder)

    def compute(unit: Unit, loaded: SubVolume) -> tuple[list[NDArray[np.float32]], int]:
        maps = predictor.blend_windows(unit, loaded, settled.parts)
        if config.store_windows or len(settled.windows) == 1:
            return list(maps), loaded.tiles.count
        together = combined((torch.from_numpy(found) for found in maps), config.combine)
        if settled.bundle.contract.activation == "sigmoid":
            together = together.clamp_(0, 1)
        return [together.numpy()], loaded.tiles.count

    def store(unit: Unit, computed: tuple[list[NDArray[np.float32]], int]) -> Mapping[str, Any]:
        maps, tiles = computed
        written = [output.write(unit.write_box, found) for output, found in zip(outputs, maps, strict=True)]
        facts = {"bytes_written": sum(written), "tiles": tiles, "tile_passes": tiles * settled.passes_per_tile}
        if len(written) == 1:
            return facts
        passes = tiles * len(settled.views)
        return {**facts, "each": [{"bytes_written": count, "tile_passes": passes} for count in written]}

    work = UnitWork(
        load=lambda unit: load_unit(settled, unit),
        compute=compute,
        store=store,
        mark=record.mark,
        device=lambda: device_facts(device, predictor.dtype),
    )
    return drawn(work, live, context, lambda computed: computed[0][0])  # of several windows the first


def _created(output: RunFolder, settled: InferPlan) -> Prediction:
    return Prediction.create(
        output.location,
        settled.volume.shape_yx,
        settled.unit_px,
        settled.volume.provenance.voxel_size_um,
        {"kind": "prediction", "digest": output.manifest.digest, **output.manifest.inputs},
    )


def load_unit(settled: InferPlan, unit: Unit) -> SubVolume:
    """Read what one unit needs; layers are not read where the mask is empty."""
    mask = settled.volume.read_mask(unit.read_box)
    tiles = tiles_of(settled.grid, unit.write_box, mask, unit.read_box)
    if tiles.count:
        layers = settled.volume.read(settled.layers, unit.read_box)
        if settled.bundle.contract.depth_order == "reversed":
            layers = np.ascontiguousarray(layers[::-1])
    else:
        layers = np.zeros((len(settled.layers), 0, 0), settled.volume.dtype)
    return SubVolume(layers, mask, tiles)


def _finish(record: RunFolder, settled: InferPlan) -> Mapping[str, Any]:
    write_preview(Prediction.open(record.location).pyramid, record.location / "preview.png")
    tiles = sum(record.marker(unit)["tiles"] for unit in settled.units)
    if tiles == 0:
        raise DataError(f"segment {settled.volume.provenance.segment}: no tile holds papyrus; check its mask")
    return {"tiles": tiles}

"""`inkbatch infer`: a prepared surface and a bundle become an ink map, unit by unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from inkbatch.config import JobConfig
from inkbatch.data.catalog import check_segment_id
from inkbatch.errors import ConfigError, DataError
from inkbatch.geometry import TileGrid, Unit
from inkbatch.io.pictures import LivePicture, write_preview
from inkbatch.io.prediction import Prediction
from inkbatch.io.storage import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.models.bundle import Bundle, Contract, bundle_address, bundle_location
from inkbatch.predict.device import DeviceName, PrecisionName, choose_device, choose_precision, device_facts
from inkbatch.predict.predictor import Predictor, SubVolume
from inkbatch.predict.tiles import tiles_of
from inkbatch.run.job import JobReport, RunContext, carry_out
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import RunFolder, RunManifest, require_complete
from inkbatch.steps.prepare import segment_folder

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
        layers: Half-open range of source layer numbers; None is what the bundle says.
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
    layers: tuple[int, int] | None = None
    stride_px: int | None = Field(None, ge=1)
    window: Literal["hann", "gaussian", "uniform"] | None = None
    unit_px: int | None = None
    override: dict[str, Any] = Field(default_factory=dict)
    device: DeviceName = "auto"
    precision: PrecisionName = "auto"
    batch_tiles: int = Field(0, ge=0)
    compile: bool = False


@dataclass(frozen=True)
class InferPlan:
    """Everything that is settled before a model is built.

    Attributes:
        volume: The surface.
        bundle: The bundle with all overrides.
        layers: Indices of the layers that the network takes, depth order of the surface.
        grid: The global tile grid.
        unit_px: Edge of a unit.
        units: The units that hold papyrus, row-major.
        all_units: All units: those without papyrus are stored as zeros by the same loop.
        folder: The prediction's folder.
        manifest: The run's manifest.
    """

    volume: SurfaceVolume
    bundle: Bundle
    layers: range
    grid: TileGrid
    unit_px: int
    units: list[Unit]
    folder: Location
    manifest: RunManifest
    touched: frozenset[str] = field(default_factory=frozenset)


def plan(config: InferConfig) -> InferPlan:
    """Open surface and bundle, compare them, and cut the surface into units; no model is built.

    Raises:
        ConfigError: A value that cannot be carried out.
        DataError: The surface is not complete, or does not match the bundle.
    """
    segment = segment_folder(config.root, check_segment_id(config.segment))
    surface_manifest = require_complete(
        segment / "prepare", f"segment {config.segment}", f"run inkbatch prepare {config.segment} first"
    )
    volume = SurfaceVolume.open(segment)
    overrides = dict(config.override)
    for key in ("stride_px", "window"):
        value = getattr(config, key)
        if value is not None:
            overrides[key] = value
    bundle = Bundle.open(bundle_location(config.bundle), overrides)
    bundle.require_matches(volume)
    contract = bundle.contract
    layers = contract.layer_indices(volume, config.layers)
    unit_px = chosen_unit_px(config, contract)
    grid = TileGrid(volume.shape_yx, contract.tile_px, contract.stride_px)
    units = grid.units(unit_px)
    name = config.name or f"{bundle.document.name}-tile{contract.tile_px}-stride{contract.stride_px}"
    manifest = RunManifest(
        "infer",
        {
            "segment": config.segment,
            "name": name,
            "layers": [layers.start, layers.stop],
            "unit_px": unit_px,
            "override": dict(overrides),
            "contract": contract.model_dump(mode="json"),
            "precision": config.precision,
            "compile": config.compile,
        },
        {
            "surface": surface_manifest["digest"],
            "bundle": bundle.document.name,
            "weights_sha256": bundle.document.weights_sha256,
            "architecture": bundle.document.architecture,
            "model": bundle.document.model,
        },
        len(units),
        config.request(bundle=bundle_address(config.bundle)),
    )
    folder = Location.parse(config.output_root or config.root) / "predictions" / config.segment / name
    return InferPlan(volume, bundle, layers, grid, unit_px, units, folder, manifest)


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
    settled = plan(config)
    record = RunFolder(settled.folder, settled.manifest)
    report = carry_out(
        record,
        settled.units,
        lambda: _work(config, settled, record, context),
        context,
        lambda folder: _finish(folder, settled),
    )
    if report.stored:
        _live_picture(settled, context).place.delete()
    return report


def _work(config: InferConfig, settled: InferPlan, record: RunFolder, context: RunContext) -> UnitWork[Any, Any]:
    device = choose_device(config.device)
    predictor = Predictor(
        settled.bundle.build(device),
        settled.bundle.contract,
        device,
        choose_precision(config.precision, device),
        config.batch_tiles,
        context.stop,
        config.compile,
    )
    provenance = {"kind": "prediction", "digest": settled.manifest.digest, **settled.manifest.inputs}
    output = Prediction.create(
        settled.folder,
        settled.volume.shape_yx,
        settled.unit_px,
        settled.volume.provenance.voxel_size_um,
        provenance,
    )

    live = _live_picture(settled, context)
    context.reporter.note(f"picture so far: {live.place}")

    def compute(unit: Unit, loaded: SubVolume) -> tuple[np.ndarray[Any, Any], int]:
        return predictor.blend(unit, loaded), loaded.tiles.count

    def store(unit: Unit, computed: tuple[np.ndarray[Any, Any], int]) -> Mapping[str, Any]:
        probability, tiles = computed
        stored = output.write(unit.write_box, probability)
        live.add(unit.write_box, probability)
        return {"bytes_written": stored, "tiles": tiles}

    return UnitWork(
        load=lambda unit: load_unit(settled, unit),
        compute=compute,
        store=store,
        mark=record.mark,
        device=lambda: device_facts(device, predictor.dtype),
    )


def _live_picture(settled: InferPlan, context: RunContext) -> LivePicture:
    """What this process has inferred so far; removed when it has done its part."""
    shard = context.shard
    name = "so-far.png" if shard.count == 1 else f"so-far-{shard.index}-of-{shard.count}.png"
    return LivePicture(settled.volume.shape_yx, settled.folder / name)


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
    write_preview(Prediction.open(settled.folder).pyramid, settled.folder / "preview.png")
    tiles = sum(record.marker(unit)["tiles"] for unit in settled.units)
    if tiles == 0:
        raise DataError(f"segment {settled.volume.provenance.segment}: no tile holds papyrus; check its mask")
    return {"tiles": tiles}

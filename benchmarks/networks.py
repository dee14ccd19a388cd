"""The networks whose whole jobs are measured, each with fresh weights and a segment of its size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.common import REPOSITORY
from inkbatch.io.store.location import Location
from inkbatch.models import build_model
from inkbatch.models.bundle import Bundle, BundleDocument, Contract, LayerRule
from inkbatch.models.presets import load_preset
from inkbatch.models.rules import Normaliser
from inkbatch.testing.segments import network_bundle

DEMO_BUNDLE = REPOSITORY / "inkbatch" / "demo" / "bundle"
VOXEL_SIZE_UM = 7.91


@dataclass(frozen=True)
class Network:
    """A network and how much it is given to do.

    Attributes:
        preset: Published system that it is; empty for those of our own.
        edge_px: Edge of the segment, by kind of device: a minute's work or less.
        batch_tiles: Tiles per pass on CUDA; a CPU finds its own.
        target: Largest ratio of whole job to forward passes.
        by_name: On a CPU it takes minutes and is measured where it is asked for by name alone.
    """

    preset: str
    edge_px: dict[str, int]
    batch_tiles: int = 64
    target: float | None = 1.05
    by_name: bool = False


NETWORKS = {
    "timesformer": Network("timesformer-gp", {"cpu": 448, "cuda": 4000}, 128),
    "resnet3d-152-3d-decoder": Network("resnet3d-152-3d-decoder", {"cpu": 640, "cuda": 4000}, 8),
    "ink-9um": Network("ink-9um", {"cpu": 640, "cuda": 6000}, 64),
    "timesformer-large": Network("timesformer-large-scroll1", {"cpu": 320, "cuda": 3000}, 128, by_name=True),
    "hecate-2.4um": Network("hecate-2.4um", {"cpu": 384, "cuda": 3000}, 8, by_name=True),
    "hecate-9.6um": Network("hecate-9.6um", {"cpu": 128, "cuda": 1500}, 32, by_name=True),
    "ink-8um-v8in": Network("ink-8um-v8in", {"cpu": 96, "cuda": 1000}, 16, by_name=True),
    "unet-resnet34": Network("", {"cpu": 3000, "cuda": 8000}, 64),
    "demo": Network("", {"cpu": 8000, "cuda": 8000}, 256, target=None),
}


def bundle_of(name: str, folder: Path, *, quick: bool) -> Bundle:
    """Write the bundle of a network: contract of the published system, stride of half a tile, fresh weights."""
    if quick:
        return network_bundle(folder / "bundle", 13, voxel_size_um=VOXEL_SIZE_UM)
    if name == "demo":
        return Bundle.open(Location.parse(DEMO_BUNDLE))
    architecture, settings, tile_px = "smp", {"depth_layers": 16, "family": "Unet", "encoder": "resnet34"}, 224
    normaliser = Normaliser()
    if preset_name := NETWORKS[name].preset:
        preset = load_preset(preset_name)
        architecture, settings, tile_px = preset.architecture, dict(preset.model), preset.contract.tile_px
        normaliser = preset.contract.normaliser
    torch.manual_seed(0)
    model = build_model(architecture, settings).eval()
    contract = Contract(
        layers=LayerRule(count=model.config.depth_layers),
        voxel_size_um=VOXEL_SIZE_UM,
        tile_px=tile_px,
        stride_px=tile_px // 2,
        normaliser=normaliser,
    )
    document = BundleDocument(
        name=f"bench-{name}", architecture=architecture, model=settings, contract=contract, flops_per_tile=1.0
    )
    return Bundle.save(Location.parse(folder / "bundle"), model, document)

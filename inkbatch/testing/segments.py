"""Tiny segments and bundles whose right answers are known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from inkbatch.io.store.location import Location

if TYPE_CHECKING:
    from inkbatch.models.bundle import Bundle

VOXEL_SIZE_UM = 8.0


def random_papyrus(shape: tuple[int, int, int] = (5, 150, 210), dtype: str = "uint8", seed: int = 0) -> NDArray[Any]:
    """Make random non-zero grey values (z, y, x); the right fifth is zero in every layer, as outside a segment."""
    top = np.iinfo(dtype).max
    layers = np.random.default_rng(seed).integers(1, top, shape, dtype=np.dtype(dtype))
    layers[:, :, shape[2] - shape[2] // 5 :] = 0
    return layers


def write_layers(folder: Path, layers: NDArray[Any], **options: Any) -> Path:
    """Write layers as ``00.tif``, ``01.tif``, …; `options` go to tifffile."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, layer in enumerate(layers):
        tifffile.imwrite(folder / f"{number:02d}.tif", layer, **options)
    return folder


def identity_bundle(folder: Path | str, layers: int = 3, layer: int = 1, **contract: Any) -> Bundle:
    """Save a bundle of the identity model: its map is layer `layer` (of the centred `layers`), divided by 255.

    `contract` are values of the contract; ``layers_range`` is a range of source layer numbers.
    """
    values = {"tile_px": 16, "stride_px": 5, "activation": "none", "voxel_size_um": VOXEL_SIZE_UM, **contract}
    return _save(folder, "identity", {"depth_layers": layers, "layer": layer}, layers, values)


def network_bundle(folder: Path | str, layers: int = 3, **contract: Any) -> Bundle:
    """Save a bundle of a small real network (a U-Net with fresh, seeded weights)."""
    values = {"tile_px": 32, "stride_px": 16, "voxel_size_um": VOXEL_SIZE_UM, **contract}
    config = {
        "depth_layers": layers,
        "family": "Unet",
        "encoder": "timm-mobilenetv3_small_minimal_100",
        "decoder": {"decoder_channels": [32, 16, 16, 8, 8]},
    }
    import torch

    torch.manual_seed(0)
    return _save(folder, "smp", config, layers, values)


def _save(
    folder: Path | str, architecture: str, config: dict[str, Any], layers: int, contract: dict[str, Any]
) -> Bundle:
    from inkbatch.models import build_model
    from inkbatch.models.bundle import Bundle, BundleDocument, Contract, LayerRule

    rule = LayerRule(count=layers, source_range=contract.pop("layers_range", None))
    document = BundleDocument(
        name=f"tiny-{architecture}",
        architecture=architecture,
        model=config,
        contract=Contract(layers=rule, **contract),
        flops_per_tile=1e6,
    )
    return Bundle.save(Location.parse(folder), build_model(architecture, config), document)

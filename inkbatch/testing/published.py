"""A published network that is small: its weights as a Lightning file, and a preset that they fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from inkbatch.models.base import InkModel, build_model

TINY = {"depth_layers": 3, "tile_px": 32, "dim": 24, "blocks": 1, "heads": 2, "head_dim": 8}
TINY_PRESET: dict[str, Any] = {
    "extends": "timesformer-gp",
    "title": "A tiny TimeSformer",
    "model": {"depth_layers": 3, "tile_px": 32},
    "contract": {"layers": {"count": 3, "source_range": [17, 20]}, "tile_px": 32, "stride_px": 16},
}


def tiny_published() -> InkModel:
    """Build the network, with weights from a fixed seed."""
    torch.manual_seed(0)
    return build_model("timesformer", TINY).eval()


def write_checkpoint(file: Path, network: InkModel) -> None:
    """Write the weights as training with Lightning leaves them."""
    settings = {"size": 32, "enc": "i3d", "pred_shape": (9, 9)}
    torch.save({"state_dict": network.state_dict(), "hyper_parameters": settings}, file)


def write_preset(file: Path) -> None:
    """Write the preset as YAML."""
    file.write_text(yaml.safe_dump(TINY_PRESET), encoding="utf-8")

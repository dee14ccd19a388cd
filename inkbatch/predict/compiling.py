"""Compiled networks: off unless asked for; the first pass takes minutes, and later ones save milliseconds each."""

from __future__ import annotations

import os
import shutil

import torch

from inkbatch.errors import ConfigError, DataError
from inkbatch.models.base import InkModel
from inkbatch.predict.device import TOLERANCE, autocast, spread_of

COMPILERS = ("g++", "clang++", "c++")


def compiled(model: InkModel, device: torch.device) -> InkModel:
    """Compile a network in place, for fixed shapes; the work is done in the first forward pass.

    Each new batch shape is compiled again, and after eight torch falls back to the eager network: settle the batch size
    first, and feed every batch in that size. Logits differ by rounding.

    Args:
        model: The network, in evaluation mode on `device`. Keys and attributes stay what they are.
        device: Where it computes.

    Raises:
        ConfigError: There is no C++ compiler, which compiling for a CPU needs.
    """
    wished = os.environ.get("CXX")
    if device.type == "cpu" and not any(shutil.which(name) for name in ([wished] if wished else COMPILERS)):
        raise ConfigError(
            f"compile: expected a C++ compiler on the PATH, got none ({wished or ', '.join(COMPILERS)}); "
            "install g++, set CXX, or leave compile out"
        )
    model.compile(dynamic=False)
    return model


def require_like_eager(model: InkModel, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> None:
    """Compare a compiled network with itself uncompiled on one made-up batch, which also has it compiled.

    Args:
        model: The network, after `compiled`.
        shape: Shape of all batches, (B, 1, Z, Y, X).
        device: Where it computes.
        dtype: Precision of the pass.

    Raises:
        DataError: The two answers differ by more than `TOLERANCE` allows.
    """
    batch = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.inference_mode(), autocast(device, dtype):
        eager, found = model.forward(batch).float(), model(batch).float()
    difference = float((found - eager).abs().max()) / spread_of(eager)
    if not difference <= TOLERANCE[dtype]:  # NaN differs too
        raise DataError(
            f"compile: the compiled {model.name} gives other logits than the network on {device}: expected logits "
            f"within {TOLERANCE[dtype]:g} standard deviations, got {difference:.3g}; leave compile out"
        )

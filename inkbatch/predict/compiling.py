"""Compiled networks: off unless asked for; the first pass takes minutes, and later ones save milliseconds each."""

from __future__ import annotations

import os
import shutil

import torch

from inkbatch.errors import ConfigError
from inkbatch.models.base import InkModel

COMPILERS = ("g++", "clang++", "c++")


def compiled(model: InkModel, device: torch.device) -> InkModel:
    """Compile a network in place, for fixed shapes; the work is done in the first forward pass.

    Each new batch shape is compiled anew, and after eight torch falls back to the eager network: settle the batch size
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
            f"compile: a C++ compiler is wanted, {wished or 'none of ' + ', '.join(COMPILERS)} is not on the PATH; "
            "install g++, set CXX, or leave compile out"
        )
    model.compile(dynamic=False)
    return model

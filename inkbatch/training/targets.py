"""Targets of the network: labels and counted pixels, at the resolution of its output."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from inkbatch.data.labels.ink import LABEL_MAX
from inkbatch.data.labels.objects import CLASS_GREYS
from inkbatch.errors import ConfigError


def label_targets(labels: Tensor, classes: int) -> Tensor:
    """Turn stored labels into targets at full resolution.

    Args:
        labels: (B, 1, Y, X) uint8.
        classes: 1 for ink, 3 for background, object and boundary.

    Returns:
        (B, classes, Y, X) float32 in [0, 1]; of three classes one is 1 in each pixel.
    """
    if classes == 1:
        return labels.to(torch.float32).div_(LABEL_MAX)
    return (labels == labels.new_tensor(CLASS_GREYS).view(1, -1, 1, 1)).to(torch.float32)


def coarse_targets(labels: Tensor, counted: Tensor, output_scale: int) -> tuple[Tensor, Tensor]:
    """Area-average labels to the output's resolution; ignored pixels take no part in the average.

    Args:
        labels: (B, C, Y, X) float32 in [0, 1].
        counted: (B, 1, Y, X) boolean, False where a pixel is ignored.
        output_scale: Input pixels per output pixel along y and x; 1 leaves the labels as they are.

    Returns:
        (target, weight), (B, C or 1, Y / output_scale, X / output_scale) float32: the mean label of the counted pixels
        (0 where there are none), and the share of counted pixels.

    Raises:
        ConfigError: Y or X is no multiple of the scale.
    """
    weight = counted.to(labels.dtype)
    if output_scale == 1:
        return labels * weight, weight
    if labels.shape[-2] % output_scale or labels.shape[-1] % output_scale:
        raise ConfigError(
            f"targets: tiles of {labels.shape[-2]} x {labels.shape[-1]} px cannot be averaged to an output that is "
            f"{output_scale} times coarser; set tile_px to a multiple of {output_scale}"
        )
    share = functional.avg_pool2d(weight, output_scale)
    ink = functional.avg_pool2d(labels * weight, output_scale)
    return ink / share.clamp_min(1e-6), share

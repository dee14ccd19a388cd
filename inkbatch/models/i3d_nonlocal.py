"""I3D with non-local blocks before its last two end points, from the 2023 Grand Prize ensemble.

(B, 1, Z, Y, X) -> logits (B, 1, Y / 4, X / 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from inkbatch.models.base import register_model
from inkbatch.models.i3d import I3d, I3dConfig

FRESH_SCALE = 0.1
"""Scale of a fresh block's last norm: small, so that training starts near the I3D without blocks."""


class NonLocalBlock(nn.Module):
    """Every position p of a map x asks all others: x_p + W(sum over q of softmax_q(x_p . x_q) g(x_q)).

    The dot products run over all channels and are not scaled, so they grow large: they are taken in float32 even
    under autocast, where float16 would overflow. Fresh blocks add little to their input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Conv3d(channels, channels // 2, 1)
        norm = nn.BatchNorm3d(channels)
        nn.init.constant_(norm.weight, FRESH_SCALE)
        self.W_z = nn.Sequential(nn.Conv3d(channels // 2, channels, 1), norm)

    def forward(self, volume: Tensor) -> Tensor:
        """Map (B, C, Z, Y, X) to the same shape."""
        with torch.autocast(volume.device.type, enabled=False):
            asked = volume.flatten(2).transpose(1, 2).float()
            told = self.g(volume.to(self.g.weight.dtype)).flatten(2).transpose(1, 2).float()
            answer = functional.scaled_dot_product_attention(asked, asked, told, scale=1.0)
        answer = answer.transpose(1, 2).reshape(len(volume), -1, *volume.shape[2:])
        return volume + self.W_z(answer.to(volume.dtype))  # type: ignore[no-any-return]


@register_model("i3d-nonlocal", I3dConfig)
class I3dNonlocal(I3d):
    """(B, 1, Z, Y, X) -> logits (B, 1, Y / 4, X / 4); Y and X are multiples of 32. Maps lose depth by their maximum."""

    entrances: ClassVar[Mapping[str, Callable[[int], nn.Module]]] = {
        "Mixed_5b": NonLocalBlock,
        "Mixed_5c": NonLocalBlock,
    }

    def without_depth(self, feature: Tensor) -> Tensor:
        """Map (B, C, Z, Y, X) to (B, C, Y, X)."""
        return feature.amax(dim=2)

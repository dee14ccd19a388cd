"""The 2-D decoder that I3D and the 3-D ResNets share: maps without depth, from coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class Decoder2d(nn.Module):
    """U-shaped decoder over maps that halve in size from one to the next.

    From the deepest map up: double the size (bilinear), put the finer map in front of it, 3x3 convolution, batch norm,
    ReLU; the result is as wide as the finer map. Keys: ``convs.{i}`` joins maps i and i + 1, counted from the finest;
    ``logit`` is the last, 1x1, convolution.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        """Build the decoder.

        Args:
            widths: Channels of the maps, finest first.
        """
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(fine + coarse, fine, 3, padding=1, bias=False), nn.BatchNorm2d(fine), nn.ReLU(inplace=True)
            )
            for fine, coarse in pairwise(widths)
        )
        self.logit = nn.Conv2d(widths[0], 1, 1)

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        """The convolutions, coarsest first."""
        return tuple(reversed(self.convs))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Decode.

        Args:
            features: Maps (B, widths[i], Y / 2**i, X / 2**i), finest first; every size is exactly half the one before.

        Returns:
            Logits (B, 1, Y, X), as fine as the first map.
        """
        current = features[-1]
        for conv, finer in zip(reversed(self.convs), reversed(features[:-1]), strict=True):
            doubled = functional.interpolate(current, scale_factor=2, mode="bilinear", align_corners=False)
            current = conv(torch.cat((finer, doubled), dim=1))
        logits: Tensor = self.logit(current)
        return logits

"""Networks whose 3-D maps lose their depth before a 2-D decoder, from coarse to fine: I3D and the 3-D ResNets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from inkbatch.models.base import InkModel, ModelConfig
from inkbatch.models.inputs import require_subvolume


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


class FlattenedNet(InkModel):
    """(B, 1, Z, Y, X) -> logits (B, 1, Y / 4, X / 4); Y and X are multiples of 32. Maps lose depth by their maximum."""

    def __init__(self, config: ModelConfig, backbone: nn.Module, widths: Sequence[int], *, with_norm: bool) -> None:
        """Put a backbone and a decoder together.

        Args:
            config: Shape of the network.
            backbone: Maps (B, 1, Z, Y, X) to maps (B, widths[i], Z', Y / 4 / 2**i, X / 4 / 2**i), finest first.
            widths: Channels of the backbone's maps.
            with_norm: Put a one-channel batch norm in front.
        """
        super().__init__(config)
        self.normalization = nn.BatchNorm3d(1) if with_norm else None
        self.backbone = backbone
        self.decoder = Decoder2d(widths)

    @property
    def output_scale(self) -> int:
        """Input pixels per output pixel."""
        return 4

    @property
    def tile_multiple(self) -> int:
        """The coarsest stride, so that doubled maps meet the next finer ones."""
        return 32

    @property
    def decoder_stages(self) -> tuple[nn.Module, ...]:
        """Stages of the 2-D decoder."""
        return self.decoder.stages

    def without_depth(self, feature: Tensor) -> Tensor:
        """Map (B, C, Z, Y, X) to (B, C, Y, X)."""
        return feature.amax(dim=2)

    def forward(self, subvolume: Tensor) -> Tensor:
        """Return the logits.

        Raises:
            ConfigError: The subvolume's layers are not the config's, or its sides are no multiples of 32.
        """
        require_subvolume(self, subvolume)
        if self.normalization is not None:
            subvolume = self.normalization(subvolume)
        flat = [self.without_depth(feature) for feature in self.backbone(subvolume)]
        logits: Tensor = self.decoder(flat)
        return logits

"""Deep supervision: coarser stages of a decoder get maps of their own, which count in the loss and nowhere else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from inkbatch.errors import ConfigError
from inkbatch.models.base import InkModel


class SideMaps(nn.Module):
    """A 1x1 convolution per supervised stage, from its features to logits; weights begin at 0.

    They are no part of the network: a bundle does not hold them.

    Args:
        net: The network; it answers one tile of zeros here, which tells the widths of its stages.
        count: Supervised stages, beside the finest one, which has the network's own map.
        tile_px: Edge of that tile.
    """

    def __init__(self, net: InkModel, count: int, tile_px: int) -> None:
        super().__init__()
        self.count = count
        was_training, parameter = net.training, next(net.parameters())
        tile = torch.zeros(1, 1, net.config.depth_layers, tile_px, tile_px, device=parameter.device)
        net.eval()
        try:
            with torch.no_grad(), self.watched(net) as features:
                net(tile)
        finally:
            net.train(was_training)
        self.heads = nn.ModuleList(nn.Conv2d(one.shape[1], net.classes, 1) for one in features)
        for weights in self.parameters():
            nn.init.zeros_(weights)

    @contextlib.contextmanager
    def watched(self, net: InkModel) -> Iterator[list[Tensor]]:
        """Collect the features of the supervised stages, coarsest first, as a forward pass inside meets them."""
        features: list[Tensor] = []
        stages = net.decoder_stages[-1 - self.count : -1]
        hooks = [stage.register_forward_hook(lambda _, __, found: features.append(found)) for stage in stages]
        try:
            yield features
        finally:
            for hook in hooks:
                hook.remove()

    def forward(self, features: Sequence[Tensor], shape_yx: Sequence[int]) -> list[Tensor]:
        """Return logits of each stage, coarsest first, enlarged bilinearly to the network's map (B, classes, Y, X)."""
        return [
            functional.interpolate(head(one), size=tuple(shape_yx), mode="bilinear", align_corners=False)
            for head, one in zip(self.heads, features, strict=True)
        ]


def stage_weights(count: int) -> list[float]:
    """Return the weights of so many coarser maps, coarsest first, and of the network's own: each twice the one before.

    They sum to 1.
    """
    halves = [0.5**number for number in range(count, -1, -1)]
    return [half / sum(halves) for half in halves]


def require_stages(net: InkModel, count: int) -> None:
    """Refuse more supervised stages than the decoder has beside its finest one.

    Raises:
        ConfigError: It has fewer, or none that is known.
    """
    known = max(0, len(net.decoder_stages) - 1)
    if count > known:
        cure = "" if known else "; set it to 0, or train a Unet, MAnet, Linknet or 3-D ResNet"
        raise ConfigError(
            f"loss.deep_supervision: expected {known} at most, the coarser decoder stages of {net.name} with this "
            f"config, got {count}{cure}"
        )

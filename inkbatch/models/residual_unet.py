"""Residual U-Nets in the style of nnU-Net, built from a config: (B, 1, Z, Y, X) -> logits (B, 1, Y, X).

In 2-D the layers enter as the channels of a picture. In 3-D the encoder works on the volume, each of its maps loses
depth by its mean or maximum, or by a learnt weighted sum, and a 2-D decoder does the rest. For training from scratch.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from inkbatch.models.base import ModelConfig, register_model
from inkbatch.models.inputs import require_subvolume
from inkbatch.models.unet_blocks import NEGATIVE_SLOPE, SURFACE, VOLUME, Decoder, Encoder, StagedNet, require_stages

Fold = Literal["mean", "max", "attention"]


class ResidualUnetConfig(ModelConfig):
    """Shape of a residual U-Net.

    Attributes:
        depth_layers: Layers of the subvolume.
        dims: 2: layers are channels of a picture; 3: a 3-D encoder and a 2-D decoder.
        widths: Channels of each stage, finest first; every stage after the first halves Y and X.
        blocks: Residual blocks of each stage.
        depth_steps: With `dims` 3, the stride of each stage along depth, 1 or 2; None halves it as long as 4 layers or
            more are left.
        fold: With `dims` 3, how a map loses its depth; ``attention`` learns the weights, per map.
        decoder_convs: Convolutions after each joint of the decoder.
    """

    depth_layers: int = Field(17, ge=1)
    dims: Literal[2, 3] = 3
    widths: tuple[int, ...] = Field((32, 64, 128, 256, 320, 320), min_length=2)
    blocks: tuple[int, ...] = (1, 3, 4, 6, 6, 6)
    depth_steps: tuple[Literal[1, 2], ...] | None = None
    fold: Fold = "max"
    decoder_convs: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _stages_agree(self) -> Self:
        require_stages(self.widths, self.blocks)
        if self.depth_steps is None:
            return self
        if self.dims == 2:
            raise ValueError("depth_steps: with dims 2 layers are channels and have no stride; leave it out")
        if len(self.depth_steps) != len(self.widths):
            raise ValueError(f"depth_steps {self.depth_steps} must be as many as widths, {len(self.widths)}")
        left = self.depth_layers
        for step in self.depth_steps:  # a strided convolution rounds up, the pool beside it down
            if left % step:
                raise ValueError(f"depth_steps {self.depth_steps}: {left} layers cannot be halved; use 1 there")
            left //= step
        return self

    @property
    def along_depth(self) -> tuple[int, ...]:
        """Stride of each stage along depth, for a 3-D encoder."""
        if self.depth_steps is not None:
            return self.depth_steps
        steps, left = [1], self.depth_layers
        for _ in self.widths[1:]:
            steps.append(2 if left >= 4 and left % 2 == 0 else 1)
            left //= steps[-1]
        return tuple(steps)


class DepthFold(nn.Module):
    """(B, C, Z, Y, X) -> (B, C, Y, X)."""

    def __init__(self, channels: int, fold: Fold) -> None:
        super().__init__()
        self.fold = fold
        self.scores = nn.Conv3d(channels, 1, 1) if fold == "attention" else None

    def forward(self, volume: Tensor) -> Tensor:
        """Fold depth away; weights over depth are a softmax in float32."""
        if self.scores is not None:
            weights: Tensor = self.scores(volume).float().softmax(dim=2)
            return (volume * weights).sum(dim=2).to(volume.dtype)
        if self.fold == "max":
            return volume.amax(dim=2)
        return volume.mean(dim=2)


@register_model("residual-unet", ResidualUnetConfig)
class ResidualUnet(StagedNet):
    """(B, 1, Z, Y, X) -> logits (B, 1, Y, X); a tile is judged by its own statistics, zeros at its border included."""

    config: ResidualUnetConfig

    def __init__(self, config: ResidualUnetConfig) -> None:
        super().__init__(config, len(config.widths))
        flat = [1] + (len(config.widths) - 1) * [2]
        if config.dims == 2:
            self.encoder = Encoder(SURFACE, config.depth_layers, config.widths, config.blocks, flat)
            self.folds = None
        else:
            steps = [(z, y, y) for z, y in zip(config.along_depth, flat, strict=True)]
            self.encoder = Encoder(VOLUME, 1, config.widths, config.blocks, steps)
            self.folds = nn.ModuleList(DepthFold(width, config.fold) for width in config.widths)
        self.decoder = Decoder(SURFACE, config.widths, flat, config.decoder_convs)
        self.logit = nn.Conv2d(config.widths[0], 1, 1)
        self.apply(_begin)

    def forward(self, subvolume: Tensor) -> Tensor:
        """Return the logits.

        Raises:
            ConfigError: The subvolume's layers are not the config's, or its sides do not fit the strides.
        """
        require_subvolume(self, subvolume)
        maps = self.encoder(subvolume[:, 0] if self.folds is None else subvolume)
        if self.folds is not None:
            maps = [fold(volume) for fold, volume in zip(self.folds, maps, strict=True)]
        return self.logit(self.decoder(maps))  # type: ignore[no-any-return]


def _begin(module: nn.Module) -> None:
    """Draw a convolution's first weights for the leaky ReLU behind it, biases zero."""
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=NEGATIVE_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

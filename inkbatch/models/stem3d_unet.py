"""A small 3-D stem that folds depth away, then a 2-D residual U-Net: (B, 1, Z, Y, X) -> logits (B, 1, Y, X).

The network of ``ink_9um`` and its family (2026): two 3-D convolutions, a learnt sum over depth beside the maximum over
depth, and a U-Net at full resolution. Key names are those of the published files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from inkbatch.errors import MismatchError
from inkbatch.models.base import ModelConfig, register_model
from inkbatch.models.inputs import require_subvolume
from inkbatch.models.unet_blocks import NORM_EPS, SURFACE, Decoder, Encoder, StagedNet, activation, require_stages
from inkbatch.validation import reason

STAGE = "network.shared_encoder.stages"
TWICE = {".all_modules.0.": ".conv.", ".all_modules.1.": ".norm."}
"""Second names under which published files hold every convolution and norm."""


class Stem3dUnetConfig(ModelConfig):
    """Shape of a 3-D stem with a 2-D residual U-Net; the defaults are ``ink_9um``, 34,546,498 parameters.

    Attributes:
        depth_layers: Layers of the subvolume. No weight depends on it; the published weights take 17.
        stem_channels: Channels of the 3-D stem; the U-Net gets twice as many.
        widths: Channels of each stage, finest first; every stage after the first halves Y and X.
        blocks: Residual blocks of each stage.
    """

    depth_layers: int = Field(17, ge=1)
    stem_channels: int = Field(16, ge=1)
    widths: tuple[int, ...] = Field((32, 64, 128, 256, 320, 320), min_length=2)
    blocks: tuple[int, ...] = (1, 3, 4, 6, 6, 6)

    @model_validator(mode="after")
    def _stages_agree(self) -> Self:
        require_stages(self.widths, self.blocks)
        return self


class DepthFusion(nn.Module):
    """Fold depth away: the learnt sum over depth of 3-D features, beside their maximum.

    The weights of the sum are a softmax over depth of one learnt channel, in float32.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (1, channels):
            layers.append(nn.Conv3d(inputs, channels, 3, padding=1, bias=False))
            layers += [nn.InstanceNorm3d(channels, eps=NORM_EPS, affine=True), activation()]
        self.features = nn.Sequential(*layers)
        self.attention_logits = nn.Conv3d(channels, 1, 1)

    def forward(self, subvolume: Tensor) -> Tensor:
        """Map (B, 1, Z, Y, X) to (B, 2 * channels, Y, X), the sum first."""
        features = self.features(subvolume)
        weights = self.attention_logits(features).float().softmax(dim=2)
        return torch.cat(((features * weights).sum(dim=2).to(features.dtype), features.amax(dim=2)), dim=1)


class SurfaceUnet(nn.Module):
    """2-D residual U-Net with one head, under the published names."""

    def __init__(self, inputs: int, config: Stem3dUnetConfig) -> None:
        super().__init__()
        steps = [1] + (len(config.widths) - 1) * [2]
        self.shared_encoder = Encoder(SURFACE, inputs, config.widths, config.blocks, steps)
        self.task_heads = nn.ModuleDict({"ink": nn.Conv2d(config.widths[0], 1, 1)})
        self.shared_decoder = Decoder(SURFACE, config.widths, steps)

    def forward(self, picture: Tensor) -> Tensor:
        """Map (B, inputs, Y, X) to logits (B, 1, Y, X)."""
        return self.task_heads["ink"](self.shared_decoder(self.shared_encoder(picture)))  # type: ignore[no-any-return]


@register_model("stem3d-unet", Stem3dUnetConfig)
class Stem3dUnet(StagedNet):
    """(B, 1, Z, Y, X) -> logits (B, 1, Y, X); a tile is judged by its own statistics, zeros at its border included."""

    config: Stem3dUnetConfig

    def __init__(self, config: Stem3dUnetConfig) -> None:
        super().__init__(config, len(config.widths))
        self.network = SurfaceUnet(2 * config.stem_channels, config)
        self.depth_fusion = DepthFusion(config.stem_channels)

    def forward(self, subvolume: Tensor) -> Tensor:
        """Return the logits.

        Raises:
            ConfigError: The subvolume's layers are not the config's, or its sides do not fit the strides.
        """
        require_subvolume(self, subvolume)
        return self.network(self.depth_fusion(subvolume))  # type: ignore[no-any-return]

    @classmethod
    def published_key(cls, key: str) -> str:
        """Return the first of the two names under which a published file holds a tensor."""
        for second, first in TWICE.items():
            key = key.replace(second, first)
        return key

    @classmethod
    def infer_config(cls, shapes: Mapping[str, tuple[int, ...]]) -> Stem3dUnetConfig:
        """Read the config of a published checkpoint, from its key names and shapes.

        The number of layers is not in the weights; the config gets the default, 17.

        Raises:
            MismatchError: The keys are not this network's.
        """
        places = [re.match(rf"{re.escape(STAGE)}\.(\d+)\.blocks\.(\d+)\.conv1\.conv\.weight$", key) for key in shapes]
        found = sorted((int(place[1]), int(place[2])) for place in places if place)
        count = 1 + max((stage for stage, _ in found), default=-1)
        try:
            return Stem3dUnetConfig(
                stem_channels=shapes["depth_fusion.features.0.weight"][0],
                widths=tuple(shapes[f"{STAGE}.{stage}.blocks.0.conv1.conv.weight"][0] for stage in range(count)),
                blocks=tuple(sum(number == stage for number, _ in found) for stage in range(count)),
            )
        except (KeyError, ValueError, IndexError) as error:
            lack = f"it lacks {error.args[0]}" if isinstance(error, KeyError) else reason(error)
            raise MismatchError(
                f"{cls.architecture}: the checkpoint has no whole 3-D stem with a 2-D residual U-Net: {lack}; "
                "name the architecture that it was trained with, or fetch the whole file"
            ) from error

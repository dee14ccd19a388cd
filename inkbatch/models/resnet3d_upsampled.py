"""3-D ResNet that norms each tile, enlarges it inside, and has a 2-D decoder: (B, 1, Z, Y, X) -> logits (B, 1, Y', X').

The network of ``ink-8um-v8in`` (2026): `resnet3d` with an instance norm on the tile as it comes, then the tile resized
to a finer grid, so that one logit comes out per pixel of the tile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from inkbatch.errors import MismatchError
from inkbatch.models.base import InkModel, register_model
from inkbatch.models.decoder2d import Decoder2d
from inkbatch.models.inputs import require_subvolume
from inkbatch.models.resnet3d import Resnet3d
from inkbatch.models.resnet3d_backbone import FEATURE_WIDTHS, Resnet3dBackbone, Resnet3dConfig

INNER_SCALE = 4
"""Pixels of the enlarged tile per logit."""


class Resnet3dUpsampledConfig(Resnet3dConfig):
    """Shape of a 3-D ResNet on enlarged tiles; see `Resnet3dConfig`. The defaults are ``ink-8um-v8in``.

    Attributes:
        depth_layers: Layers of the subvolume. No weight depends on it; the published weights take 24.
        tile_px: Edge of the square tile.
        upsample_layers: Layers that the tile is resized to.
        upsample_px: Edge that the tile is resized to; a multiple of 32.
    """

    depth_layers: int = 24
    fc_width: int | None = None
    with_norm: bool = True
    tile_px: int = Field(64, ge=1)
    upsample_layers: int = Field(96, ge=1)
    upsample_px: int = Field(256, ge=32, multiple_of=32)

    @model_validator(mode="after")
    def _logits_are_whole(self) -> Self:
        if INNER_SCALE * self.tile_px % self.upsample_px:
            raise ValueError(
                f"upsample_px {self.upsample_px} must divide {INNER_SCALE * self.tile_px}, "
                f"{INNER_SCALE} times tile_px: logits stand for whole pixels"
            )
        if not self.with_norm:
            raise ValueError("with_norm must be true: the network begins with the tile's own norm")
        return self


@register_model("resnet3d-upsampled", Resnet3dUpsampledConfig)
class Resnet3dUpsampled(InkModel):
    """(B, 1, Z, Y, X) -> logits, one per pixel where `upsample_px` is four times `tile_px`."""

    config: Resnet3dUpsampledConfig

    def __init__(self, config: Resnet3dUpsampledConfig) -> None:
        super().__init__(config)
        self.normalization = nn.InstanceNorm3d(1, affine=True)
        self.backbone = Resnet3dBackbone(config.resnet, config.fc_width)
        self.decoder = Decoder2d(FEATURE_WIDTHS)

    @property
    def normalises_input(self) -> bool:
        """True: the instance norm comes first."""
        return True

    @property
    def output_scale(self) -> int:
        """Input pixels per output pixel."""
        return INNER_SCALE * self.config.tile_px // self.config.upsample_px

    @property
    def fixed_tile_px(self) -> int:
        """The config's tile: another one would be seen at another scale."""
        return self.config.tile_px

    @property
    def decoder_stages(self) -> tuple[nn.Module, ...]:
        """Stages of the 2-D decoder."""
        return self.decoder.stages

    def forward(self, subvolume: Tensor) -> Tensor:
        """Return the logits.

        Raises:
            ConfigError: The subvolume has other layers or another tile than the config says.
        """
        require_subvolume(self, subvolume)
        size = (self.config.upsample_layers, self.config.upsample_px, self.config.upsample_px)
        normed = self.normalization(subvolume)
        enlarged = functional.interpolate(normed, size=size, mode="trilinear", align_corners=False)
        logits: Tensor = self.decoder([feature.amax(dim=2) for feature in self.backbone(enlarged)])
        return logits

    @classmethod
    def infer_config(cls, shapes: Mapping[str, tuple[int, ...]]) -> Resnet3dUpsampledConfig:
        """Read the config of a published checkpoint, from its key names and shapes.

        Layers, tile and the size inside are not in the weights; the config gets the defaults.

        Raises:
            MismatchError: The keys are not this network's.
        """
        if "normalization.weight" not in shapes or "normalization.running_mean" in shapes:
            raise MismatchError(
                f"{cls.architecture}: the checkpoint does not begin with the tile's own norm; "
                "if it has a 2-D decoder, import it as resnet3d"
            )
        found = Resnet3d.infer_config(shapes)
        return Resnet3dUpsampledConfig(resnet=found.resnet, fc_width=found.fc_width, with_norm=True)

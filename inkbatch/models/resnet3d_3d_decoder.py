"""3-D ResNet with a 3-D decoder that learns where in depth to look: (B, 1, Z, Y, X) -> logits (B, 1, Y / 4, X / 4).

The network of the 2.4 µm scans, with ResNet 152, 62 layers and tiles of 256 px.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from inkbatch.errors import MismatchError
from inkbatch.models.base import InkModel, register_model
from inkbatch.models.inputs import require_subvolume
from inkbatch.models.resnet3d_backbone import (
    FEATURE_WIDTHS,
    Resnet3dBackbone,
    Resnet3dConfig,
    ResnetDepth,
    backbone_facts,
)

REDUCED_WIDTHS = (64, 128, 256, 512)
"""Channels of the four maps, finest first, as the decoder takes them."""

NORM_GROUPS = 32


class Resnet3dDecoder3dConfig(Resnet3dConfig):
    """Shape of a 3-D ResNet with a 3-D decoder; see `Resnet3dConfig`. The defaults are the published network."""

    depth_layers: int = 62
    resnet: ResnetDepth = 152
    with_norm: bool = True


class DecoderBlock(nn.Module):
    """Two 3x3x3 convolutions with group norms, added to a 1x1x1 shortcut that has none."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, padding=1, bias=False)
        self.gn1 = nn.GroupNorm(NORM_GROUPS, outputs)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, padding=1, bias=False)
        self.gn2 = nn.GroupNorm(NORM_GROUPS, outputs)
        self.shortcut = nn.Conv3d(inputs, outputs, 1, bias=False)

    def forward(self, volume: Tensor) -> Tensor:
        """Map (B, inputs, Z, Y, X) to (B, outputs, Z, Y, X)."""
        inner = functional.relu(self.gn1(self.conv1(volume)), inplace=True)
        return functional.relu(self.gn2(self.conv2(inner)) + self.shortcut(volume), inplace=True)


class DepthCollapse(nn.Module):
    """Weighted mean over depth; the weights are a softmax over depth of one learnt channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attn_conv = nn.Conv3d(channels, 1, 1)

    def forward(self, volume: Tensor) -> Tensor:
        """Map (B, C, Z, Y, X) to (B, C, Y, X)."""
        weights: Tensor = self.attn_conv(volume).softmax(dim=2)
        return (volume * weights).sum(dim=2)


class AuxiliaryHead(nn.Module):
    """A head that only the original training used; its weights are in the checkpoint, its answer in none of ours."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 1, 1).requires_grad_(False)


class Decoder3d(nn.Module):
    """From the deepest map up: resize (trilinear) to the finer map, put it in front of that map, `DecoderBlock`.

    Keys: ``channel_reduce`` counts from the finest map, ``decoder_blocks`` from the deepest.
    """

    def __init__(self) -> None:
        super().__init__()
        self.channel_reduce = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, bias=False), nn.GroupNorm(NORM_GROUPS, outputs), nn.ReLU(inplace=True)
            )
            for inputs, outputs in zip(FEATURE_WIDTHS, REDUCED_WIDTHS, strict=True)
        )
        finest, second, third, deepest = REDUCED_WIDTHS
        self.decoder_blocks = nn.ModuleList(
            DecoderBlock(coarse + fine, fine) for coarse, fine in ((deepest, third), (third, second), (second, finest))
        )
        self.depth_collapse = DepthCollapse(finest)
        self.logit = nn.Conv2d(finest, 1, 1)
        self.aux_head_s2 = AuxiliaryHead(third)
        self.aux_head_s1 = AuxiliaryHead(second)

    def voxels(self, features: list[Tensor]) -> Tensor:
        """Decode maps of `FEATURE_WIDTHS`, finest first, to (B, 64, Z, Y, X), as fine as the first map."""
        maps = [reduce(feature) for reduce, feature in zip(self.channel_reduce, features, strict=True)]
        current: Tensor = maps.pop()
        for block in self.decoder_blocks:
            finer = maps.pop()
            resized = functional.interpolate(current, size=finer.shape[2:], mode="trilinear", align_corners=False)
            current = block(torch.cat((resized, finer), dim=1))
        return current

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map features of `FEATURE_WIDTHS`, finest first, to logits (B, 1, Y, X), as fine as the first of them."""
        logits: Tensor = self.logit(self.depth_collapse(self.voxels(features)))
        return logits


@register_model("resnet3d-3d-decoder", Resnet3dDecoder3dConfig)
class Resnet3dDecoder3d(InkModel):
    """(B, 1, Z, Y, X) -> logits (B, 1, Y / 4, X / 4)."""

    config: Resnet3dDecoder3dConfig

    def __init__(self, config: Resnet3dDecoder3dConfig, *, full_size: bool = False) -> None:
        """Build the network.

        Args:
            config: Its shape.
            full_size: Whether the first maps are as fine as the tile; see `Resnet3dBackbone`. For `hecate`.
        """
        super().__init__(config)
        self.normalization = nn.BatchNorm3d(1) if config.with_norm else None
        self.backbone = Resnet3dBackbone(config.resnet, config.fc_width, full_size=full_size)
        self.decoder = Decoder3d()

    @property
    def output_scale(self) -> int:
        """Input pixels per output pixel."""
        return 4

    @property
    def tile_multiple(self) -> int:
        """Whole output pixels; coarser maps may be odd, the decoder resizes to their exact sizes."""
        return 4

    def forward(self, subvolume: Tensor) -> Tensor:
        """Return the logits.

        Raises:
            ConfigError: The subvolume's layers are not the config's, or its sides are no multiples of 4.
        """
        require_subvolume(self, subvolume)
        logits: Tensor = self.decoder(self.features(subvolume))
        return logits

    def features(self, subvolume: Tensor) -> list[Tensor]:
        """Compute the backbone's maps of a subvolume, finest first."""
        if self.normalization is not None:
            subvolume = self.normalization(subvolume)
        return self.backbone(subvolume)  # type: ignore[no-any-return]

    @classmethod
    def infer_config(cls, shapes: Mapping[str, tuple[int, ...]]) -> Resnet3dDecoder3dConfig:
        """Derive the config of a published checkpoint from its key names and shapes.

        The number of layers is not in the weights; the config gets the default, 62.

        Raises:
            MismatchError: The keys are not this network's.
        """
        facts = backbone_facts(cls.architecture, shapes)
        if "decoder.decoder_blocks.0.conv1.weight" not in shapes:
            raise MismatchError(
                f"{cls.architecture}: the checkpoint has no 3-D decoder (decoder.decoder_blocks); "
                "if it has a 2-D one, import it as resnet3d"
            )
        return Resnet3dDecoder3dConfig.model_validate(facts)

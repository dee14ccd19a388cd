"""UNETR and SegFormer in a row: (B, 1, Z, Y, X) -> logits (B, 1, Y / 4, X / 4).

The network of the 2025 First Title: UNETR turns the subvolume into channels at every voxel, their maximum over depth is
a picture, and SegFormer reads that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import model_validator
from torch import Tensor, nn

from inkbatch.errors import MismatchError
from inkbatch.models.base import InkModel, ModelConfig, register_model
from inkbatch.models.inputs import require_subvolume
from inkbatch.models.segformer import SHAPES, segformer, version_4_name
from inkbatch.models.unetr import CUBE, Unetr, UnetrShape
from inkbatch.validation import reason

SEGFORMER_PREFIX = "encoder_2d."

UNETR_SHAPES = {
    "mini": UnetrShape(dim=384, heads=6, blocks=8, hidden=1024, taps=(2, 4, 6, 8), filters=(256, 128, 64)),
    "full": UnetrShape(dim=768, heads=12, blocks=12, hidden=2048, taps=(3, 6, 9, 12), filters=(512, 256, 128)),
}


class UnetrSegformerConfig(ModelConfig):
    """Shape of a UNETR and SegFormer; the defaults are the published network.

    Attributes:
        depth_layers: Layers of the subvolume; a multiple of 16. A table of positions is learnt for it.
        tile_px: Edge of the square tile; a multiple of 32. A table of positions is learnt for it.
        unetr: ``mini`` (published) or ``full``.
        unetr_channels: Channels between the two networks.
        segformer: Size of SegFormer, ``b0`` to ``b5``.
        layer_norm_eps: Of the UNETR part; SegFormer has its own, 1e-5.
        dropout: Inside the UNETR part, and of whole channels between the two, in training only.
    """

    depth_layers: int = 16
    tile_px: int = 128
    unetr: Literal["mini", "full"] = "mini"
    unetr_channels: int = 32
    segformer: Literal["b0", "b1", "b2", "b3", "b4", "b5"] = "b3"
    layer_norm_eps: float = 1e-3
    dropout: float = 0.1

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.depth_layers < CUBE or self.depth_layers % CUBE:
            raise ValueError(f"depth_layers {self.depth_layers} must be a multiple of {CUBE}")
        if self.tile_px < 2 * CUBE or self.tile_px % (2 * CUBE):
            raise ValueError(f"tile_px {self.tile_px} must be a multiple of {2 * CUBE}")
        return self


@register_model("unetr-segformer", UnetrSegformerConfig)
class UnetrSegformer(InkModel):
    """(B, 1, Z, Y, X) -> logits (B, 1, Y / 4, X / 4); Y and X are the config's `tile_px`."""

    config: UnetrSegformerConfig

    def __init__(self, config: UnetrSegformerConfig) -> None:
        super().__init__(config)
        rows = config.tile_px // CUBE
        self.encoder = Unetr(
            UNETR_SHAPES[config.unetr],
            grid=(config.depth_layers // CUBE, rows, rows),
            outputs=config.unetr_channels,
            eps=config.layer_norm_eps,
            dropout=config.dropout,
        )
        self.dropout = nn.Dropout2d(config.dropout)
        self.encoder_2d = segformer(config.segformer, config.unetr_channels)

    @property
    def output_scale(self) -> int:
        """Input pixels per output pixel."""
        return 4

    @property
    def fixed_tile_px(self) -> int:
        """The config's tile: the network has a table of positions."""
        return self.config.tile_px

    def forward(self, subvolume: Tensor) -> Tensor:
        """Return the logits.

        Raises:
            ConfigError: The subvolume has other layers or another tile than the config says.
        """
        require_subvolume(self, subvolume)
        picture = self.dropout(self.encoder(subvolume).amax(dim=2))
        logits: Tensor = self.encoder_2d(picture).logits
        return logits

    @staticmethod
    def published_key(key: str) -> str:
        """Spell a key as published; files written under transformers 5 have other names for the SegFormer part."""
        own = key.removeprefix(SEGFORMER_PREFIX)
        return key if own == key else SEGFORMER_PREFIX + version_4_name(own)

    @classmethod
    def infer_config(cls, shapes: Mapping[str, tuple[int, ...]]) -> UnetrSegformerConfig:
        """Derive the config of a published checkpoint from its key names (without ``model.``) and shapes.

        The number of layers is not in the weights, but its product with the tile's area is; the config gets the
        default, 16.

        Raises:
            MismatchError: The keys are not this network's.
        """
        try:
            _, tokens, dim = shapes["encoder.transformer.embeddings.position_embeddings"]
            channels = shapes["encoder.decoder0_header.2.block.weight"][0]
        except (KeyError, ValueError, IndexError) as error:
            raise MismatchError(
                f"{cls.architecture}: the checkpoint has no UNETR's keys and shapes: {reason(error)}; "
                "name the architecture that it was trained with"
            ) from error
        unetr = next((name for name, shape in UNETR_SHAPES.items() if shape.dim == dim), None)
        rows = math.isqrt(tokens)
        if unetr is None or rows**2 != tokens:
            raise MismatchError(
                f"{cls.architecture}: expected a square number of tokens of width 384 (mini) or 768 (full), for "
                f"{CUBE} layers, the checkpoint has {tokens} of width {dim}; name the architecture of its training"
            )
        return UnetrSegformerConfig.model_validate(
            {
                "tile_px": rows * CUBE,
                "unetr": unetr,
                "unetr_channels": channels,
                "segformer": _segformer_size(cls.architecture, shapes),
            }
        )


def _segformer_size(architecture: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Read which SegFormer a checkpoint holds, from its keys in the spelling of transformers 4."""
    stages = [f"{SEGFORMER_PREFIX}segformer.encoder.block.{stage}." for stage in range(4)]
    blocks = tuple(len({key.split(".")[5] for key in shapes if key.startswith(stage)}) for stage in stages)
    widths = tuple(shapes.get(f"{stage}0.layer_norm_1.weight", (0,))[0] for stage in stages)
    size = next((name for name, shape in SHAPES.items() if (shape.widths, shape.blocks) == (widths, blocks)), None)
    if size is None:
        raise MismatchError(
            f"{architecture}: the checkpoint has {blocks} blocks of widths {widths} under encoder_2d, which is "
            "no SegFormer b0 to b5 in the spelling of transformers 4; name the architecture that it was trained with"
        )
    return size

"""Hecate: every voxel gets a logit, learnt weights over depth make the map, (B, 1, Z, Y, X) -> logits (B, 1, Y', X').

The network of ``resnet3d-3d-decoder`` whole, under ``canonical.``, with one more number: how much the weights over
depth lean towards one end (2026). For scans of 2.4 µm it answers at a quarter of the tile's size, for 9.6 µm at all
of it. The map and the voxels' answer come from the same logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from inkbatch.errors import MismatchError
from inkbatch.models.base import InkModel, register_model
from inkbatch.models.inputs import require_subvolume
from inkbatch.models.resnet3d_3d_decoder import Resnet3dDecoder3d, Resnet3dDecoder3dConfig

PREFIX = "canonical."
SCALE = "depth_coordinate_scale"
INVALID_SCORE = -1e4
SMALLEST_SUM = 1e-8
SMALLEST_PROBABILITY = 2.0**-23
MARGIN_LOGIT = -20.0
"""Logit of the planes that the network never sees, in the voxels' answer."""


class HecateConfig(Resnet3dDecoder3dConfig):
    """Shape of Hecate; see `Resnet3dConfig`. The defaults are the network for 2.4 µm.

    Attributes:
        depth_layers: Layers of the subvolume, margins included: 64 at 2.4 µm, 16 at 9.6 µm.
        depth_margin: Layers at either end that the network leaves out: 1 at 2.4 µm, 0 at 9.6 µm.
        xy_stride: Input pixels per output pixel: 4 at 2.4 µm, 1 at 9.6 µm.
        empty_columns: What is said of columns that are zero in every layer: ``no-answer`` gives them logit 0 and no
            part in the map, as the released program does; ``as-others`` treats them as all others.
    """

    depth_layers: int = 64
    depth_margin: int = Field(1, ge=0)
    xy_stride: Literal[1, 4] = 4
    empty_columns: Literal["no-answer", "as-others"] = "no-answer"

    @model_validator(mode="after")
    def _layers_are_left(self) -> Self:
        if self.depth_layers - 2 * self.depth_margin < 2:  # one plane has no depth coordinate
            raise ValueError(f"depth_layers {self.depth_layers} leave fewer than 2 between margins {self.depth_margin}")
        return self

    @property
    def inner(self) -> Resnet3dDecoder3dConfig:
        """Config of the network under ``canonical.``."""
        shared = self.model_dump(include=set(Resnet3dDecoder3dConfig.model_fields))
        return Resnet3dDecoder3dConfig(**shared | {"depth_layers": self.depth_layers - 2 * self.depth_margin})


@register_model("hecate", HecateConfig)
class Hecate(InkModel):
    """(B, 1, Z, Y, X) -> logits (B, 1, Y / xy_stride, X / xy_stride)."""

    config: HecateConfig

    def __init__(self, config: HecateConfig) -> None:
        super().__init__(config)
        self.depth_coordinate_scale = nn.Parameter(torch.zeros(()))
        self.canonical = Resnet3dDecoder3d(config.inner, full_size=config.xy_stride == 1)

    @property
    def output_scale(self) -> int:
        """Input pixels per output pixel."""
        return self.config.xy_stride

    @property
    def tile_multiple(self) -> int:
        """Whole output pixels."""
        return self.config.xy_stride

    def forward(self, subvolume: Tensor) -> Tensor:
        """Return the logits of the map, float32.

        Raises:
            ConfigError: The subvolume's layers are not the config's, or its sides are no multiples of `xy_stride`.
        """
        logits, scores = self.voxels(subvolume)
        if self.config.empty_columns == "as-others":
            return project(logits, scores)
        return project(logits, scores, self.on_grid(subvolume.ne(0).any(dim=2, keepdim=True)))

    def voxels(self, subvolume: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits of every voxel, and scores of its share in the map, at the network's grid.

        Args:
            subvolume: (B, 1, Z, Y, X).

        Returns:
            Two float32 tensors (B, 1, Z - 2 * depth_margin, Y / xy_stride, X / xy_stride).

        Raises:
            ConfigError: See `forward`.
        """
        require_subvolume(self, subvolume)
        margin = self.config.depth_margin
        inner = subvolume[:, :, margin : subvolume.shape[2] - margin]
        decoder = self.canonical.decoder
        voxels = decoder.voxels(self.canonical.features(inner))
        with torch.autocast(voxels.device.type, enabled=False):
            voxels = voxels.float()
            kernel, bias = decoder.logit.weight.float().unsqueeze(2), decoder.logit.bias
            logits = functional.conv3d(voxels, kernel, None if bias is None else bias.float())
            attention = decoder.depth_collapse.attn_conv
            shift = None if attention.bias is None else attention.bias.float()
            scores = functional.conv3d(voxels, attention.weight.float(), shift)
            half = scores.shape[2] // 2
            planes = torch.arange(scores.shape[2], device=scores.device, dtype=torch.float32)
            return logits, scores + self.depth_coordinate_scale.float() * ((planes - half) / half).view(-1, 1, 1)

    def on_grid(self, valid: Tensor) -> Tensor:
        """Bring booleans (B, 1, Z, Y, X) to the network's grid: true where any pixel below is."""
        if self.config.xy_stride == 1:
            return valid
        window = (1, self.config.xy_stride, self.config.xy_stride)
        return functional.max_pool3d(valid.float(), window).bool()

    def full_voxels(self, logits: Tensor) -> Tensor:
        """Enlarge voxel logits to the tile's size, (B, 1, Z, Y, X); margins, which no network sees, say no ink."""
        stride, margin = self.config.xy_stride, self.config.depth_margin
        size = (logits.shape[2], logits.shape[3] * stride, logits.shape[4] * stride)
        full = functional.interpolate(logits, size=size, mode="trilinear", align_corners=False)
        return functional.pad(full, (0, 0, 0, 0, margin, margin), value=MARGIN_LOGIT)

    @classmethod
    def infer_config(cls, shapes: Mapping[str, tuple[int, ...]]) -> HecateConfig:
        """Read the config of a published checkpoint, from its key names and shapes.

        The first convolution tells the scale, and the scale the layers: 64 of 2.4 µm or 16 of 9.6 µm.

        Raises:
            MismatchError: The keys are not this network's.
        """
        if SCALE not in shapes:
            raise MismatchError(
                f"{cls.architecture}: the checkpoint has no {SCALE}; name the architecture that it was trained with"
            )
        inside = {key.removeprefix(PREFIX): shape for key, shape in shapes.items() if key.startswith(PREFIX)}
        inner = Resnet3dDecoder3d.infer_config(inside)
        facts = {key: getattr(inner, key) for key in inner.model_fields_set}
        full_size = inside["backbone.conv1.weight"][-1] == 3
        scale = {"depth_layers": 16, "depth_margin": 0, "xy_stride": 1} if full_size else {"xy_stride": 4}
        return HecateConfig.model_validate(facts | scale)


def project(logits: Tensor, scores: Tensor, valid: Tensor | None = None) -> Tensor:
    """Average voxel logits over depth; the weights are a softmax over depth of the scores.

    Args:
        logits: float32 (B, 1, Z, Y, X).
        scores: The same shape.
        valid: Booleans that can be broadcast to it, or None: voxels that take part.

    Returns:
        float32 (B, 1, Y, X); 0, which is a probability of one half, where no voxel of the column takes part.
    """
    if valid is None:
        return (logits * scores.softmax(dim=2)).sum(dim=2)
    weights = scores.masked_fill(~valid, INVALID_SCORE).softmax(dim=2) * valid
    return (logits * weights).sum(dim=2) / weights.sum(dim=2).clamp_min(SMALLEST_SUM)


def full_map_logit(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge a map's probabilities bilinearly to `size` (Y, X), and give them as logits again."""
    full = functional.interpolate(logits.float().sigmoid(), size=size, mode="bilinear", align_corners=False)
    return full.clamp(SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY).logit()

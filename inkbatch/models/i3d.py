"""I3D, Inception v1 inflated to 3-D, with a 2-D decoder: (B, 1, Z, Y, X) -> logits (B, 1, Y / 4, X / 4).

The network of the 2023 First Letters. Key names are those of the published ink checkpoints, where every part of the
backbone is named by its end point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import ClassVar, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional

from inkbatch.errors import MismatchError
from inkbatch.models.base import ModelConfig, register_model
from inkbatch.models.decoder2d import FlattenedNet

Triple = tuple[int, int, int]
"""One number per axis (z, y, x)."""

BATCH_NORM_EPS = 1e-3

MIXED_WIDTHS: dict[str, tuple[int, int, int, int, int, int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
"""Output channels of b0, b1a, b1b, b2a, b2b, b3b."""

FEATURES = {"Conv3d_2c_3x3": 192, "Mixed_3c": 480, "Mixed_4f": 832, "Mixed_5c": 1024}
"""End points that the decoder reads, finest first, and their channels; at Y / 4, Y / 8, Y / 16, Y / 32."""


class I3dConfig(ModelConfig):
    """Shape of an I3D.

    Attributes:
        depth_layers: Layers of the subvolume. No weight depends on it; the published weights were used with 30.
        with_norm: Whether a one-channel batch norm stands in front of the network.
        unused_logits: Width of the classifier that stands in the checkpoints and plays no part.
    """

    depth_layers: int = 30
    with_norm: bool = False
    unused_logits: int = 512

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if min(self.depth_layers, self.unused_logits) < 1:
            raise ValueError("all sizes must be at least 1")
        return self


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Count the zeros before and behind one axis, so that ceil(size / stride) windows fit; an odd one goes behind."""
    overhang = size % stride or stride
    total = max(kernel - overhang, 0)
    return total // 2, total - total // 2


def padded(volume: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """Pad (B, C, Z, Y, X) with the zeros of `same_padding`; return it unchanged if there are none."""
    pads = [same_padding(*axis) for axis in zip(volume.shape[2:], kernel, stride, strict=True)]
    last_axis_first = list(chain.from_iterable(reversed(pads)))
    return functional.pad(volume, last_axis_first) if any(last_axis_first) else volume


class ConvUnit(nn.Module):
    """Convolution without bias, batch norm, ReLU; (B, C, Z, Y, X) -> every axis divided by the stride, rounded up."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.kernel: Triple = (kernel, kernel, kernel)
        self.stride: Triple = (stride, stride, stride)
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(outputs, eps=BATCH_NORM_EPS)

    def forward(self, volume: Tensor) -> Tensor:
        """Pad by the input's size, convolve, norm, ReLU."""
        return functional.relu(self.bn(self.conv3d(padded(volume, self.kernel, self.stride))))


class MaxPool(nn.Module):
    """Maximum over windows; the padding counts as zero, which shows where the input is negative."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride

    def forward(self, volume: Tensor) -> Tensor:
        """Convolve (B, C, Z, Y, X); every axis is divided by its stride, rounded up."""
        return functional.max_pool3d(padded(volume, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.ModuleDict):
    """Four branches over one map, concatenated: 1x1x1; 1x1x1 and 3x3x3, twice; max pool and 1x1x1."""

    def __init__(self, inputs: int, widths: tuple[int, ...], entrance: nn.Module | None = None) -> None:
        b0, b1a, b1b, b2a, b2b, b3b = widths
        super().__init__({"nl_block": entrance} if entrance is not None else {})
        self["b0"] = ConvUnit(inputs, b0, 1)
        self["b1a"] = ConvUnit(inputs, b1a, 1)
        self["b1b"] = ConvUnit(b1a, b1b, 3)
        self["b2a"] = ConvUnit(inputs, b2a, 1)
        self["b2b"] = ConvUnit(b2a, b2b, 3)
        self["b3a"] = MaxPool((3, 3, 3), (1, 1, 1))
        self["b3b"] = ConvUnit(inputs, b3b, 1)

    def forward(self, volume: Tensor) -> Tensor:
        """Map (B, inputs, Z, Y, X) to (B, b0 + b1b + b2b + b3b, Z, Y, X)."""
        if "nl_block" in self:
            volume = self["nl_block"](volume)
        branches = (
            self["b0"](volume),
            self["b1b"](self["b1a"](volume)),
            self["b2b"](self["b2a"](volume)),
            self["b3b"](self["b3a"](volume)),
        )
        return torch.cat(branches, dim=1)


class UnusedLogits(nn.Module):
    """The classifier of the video network: its weights are in every checkpoint, its answer in none of ours."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, outputs, 1).requires_grad_(False)


class Backbone(nn.ModuleDict):
    """The end points in order; its keys are their names."""

    def __init__(self, config: I3dConfig, entrances: Mapping[str, Callable[[int], nn.Module]]) -> None:
        """Build the end points.

        Args:
            config: Shape of the network.
            entrances: For some of the mixed end points, what makes the module at its entrance from its channels.
        """
        super().__init__()
        self["Conv3d_1a_7x7"] = ConvUnit(1, 64, 7, 2)
        self["MaxPool3d_2a_3x3"] = MaxPool((1, 3, 3), (1, 2, 2))
        self["Conv3d_2b_1x1"] = ConvUnit(64, 64, 1)
        self["Conv3d_2c_3x3"] = ConvUnit(64, 192, 3)
        self["MaxPool3d_3a_3x3"] = MaxPool((1, 3, 3), (1, 2, 2))
        pools = {"Mixed_4b": ("MaxPool3d_4a_3x3", 3), "Mixed_5b": ("MaxPool3d_5a_2x2", 2)}
        channels = 192
        for name, widths in MIXED_WIDTHS.items():
            if name in pools:
                pool, edge = pools[name]
                self[pool] = MaxPool((edge, edge, edge), (2, 2, 2))
            entrance = entrances[name](channels) if name in entrances else None
            self[name] = Mixed(channels, widths, entrance)
            b0, _, b1b, _, b2b, b3b = widths
            channels = b0 + b1b + b2b + b3b
        self["logits"] = UnusedLogits(channels, config.unused_logits)

    def forward(self, subvolume: Tensor) -> list[Tensor]:
        """Map (B, 1, Z, Y, X) to the maps of `FEATURES`, (B, C, Z', Y', X') each, finest first."""
        features = []
        volume = subvolume
        for name, end_point in self.items():
            if name == "logits":
                break
            volume = end_point(volume)
            if name in FEATURES:
                features.append(volume)
        return features


@register_model("i3d", I3dConfig)
class I3d(FlattenedNet):
    """(B, 1, Z, Y, X) -> logits (B, 1, Y / 4, X / 4); Y and X are multiples of 32. Maps lose depth by their mean."""

    config: I3dConfig
    entrances: ClassVar[Mapping[str, Callable[[int], nn.Module]]] = {}

    def __init__(self, config: I3dConfig) -> None:
        backbone = Backbone(config, self.entrances)
        super().__init__(config, backbone, tuple(FEATURES.values()), with_norm=config.with_norm)

    def without_depth(self, feature: Tensor) -> Tensor:
        """Map (B, C, Z, Y, X) to (B, C, Y, X)."""
        return feature.mean(dim=2)

    @classmethod
    def infer_config(cls, shapes: Mapping[str, tuple[int, ...]]) -> I3dConfig:
        """Derive the config of a published checkpoint from its key names and shapes.

        The number of layers is not in the weights; the config gets the default, 30.

        Raises:
            MismatchError: The keys are not this network's.
        """
        with_entrance = {key.split(".")[1] for key in shapes if ".nl_block." in key}
        width = shapes.get("backbone.logits.conv3d.bias", ())
        if "backbone.Conv3d_1a_7x7.conv3d.weight" not in shapes or len(width) != 1 or min(width) < 1:
            raise MismatchError(
                f"{cls.architecture}: the checkpoint has no I3D's keys (backbone.Conv3d_1a_7x7, backbone.logits); "
                "name the architecture that it was trained with"
            )
        if with_entrance != set(cls.entrances):
            raise MismatchError(
                f"{cls.architecture}: expected non-local blocks in {sorted(cls.entrances)}, the checkpoint has them in "
                f"{sorted(with_entrance)}; import it as {'i3d-nonlocal' if with_entrance else 'i3d'}"
            )
        return I3dConfig(unused_logits=width[0], with_norm="normalization.weight" in shapes)

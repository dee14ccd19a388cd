"""Parts of residual U-Nets in the style of nnU-Net, in 2-D and 3-D: instance norms, leaky ReLUs, strided stages.

Key names are those of the published ink checkpoints of 2026. Instance norms use a tile's own statistics, in evaluation
too: what a tile holds, padding included, moves all of its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from inkbatch.models.base import InkModel, ModelConfig

NEGATIVE_SLOPE = 0.01
NORM_EPS = 1e-5


@dataclass(frozen=True)
class Space:
    """The layers of one dimension: `SURFACE` (y, x) or `VOLUME` (z, y, x)."""

    conv: Callable[..., nn.Module]
    up: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    pool: Callable[..., nn.Module]


SURFACE = Space(nn.Conv2d, nn.ConvTranspose2d, nn.InstanceNorm2d, nn.AvgPool2d)
VOLUME = Space(nn.Conv3d, nn.ConvTranspose3d, nn.InstanceNorm3d, nn.AvgPool3d)

Step = int | tuple[int, ...]
"""Stride of a stage: one for all axes, or one per axis."""


def require_stages(widths: Sequence[int], blocks: Sequence[int]) -> None:
    """Refuse stages whose widths and blocks do not agree.

    Raises:
        ValueError: They are not as many, or one is less than 1.
    """
    if len(widths) != len(blocks) or min(*widths, *blocks) < 1:
        raise ValueError(f"widths {widths} and blocks {blocks} must be as many, and at least 1 each")


def activation() -> nn.LeakyReLU:
    """Make the leaky ReLU that all of these networks use."""
    return nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)


def strided(step: Step) -> bool:
    """Tell whether a stride makes a map coarser along some axis."""
    return any(edge != 1 for edge in (step if isinstance(step, tuple) else (step,)))


class ConvNorm(nn.Module):
    """A convolution and an instance norm, with or without a leaky ReLU behind them."""

    def __init__(
        self,
        space: Space,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 3,
        step: Step = 1,
        bias: bool = True,
        active: bool = True,
    ) -> None:
        super().__init__()
        self.conv = space.conv(inputs, outputs, kernel, stride=step, padding=kernel // 2, bias=bias)
        self.norm = space.norm(outputs, eps=NORM_EPS, affine=True)
        self.active = activation() if active else nn.Identity()

    def forward(self, values: Tensor) -> Tensor:
        """Map (B, inputs, …) to (B, outputs, …), every axis divided by the stride."""
        return self.active(self.norm(self.conv(values)))  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """Two 3-wide convolutions with norms, added to a skip, then a leaky ReLU.

    The skip averages where the block is strided, and only where the width changes has it a convolution (1 wide, no
    bias) with a norm of its own.
    """

    def __init__(self, space: Space, inputs: int, outputs: int, step: Step = 1) -> None:
        super().__init__()
        self.conv1 = ConvNorm(space, inputs, outputs, step=step)
        self.conv2 = ConvNorm(space, outputs, outputs, active=False)
        skip: list[nn.Module] = []
        if strided(step):
            skip.append(space.pool(step, step))
        if inputs != outputs:
            skip.append(ConvNorm(space, inputs, outputs, kernel=1, bias=False, active=False))
        self.skip = nn.Sequential(*skip)
        self.active = activation()

    def forward(self, values: Tensor) -> Tensor:
        """Map (B, inputs, …) to (B, outputs, …), every axis divided by the stride."""
        return self.active(self.conv2(self.conv1(values)) + self.skip(values))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Residual blocks of one width; the first carries the stride."""

    def __init__(self, space: Space, inputs: int, outputs: int, count: int, step: Step) -> None:
        super().__init__()
        first = ResidualBlock(space, inputs, outputs, step)
        self.blocks = nn.Sequential(first, *(ResidualBlock(space, outputs, outputs) for _ in range(count - 1)))

    def forward(self, values: Tensor) -> Tensor:
        """Map (B, inputs, …) to (B, outputs, …)."""
        return self.blocks(values)  # type: ignore[no-any-return]


class ConvStack(nn.Module):
    """Convolutions with norms and leaky ReLUs, one after the other, under ``convs``."""

    def __init__(self, space: Space, inputs: int, outputs: int, count: int = 1) -> None:
        super().__init__()
        widths = [inputs] + count * [outputs]
        self.convs = nn.Sequential(*(ConvNorm(space, before, after) for before, after in pairwise(widths)))

    def forward(self, values: Tensor) -> Tensor:
        """Map (B, inputs, …) to (B, outputs, …)."""
        return self.convs(values)  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """A stem and stages of residual blocks: one map per stage, finest first."""

    def __init__(
        self, space: Space, inputs: int, widths: Sequence[int], blocks: Sequence[int], steps: Sequence[Step]
    ) -> None:
        """Build the encoder.

        Args:
            space: 2-D or 3-D.
            inputs: Channels of what comes in.
            widths: Channels of each stage's map; the stem is as wide as the first.
            blocks: Residual blocks of each stage.
            steps: Stride of each stage.
        """
        super().__init__()
        self.stem = ConvStack(space, inputs, widths[0])
        entries = (widths[0], *widths[:-1])
        self.stages = nn.ModuleList(Stage(space, *shape) for shape in zip(entries, widths, blocks, steps, strict=True))

    def forward(self, values: Tensor) -> list[Tensor]:
        """Map (B, inputs, …) to a feature map (B, widths[i], …) of each stage."""
        values = self.stem(values)
        maps = []
        for stage in self.stages:
            values = stage(values)
            maps.append(values)
        return maps


class Decoder(nn.Module):
    """From the deepest map up: a transposed convolution to the finer width and size, beside the encoder's map, convs.

    ``transpconvs.{i}`` and ``stages.{i}`` count from the deepest.
    """

    def __init__(self, space: Space, widths: Sequence[int], steps: Sequence[Step], convs: int = 1) -> None:
        """Build the decoder.

        Args:
            space: 2-D or 3-D.
            widths: Channels of the encoder's maps, finest first.
            steps: Stride of each stage of the encoder; the first is that of the finest map and plays no part.
            convs: Convolutions after each joint.
        """
        super().__init__()
        joints = list(zip(reversed(widths[1:]), reversed(widths[:-1]), reversed(steps[1:]), strict=True))
        self.stages = nn.ModuleList(ConvStack(space, 2 * fine, fine, convs) for _, fine, _ in joints)
        self.transpconvs = nn.ModuleList(space.up(coarse, fine, step, stride=step) for coarse, fine, step in joints)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Map features of `widths`, finest first, to (B, widths[0], …), as fine as the first of them."""
        current = maps[-1]
        for up, stage, finer in zip(self.transpconvs, self.stages, reversed(maps[:-1]), strict=True):
            current = stage(torch.cat((up(current), finer), dim=1))
        return current


class StagedNet(InkModel):
    """Network of stages, each of which after the first halves Y and X."""

    def __init__(self, config: ModelConfig, stages: int) -> None:
        super().__init__(config)
        self.stages = stages

    @property
    def output_scale(self) -> int:
        """One logit per pixel."""
        return 1

    @property
    def tile_multiple(self) -> int:
        """The coarsest stride: 32 with six stages."""
        return 1 << (self.stages - 1)

    @property
    def smallest_tile_px(self) -> int:
        """Two positions of the coarsest map: the norm of one position alone is nothing."""
        return 2 * self.tile_multiple

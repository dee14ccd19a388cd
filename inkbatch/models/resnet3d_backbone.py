"""3-D ResNet over a subvolume: four maps, each half as fine as the one before, with depth kept.

Key names are those of 3D-ResNets-PyTorch, as the published ink checkpoints have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional

from inkbatch.errors import MismatchError
from inkbatch.models.base import ModelConfig

ResnetDepth = Literal[50, 101, 152]

BLOCKS: dict[int, tuple[int, int, int, int]] = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Residual blocks of layers 1 to 4, by the number that names the network."""

FEATURE_WIDTHS = (256, 512, 1024, 2048)
"""Channels of the four maps, finest first; at Y / 4, Y / 8, Y / 16, Y / 32 and Z, Z / 2, Z / 4, Z / 8, rounded up."""

STEM_WIDTH = 64
EXPANSION = 4


class Resnet3dConfig(ModelConfig):
    """Shape of a network with a 3-D ResNet.

    Attributes:
        depth_layers: Layers of the subvolume. No weight depends on it.
        resnet: Which ResNet: 50, 101 or 152.
        fc_width: Width of the classifier that stands in the checkpoints and plays no part: 700, 1039 and 1139 are
            published. None leaves it out.
        with_norm: Whether a one-channel batch norm stands in front of the network.
    """

    depth_layers: int = 30
    resnet: ResnetDepth = 50
    fc_width: int | None = 1039
    with_norm: bool = False


class Bottleneck(nn.Module):
    """1x1x1, 3x3x3 (which carries the stride) and 1x1x1 convolutions with batch norms, added to a shortcut.

    (B, inputs, Z, Y, X) -> (B, 4 * width, …), every axis divided by the stride, rounded up.
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.conv1 = nn.Conv3d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv3d(inputs, outputs, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm3d(outputs))

    def forward(self, volume: Tensor) -> Tensor:
        """Run the block."""
        shortcut = volume if self.downsample is None else self.downsample(volume)
        inner = functional.relu(self.bn1(self.conv1(volume)), inplace=True)
        inner = functional.relu(self.bn2(self.conv2(inner)), inplace=True)
        return functional.relu(self.bn3(self.conv3(inner)) + shortcut, inplace=True)


class Resnet3dBackbone(nn.Module):
    """(B, 1, Z, Y, X) -> four maps (B, C, Z', Y', X') of `FEATURE_WIDTHS`, finest first.

    The published stem is 7 wide, halves Y and X twice and begins at Y / 4, X / 4. The `full_size` one is 3 wide and
    halves nothing: the four maps are four times as fine.
    """

    def __init__(self, resnet: int, fc_width: int | None, *, full_size: bool = False) -> None:
        super().__init__()
        self.pooled = not full_size
        stem = {"kernel_size": 3, "padding": 1} if full_size else {"kernel_size": 7, "padding": 3, "stride": (1, 2, 2)}
        self.conv1 = nn.Conv3d(1, STEM_WIDTH, **stem, bias=False)
        self.bn1 = nn.BatchNorm3d(STEM_WIDTH)
        inputs = (STEM_WIDTH, *FEATURE_WIDTHS[:3])
        widths = [outputs // EXPANSION for outputs in FEATURE_WIDTHS]
        layers = [
            nn.Sequential(*blocks(*shape)) for shape in zip(inputs, widths, (1, 2, 2, 2), BLOCKS[resnet], strict=True)
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.fc = None if fc_width is None else nn.Linear(FEATURE_WIDTHS[-1], fc_width).requires_grad_(False)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, subvolume: Tensor) -> list[Tensor]:
        """Run stem and layers; the pool leaves depth alone."""
        volume = functional.relu(self.bn1(self.conv1(subvolume)), inplace=True)
        if self.pooled:
            volume = functional.max_pool3d(volume, kernel_size=(1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        features = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            volume = layer(volume)
            features.append(volume)
        return features


def blocks(inputs: int, width: int, stride: int, count: int) -> list[Bottleneck]:
    """Make one layer's blocks; the first carries the stride."""
    channels = [inputs] + count * [EXPANSION * width]
    steps = [stride] + (count - 1) * [1]
    return [Bottleneck(before, width, step) for (before, _), step in zip(pairwise(channels), steps, strict=True)]


def backbone_facts(architecture: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int | bool | None]:
    """Read from a checkpoint's keys what the weights say about the config: `resnet`, `fc_width`, `with_norm`.

    Args:
        architecture: For messages.
        shapes: Shape by key, without a checkpoint's prefix.

    Raises:
        MismatchError: The keys are not those of a 3-D ResNet that is known here.
    """
    found = tuple(
        len({key.split(".")[2] for key in shapes if key.startswith(f"backbone.layer{layer}.")}) for layer in range(1, 5)
    )
    resnet = next((depth for depth in get_args(ResnetDepth) if BLOCKS[depth] == found), None)
    if resnet is None or "backbone.layer1.0.conv3.weight" not in shapes:
        known = ", ".join(f"{depth}: {counts}" for depth, counts in BLOCKS.items())
        raise MismatchError(
            f"{architecture}: the checkpoint has {found} bottleneck blocks in backbone.layer1 to layer4, "
            f"expected one of {known}; name the architecture that it was trained with"
        )
    fc = shapes.get("backbone.fc.weight")
    return {
        "resnet": resnet,
        "fc_width": None if fc is None else fc[0],
        "with_norm": "normalization.weight" in shapes,
    }

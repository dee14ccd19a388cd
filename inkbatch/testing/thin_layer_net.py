"""Small networks that read planted ink, trained in a minute: readers for proofs on segments of known truth.

They are taught what the field's networks are taught: ink in the middle of their window is a letter; ink in other
layers, fibres and bare papyrus are not. They never see layers out of order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from inkbatch.data.synthetic.phantom import InkConfig, depth_weight, ink_plane
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.models.base import NETWORKS, InkModel, ModelConfig, register_model
from inkbatch.models.bundle import Bundle, BundleDocument, Contract, LayerRule

VOXEL_UM = 7.91
CROP_PX = 64
BARE_SHARE, OTHER_LAYER_SHARE = 0.15, 0.25  # of examples: without ink, and with ink in another layer than the middle
NEAR_LAYERS, AWAY_LAYERS = 0.5, 2.0  # ink this near to the middle is to be read, from here on it is not


class ThinLayerConfig(ModelConfig):
    """Shape of a `ThinLayerNet`.

    Attributes:
        channels: Of each of its layers.
    """

    channels: int = 16


class ThinLayerNet(InkModel):
    """(B, 1, Z, Y, X) -> (B, 1, Y / 2, X / 2): layers as channels, four convolutions at half the resolution."""

    architecture = "thin-layer"
    config_class = ThinLayerConfig

    def __init__(self, config: ThinLayerConfig) -> None:
        super().__init__(config)
        width = config.channels
        steps: list[nn.Module] = [nn.Conv2d(config.depth_layers, width, 3, stride=2, padding=1), nn.GELU()]
        for dilation in (1, 2, 2):
            steps += [nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation), nn.GELU()]
        self.steps = nn.Sequential(*steps, nn.Conv2d(width, 1, 1))

    @property
    def output_scale(self) -> int:
        """Input pixels per output pixel."""
        return 2

    @property
    def tile_multiple(self) -> int:
        """Stride of the first convolution."""
        return 2

    def forward(self, subvolume: Tensor) -> Tensor:
        """Map grey values of about -1 to 1 to logits."""
        found: Tensor = self.steps(subvolume[:, 0])
        return found


def register_thin_layer_net() -> None:
    """Let bundles of the network be opened in this process; importing it adds no architecture to the product."""
    if ThinLayerNet.architecture not in NETWORKS:
        register_model(ThinLayerNet.architecture, ThinLayerConfig)(ThinLayerNet)


def train_thin_layer_net(
    papyri: Sequence[NDArray[np.uint8]],
    letters: NDArray[np.float32],
    config: ThinLayerConfig,
    *,
    seed: int,
    steps: int,
    batch: int = 16,
) -> ThinLayerNet:
    """Train a network on planted ink.

    Args:
        papyri: Stacks without ink, (Z, Y, X) each, of at least `config.depth_layers` layers and `CROP_PX` pixels.
        letters: Mask in [0, 1], (Y, X).
        config: Its shape.
        seed: Of weights and examples.
        steps: Steps of training.
        batch: Examples per step.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    network = ThinLayerNet(config)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for _ in range(steps):
        examples = [_example(rng, papyri, letters, config.depth_layers) for _ in range(batch)]
        layers, target = (torch.from_numpy(np.stack(part)) for part in zip(*examples, strict=True))
        loss = functional.binary_cross_entropy_with_logits(network(layers[:, None]), functional.avg_pool2d(target, 2))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return network.eval()


def _example(
    rng: np.random.Generator, papyri: Sequence[NDArray[np.uint8]], letters: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw layers of one example, normalised, and its target, (1, Y, X)."""
    stack = papyri[int(rng.integers(len(papyri)))]
    z, y, x = (int(rng.integers(size - part + 1)) for size, part in zip(stack.shape, _box(count), strict=True))
    layers: NDArray[np.float32] = _turned(stack[z : z + count, y : y + CROP_PX, x : x + CROP_PX], rng).astype(
        np.float32
    )
    if rng.random() < 0.5:
        layers = layers[::-1]
    kind, middle = rng.random(), (count - 1) / 2
    if kind < BARE_SHARE:
        return _normalised(layers), np.zeros((1, CROP_PX, CROP_PX), np.float32)
    top, left = (int(rng.integers(size - CROP_PX + 1)) for size in letters.shape)
    mask = np.ascontiguousarray(_turned(letters[top : top + CROP_PX, left : left + CROP_PX], rng))
    is_other = kind < BARE_SHARE + OTHER_LAYER_SHARE
    off = rng.uniform(AWAY_LAYERS, middle + 1) * rng.choice([-1, 1]) if is_other else rng.uniform(-1, 1) * NEAR_LAYERS
    ink = InkConfig(
        amplitude=float(rng.uniform(20, 70)),
        depth_layer=middle + float(off),
        width_layers=float(rng.uniform(1.2, 1.8)),
        crackle=float(rng.uniform(0.2, 0.8)),
        seed=int(rng.integers(2**31)),
    )
    plane = ink_plane(mask, None, ink, Box(0, 0, CROP_PX, CROP_PX))
    weights = np.array([depth_weight(place, ink) for place in range(count)], np.float32)
    planted = np.clip(layers + weights[:, None, None] * plane, 0, 255)
    return _normalised(planted), np.zeros_like(mask)[None] if is_other else mask[None]


def _box(count: int) -> tuple[int, int, int]:
    return count, CROP_PX, CROP_PX


def _turned(values: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    found = np.rot90(values, int(rng.integers(4)), (-2, -1))
    return found[..., ::-1] if rng.random() < 0.5 else found


MEAN, DEVIATION = 0.5, 0.2  # of grey values, as the contract says


def _normalised(layers: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.ascontiguousarray((layers / 255 - MEAN) / DEVIATION, np.float32)
    return found


def save_thin_layer_bundle(folder: Path, network: ThinLayerNet, name: str) -> Bundle:
    """Save a trained network as a bundle that takes the middle of a surface."""
    contract = Contract(
        layers=LayerRule(count=network.config.depth_layers),
        tile_px=192,
        stride_px=160,
        voxel_size_um=VOXEL_UM,
        mean=MEAN,
        std=DEVIATION,
    )
    document = BundleDocument(
        name=name,
        architecture="thin-layer",
        model=network.config.model_dump(mode="json"),
        contract=contract,
        flops_per_tile=1e8,
    )
    return Bundle.save(Location.parse(folder), network, document)

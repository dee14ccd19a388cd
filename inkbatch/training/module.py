"""Module of training: the computation of a step, from stored intensities to the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from inkbatch.models.base import InkModel
from inkbatch.models.bundle import Contract
from inkbatch.predict.normalise import normalise_tiles
from inkbatch.training.augment import apply_changes
from inkbatch.training.data import Batch
from inkbatch.training.losses import LossConfig, ink_loss
from inkbatch.training.optimise import OptimiserConfig, make_optimiser
from inkbatch.training.side_maps import SideMaps, stage_weights
from inkbatch.training.statistics import SampleStatistics
from inkbatch.training.targets import coarse_targets, label_targets

DTYPE_MAX = {"uint8": 255.0, "uint16": 65535.0}


class InkModule(nn.Module):
    """A network with its loss, its inputs' contract and its optimiser.

    Args:
        net: The network.
        contract: Contract of the network's input, as its bundle will state it.
        loss: The loss.
        optimiser: The optimiser.
        statistics: Of the samples' segments, for a contract that normalises by them.
    """

    def __init__(
        self,
        net: InkModel,
        contract: Contract,
        loss: LossConfig,
        optimiser: OptimiserConfig,
        statistics: SampleStatistics | None = None,
    ) -> None:
        super().__init__()
        self.net, self.contract, self.statistics = net, contract, statistics
        self.loss, self.optimiser_config = loss, optimiser
        self.side_maps = SideMaps(net, loss.deep_supervision, contract.tile_px) if loss.deep_supervision else None

    def forward(self, subvolume: Tensor) -> Tensor:
        """Map (B, 1, Z, Y, X) normalised to logits (B, classes, Y / output_scale, X / output_scale)."""
        logits: Tensor = self.net(subvolume)
        return logits

    @torch.no_grad()
    def prepare(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Augment, normalise, and bring labels to the output's resolution.

        Returns:
            (subvolume (B, 1, Z, Y, X), target, weight), see `coarse_targets`.
        """
        top = DTYPE_MAX[self.contract.dtype]
        layers = batch.layers.to(torch.float32).div_(top)
        labels = label_targets(batch.labels, self.net.classes)
        layers, labels, counted = apply_changes(layers, labels, batch.counted, batch.changes)
        subvolume = self.normalised(layers.mul_(top), batch.sample_ids)
        return subvolume, *coarse_targets(labels, counted, self.net.output_scale)

    def normalised(self, tiles: Tensor, sample_ids: Sequence[str]) -> Tensor:
        """Normalise (B, Z, Y, X) intensities as inference does to (B, 1, Z, Y, X); `sample_ids` name the samples."""
        statistics = self.statistics.of(sample_ids, tiles.device) if self.statistics else None
        return normalise_tiles(tiles, self.contract, statistics)[:, None]

    def training_step(self, subvolume: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Compute the loss of one micro batch; equal on all devices."""
        if self.side_maps is None:
            return ink_loss(self(subvolume), target, weight, self.loss, sum_over_devices)
        with self.side_maps.watched(self.net) as features:
            logits = self(subvolume)
        maps = [*self.side_maps(features, logits.shape[-2:]), logits]
        losses = [ink_loss(one, target, weight, self.loss, sum_over_devices) for one in maps]
        weighted = [factor * one for factor, one in zip(stage_weights(self.side_maps.count), losses, strict=True)]
        return torch.stack(weighted).sum()

    def configure_optimizers(self) -> Any:
        """Make the optimiser; rates are set before each step by `rate_factor`."""
        trained = self.net if self.side_maps is None else nn.ModuleDict({"net": self.net, "side_maps": self.side_maps})
        return make_optimiser(trained, self.optimiser_config)


def sum_over_devices(values: Tensor) -> Tensor:
    """Sum all devices' tensors, gradients included; the tensor itself on one device."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return values
    total: Tensor = _Sum.apply(values)
    return total


class _Sum(torch.autograd.Function):
    """Sum over devices; its gradient is the sum of the gradients that the devices found."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        torch.distributed.all_reduce(total)
        return total

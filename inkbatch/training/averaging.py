"""Average of checkpoints: a mean in float64, a check that they belong to one run, and renewed statistics.

Checkpoints of one run lie in one basin, and so does their mean; those of two seeds do not, and their mean is a network
that answers nothing. The cosine of the weight vectors tells the two apart: above 0.9 within a run, near 0.3 between
seeds (community measurement on ink networks, 2026). The method: Izmailov and others, "Averaging Weights Leads to Wider
Optima and Better Generalization", 2018; Wortsman and others, "Model soups", 2022.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

Weights = Mapping[str, Tensor]
TINY = 1e-300


@dataclass
class WeightMean:
    """Running mean of weights and buffers.

    Attributes:
        parameters: Names that count for the cosine: what is trained, without statistics.
        members: Weights taken in so far.
    """

    parameters: frozenset[str]
    members: int = 0
    _first: dict[str, Tensor] = field(default_factory=dict)
    _sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, weights: Weights) -> float:
        """Take weights in.

        Returns:
            Cosine between these and the first ones, over all trained weights; 1.0 for the first.
        """
        if not self.members:
            self._first = {name: tensor.detach().clone() for name, tensor in weights.items()}
        for name, tensor in weights.items():
            if tensor.is_floating_point():
                wide = tensor.to(torch.float64)
                self._sums[name] = self._sums[name] + wide if name in self._sums else wide
        self.members += 1
        return cosine(self._first, weights, self.parameters)

    def mean(self) -> dict[str, Tensor]:
        """Return the mean in each tensor's own dtype; what is not a floating-point number is the first one's."""
        return {
            name: (self._sums[name] / self.members).to(tensor.dtype) if name in self._sums else tensor.clone()
            for name, tensor in self._first.items()
        }


def cosine(one: Weights, other: Weights, names: Iterable[str]) -> float:
    """Compute the cosine of two weight vectors over some tensors, in float64."""
    dot = square_one = square_other = 0.0
    for name in sorted(names):
        a, b = one[name].to(torch.float64).flatten(), other[name].to(torch.float64).flatten()
        dot, square_one, square_other = dot + float(a @ b), square_one + float(a @ a), square_other + float(b @ b)
    return dot / max(math.sqrt(square_one * square_other), TINY)


def renew_statistics(network: nn.Module, batches: Iterable[Tensor], seed: int) -> bool:
    """Renew the statistics of batch normalisation: those of the members do not fit their mean.

    Args:
        network: The network with averaged weights, on its device; its mode stays as it is.
        batches: Normalised inputs (B, 1, Z, Y, X) on the same device.
        seed: Of dropout, which acts as in training.

    Returns:
        False if the network keeps no such statistics; then no batch is read.
    """
    keeps = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    if keeps:
        torch.manual_seed(seed)
        update_bn(batches, network)
    return keeps

"""Optimisers, learning rates and the moving average of weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from inkbatch.errors import ConfigError

ENCODER_WORDS = frozenset({"encoder", "backbone"})
ONE_CYCLE_FIRST, ONE_CYCLE_LAST = 1 / 25, 1e-4  # of the highest rate
EMA_START = 10  # the first averages forget faster: decay (1 + n) / (10 + n)


class OptimiserConfig(BaseModel):
    """The optimiser.

    Attributes:
        name: ``adamw`` or ``sgd``.
        rate: Highest learning rate.
        encoder_factor: The encoder's rate as a share of that.
        weight_decay: Of all weights but norms and biases.
        betas: Of AdamW.
        momentum: Of SGD (Nesterov where not 0).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["adamw", "sgd"] = "adamw"
    rate: float = Field(3e-4, gt=0)
    encoder_factor: float = Field(1.0, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = Field(0.9, ge=0, lt=1)


class ScheduleConfig(BaseModel):
    """The learning rate over the steps of the run.

    Attributes:
        name: ``constant``; ``cosine`` (a linear warm-up, then half a cosine down to `floor`); ``one-cycle`` (half a
            cosine up from 1/25 of the rate, then one down to 1/10,000 of it; Smith 2018).
        warm_up: Part of the steps in which the rate rises.
        floor: Last rate of ``cosine``, as a share of the highest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["constant", "cosine", "one-cycle"] = "cosine"
    warm_up: float = Field(0.05, ge=0, lt=1)
    floor: float = Field(0.0, ge=0, le=1)


def rate_factor(step: int, steps: int, config: ScheduleConfig) -> float:
    """Return the learning rate of a step, as a share of the highest; a pure function, so that resuming needs no state.

    Args:
        step: From 0.
        steps: Steps of the whole run.
        config: The schedule.
    """
    rising = config.warm_up * steps
    if config.name == "one-cycle":
        peak = max(0.0, rising - 1)
        if step < peak:
            return _half_cosine(step / peak, ONE_CYCLE_FIRST, 1.0)
        return _half_cosine((step - peak) / max(1.0, steps - 1 - peak), 1.0, ONE_CYCLE_LAST)
    if step < rising:
        return (step + 1) / (rising + 1)
    if config.name == "constant":
        return 1.0
    return _half_cosine((step - rising) / max(1.0, steps - rising), 1.0, config.floor)


def _half_cosine(done: float, first: float, last: float) -> float:
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))


def make_optimiser(net: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """Build the optimiser with up to four groups: encoder or not, decayed or not.

    Raises:
        ConfigError: Nothing can be trained, or the encoder is to have its own rate and the network has none.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            in_encoder = bool(ENCODER_WORDS & set(name.split(".")))
            groups.setdefault((in_encoder, parameter.ndim > 1), []).append(parameter)
    if not groups:
        raise ConfigError("model: no weight of this network can be trained; unfreeze it, or take another one")
    if config.encoder_factor != 1.0 and not any(in_encoder for in_encoder, _ in groups):
        raise ConfigError(
            f"optimiser.encoder_factor {config.encoder_factor}: this network has no trainable part called "
            f"{' or '.join(sorted(ENCODER_WORDS))}; set it to 1"
        )
    rows: list[dict[str, Any]] = []
    for (in_encoder, decayed), parameters in sorted(groups.items(), key=lambda item: item[0]):
        rate = config.rate * (config.encoder_factor if in_encoder else 1.0)
        decay = config.weight_decay if decayed else 0.0
        rows.append({"params": parameters, "lr": rate, "highest_rate": rate, "weight_decay": decay})
    if config.name == "sgd":
        return torch.optim.SGD(rows, lr=config.rate, momentum=config.momentum, nesterov=config.momentum > 0)
    return torch.optim.AdamW(rows, lr=config.rate, betas=config.betas)


def set_rates(optimiser: Any, factor: float) -> None:
    """Set every group's rate to a part of its highest."""
    for group in optimiser.param_groups:
        group["lr"] = group["highest_rate"] * factor


class WeightAverage:
    """Exponential moving average of a network's weights and statistics.

    Args:
        net: The network, on its device.
        decay: Part of the average that stays at each step, after the first steps.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net, self.decay, self.updates = net, decay, 0
        self.average = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights of a step in."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (EMA_START + self.updates))
        for name, tensor in self.net.state_dict().items():
            average = self.average[name]
            if average.is_floating_point():
                average.lerp_(tensor, 1 - decay)
            else:
                average.copy_(tensor)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the network the averaged weights inside this context."""
        own = {name: tensor.detach().clone() for name, tensor in self.net.state_dict().items()}
        self.net.load_state_dict(self.average)
        try:
            yield
        finally:
            self.net.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"average": self.average, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self.updates = int(state["updates"])
        found: dict[str, Tensor] = state["average"]
        for name, tensor in self.average.items():
            tensor.copy_(found[name])

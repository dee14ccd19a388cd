"""Rates, parameter groups and the moving average of weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from inkbatch.errors import ConfigError
from inkbatch.training.optimise import OptimiserConfig, ScheduleConfig, WeightAverage, make_optimiser, rate_factor


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        self.decoder = nn.Conv2d(2, 1, 3)


def rates(steps: int, **config) -> list[float]:
    return [rate_factor(step, steps, ScheduleConfig(**config)) for step in range(steps)]


def test_cosine_warms_up_and_falls_to_its_floor():
    found = rates(100, name="cosine", warm_up=0.1, floor=0.05)
    assert found[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert max(found) == found[10] == 1
    assert found[55] == pytest.approx(0.05 + 0.95 / 2)
    assert found[-1] == pytest.approx(0.05, abs=1e-3)
    assert found[10:] == sorted(found[10:], reverse=True)


def test_one_cycle_is_that_of_torch():
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 1.0, total_steps=50, pct_start=0.3, div_factor=25, final_div_factor=400, cycle_momentum=False
    )
    expected = []
    for _ in range(50):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        cycle.step()
    found = rates(50, name="one-cycle", warm_up=0.3)
    assert found[0] == pytest.approx(1 / 25)
    assert found[-1] == pytest.approx(1e-4)
    assert found == pytest.approx(expected, rel=1e-6)


def test_constant_is_constant_after_its_warm_up():
    assert rates(10, name="constant", warm_up=0.0) == [1.0] * 10


def test_encoder_and_decoder_have_their_rates_and_norms_do_not_decay():
    net = Net()
    optimiser = make_optimiser(net, OptimiserConfig(rate=1e-2, encoder_factor=0.1, weight_decay=0.3))
    of = {id(p): group for group in optimiser.param_groups for p in group["params"]}
    rows = {name: (of[id(p)]["highest_rate"], of[id(p)]["weight_decay"]) for name, p in net.named_parameters()}
    assert rows["encoder.0.weight"] == (1e-3, 0.3)
    assert rows["encoder.1.weight"] == rows["encoder.0.bias"] == (1e-3, 0.0)
    assert rows["decoder.weight"] == (1e-2, 0.3)


def test_frozen_weights_are_left_out():
    net = Net()
    net.encoder.requires_grad_(False)
    optimiser = make_optimiser(net, OptimiserConfig(name="sgd"))
    assert {id(p) for group in optimiser.param_groups for p in group["params"]} == {
        id(p) for p in net.decoder.parameters()
    }


def test_a_rate_for_an_encoder_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"no trainable part called backbone or encoder; set it to 1"):
        make_optimiser(nn.Conv2d(1, 1, 1), OptimiserConfig(encoder_factor=0.5))
    net = Net()
    net.requires_grad_(False)
    with pytest.raises(ConfigError, match="no weight of this network can be trained"):
        make_optimiser(net, OptimiserConfig())


def test_the_average_follows_the_weights_and_is_taken_back():
    net = Net()
    average = WeightAverage(net, 0.9)
    start = net.decoder.weight.detach().clone()
    expected = start.clone()
    for step in range(1, 40):
        with torch.no_grad():
            net.decoder.weight.add_(1)
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = expected * decay + net.decoder.weight.detach() * (1 - decay)
    own = net.decoder.weight.detach().clone()
    with average.in_place():
        torch.testing.assert_close(net.decoder.weight, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(net.decoder.weight, own)
    assert not math.isclose(float(expected.mean()), float(own.mean()))
    again = WeightAverage(Net(), 0.9)
    again.load_state_dict(average.state_dict())
    assert again.updates == 39
    assert torch.equal(again.average["decoder.weight"], average.average["decoder.weight"])

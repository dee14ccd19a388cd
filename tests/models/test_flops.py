"""FLOPs are counted from shapes, and are those of a real pass."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from inkbatch.models.base import build_model
from inkbatch.models.flops import flops_per_tile

SMALL = {
    "timesformer": ({"depth_layers": 3, "tile_px": 32, "dim": 24, "blocks": 1, "heads": 2, "head_dim": 8}, 32),
    "i3d-nonlocal": ({"depth_layers": 4}, 32),
    "resnet3d-3d-decoder": ({"depth_layers": 4, "resnet": 50}, 32),
    "smp": ({"depth_layers": 4, "family": "FPN", "encoder": "resnet18", "layer_groups": [[0, 1], [2, 3]]}, 64),
}


@pytest.mark.parametrize("architecture", SMALL)
def test_the_count_is_that_of_a_real_pass(architecture):
    config, tile_px = SMALL[architecture]
    model = build_model(architecture, config)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    counted = flops_per_tile(model, tile_px)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.eval()(torch.zeros(1, 1, config["depth_layers"], tile_px, tile_px))
    assert counted == counter.get_total_flops() > 0


def test_a_network_without_weights_costs_nothing():
    assert flops_per_tile(build_model("identity", {"depth_layers": 2}), 32) == 0

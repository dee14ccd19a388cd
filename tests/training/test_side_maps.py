"""Deep supervision: which stages get maps, what they add to the loss, and that bundles do not hold them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from inkbatch.errors import ConfigError
from inkbatch.models import build_model
from inkbatch.run.job import RunContext
from inkbatch.steps.train.job import TrainConfig, run
from inkbatch.steps.train.plan import make_plan, module_of, network_of
from inkbatch.testing.training import NETWORK, tiny_run
from inkbatch.training.losses import ink_loss
from inkbatch.training.side_maps import require_stages, stage_weights


@pytest.fixture
def config(root) -> TrainConfig:
    values = tiny_run(root, epochs=1, loss={"terms": [{"name": "bce"}], "deep_supervision": 2})
    return TrainConfig.checked(values, "test")


def test_the_loss_is_a_weighted_mean_over_the_networks_map_and_those_of_coarser_stages(config):
    plan = make_plan(config)[0]
    module = module_of(plan, network_of(plan)[0], RunContext().stop)
    generator = torch.Generator().manual_seed(0)
    subvolume = torch.randn(2, 1, plan.contract.layers.count, 32, 32, generator=generator)
    target = (torch.rand(2, 1, 32, 32, generator=generator) > 0.5).float()
    weight = (torch.rand(2, 1, 32, 32, generator=generator) > 0.2).float()
    for head in module.side_maps.heads:
        torch.nn.init.constant_(head.weight, 0.1)
    seen = []
    blocks = module.net.net.decoder.blocks
    hooks = [block.register_forward_hook(lambda _, __, found: seen.append(found)) for block in blocks]
    module.eval()
    with torch.no_grad():
        logits = module(subvolume)
    for hook in hooks:
        hook.remove()
    maps = [
        functional.interpolate(head(found), size=(32, 32), mode="bilinear", align_corners=False)
        for head, found in zip(module.side_maps.heads, seen[-3:-1], strict=True)
    ]
    losses = [ink_loss(one, target, weight, config.loss).item() for one in (*maps, logits)]
    expected = (losses[0] + 2 * losses[1] + 4 * losses[2]) / 7
    found = module.training_step(subvolume, target, weight)
    assert found.item() == pytest.approx(expected, rel=1e-6)
    found.backward()
    assert all(head.weight.grad.abs().max() > 0 for head in module.side_maps.heads)


def test_weights_double_from_coarse_to_fine_and_sum_to_one():
    assert stage_weights(2) == pytest.approx([1 / 7, 2 / 7, 4 / 7])


def test_a_run_trains_its_side_maps_and_its_bundle_is_that_of_the_network_alone(root, config):
    run(config, RunContext())
    plan = make_plan(config)[0]
    bundle = (plan.folder / "bundle" / "bundle.json").read_mapping()
    from inkbatch.models.bundle import Bundle

    net = Bundle.open(plan.folder / "bundle").build()
    assert not any("side_maps" in name for name in net.state_dict())
    assert bundle["architecture"] == "smp"


@pytest.mark.parametrize(
    ("architecture", "changes", "count", "words"),
    [
        ("smp", NETWORK, 3, "expected 2 at most"),
        ("smp", {**NETWORK, "layer_groups": [[0, 1], [2, 3]]}, 1, "expected 0 at most"),
        ("smp", {"family": "FPN", "encoder": "resnet18"}, 1, "set it to 0, or train a Unet"),
    ],
)
def test_more_stages_than_there_are_are_refused(architecture, changes, count, words):
    net = build_model(architecture, {"depth_layers": 4, **changes})
    with pytest.raises(ConfigError, match=words):
        require_stages(net, count)


def test_three_dimensional_encoders_have_the_stages_of_their_decoder():
    require_stages(build_model("resnet3d", {"depth_layers": 16, "resnet": 50}), 2)

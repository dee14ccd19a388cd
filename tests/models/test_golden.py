"""The golden helper itself: it must tell a right network from a wrong one."""

import pytest
import torch
from torch import nn

from inkbatch.testing.golden import Golden, fill_state_dict, make_input, noise

SHAPES = {"0.weight": (2, 1, 1, 1, 1), "0.bias": (2,), "2.weight": (1, 2, 1, 1, 1), "2.bias": (1,)}


def network(slope: float = 0.0) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(1, 2, 1), nn.LeakyReLU(slope, inplace=True), nn.Conv3d(2, 1, 1))


@pytest.fixture
def fixture() -> Golden:
    manifest = {key: (shape, torch.float32) for key, shape in SHAPES.items()}
    model, shape = network(), (1, 1, 2, 3, 3)
    model.load_state_dict(fill_state_dict(manifest))
    with torch.no_grad():
        first = model[0](make_input(5, shape))
        probes = {
            "0": {
                "shape": list(first.shape),
                "std": float(first.std()),
                "at": [0, 7],
                "values": first.flatten()[[0, 7]].tolist(),
            },
            "1": {"shape": list(first.shape), "std": 1.0, "at": [0], "values": first.relu().flatten()[[0]].tolist()},
        }
        return Golden("tiny", manifest, probes, 5, shape, model(make_input(5, shape)))


def test_the_right_network_passes(fixture):
    fixture.require_match(network())


def test_a_wrong_network_fails(fixture):
    with pytest.raises(AssertionError, match="tiny: logits differ by"):
        fixture.require_match(network(slope=0.5))


def test_the_first_wrong_module_is_named_although_later_ones_write_in_place(fixture):
    wrong = network()
    wrong[0] = nn.Conv3d(1, 2, 1)
    wrong[0].register_forward_hook(lambda _module, _args, out: out + 1)
    with pytest.raises(AssertionError, match=r"first probed module that differs: 0$"):
        fixture.require_match(wrong)


def test_another_key_fails(fixture):
    with pytest.raises(RuntimeError, match="Missing key"):
        fixture.require_match(nn.Sequential(*network(), nn.BatchNorm3d(1)))


def test_an_infinite_answer_fails(fixture):
    broken = nn.Sequential(*network(), nn.Hardtanh(float("-inf"), float("inf")))
    broken[3].register_forward_hook(lambda _module, _args, out: out * float("nan"))
    with pytest.raises(AssertionError, match="differ by nan"):
        fixture.require_match(broken)


def test_noise_is_the_documented_stream():
    assert noise("decoder.logit.weight", (2, 3)).shape == (2, 3)
    assert noise("a", (1,)) != noise("b", (1,))
    large = noise("backbone.conv1.weight", (64, 1, 7, 7, 7))
    assert abs(large.mean()) < 0.02
    assert abs(large.std() - 1) < 0.02

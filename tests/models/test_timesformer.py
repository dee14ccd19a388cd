"""TimeSformer: the published network, its angles, and what it refuses."""

import pytest
import torch

from inkbatch.errors import ConfigError, MismatchError
from inkbatch.models.base import build_model
from inkbatch.models.timesformer import FrameRotary, Timesformer, TimesformerConfig, rotate
from inkbatch.testing.models import ModelContract

TINY = {"depth_layers": 3, "tile_px": 32, "dim": 24, "blocks": 2, "heads": 2, "head_dim": 8}


class TestTimesformer(ModelContract):
    architecture = "timesformer"
    config = TINY | {"with_norm": True}
    tile_px = 32


def tiny(**changes: object) -> Timesformer:
    torch.manual_seed(0)
    return build_model("timesformer", {**TINY, **changes}).eval()


@pytest.mark.parametrize("layers", [26, 30])
def test_published_keys_give_the_golden_logits(golden, layers):
    golden(f"timesformer-{layers}").require_match(build_model("timesformer", {"depth_layers": layers}))


@pytest.mark.slow
def test_the_large_network_gives_the_golden_logits(golden):
    fixture = golden("timesformer-large-26")
    model = Timesformer(Timesformer.infer_config(fixture.shapes))
    assert sum(value.numel() for key, value in model.state_dict().items() if "rot_emb" not in key) == 84_166_672
    fixture.require_match(model)


def test_the_large_network_has_twice_the_blocks_and_eight_heads(golden):
    inferred = Timesformer.infer_config(golden("timesformer-large-26").shapes)
    assert inferred == TimesformerConfig(depth_layers=26, blocks=16, heads=8)


def test_config_follows_from_published_keys(golden):
    inferred = Timesformer.infer_config(golden("timesformer-26").shapes)
    assert inferred == TimesformerConfig(depth_layers=26)


@pytest.mark.parametrize(
    "changes", [{}, {"with_norm": True}, {"tile_px": 48, "patch_px": 8}, {"blocks": 3, "heads": 3}]
)
def test_config_follows_from_the_keys_of_any_network_of_this_kind(changes):
    net = tiny(**changes)
    inferred = Timesformer.infer_config({key: tuple(value.shape) for key, value in net.state_dict().items()})
    assert inferred.model_copy(update={"depth_layers": 3}) == net.config


@pytest.mark.parametrize("shapes", [{}, {"backbone.to_patch_embedding.weight": (512,)}])
def test_foreign_keys_are_refused(shapes):
    with pytest.raises(MismatchError, match="timesformer: the checkpoint has no TimeSformer's keys"):
        Timesformer.infer_config(shapes)


def test_keys_that_make_no_valid_network_are_refused(golden):
    shapes = golden("timesformer-26").shapes | {"backbone.frame_rot_emb.inv_freqs": (0,)}
    with pytest.raises(MismatchError):
        Timesformer.infer_config(shapes)


def test_one_logit_comes_out_per_16_pixels_in_row_major_order():
    net = tiny(tile_px=48)
    with torch.no_grad():
        net.backbone.to_out[1].weight.zero_()
        net.backbone.to_out[1].bias.copy_(torch.arange(9.0))
        logits = net(torch.rand(2, 1, 3, 48, 48))
    assert net.output_scale == 16
    torch.testing.assert_close(logits, torch.arange(9.0).view(1, 1, 3, 3).expand(2, 1, 3, 3))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 4, 32, 32), "built for 3 layers, got a subvolume with 4"),
        ((1, 1, 3, 64, 64), "tiles of 32 px, got 64 x 64 px"),
        ((1, 2, 3, 32, 32), "expected a subvolume"),
    ],
)
def test_another_shape_is_refused_though_the_network_would_run(shape, message):
    with pytest.raises(ConfigError, match=message):
        tiny()(torch.zeros(shape))


@pytest.mark.parametrize("wrong", [{"tile_px": 40}, {"patch_px": 12}, {"head_dim": 6}, {"blocks": 0}])
def test_a_config_that_makes_no_network_is_refused(wrong):
    with pytest.raises(ConfigError, match="model timesformer: config does not validate"):
        build_model("timesformer", {**TINY, **wrong})


def test_neighbours_are_paired_and_keep_their_own_angles():
    """The published weights were trained with two different angles in a pair; a textbook rotation would be wrong."""
    cos, sin = FrameRotary(4)(2)
    turned = rotate(torch.tensor([1.0, 2.0, 3.0, 4.0]), (cos[1, 0, 0], sin[1, 0, 0]))
    c0, c1 = torch.tensor([1.0, 0.01]).cos()
    s0, s1 = torch.tensor([1.0, 0.01]).sin()
    wanted = torch.stack((1 * c0 - 2 * s0, 2 * c1 + 1 * s1, 3 * c0 - 4 * s0, 4 * c1 + 3 * s1))
    torch.testing.assert_close(turned, wanted)


def test_depth_order_and_place_matter():
    net, subvolume = tiny(), torch.rand(1, 1, 3, 32, 32)
    with torch.no_grad():
        logits = net(subvolume)
        for axis in (2, 3, 4):
            assert (net(subvolume.flip(axis)) - logits).abs().max() > 1e-3


def test_input_norm_stands_in_front():
    plain, normed = tiny(), tiny(with_norm=True)
    normed.load_state_dict(plain.state_dict(), strict=False)
    normed.normalization.running_mean.fill_(0.5)
    normed.normalization.running_var.fill_(4.0 - normed.normalization.eps)
    subvolume = torch.rand(2, 1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(normed(subvolume), plain((subvolume - 0.5) / 2))

"""I3D and I3D with non-local blocks: the published networks, their padding, and what they refuse."""

import pytest
import torch
from torch.nn import functional

from inkbatch.errors import ConfigError, MismatchError
from inkbatch.models.base import build_model
from inkbatch.models.i3d import I3d, I3dConfig, MaxPool, same_padding
from inkbatch.models.i3d_nonlocal import I3dNonlocal, NonLocalBlock
from inkbatch.testing.models import ModelContract

BOTH = [I3d, I3dNonlocal]


class TestI3d(ModelContract):
    architecture = "i3d"
    config = {"depth_layers": 5, "with_norm": True}  # noqa: RUF012
    dead_parameters = ("backbone.logits",)


class TestI3dNonlocal(ModelContract):
    architecture = "i3d-nonlocal"
    config = {"depth_layers": 5, "with_norm": True}  # noqa: RUF012
    dead_parameters = ("backbone.logits",)


@pytest.fixture(scope="module", params=BOTH, ids=lambda cls: cls.architecture)
def small(request):
    """One net of each kind for 3 layers, with an input norm and fresh weights, in evaluation mode."""
    torch.manual_seed(0)
    return build_model(request.param.architecture, {"depth_layers": 3, "with_norm": True}).eval()


@pytest.mark.parametrize("name", ["i3d", "i3d-nonlocal"])
def test_published_keys_give_the_golden_logits(golden, name):
    golden(name).require_match(build_model(name, {}))


@pytest.mark.parametrize("model_class", BOTH)
def test_config_follows_from_published_keys(golden, model_class):
    assert model_class.infer_config(golden(model_class.architecture).shapes) == I3dConfig()


def test_config_follows_from_the_keys_with_an_input_norm(small):
    shapes = {key: tuple(value.shape) for key, value in small.state_dict().items()}
    assert type(small).infer_config(shapes) == I3dConfig(with_norm=True)


@pytest.mark.parametrize(("model_class", "other"), [(I3d, I3dNonlocal), (I3dNonlocal, I3d)])
def test_the_two_kinds_are_told_apart(golden, model_class, other):
    with pytest.raises(MismatchError, match=f"import it as {other.architecture}$"):
        model_class.infer_config(golden(other.architecture).shapes)


@pytest.mark.parametrize("model_class", BOTH)
def test_foreign_keys_are_refused(golden, model_class):
    with pytest.raises(MismatchError, match="has no I3D's keys"):
        model_class.infer_config(golden("timesformer-26").shapes)


def test_one_logit_comes_out_per_4_pixels(small):
    with torch.no_grad():
        assert small(torch.rand(1, 1, 3, 64, 32)).shape == (1, 1, 16, 8)
    assert small.output_scale == 4


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 1, 4, 32, 32), "built for 3 layers"), ((1, 1, 3, 48, 32), "not a multiple of 32")],
)
def test_another_shape_is_refused(small, shape, message):
    with pytest.raises(ConfigError, match=message):
        small(torch.zeros(shape))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "wanted"),
    [
        (64, 7, 2, (2, 3)),
        (65, 7, 2, (3, 3)),
        (30, 3, 1, (1, 1)),
        (16, 3, 2, (0, 1)),
        (15, 3, 2, (1, 1)),
        (5, 1, 2, (0, 0)),
    ],
)
def test_padding_follows_from_the_size(size, kernel, stride, wanted):
    assert same_padding(size, kernel, stride) == wanted
    assert (size + sum(wanted) - kernel) // stride + 1 == -(-size // stride)


def test_pool_padding_counts_as_zero():
    pooled = MaxPool((3, 3, 3), (1, 1, 1))(torch.full((1, 1, 3, 3, 3), -1.0))
    assert pooled[0, 0, 1, 1, 1] == -1
    assert pooled.sum() == -1  # every other window reaches into the padding


def test_i3d_takes_the_mean_over_depth_and_nonlocal_the_maximum():
    feature = torch.tensor([0.0, 1.0, 5.0]).view(1, 1, 3, 1, 1)
    config = I3dConfig(depth_layers=3)
    assert I3d.without_depth(I3d(config), feature).item() == 2
    assert I3dNonlocal.without_depth(I3dNonlocal(config), feature).item() == 5


def test_non_local_block_weighs_all_positions_by_plain_dot_products():
    torch.manual_seed(1)
    block = NonLocalBlock(6).eval()
    with torch.no_grad():
        block.W_z[1].weight.fill_(1.0)
    volume = torch.randn(2, 6, 2, 3, 2)
    with torch.no_grad():
        positions = volume.flatten(2)
        weights = functional.softmax(torch.einsum("bcp,bcq->bpq", positions, positions), dim=-1)
        mixed = torch.einsum("bpq,bcq->bcp", weights, block.g(volume).flatten(2)).view(2, 3, 2, 3, 2)
        torch.testing.assert_close(block(volume), volume + block.W_z(mixed))


def test_fresh_non_local_block_adds_little_to_its_input():
    torch.manual_seed(1)
    volume = torch.randn(2, 6, 2, 3, 2)
    with torch.no_grad():
        added = NonLocalBlock(6).train()(volume) - volume
    assert 0.05 < added.std() < 0.15


def test_non_local_block_survives_large_activations_in_half_precision():
    """832 channels of 20 make a dot product of 332,800, five times what float16 can hold."""
    block = NonLocalBlock(832).eval()
    volume = torch.full((1, 832, 1, 2, 2), 20.0, dtype=torch.float16)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.float16):
        assert block(volume).isfinite().all()

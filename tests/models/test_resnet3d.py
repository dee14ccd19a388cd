"""3-D ResNets, with the 2-D and the 3-D decoder."""

from typing import ClassVar

import pytest
import torch

from inkbatch.errors import MismatchError
from inkbatch.models.base import build_model
from inkbatch.models.decoder2d import Decoder2d
from inkbatch.models.resnet3d import Resnet3d
from inkbatch.models.resnet3d_3d_decoder import DepthCollapse, Resnet3dDecoder3d
from inkbatch.models.resnet3d_backbone import Resnet3dBackbone
from inkbatch.testing.models import ModelContract


class TestResnet3d(ModelContract):
    architecture = "resnet3d"
    config: ClassVar = {"depth_layers": 5, "resnet": 50, "fc_width": 3, "with_norm": True}
    tile_px = 32
    dead_parameters = ("backbone.fc.",)


class TestResnet3dDecoder3d(ModelContract):
    architecture = "resnet3d-3d-decoder"
    config: ClassVar = {"depth_layers": 5, "resnet": 50, "fc_width": 3}
    tile_px = 36
    dead_parameters = ("backbone.fc.", "decoder.aux_head_s1.", "decoder.aux_head_s2.")


PUBLISHED = [
    pytest.param(Resnet3d, "resnet3d-50", 50, id="50"),
    pytest.param(Resnet3d, "resnet3d-101", 101, id="101", marks=pytest.mark.slow),
    pytest.param(Resnet3d, "resnet3d-152", 152, id="152", marks=pytest.mark.slow),
    pytest.param(Resnet3dDecoder3d, "resnet3d-152-3d-decoder", 152, id="152-3d-decoder", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("model_class", "name", "resnet"), PUBLISHED)
def test_the_published_network_is_reproduced(golden, model_class, name, resnet):
    fixture = golden(name)
    config = model_class.infer_config(fixture.shapes)
    assert (config.resnet, config.fc_width, config.with_norm) == (resnet, 1039, model_class is Resnet3dDecoder3d)
    assert config.depth_layers == fixture.input_shape[2]
    fixture.require_match(model_class(config))


@pytest.mark.parametrize("width", [700, 1139])
def test_the_unused_classifier_takes_the_published_width(golden, width):
    shapes = golden("resnet3d-50").shapes | {"backbone.fc.weight": (width, 2048), "backbone.fc.bias": (width,)}
    assert Resnet3d.infer_config(shapes).fc_width == width


def test_a_checkpoint_without_classifier_gives_a_network_without(golden):
    shapes = {key: shape for key, shape in golden("resnet3d-50").shapes.items() if not key.startswith("backbone.fc.")}
    with torch.device("meta"):
        model = Resnet3d(Resnet3d.infer_config(shapes))
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == shapes


def test_the_input_norm_is_read_from_the_keys(golden):
    shapes = golden("resnet3d-50").shapes
    assert not Resnet3d.infer_config(shapes).with_norm
    assert Resnet3d.infer_config(shapes | {"normalization.weight": (1,)}).with_norm


def test_a_checkpoint_with_the_other_decoder_names_the_right_architecture(golden):
    with pytest.raises(MismatchError, match="import it as resnet3d-3d-decoder"):
        Resnet3d.infer_config(golden("resnet3d-152-3d-decoder").shapes)
    with pytest.raises(MismatchError, match="import it as resnet3d"):
        Resnet3dDecoder3d.infer_config(golden("resnet3d-50").shapes)


@pytest.mark.parametrize("model_class", [Resnet3d, Resnet3dDecoder3d])
def test_a_checkpoint_of_another_network_is_refused(golden, model_class):
    with pytest.raises(MismatchError, match=r"\(0, 0, 0, 0\) bottleneck blocks"):
        model_class.infer_config(golden("i3d").shapes)


def test_maps_halve_in_depth_rounded_up_and_start_at_a_quarter():
    with torch.device("meta"):
        maps = Resnet3dBackbone(50, None)(torch.empty(1, 1, 30, 64, 96))
    assert [tuple(feature.shape) for feature in maps] == [
        (1, 256, 30, 16, 24),
        (1, 512, 15, 8, 12),
        (1, 1024, 8, 4, 6),
        (1, 2048, 4, 2, 3),
    ]


def test_depth_collapse_is_a_weighted_mean():
    collapse = DepthCollapse(3)
    same_everywhere = torch.rand(2, 3, 1, 4, 4).expand(2, 3, 7, 4, 4)
    torch.testing.assert_close(collapse(same_everywhere), same_everywhere[:, :, 0])


def test_the_2d_decoder_puts_the_finer_map_first():
    decoder = Decoder2d((2, 3)).eval()
    with torch.no_grad():
        decoder.convs[0][0].weight[:, 2:] = 0  # deaf to the coarse map
    fine, coarse = torch.rand(1, 2, 8, 8), torch.rand(1, 3, 4, 4)
    assert torch.equal(decoder([fine, coarse]), decoder([fine, 2 * coarse]))
    assert not torch.equal(decoder([fine, coarse]), decoder([2 * fine, coarse]))


def test_tiles_need_not_be_square():
    model = build_model("resnet3d", {"depth_layers": 3, "fc_width": None}).eval()
    with torch.inference_mode():
        assert model(torch.rand(1, 1, 3, 32, 64)).shape == (1, 1, 8, 16)

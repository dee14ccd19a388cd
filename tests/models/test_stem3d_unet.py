"""The 3-D stem with a 2-D residual U-Net of `ink_9um`."""

from typing import ClassVar

import pytest
import torch

from inkbatch.errors import ConfigError, MismatchError
from inkbatch.models.base import build_model
from inkbatch.models.stem3d_unet import DepthFusion, Stem3dUnet
from inkbatch.testing.models import ModelContract

SMALL = {"depth_layers": 5, "stem_channels": 3, "widths": [4, 6, 6], "blocks": [1, 2, 1]}


class TestStem3dUnet(ModelContract):
    architecture = "stem3d-unet"
    config: ClassVar = SMALL
    tile_px = 32
    bfloat16_tolerance = 0.15  # the largest of 2,048 differences; their spread is 0.022


def test_the_published_network_is_reproduced(golden):
    fixture = golden("ink-9um")
    config = Stem3dUnet.infer_config(fixture.shapes)
    assert config == Stem3dUnet.config_class()
    model = Stem3dUnet(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == 34_546_498
    fixture.require_match(model)


def test_its_shape_is_read_from_the_keys():
    model = build_model("stem3d-unet", SMALL)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert Stem3dUnet.infer_config(shapes).model_copy(update={"depth_layers": 5}) == model.config
    with pytest.raises(MismatchError, match="no whole 3-D stem with a 2-D residual U-Net: it lacks depth_fusion"):
        Stem3dUnet.infer_config({"backbone.conv1.weight": (64, 1, 7, 7, 7)})


def test_a_tile_of_one_coarse_position_is_refused():
    with pytest.raises(ConfigError, match="smaller than 8 px, the smallest"):
        build_model("stem3d-unet", SMALL)(torch.rand(1, 1, 5, 4, 4))


def test_depth_is_folded_into_a_learnt_sum_and_a_maximum():
    fusion = DepthFusion(2).eval()
    torch.nn.init.zeros_(fusion.attention_logits.weight)  # every layer weighs the same
    subvolume = torch.rand(1, 1, 4, 6, 6)
    with torch.inference_mode():
        features, folded = fusion.features(subvolume), fusion(subvolume)
    torch.testing.assert_close(folded, torch.cat((features.mean(dim=2), features.amax(dim=2)), dim=1))


def test_stages_that_do_not_agree_are_refused():
    with pytest.raises(ConfigError, match="must be as many"):
        build_model("stem3d-unet", {**SMALL, "blocks": [1, 2]})

"""The 3-D ResNet on enlarged tiles of `ink-8um-v8in`."""

from typing import ClassVar

import pytest
import torch

from inkbatch.errors import ConfigError, MismatchError
from inkbatch.models.base import build_model
from inkbatch.models.resnet3d_upsampled import Resnet3dUpsampled
from inkbatch.testing.models import ModelContract

SMALL = {"depth_layers": 3, "tile_px": 16, "upsample_layers": 5, "upsample_px": 64}


class TestResnet3dUpsampled(ModelContract):
    architecture = "resnet3d-upsampled"
    config: ClassVar = SMALL
    tile_px = 16


@pytest.mark.slow
def test_the_published_network_is_reproduced(golden):
    fixture = golden("ink-8um-v8in")
    config = Resnet3dUpsampled.infer_config(fixture.shapes)
    assert (config.resnet, config.fc_width, config.depth_layers) == (50, None, 24)
    model = Resnet3dUpsampled(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == 83_317_827
    fixture.require_match(model)


def test_the_published_network_is_reproduced_on_a_smaller_grid(golden):
    """The same weights, the tile enlarged to half the published size: an eighth of the work."""
    fixture = golden("ink-8um-v8in")
    config = Resnet3dUpsampled.infer_config(fixture.shapes)
    model = Resnet3dUpsampled(config.model_copy(update={"upsample_layers": 48, "upsample_px": 128})).eval()
    fixture.fill(model)
    with torch.inference_mode():
        logits = model(fixture.subvolume())
    assert fixture.difference(logits, fixture.extra["small_output"]) < fixture.tolerance


def test_the_tile_is_normed_before_it_is_enlarged():
    model = build_model("resnet3d-upsampled", SMALL).eval()
    subvolume = torch.rand(1, 1, 3, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(model(7 * subvolume + 2), model(subvolume), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("px", [48, 96])
def test_a_size_inside_that_cuts_pixels_is_refused(px):
    with pytest.raises(ConfigError, match="upsample_px"):
        build_model("resnet3d-upsampled", {"tile_px": 64, "upsample_px": px})


def test_another_network_is_refused(golden):
    with pytest.raises(MismatchError, match="import it as resnet3d"):
        Resnet3dUpsampled.infer_config(golden("resnet3d-50").shapes)

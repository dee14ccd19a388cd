"""Residual U-Nets in the style of nnU-Net, from a config."""

from typing import ClassVar

import pytest
import torch
from torch.nn import functional

from inkbatch.errors import ConfigError
from inkbatch.models.base import build_model
from inkbatch.models.residual_unet import DepthFold, ResidualUnetConfig
from inkbatch.testing.models import ModelContract

SMALL = {"depth_layers": 4, "widths": [4, 6, 6], "blocks": [1, 2, 1]}
TOLERANCE = 0.2  # the largest of 2,048 differences on tiles whose coarsest maps have 8 x 8 positions


class TestOnPictures(ModelContract):
    architecture = "residual-unet"
    config: ClassVar = {**SMALL, "dims": 2, "decoder_convs": 2}
    tile_px = 32
    bfloat16_tolerance = TOLERANCE


class TestOnVolumes(ModelContract):
    architecture = "residual-unet"
    config: ClassVar = {**SMALL, "fold": "attention"}
    tile_px = 32
    bfloat16_tolerance = TOLERANCE


@pytest.mark.parametrize(
    ("layers", "steps"),
    [(17, (1, 1, 1, 1)), (16, (1, 2, 2, 2)), (24, (1, 2, 2, 2)), (6, (1, 2, 1, 1)), (1, (1, 1, 1, 1))],
)
def test_depth_is_halved_as_long_as_layers_are_even_and_left(layers, steps):
    config = ResidualUnetConfig(depth_layers=layers, widths=(2, 2, 2, 2), blocks=(1, 1, 1, 1))
    assert config.along_depth == steps
    model = build_model("residual-unet", config.model_dump()).eval()
    with torch.inference_mode():
        assert model(torch.rand(1, 1, layers, 16, 16)).shape == (1, 1, 16, 16)


@pytest.mark.parametrize("fold", ["mean", "max", "attention"])
def test_a_map_that_is_the_same_at_every_depth_stays_what_it_is(fold):
    flat = torch.rand(2, 3, 1, 4, 4)
    torch.testing.assert_close(DepthFold(3, fold)(flat.expand(2, 3, 5, 4, 4)), flat[:, :, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": [1, 2]}, "must be as many"),
        ({"dims": 2, "depth_steps": [1, 2, 2]}, "leave it out"),
        ({"depth_steps": [1, 2]}, "must be as many as widths, 3"),
        ({"depth_layers": 6, "depth_steps": [1, 2, 2]}, "3 layers cannot be halved"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        build_model("residual-unet", {**SMALL, **changes})


@pytest.mark.parametrize("dims", [2, 3])
def test_it_learns_from_scratch(dims):
    """A bright square in the middle layer is found after 30 steps."""
    torch.manual_seed(0)
    model = build_model("residual-unet", {**SMALL, "dims": dims}).train()
    target = torch.zeros(4, 1, 32, 32)
    for number, tile in enumerate(target):
        tile[:, 4 * number : 4 * number + 12, 8:24] = 1
    subvolume = 0.2 * torch.rand(4, 1, 4, 32, 32)
    subvolume[:, :, 2] += target
    optimiser = torch.optim.AdamW(model.parameters(), 2e-2)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(model(subvolume), target)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.25 * losses[0]
    assert ((model(subvolume) > 0) == (target > 0)).float().mean() > 0.97

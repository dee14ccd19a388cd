"""Networks that say nothing are told from those that look."""

import pytest
import torch
from torch import nn

from inkbatch.models.base import build_model
from inkbatch.models.bundle import Bundle, Contract, LayerRule, bundle_location
from inkbatch.predict.import_checks import import_warnings, largest_move, papyrus_tile, probe_tiles, untrained_parts

CONTRACT = Contract(layers=LayerRule(count=3), voxel_size_um=7.91, tile_px=64, stride_px=64, clip=(0, 200))
RESNET = {"depth_layers": 3, "resnet": 50, "fc_width": None}


def trained(model: nn.Module) -> nn.Module:
    """The network as if training had changed every norm."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(getattr(module, "weight", None), nn.Parameter) and module.weight.ndim == 1:
            nn.init.normal_(module.weight, 1, 0.1)
            nn.init.normal_(module.bias, 0, 0.1)
    return model


def test_the_shipped_network_gets_no_warning():
    bundle = Bundle.open(bundle_location("demo"))
    assert import_warnings(bundle.build(), bundle.contract) == ()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model("stem3d-unet", {"depth_layers": 3, "stem_channels": 2, "widths": [4, 6], "blocks": [1, 1]})


def test_a_network_that_looks_gets_no_warning(model):
    assert import_warnings(trained(model).eval(), CONTRACT) == ()


def test_a_constant_network_is_told(model):
    nn.init.zeros_(trained(model).network.task_heads["ink"].weight)
    assert largest_move(model.eval(), CONTRACT) == 0
    (warning,) = import_warnings(model, CONTRACT)
    assert warning.startswith("its answers do not move: papyrus, the same papyrus with its layers shuffled, noise and")


def test_a_network_that_answers_nan_is_told(model):
    nn.init.constant_(trained(model).network.task_heads["ink"].bias, float("nan"))
    assert "do not move" in import_warnings(model.eval(), CONTRACT)[0]


def test_a_decoder_that_never_left_its_initialisation_is_named():
    """Published ResNet-50 files are reported to be so: the encoder is trained, the 2-D decoder is not."""
    model = build_model("resnet3d", RESNET).eval()
    trained(model.backbone)
    assert untrained_parts(model) == ["decoder"]
    assert import_warnings(model, CONTRACT) == (
        "no training has changed decoder: every norm in there is as a new network has it",
    )


def test_weight_decay_alone_is_no_training():
    model = build_model("resnet3d", RESNET)
    trained(model.backbone)
    for parameter in model.decoder.parameters():
        parameter.data *= 0.9
    assert untrained_parts(model) == ["decoder"]
    trained(model.decoder)
    assert untrained_parts(model) == []


def test_the_outermost_part_is_named(model):
    assert untrained_parts(model) == ["network", "depth_fusion"]


@pytest.mark.parametrize(("layers", "tile_px"), [(3, 64), (64, 256), (26, 700)])
def test_probe_tiles_have_the_contract_s_size(layers, tile_px):
    assert papyrus_tile(layers, tile_px).shape == (layers, tile_px, tile_px)


def test_probe_tiles_are_papyrus_the_same_shuffled_noise_and_nothing():
    contract = CONTRACT.model_copy(update={"dtype": "uint16", "layers": LayerRule(count=5)})
    papyrus, shuffled, noise, nothing = probe_tiles(contract, 32)
    assert {tile.dtype.name for tile in (papyrus, shuffled, noise, nothing)} == {"uint16"}
    assert (papyrus != shuffled).any()
    assert sorted(papyrus.mean(axis=(1, 2))) == sorted(shuffled.mean(axis=(1, 2)))
    assert noise.max() == 65535
    assert not nothing.any()

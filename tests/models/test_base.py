"""The registry of architectures, and which tiles a network takes."""

import pytest
import torch

from inkbatch.errors import EXIT_CONFIG, ConfigError, MismatchError
from inkbatch.models import build_model, known_architectures, model_class
from inkbatch.models.inputs import require_tile
from inkbatch.models.matching import infer_config

TINY = {"depth_layers": 3, "tile_px": 32, "dim": 24, "blocks": 1, "heads": 2, "head_dim": 8}


def test_a_class_is_found_by_its_name():
    for name in known_architectures():
        assert model_class(name).architecture == name
        assert issubclass(model_class(name).config_class, model_class("identity").config_class.__base__)


@pytest.mark.parametrize("ask", [model_class, lambda name: build_model(name, {"depth_layers": 1})])
def test_an_unknown_name_lists_near_matches(ask):
    with pytest.raises(
        ConfigError, match=r"unknown architecture 'timesfromer'; did you mean 'timesformer'\?"
    ) as caught:
        ask("timesfromer")
    assert caught.value.exit_code == EXIT_CONFIG


def test_a_name_that_is_near_to_none_lists_all():
    with pytest.raises(ConfigError, match=r"known are .*i3d, .*timesformer"):
        model_class("????")


def test_a_network_with_positions_says_its_only_tile():
    assert build_model("timesformer", TINY).fixed_tile_px == 32
    assert build_model("resnet3d", {"depth_layers": 3, "fc_width": None}).fixed_tile_px is None


@pytest.mark.parametrize("side", [31, 64])
def test_a_contract_s_tile_is_refused_before_any_tile_is_read(side):
    model = build_model("timesformer", TINY)
    require_tile(model, 32, 32)
    with pytest.raises(ConfigError, match=rf"made for tiles of 32 px, got {side} x {side} px; set tile_px to 32"):
        require_tile(model, side, side)


def test_a_tile_must_give_whole_output_pixels():
    require_tile(build_model("identity", {"depth_layers": 1, "scale": 4}), 12, 8)
    with pytest.raises(ConfigError, match=r"10 x 8 px is not a multiple of 4 px.*8 or 12"):
        require_tile(build_model("identity", {"depth_layers": 1, "scale": 4}), 10, 8)


def test_a_config_that_does_not_validate_is_refused_in_our_words():
    with pytest.raises(ConfigError) as caught:
        build_model("smp", {"depth_layers": "few", "famly": "Unet"})
    said = str(caught.value)
    assert "model smp: config does not validate: " in said
    assert "depth_layers: expected a whole number, got 'few'" in said
    assert "pydantic" not in said
    assert "\n" not in said


def test_weights_of_shapes_that_no_network_has_are_refused():
    tokens = {"encoder.transformer.embeddings.position_embeddings": torch.zeros(1, 1, 384)}
    decoder = {"encoder.decoder0_header.2.block.weight": torch.zeros(16, 1)}
    with pytest.raises(MismatchError):
        infer_config(model_class("unetr-segformer"), {**tokens, **decoder})

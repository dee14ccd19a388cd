"""The switches of a run: where an encoder's weights come from, and whether it learns."""

import pytest
import torch
from safetensors.torch import save_file

from inkbatch.errors import ConfigError
from inkbatch.models.base import build_model
from inkbatch.models.encoder_weights import EncoderConfig, prepare_encoder


def net(**config):
    return build_model("smp", {"depth_layers": 3, "encoder": "resnet18", **config})


def test_by_default_nothing_is_loaded_or_frozen():
    model = net()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    prepare_encoder(model, EncoderConfig())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.encoder.parameters())


def test_weights_are_loaded_and_the_encoder_is_frozen(tmp_path):
    path = str(tmp_path / "encoder.safetensors")
    stored = net().encoder.state_dict()
    save_file(stored, path)
    model = net()
    prepare_encoder(model, EncoderConfig(encoder_weights=path, freeze_encoder=True))
    assert all(torch.equal(value, stored[key]) for key, value in model.encoder.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
    assert all(parameter.requires_grad for parameter in model.net.decoder.parameters())


def test_a_fresh_encoder_can_be_frozen_too():
    model = net()
    prepare_encoder(model, EncoderConfig(freeze_encoder=True))
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EncoderConfig(freeze_encoder=True), "model identity: freeze_encoder is for networks of architecture smp"),
        (EncoderConfig(encoder_weights="imagenet"), "model identity: encoder_weights 'imagenet' is for networks of"),
    ],
)
def test_networks_without_such_an_encoder_are_named(config, message):
    with pytest.raises(ConfigError, match=message):
        prepare_encoder(build_model("identity", {"depth_layers": 1}), config)
    prepare_encoder(build_model("identity", {"depth_layers": 1}), EncoderConfig(encoder_weights="none"))


def test_misspelt_switches_are_refused():
    with pytest.raises(ValueError, match="frozen_encoder"):
        EncoderConfig.model_validate({"frozen_encoder": True})

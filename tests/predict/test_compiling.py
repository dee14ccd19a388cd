"""Compiled networks answer like eager ones."""

import pytest
import torch

from inkbatch.errors import ConfigError, DataError
from inkbatch.models.base import build_model
from inkbatch.predict.compiling import compiled, require_like_eager

CPU = torch.device("cpu")
TIMESFORMER = {"depth_layers": 3, "tile_px": 32, "dim": 24, "blocks": 2, "heads": 2, "head_dim": 8}
UNET = {
    "depth_layers": 3,
    "family": "Unet",
    "encoder": "tu-mobilenetv3_small_050",
    "decoder": {"encoder_depth": 2, "decoder_channels": [8, 4]},
}


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "config"), [("timesformer", TIMESFORMER), ("smp", UNET)])
def test_compiled_and_eager_networks_agree(architecture, config):
    torch.manual_seed(0)
    model = build_model(architecture, config).eval()
    subvolume = torch.rand(2, 1, 3, 32, 32)
    keys = list(model.state_dict())
    with torch.inference_mode():
        eager = model(subvolume)
        assert compiled(model, CPU) is model
        fast = model(subvolume)
    assert model._compiled_call_impl is not None
    torch.testing.assert_close(fast, eager, rtol=1e-4, atol=1e-5 * float(eager.std()) + 1e-6)
    assert list(model.state_dict()) == keys
    assert model.output_scale == build_model(architecture, config).output_scale


def test_fixed_shapes_are_asked_for(monkeypatch):
    model = build_model("timesformer", TIMESFORMER)
    asked = {}
    monkeypatch.setattr(torch, "compile", lambda function, **options: asked.update(options) or function)
    compiled(model, CPU)
    assert asked == {"dynamic": False}


@pytest.mark.parametrize("wished", [None, "no-such-compiler"])
def test_without_a_compiler_the_cure_is_named(monkeypatch, tmp_path, wished):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    if wished:
        monkeypatch.setenv("CXX", wished)
    with pytest.raises(ConfigError, match=r"C\+\+ compiler.*install g\+\+, set CXX, or leave compile out"):
        compiled(build_model("timesformer", TIMESFORMER), CPU)


def test_a_compiled_network_that_answers_otherwise_is_refused():
    torch.manual_seed(0)
    model = build_model("timesformer", TIMESFORMER).eval()
    shape = (2, 1, 3, 32, 32)
    model._compiled_call_impl = model._call_impl
    require_like_eager(model, shape, CPU, torch.float32)
    model._compiled_call_impl = lambda batch: model.forward(batch) + 1
    with pytest.raises(DataError, match=r"the compiled timesformer gives other logits .* leave compile out"):
        require_like_eager(model, shape, CPU, torch.float32)

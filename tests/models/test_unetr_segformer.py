"""UNETR and SegFormer of the 2025 First Title."""

import copy
import pickle
from typing import ClassVar

import pytest
import torch
import transformers

from inkbatch.errors import ConfigError, MismatchError
from inkbatch.models import segformer as segformer_module
from inkbatch.models.base import build_model
from inkbatch.models.matching import match_keys
from inkbatch.models.segformer import rename_state, segformer, version_4_name
from inkbatch.models.unetr import Attention
from inkbatch.models.unetr_segformer import UnetrSegformer, UnetrSegformerConfig
from inkbatch.testing.models import ModelContract


class TestUnetrSegformer(ModelContract):
    architecture = "unetr-segformer"
    config: ClassVar = {"tile_px": 64, "unetr_channels": 8, "segformer": "b0", "dropout": 0.2}
    dead_parameters = ("encoder.transformer.encoder_norm.",)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["mini", "full"])
def test_the_published_network_is_reproduced(golden, variant):
    fixture = golden(f"unetr-segformer-b3-{variant}")
    config = UnetrSegformer.infer_config(fixture.shapes)
    assert config == UnetrSegformerConfig(unetr=variant)
    fixture.require_match(UnetrSegformer(config))


def test_keys_are_the_published_ones_in_any_version_of_transformers(golden):
    state = UnetrSegformer(UnetrSegformerConfig()).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == golden("unetr-segformer-b3-mini").shapes


def test_names_of_version_4_are_left_alone(golden):
    prefix = "encoder_2d."
    names = [key.removeprefix(prefix) for key in golden("unetr-segformer-b3-mini").shapes if key.startswith(prefix)]
    assert len(names) == 644
    assert [version_4_name(name) for name in names] == names


@pytest.mark.parametrize(
    ("version_5", "version_4"),
    [
        ("segformer.stages.2.patch_embeddings.proj.bias", "segformer.encoder.patch_embeddings.2.proj.bias"),
        ("segformer.stages.1.layer_norm.weight", "segformer.encoder.layer_norm.1.weight"),
        ("segformer.stages.2.blocks.17.layernorm_before.bias", "segformer.encoder.block.2.17.layer_norm_1.bias"),
        ("segformer.stages.2.blocks.0.layernorm_after.bias", "segformer.encoder.block.2.0.layer_norm_2.bias"),
        (
            "segformer.stages.0.blocks.1.attention.v_proj.weight",
            "segformer.encoder.block.0.1.attention.self.value.weight",
        ),
        (
            "segformer.stages.0.blocks.1.attention.sequence_reduction.sequence_reduction.bias",
            "segformer.encoder.block.0.1.attention.self.sr.bias",
        ),
        (
            "segformer.stages.0.blocks.1.attention.sequence_reduction.layer_norm.bias",
            "segformer.encoder.block.0.1.attention.self.layer_norm.bias",
        ),
        (
            "segformer.stages.0.blocks.1.attention.o_proj.bias",
            "segformer.encoder.block.0.1.attention.output.dense.bias",
        ),
        ("segformer.stages.3.blocks.0.mlp.fc2.weight", "segformer.encoder.block.3.0.mlp.dense2.weight"),
        (
            "segformer.stages.3.blocks.0.mlp.dwconv.dwconv.weight",
            "segformer.encoder.block.3.0.mlp.dwconv.dwconv.weight",
        ),
        ("decode_head.linear_projections.3.proj.bias", "decode_head.linear_c.3.proj.bias"),
        ("decode_head.linear_fuse.weight", "decode_head.linear_fuse.weight"),
    ],
)
def test_names_of_version_5_are_spelled_as_in_version_4(version_5, version_4):
    assert version_4_name(version_5) == version_4


def test_files_in_either_spelling_match():
    model = build_model("unetr-segformer", {"segformer": "b0", "tile_px": 64})
    own_names = {name: value.detach() for name, value in (*model.named_parameters(), *model.named_buffers())}
    for state in (own_names, model.state_dict()):
        wrapped = {f"model.{name}": value for name, value in state.items()}
        matched = match_keys(model, wrapped)
        assert matched.keys() == model.state_dict().keys()
        assert all(torch.equal(value, matched[name]) for name, value in model.state_dict().items())


def test_an_unknown_spelling_is_refused(monkeypatch):
    monkeypatch.setattr(segformer_module, "version_4_name", lambda key: f"renamed.{key}")
    with pytest.raises(ConfigError, match=f"transformers {transformers.__version__} names its parameters"):
        segformer("b0", 4)


class TestRenamedState:
    @pytest.fixture
    def module(self) -> torch.nn.Sequential:
        inner = torch.nn.Linear(2, 3)
        rename_state(inner, {"weight": "w", "bias": "b"})
        return torch.nn.Sequential(inner, torch.nn.Linear(3, 1))

    def test_it_is_given_and_taken_under_the_other_names(self, module):
        state = module.state_dict()
        assert set(state) == {"0.w", "0.b", "1.weight", "1.bias"}
        changed = {key: torch.full_like(value, 7) for key, value in state.items()}
        module.load_state_dict(changed, strict=True)
        assert all((value == 7).all() for value in module.parameters())

    def test_a_missing_key_is_still_an_error(self, module):
        state = module.state_dict()
        del state["0.w"]
        with pytest.raises(RuntimeError, match=r"Missing key.*0\.weight"):
            module.load_state_dict(state, strict=True)

    def test_an_unexpected_key_is_still_an_error(self, module):
        with pytest.raises(RuntimeError, match=r"Unexpected key.*0\.z"):
            module.load_state_dict(module.state_dict() | {"0.z": torch.zeros(1)}, strict=True)

    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
    def test_copies_keep_the_names(self, module, duplicate):
        assert set(duplicate(module).state_dict()) == set(module.state_dict())


def test_attention_is_the_textbook_one():
    torch.manual_seed(0)
    attention = Attention(dim=8, heads=2, dropout=0.0)
    tokens = torch.randn(3, 5, 8)

    def heads(layer):
        return layer(tokens).view(3, 5, 2, 4).permute(0, 2, 1, 3)

    scores = heads(attention.query) @ heads(attention.key).transpose(-1, -2) / 2
    mixed = scores.softmax(dim=-1) @ heads(attention.value)
    expected = attention.out(mixed.permute(0, 2, 1, 3).reshape(3, 5, 8))
    torch.testing.assert_close(attention(tokens), expected, rtol=1e-5, atol=1e-6)


def test_another_tile_is_refused_since_positions_are_learnt():
    model = build_model("unetr-segformer", {"tile_px": 64, "segformer": "b0"})
    with pytest.raises(ConfigError, match="tiles of 64 px, got 128 x 128 px"):
        model(torch.zeros(1, 1, 16, 128, 128))


@pytest.mark.parametrize("config", [{"depth_layers": 26}, {"tile_px": 48}, {"unetr": "maxi"}, {"segformer": "b9"}])
def test_sizes_that_cannot_be_are_refused(config):
    with pytest.raises(ConfigError, match=str(next(iter(config)))):
        build_model("unetr-segformer", config)


class TestInference:
    def test_the_sizes_are_read_from_the_keys(self, golden):
        shapes = golden("unetr-segformer-b3-full").shapes | {
            "encoder.transformer.embeddings.position_embeddings": (1, 256, 768),
            "encoder.decoder0_header.2.block.weight": (16, 64, 1, 1, 1),
        }
        expected = UnetrSegformerConfig(tile_px=256, unetr="full", unetr_channels=16)
        assert UnetrSegformer.infer_config(shapes) == expected

    def test_another_network_is_refused(self, golden):
        with pytest.raises(MismatchError, match="no UNETR's keys"):
            UnetrSegformer.infer_config(golden("i3d").shapes)

    def test_tokens_that_are_no_square_are_refused(self, golden):
        table = {"encoder.transformer.embeddings.position_embeddings": (1, 128, 384)}
        with pytest.raises(MismatchError, match="the checkpoint has 128 of width 384"):
            UnetrSegformer.infer_config(golden("unetr-segformer-b3-mini").shapes | table)

    def test_an_unknown_segformer_is_refused(self, golden):
        shapes = {
            key: shape
            for key, shape in golden("unetr-segformer-b3-mini").shapes.items()
            if not key.startswith("encoder_2d.segformer.encoder.block.2.17.")
        }
        with pytest.raises(MismatchError, match=r"\(3, 4, 17, 3\) blocks"):
            UnetrSegformer.infer_config(shapes)

"""Hecate at both scales."""

from typing import ClassVar

import pytest
import torch

from inkbatch.errors import ConfigError, MismatchError
from inkbatch.models.base import build_model
from inkbatch.models.hecate import Hecate, HecateConfig, full_map_logit, project
from inkbatch.models.resnet3d_3d_decoder import Resnet3dDecoder3d
from inkbatch.testing.models import ModelContract

DEAD = ("canonical.backbone.fc.", "canonical.decoder.aux_head_s1.", "canonical.decoder.aux_head_s2.")


class TestHecate(ModelContract):
    architecture = "hecate"
    config: ClassVar = {"depth_layers": 4, "depth_margin": 0, "xy_stride": 1, "resnet": 50, "fc_width": None}
    tile_px = 9
    dead_parameters = DEAD


SCALES = {
    "hecate-2.4um": {"depth_layers": 64, "depth_margin": 1, "xy_stride": 4},
    "hecate-9.6um": {"depth_layers": 16, "depth_margin": 0, "xy_stride": 1},
}
STEPS = {
    "hecate-2.4um": {"logits": (8, 4, 4), "map": 7, "voxels": (9, 13, 13), "hole": (22, 40)},
    "hecate-9.6um": {"logits": (5, 7, 7), "map": 5, "voxels": (5, 9, 9), "hole": (11, 20)},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCALES)
def test_the_published_network_is_reproduced(golden, name):
    fixture = golden(name)
    config = Hecate.infer_config(fixture.shapes)
    assert config.model_dump(include=set(SCALES[name])) == SCALES[name]
    model = Hecate(config)
    fixture.require_match(model)
    steps, subvolume = STEPS[name], fixture.subvolume()
    with torch.inference_mode():
        logits, scores = model.voxels(subvolume)
        full = full_map_logit(project(logits, scores), tuple(subvolume.shape[-2:])).sigmoid()
        height, width = steps["hole"]
        subvolume[..., :height, :width] = 0
        masked = model(subvolume)
    z, y, x = steps["logits"]
    assert fixture.difference(logits[:, :, ::z, ::y, ::x], fixture.extra["voxel_logits"]) < 1e-4
    z, y, x = steps["voxels"]
    assert fixture.difference(model.full_voxels(logits)[:, :, ::z, ::y, ::x], fixture.extra["full_3d_logits"]) < 1e-4
    every = steps["map"]
    assert fixture.difference(full[:, :, ::every, ::every], fixture.extra["full_2d_probability"]) < 1e-4
    assert fixture.difference(masked, fixture.extra["masked_output"]) < 1e-4


@pytest.mark.parametrize("name", SCALES)
def test_the_scale_is_read_from_the_keys(golden, name):
    shapes = golden(name).shapes
    config = Hecate.infer_config(shapes)
    with torch.device("meta"):
        model = Hecate(config)
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == shapes
    with pytest.raises(MismatchError, match="has no depth_coordinate_scale"):
        Hecate.infer_config({key: shape for key, shape in shapes.items() if key.startswith("canonical.")})


def test_without_a_leaning_it_is_the_older_network():
    """Classify then collapse is collapse then classify, as long as weights over depth add up to 1."""
    config = {"depth_layers": 6, "resnet": 50, "fc_width": None}
    hecate = build_model("hecate", config).eval()
    older = Resnet3dDecoder3d(HecateConfig(**config).inner).eval()
    older.load_state_dict(hecate.canonical.state_dict())
    subvolume = torch.rand(1, 1, 6, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(hecate(subvolume), older(subvolume[:, :, 1:5]), rtol=1e-4, atol=1e-5)
        hecate.depth_coordinate_scale.fill_(3.0)
        assert not torch.allclose(hecate(subvolume), older(subvolume[:, :, 1:5]), atol=1e-3)


def test_columns_without_data_get_no_answer():
    config = {"depth_layers": 4, "depth_margin": 0, "xy_stride": 1, "resnet": 50, "fc_width": None}
    subvolume = torch.rand(1, 1, 4, 8, 8)
    subvolume[..., :3] = 0
    model = build_model("hecate", config).eval()
    other = build_model("hecate", {**config, "empty_columns": "as-others"}).eval()
    other.load_state_dict(model.state_dict())
    with torch.inference_mode():
        logits, usual = model(subvolume), other(subvolume)
    assert not logits[..., :3].any()
    assert usual[..., :3].all()
    torch.testing.assert_close(logits[..., 3:], usual[..., 3:])


def test_a_projection_leaves_out_what_is_not_valid():
    logits = torch.tensor([1.0, 2.0, 10.0]).view(1, 1, 3, 1, 1)
    scores = torch.zeros_like(logits)
    valid = torch.tensor([True, True, False]).view(1, 1, 3, 1, 1)
    assert project(logits, scores, valid).item() == 1.5
    assert project(logits, scores, torch.zeros_like(valid)).item() == 0.0


def test_too_few_layers_are_refused():
    with pytest.raises(ConfigError, match="leave fewer than 2 between margins 1"):
        build_model("hecate", {"depth_layers": 3})

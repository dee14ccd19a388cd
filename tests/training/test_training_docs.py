"""docs/training.md: its example is a valid configuration, and it names every setting group."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from inkbatch.steps.train.job import TrainConfig
from inkbatch.training.augment_settings import AugmentConfig

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def test_the_example_is_a_valid_configuration():
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 1
    config = TrainConfig.checked(yaml.safe_load(blocks[0]), "docs/training.md")
    assert (config.tile_px, config.schedule.name, len(config.loss.terms)) == (224, "one-cycle", 3)


@pytest.mark.parametrize("name", sorted(set(TrainConfig.model_fields) - {"root", "seed", "threads", "device", "run"}))
def test_every_setting_is_told(name):
    assert re.search(rf"\b{name}\b", PAGE), f"{name} is not in docs/training.md"


def test_every_kind_of_augmentation_is_told():
    chances = [name for name, field in AugmentConfig.model_fields.items() if field.annotation is float]
    kinds = set(chances) - {
        "rotate_deg",
        "perspective",
        "grid_distortion",
        "brightness",
        "mix_up_alpha",
        "cut_mix_alpha",
    }
    assert all(f"`{name}`" in PAGE for name in kinds)
    assert len(kinds) == 10

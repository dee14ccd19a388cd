"""Examples in docs/datasets.md are accepted by the settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from inkbatch.steps.dataset.job import BuildDatasetConfig

PAGE = (Path(__file__).parents[3] / "docs/datasets.md").read_text()
RULES = sorted(set(re.findall(r"^\| `(\{kind: [^`]*\})`", PAGE, re.MULTILINE)))
PAGES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def checked(values) -> BuildDatasetConfig:
    common = {"name": "docs", "sample_px": 64, "splits": {"kind": "kfold"}}
    if "patches" in values:
        return BuildDatasetConfig.checked(values, "docs/datasets.md")
    if "images" not in values:
        common["segments"] = ["a"]
    return BuildDatasetConfig.checked({**common, **values}, "docs/datasets.md")


def test_the_page_shows_every_kind():
    kinds = {yaml.safe_load(rule)["kind"] for rule in RULES}
    assert kinds == {
        *("grid", "crops", "boxes", "whole"),
        *("leave-one-segment-out", "kfold", "shares", "blocks", "listed-blocks", "masks", "lists", "given"),
    }


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_is_accepted(rule):
    values = yaml.safe_load(rule)
    is_sampling = values["kind"] in ("grid", "crops", "boxes", "whole")
    checked({"sampling" if is_sampling else "splits": values})


@pytest.mark.parametrize("text", PAGES)
def test_each_example_is_accepted(text):
    checked(yaml.safe_load(text))

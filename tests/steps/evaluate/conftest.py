"""Two maps of a labelled segment, and settings that evaluate them in small units."""

from __future__ import annotations

from pathlib import Path

import pytest

from inkbatch.steps.evaluate.job import EvaluateConfig
from inkbatch.testing.evaluation import store_judged


@pytest.fixture
def root(tmp_path) -> Path:
    place = tmp_path / "root"
    store_judged(place)
    return place


@pytest.fixture
def configure(root):
    def make(**changes) -> EvaluateConfig:
        values = {"segment": "s", "name": "good", "root": str(root), "region_px": 32, "draws": 200, **changes}
        return EvaluateConfig.checked(values, "test")

    return make


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    monkeypatch.setattr("inkbatch.data.maps.comparison.UNIT_PX", 64)

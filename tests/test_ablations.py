"""The ablations of ``make ablations``: settings that a run takes, and a table of differences to the baseline."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from inkbatch.training.settings import TrainConfig

SCRIPT = Path(__file__).parents[1] / "scripts" / "ablate_training.py"


@pytest.fixture(scope="module")
def ablations():
    spec = importlib.util.spec_from_file_location("ablate_training", SCRIPT)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_methods_differ_from_the_baseline_in_their_own_setting_alone(ablations, tmp_path):
    made = {name: ablations.settings(name, 2, tmp_path, 50) for name in ablations.METHODS}
    base = made[ablations.BASELINE].model_dump()
    for name, config in made.items():
        assert isinstance(config, TrainConfig)
        differing = {key for key, value in config.model_dump().items() if value != base[key]} - {"run"}
        assert differing == set(ablations.METHODS[name])
        assert (config.seed, config.epochs, config.sampler.samples_per_epoch) == (2, 1, 400)
    assert len({config.run for config in made.values()}) == len(made) == 7


def test_the_table_compares_seed_by_seed(ablations):
    methods = list(ablations.METHODS)
    rows = [
        ablations.Outcome(method, seed, 50, 0.5 + seed / 10 + gain, 0.9, 10 * (1 + gain))
        for method, gain in ((methods[0], 0.0), (methods[1], 0.1))
        for seed in (0, 1, 2)
    ]
    head, _, base, other = ablations.table(rows)
    assert head.startswith("| setting | seeds | F0.5 | AUC |")
    assert base.startswith("| baseline | 3 | 0.600 ± 0.100 | 0.900 ± 0.000 |  |  |")
    assert "| 0.700 ± 0.100 | 0.900 ± 0.000 | +0.100 ± 0.000 | +0.000 ± 0.000 | × 1.10 |" in other

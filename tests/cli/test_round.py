"""`inkbatch round` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from inkbatch.cli.app import app
from inkbatch.errors import ConfigError, DataError
from inkbatch.testing.rounds import rounds_root, tiny_round

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path) -> Path:
    rounds_root(tmp_path / "root", tmp_path / "sources")
    return tmp_path / "root"


SHIPPED = ["round", "letters", "--config", str(REPOSITORY / "jobs/round.yaml"), "--dry-run"]
OURS = ["--set", "segments=[r0, r1, r2]", "--set", "folds.count=2"]


def test_the_shipped_settings_plan_a_round_and_write_nothing(root, capsys):
    yardstick = ["--set", "yardstick.segments=[r2]", "--set", "yardstick.region_px=32"]
    app([*SHIPPED, "--root", str(root), *OURS, *yardstick], standalone_mode=False)
    said = capsys.readouterr().out
    assert f"round 1 of letters: {root}/rounds/letters/round-001" in said
    assert "2 by segments; networks may speak 256 px away from training" in said
    assert "is fixed in this round" in said
    assert not (root / "rounds").exists()


def test_a_plan_refuses_labels_that_are_too_few_for_a_yardstick_as_the_round_would(root):
    with pytest.raises(DataError, match="yardstick: expected ink, and at least two blocks .*, got 1; label more"):
        app([*SHIPPED, "--root", str(root), *OURS], standalone_mode=False)
    with pytest.raises(ConfigError, match="yardstick: expected labelled papyrus that is kept out, got none; raise"):
        app([*SHIPPED, "--root", str(root), *OURS, "--set", "yardstick.share=0"], standalone_mode=False)
    assert not (root / "rounds").exists()


def test_one_file_serves_a_series_and_wrong_settings_are_refused(root, tmp_path, capsys):
    place = tmp_path / "discs.yaml"
    place.write_text(yaml.safe_dump(tiny_round(root)))
    app(["round", "--config", str(place), "--dry-run"], standalone_mode=False)
    assert "round 1 of discs" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="epocs"):
        app(["round", "--config", str(place), "--set", "train.epocs=3", "--dry-run"], standalone_mode=False)

"""The control of a sweep: planted ink goes through the same search, and sweep.json says what would have been seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from inkbatch.errors import Preempted
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.steps.sweep.job import run
from inkbatch.steps.sweep.settings import SweepConfig
from inkbatch.testing.faults import preempted_context
from inkbatch.testing.segments import identity_bundle, write_layers

SHAPE = (5, 128, 192)
CONTRASTS = (80.0, 5.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A grey segment, and two bundles that show its middle layer."""
    place = tmp_path_factory.mktemp("control")
    grey = np.random.default_rng(0).integers(90, 110, SHAPE).astype(np.uint8)
    source = write_layers(place / "layers", grey)
    stated = {"source": str(source), "depth_order": "forward", "voxel_size_um": 8.0, "shard_px": 64}
    prepare.run(PrepareConfig(segment="page", root=str(place / "root"), **stated), RunContext())
    for name, stride in (("a", 8), ("b", 16)):
        identity_bundle(place / name, 3, 1, stride_px=stride)
    return place


def config(folder: Path, name: str, **changes) -> SweepConfig:
    bundles = [{"bundle": str(folder / one), "name": one} for one in ("a", "b")]
    values = {"segment": "page", "root": str(folder / "root"), "bundles": bundles, "name": name, "unit_px": 64}
    values |= {"depths": "-1:2", "device": "cpu", "window_mm": 0.5, "control": CONTRASTS, "control_windows": 3}
    return SweepConfig.checked({**values, **changes}, "test")


def document(folder: Path, name: str) -> dict:
    return json.loads((folder / f"root/sweeps/page/{name}/sweep.json").read_text())


def test_planted_ink_is_louder_the_more_contrast_it_has(folder):
    report = run(config(folder, "whole"), RunContext())
    assert report.complete
    evidence = document(folder, "whole")["evidence"]
    assert [row["contrast"] for row in evidence["control"]] == list(CONTRASTS)
    assert [row["windows"] for row in evidence["control"]] == [3, 3]
    places = (folder / "root/sweeps/page/whole/control/scores").iterdir()
    scores = [json.loads(place.read_text())["scores"] for place in places]
    assert len(scores) == 3
    for row in scores:
        assert row["80"]["forward"] > 4 * row["5"]["forward"] > 0
    assert len(evidence["at"]) == len(evidence["q"]) == 6
    assert sorted(evidence["rank"]) == [1, 2, 3, 4, 5, 6]
    assert evidence["sentence"].startswith("Nothing can be called: ")


def test_shards_and_kills_change_nothing(folder):
    run(config(folder, "once"), RunContext())
    asked = config(folder, "cut")
    with pytest.raises(Preempted):
        run(asked, preempted_context(7))
    for index in (1, 0, 1):
        report = run(asked, RunContext(ShardSpec(index, 2)))
    assert report.complete
    assert document(folder, "cut") == document(folder, "once")


def test_without_a_control_the_sentence_says_so(folder):
    run(config(folder, "bare", control_windows=0, nulls=()), RunContext())
    evidence = document(folder, "bare")["evidence"]
    assert evidence["control"] == []
    assert evidence["called"] == 0
    assert not (folder / "root/sweeps/page/bare/control").exists()

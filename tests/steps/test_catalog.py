"""A catalog run: every segment is prepared and inferred; each job overlaps its stages as it would alone."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest
import yaml

from inkbatch.errors import DataError, Preempted
from inkbatch.io.prediction import Prediction
from inkbatch.predict.predictor import Predictor
from inkbatch.run.job import RunContext
from inkbatch.run.signals import StopFlag
from inkbatch.steps.catalog import CatalogConfig, run
from inkbatch.steps.infer import job as infer
from inkbatch.steps.prepare import job as prepare
from inkbatch.testing.segments import random_papyrus, write_layers


@pytest.fixture
def catalog(tmp_path, bundle_folder):
    """Make the settings of a catalog run over segments of these names; those in `missing` have no layers."""

    def make(*names: str, missing: tuple[str, ...] = ()) -> CatalogConfig:
        write_layers(tmp_path / "layers", random_papyrus())
        entries = {name: {"source": str(tmp_path / "layers")} for name in names}
        entries |= {name: {"source": str(tmp_path / "nowhere")} for name in missing}
        file = tmp_path / "catalog.yaml"
        file.write_text(
            yaml.safe_dump({"defaults": {"depth_order": "forward", "voxel_size_um": 8.0}, "segments": entries})
        )
        return CatalogConfig(root=str(tmp_path / "root"), catalog=str(file), bundle=str(bundle_folder))

    return make


def maps_of(config: CatalogConfig) -> list[str]:
    return sorted(path.parts[-3] for path in Path(config.root).glob("predictions/*/*/complete.json"))


def test_every_segment_is_prepared_and_inferred_and_what_is_complete_is_passed_over(catalog):
    config = catalog("b", "a")
    lines = list(run(config, RunContext()))
    assert [line.split(":")[0] for line in lines] == ["a", "b"]
    assert all("complete at" in line and "(1 unit stored, 0 already done" in line for line in lines)
    assert maps_of(config) == ["a", "b"]
    assert all("(0 units stored, 1 already done" in line for line in run(config, RunContext()))


def test_a_segment_that_cannot_be_done_is_named_and_does_not_stop_the_others(catalog):
    config, lines = catalog("a", "c", missing=("b",)), []
    with pytest.raises(DataError, match=r"catalog: 1 of 3 segments failed: b$"):
        lines.extend(run(config, RunContext()))
    assert lines[1].startswith("b: FAILED, ")
    assert "nowhere" in lines[1]
    assert maps_of(config) == ["a", "c"]


def test_a_stop_ends_the_run_between_two_segments(catalog):
    config, stop = catalog("a", "b"), StopFlag()
    lines = run(config, RunContext(stop=stop))
    assert next(lines).startswith("a: complete")
    stop.set("SIGTERM")
    with pytest.raises(Preempted, match="SIGTERM"):
        next(lines)
    assert maps_of(config) == ["a"]


def test_a_job_after_another_one_with_the_same_context_still_overlaps(
    tmp_path, prepare_config, bundle_folder, monkeypatch
):
    """On a local root prepare lets no unit wait to be stored; infer computes the next unit while it stores one."""
    second_computed, waited = threading.Event(), []
    computed, blend, write = [], Predictor.blend_windows, Prediction.write

    def blend_windows(self, unit, *args):
        computed.append(unit.name)
        if len(computed) == 2:
            second_computed.set()
        return blend(self, unit, *args)

    def slow_write(self, box, probability):
        waited.append(second_computed.wait(2))
        return write(self, box, probability)

    monkeypatch.setattr(Predictor, "blend_windows", blend_windows)
    monkeypatch.setattr(Prediction, "write", slow_write)
    context = RunContext()
    prepare.run(prepare_config(write_layers(tmp_path / "layers", random_papyrus())), context)
    settings = {"segment": "tiny", "root": str(tmp_path / "root"), "bundle": str(bundle_folder), "unit_px": 64}
    infer.run(infer.InferConfig(**settings, device="cpu"), context)
    assert waited[0]


def test_no_job_can_change_the_context_that_others_share():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunContext().attempt = 2

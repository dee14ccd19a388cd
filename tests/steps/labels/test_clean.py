"""clean: components are those of the whole segment, whatever the units; shards and stops change no byte."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from inkbatch.errors import ConfigError, MismatchError, Preempted
from inkbatch.geometry import Box
from inkbatch.io.prediction import Prediction
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.steps.labels.clean import CleanConfig, describe, make_plan, run, summary
from inkbatch.testing.faults import preempted_context, stored_bytes
from inkbatch.testing.maps import store_map

SHAPE = (150, 210)
NOISE = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(SHAPE), 3)
VALUES = np.clip(0.5 + NOISE / NOISE.std() / 4, 0.01, 1).astype(np.float16)
VALUES[:, 190:] = 0


@pytest.fixture
def configure(tmp_path):
    store_map(tmp_path / "root", "s", "map", VALUES)

    def make(**changes) -> CleanConfig:
        values = {"segment": "s", "name": "map", "root": str(tmp_path / "root"), "unit_px": 64, "min_area_px": 120}
        return CleanConfig.checked({**values, **changes}, "test")

    return make


def read(report) -> np.ndarray:
    found = Prediction.open(report.location)
    return found.read(Box(0, 0, *found.shape_yx))


def kept(mask, min_area_px=120) -> np.ndarray:
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[0] = 0
    return (areas >= min_area_px)[labels]


def test_small_components_go_across_seams_as_if_the_map_was_never_cut(configure):
    report = run(configure(), RunContext())
    expected = kept(np.float16(0.5) <= VALUES)
    assert report.units == 12
    assert expected.any()
    assert (expected != (np.float16(0.5) <= VALUES)).any()
    np.testing.assert_array_equal(read(report), expected.astype(np.float16))
    facts = json.loads(Path(str(report.location / "components.json")).read_text())
    assert facts["ink_px"] == expected.sum()
    assert facts["components"] == ndimage.label(expected, np.ones((3, 3)))[1]
    assert Path(str(report.location / "preview.png")).exists()


def test_probabilities_can_be_kept(configure):
    report = run(configure(values="probability", threshold=0.6), RunContext())
    expected = np.where(kept(np.float16(0.6) <= VALUES), VALUES, 0)
    np.testing.assert_array_equal(read(report), expected)


def test_holes_are_filled_when_asked(configure):
    report = run(configure(max_hole_px=10_000, min_area_px=0), RunContext())
    np.testing.assert_array_equal(read(report) > 0, ndimage.binary_fill_holes(np.float16(0.5) <= VALUES))


def test_a_median_is_that_of_the_whole_map(configure):
    report = run(configure(denoise={"method": "median"}, min_area_px=0), RunContext())
    whole = ndimage.median_filter(VALUES.astype(np.float32), 3, mode="nearest")
    expected = (whole >= 0.5) & (VALUES > 0)
    np.testing.assert_array_equal(read(report) > 0, expected)


@pytest.mark.parametrize("denoise", [{"method": "median", "median_px": 5}, {"method": "gaussian", "sigma_px": 2}])
@pytest.mark.parametrize("unit_px", [32, 512])
def test_cutting_into_units_changes_no_pixel(configure, denoise, unit_px):
    values = {"denoise": denoise, "values": "probability"}
    whole = run(configure(**values, result="a"), RunContext())
    cut = run(configure(**values, result="b", unit_px=unit_px), RunContext())
    np.testing.assert_allclose(read(whole), read(cut), atol=5e-4 if denoise["method"] == "gaussian" else 0)


def test_a_gaussian_is_its_definition_and_leaves_no_ink_outside_the_mask(configure):
    report = run(
        configure(denoise={"method": "gaussian"}, values="probability", threshold=0.3, min_area_px=0), RunContext()
    )
    whole = ndimage.gaussian_filter(VALUES.astype(np.float32), 1, mode="nearest", truncate=4)
    expected = np.where((whole >= 0.3) & (VALUES > 0), whole, 0)
    np.testing.assert_allclose(read(report), expected, atol=1e-3)
    assert not read(report)[:, 190:].any()


def test_the_threshold_of_the_prediction_is_taken(configure, tmp_path):
    store_map(tmp_path / "root", "s", "fitted", VALUES, contract={"threshold": 0.7})
    assert make_plan(configure(name="fitted")).threshold == 0.7
    assert make_plan(configure(name="fitted", threshold=0.4)).threshold == 0.4
    assert make_plan(configure()).threshold == 0.5


@pytest.mark.parametrize("count", [2, 5])
def test_shards_store_the_bytes_of_a_whole_run(configure, tmp_path, count):
    whole = run(configure(), RunContext())
    expected = stored_bytes(whole.location.path)
    Path(whole.location.path).rename(tmp_path / "whole")
    shards = [RunContext(shard=ShardSpec(i, count)) for i in range(count)]
    reports = [run(configure(), shard) for shard in shards]  # each command once
    assert [report.complete for report in reports] == [False] * (count - 1) + [True]
    assert stored_bytes(whole.location.path) == expected


@pytest.mark.parametrize("after", [0, 5, 12])
def test_a_stopped_job_goes_on_and_gives_the_same_bytes(configure, tmp_path, after):
    whole = run(configure(), RunContext())
    expected = stored_bytes(whole.location.path)
    Path(whole.location.path).rename(tmp_path / "whole")
    with pytest.raises(Preempted):
        run(configure(), preempted_context(after))
    assert run(configure(), RunContext()).complete
    assert stored_bytes(whole.location.path) == expected


def test_what_cannot_be_done_is_refused(configure):
    with pytest.raises(ConfigError, match="would replace map"):
        make_plan(configure(result="map"))
    with pytest.raises(ConfigError, match="power of two"):
        configure(unit_px=48)
    run(configure(), RunContext())
    with pytest.raises(MismatchError, match=r"config\.min_area_px: there 120, here 50"):
        run(configure(min_area_px=50), RunContext())


def test_the_plan_says_what_will_be_done_and_writes_nothing(configure, tmp_path):
    text = describe(configure(denoise={"method": "median"}))
    assert "median" in text
    assert "components from 120 px" in text
    assert not (tmp_path / "root/predictions/s/map-clean").exists()


def test_a_cleaned_map_says_what_was_removed_and_leaves_a_page(configure):
    report = run(configure(), RunContext())
    facts = json.loads(Path(str(report.location / "components.json")).read_text())
    (line,) = summary(report.location)
    assert facts["removed_components"] > 1
    assert line.startswith(f"clean: {facts['removed_components']} components ({facts['removed_px']:,} px) were removed")
    page = (report.location / "report.html").read_bytes().decode()
    assert f"{facts['removed_px']:,} px" in page
    none = run(configure(min_area_px=1, result="all"), RunContext())
    assert summary(none.location)[0].startswith("clean: none was removed")

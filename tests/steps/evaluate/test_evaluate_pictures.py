"""Pictures of evaluate: where map and labels agree, reduced ones, the worst regions."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from inkbatch.errors import CorruptDataError, Preempted
from inkbatch.run.job import RunContext
from inkbatch.steps.evaluate.job import EvaluateConfig, make_plan, run
from inkbatch.steps.evaluate.pictures import COLOURS
from inkbatch.testing.evaluation import COUNTED, GOOD, IGNORED, INK, MASK, POOR, SHAPE
from inkbatch.testing.faults import preempted_context
from inkbatch.testing.maps import store_map, store_picture


def document(report) -> dict:
    return json.loads(Path(str(report.location / "evaluation.json")).read_text())


def picture(report, name) -> np.ndarray:
    return cv2.imread(str(report.location / name), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("changes", [{}, {"area": (13, 7, 141, 180)}])
def test_the_picture_shows_where_map_and_labels_agree(configure, changes):
    report = run(configure(**changes), RunContext())
    y0, x0, y1, x1 = changes.get("area", (0, 0, *SHAPE))
    threshold = document(report)["maps"][0]["best"]["threshold"]
    found, ink, counted = (values[y0:y1, x0:x1] for values in (np.greater_equal(GOOD, threshold), INK, COUNTED))
    shown = picture(report, "agreement.png")[..., ::-1]
    wanted = {"found": found & ink, "missed": ~found & ink, "false alarm": found & ~ink, "bare": ~found & ~ink}
    for name, pixels in wanted.items():
        np.testing.assert_array_equal((shown == COLOURS[name]).all(axis=2), pixels & counted, name)
    np.testing.assert_array_equal((shown == COLOURS["not counted"]).all(axis=2), ~counted)
    tones = picture(report, "map.png")
    np.testing.assert_allclose(tones / 255, GOOD[y0:y1, x0:x1].astype(float), atol=0.003)


def test_a_reduced_picture_shows_every_fourth_label(tmp_path, monkeypatch):
    def large(values):
        return values.repeat(4, axis=0).repeat(4, axis=1)[3:, 2:]

    monkeypatch.setattr("inkbatch.io.multiscale.OVERVIEW_PX", 210)
    for name, values in (("good", GOOD), ("poor", POOR)):
        store_map(tmp_path, "s", name, large(values), unit_px=256)
    for name, values in (("mask", MASK * 255), ("ink_labels", INK * 255), ("ignore_mask", IGNORED)):
        store_picture(tmp_path, "s", name, large(values), shard_px=256)
    monkeypatch.setattr("inkbatch.data.maps.comparison.UNIT_PX", 256)
    monkeypatch.setattr("inkbatch.steps.evaluate.pictures.LONGEST_PX", 210)
    values = {"segment": "s", "name": "good", "versus": "poor", "root": str(tmp_path), "region_px": 100, "draws": 100}
    report = run(EvaluateConfig.checked(values, "test"), RunContext())
    shown = picture(report, "agreement-2.png")[..., ::-1]
    np.testing.assert_array_equal((shown == COLOURS["not counted"]).all(axis=2), ~large(COUNTED)[::4, ::4])
    ink = (shown == COLOURS["found"]).all(axis=2) | (shown == COLOURS["missed"]).all(axis=2)
    np.testing.assert_array_equal(ink, large(INK & COUNTED)[::4, ::4])
    assert json.loads(Path(str(report.location / "pictures.json")).read_text())["reduced_by"] == 4


@pytest.mark.parametrize(("row", "reduced_by"), [(5, 1), (6, 2), (8, 4)])
def test_an_area_of_one_row_is_drawn_from_a_level_that_has_it(tmp_path, monkeypatch, row, reduced_by):
    monkeypatch.setattr("inkbatch.io.multiscale.OVERVIEW_PX", 30)
    monkeypatch.setattr("inkbatch.steps.evaluate.pictures.LONGEST_PX", 50)
    store_map(tmp_path, "s", "good", GOOD, unit_px=256)
    for name, values in (("mask", MASK * 255), ("ink_labels", INK * 255)):
        store_picture(tmp_path, "s", name, values, shard_px=256)
    values = {"segment": "s", "root": str(tmp_path), "area": (row, 0, row + 1, 170), "region_px": 64}
    report = run(EvaluateConfig.checked(values, "test"), RunContext())
    assert json.loads(Path(str(report.location / "pictures.json")).read_text())["reduced_by"] == reduced_by
    shown = picture(report, "agreement.png")[..., ::-1]
    ink = (shown == COLOURS["found"]).all(axis=2) | (shown == COLOURS["missed"]).all(axis=2)
    np.testing.assert_array_equal(ink, INK[row : row + 1, :170:reduced_by])


def test_the_regions_with_most_wrong_pixels_are_shown_in_order(configure):
    report = run(configure(), RunContext())
    listed = json.loads(Path(str(report.location / "pictures.json")).read_text())["worst"]
    found = np.greater_equal(GOOD, document(report)["maps"][0]["best"]["threshold"])
    wrong = (found != INK) & COUNTED
    sums = sorted(
        (int(wrong[y : y + 32, x : x + 32].sum()) for y in range(0, SHAPE[0], 32) for x in range(0, SHAPE[1], 32)),
        reverse=True,
    )
    assert [row["wrong_px"] for row in listed] == sums[: len(listed)]
    assert len(listed) == 6
    for row in listed:
        inside = np.s_[row["y0"] : row["y1"], row["x0"] : row["x1"]]
        assert row["missed_px"] == (~found & INK & COUNTED)[inside].sum()
        assert picture(report, row["picture"]).shape[1] == 2 * (row["x1"] - row["x0"]) + 8


def test_damaged_labels_of_the_picture_are_refused(configure):
    config = configure()
    plan = make_plan(config)
    with pytest.raises(Preempted):
        run(config, preempted_context(1))
    plan.comparison.close()
    first = next(Path(str(plan.folder / "counts")).glob("*.png"))
    first.write_bytes(b"x" * first.stat().st_size)  # of another size it would be made again
    with pytest.raises(CorruptDataError, match="evaluate again"):
        run(config, RunContext())

"""A series of rounds: the yardstick stays, no network speaks of what it saw, and a round that was killed goes on."""

from __future__ import annotations

import json
import os
import shutil
import time

import numpy as np
import pytest

from inkbatch.data.datasets.index import DatasetIndex
from inkbatch.data.labels.painting import Marks
from inkbatch.data.labels.painting_session import PaintSession, Sent
from inkbatch.data.labels.painting_version import labels_folder
from inkbatch.data.labels.round_labels import StoredLabels
from inkbatch.data.labels.round_versions import chosen_labels, propose_version
from inkbatch.data.maps.stored import open_map
from inkbatch.errors import ConfigError, CorruptDataError, DataError, MismatchError, Preempted
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.reports.page import Gallery, Table
from inkbatch.run.finished import open_run
from inkbatch.run.job import RunContext
from inkbatch.run.signals import StopFlag
from inkbatch.run.states import differences
from inkbatch.steps.round.job import RoundConfig, describe, make_plan, run
from inkbatch.testing.faults import Notes, StopsAt
from inkbatch.testing.rounds import (
    SEGMENTS,
    SHAPE,
    label_part,
    open_page,
    round_document,
    round_settings,
    tiny_round,
)
from inkbatch.testing.segments import VOXEL_SIZE_UM
from inkbatch.testing.training import planted_segment

PAINTED = Box(10, 100, 30, 140)


def test_yardstick_and_folds_are_those_of_the_first_round(two_rounds):
    first, second = (round_document(two_rounds, number, "blocks.json") for number in (1, 2))
    assert first == second
    assert {home for _, _, home in first["homes"]["r2"]} == {"test"}
    assert len({tuple(row[2] for row in first["homes"][name]) for name in ("r0", "r1")}) == 2
    scores = [round_document(two_rounds, number)["yardstick"] for number in (1, 2)]
    assert scores[0]["blocks"] == scores[1]["blocks"] == 18


def test_a_round_says_how_it_compares_with_the_one_before(two_rounds):
    first, second = round_document(two_rounds, 1), round_document(two_rounds, 2)
    assert first["verdict"] == "first"
    found = second["against"]["f05"]
    wanted = "better" if found["low"] > 0 else "worse" if found["high"] < 0 else "no difference that can be shown"
    assert second["verdict"] == wanted
    assert found["first"] == pytest.approx(second["yardstick"]["f05"], abs=1e-6)
    assert found["second"] == pytest.approx(first["yardstick"]["f05"], abs=1e-6)
    assert second["labelled_cm2"] > first["labelled_cm2"]


def test_the_stored_map_is_the_word_of_networks_that_never_saw_a_pixel(two_rounds):
    root, box = str(two_rounds), Box(0, 0, *SHAPE)
    for segment in ("r0", "r1", "r2"):
        folds = [open_map(root, segment, f"discs-r001-fold-{fold}") for fold in (0, 1)]
        mean, count = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, int)
        for found in folds:
            near = np.zeros(SHAPE, bool)
            for y0, x0, y1, x1 in found.trained_on.train.tolist():
                near[max(0, y0 - 32) : y1 + 32, max(0, x0 - 32) : x1 + 32] = True
            mean += np.where(near, 0, found.prediction.read(box).astype(np.float32))
            count += ~near
        assert count.min() >= 1
        assert (segment == "r2") == bool(count.min() == 2)
        stored = open_map(root, segment, "discs-r001").prediction.read(box).astype(np.float32)
        np.testing.assert_allclose(stored, mean / count, atol=1e-3)


def test_the_page_shows_what_changed_and_where_to_look(two_rounds):
    pages = [open_page(two_rounds, number) for number in (1, 2)]
    assert [section.title for section in pages[0].sections] == [
        "Better or not",
        "Where to label next",
        "Made in this round",
    ]
    changed = next(section for section in pages[1].sections if section.title == "What changed")
    table = next(part for part in changed.parts if isinstance(part, Table))
    areas = {row[0]: row[3:] for row in table.rows}
    assert set(areas) == {"r0", "r1"}  # r2 is the yardstick
    um = VOXEL_SIZE_UM / 1e4
    assert [float(cell.split(",")[0]) for cell in areas["r0"]] == pytest.approx(
        [96 * columns * um**2 for columns in (96, 160)], abs=1e-4
    )
    assert areas["r1"][0] == areas["r1"][1]
    maps = [part for part in changed.parts if isinstance(part, Gallery)]
    assert {picture.caption for gallery in maps for picture in gallery.parts} == {
        f"{segment}, round {number}" for segment in SEGMENTS for number in (1, 2)
    }
    assert all("v=side&with=discs-r002" in gallery.parts[1].link.href for gallery in maps)
    look = next(section for section in pages[1].sections if section.title == "Where to label next")
    pictures = next(part for part in look.parts if isinstance(part, Gallery)).parts
    assert len(pictures) == 2 * round_document(two_rounds, 2)["proposals"]
    assert pictures[0].pixels.shape == (*pictures[1].pixels.shape, 3)


def test_a_page_whose_maps_and_surfaces_are_gone_is_still_drawn(two_rounds, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(two_rounds / "rounds", root / "rounds")
    page = open_page(root, 2)
    look = next(section for section in page.sections if section.title == "Where to label next")
    assert all(picture.pixels.ndim == 2 for part in look.parts if isinstance(part, Gallery) for picture in part.parts)


def test_new_labels_take_their_share_of_a_batch_from_the_second_round_on(two_rounds):
    first, second = (
        json.loads((two_rounds / f"runs/discs-r00{number}/fold-0/manifest.json").read_text())["config"]["sampler"]
        for number in (1, 2)
    )
    assert "new_share" not in first
    assert second["new_share"] == 0.3
    index = DatasetIndex.open(Location.parse(two_rounds) / "datasets/discs-r002")
    new = {(sample.segment, sample.box[1] >= 80) for sample in index.samples if sample.is_new}
    assert ("r0", True) in new
    assert ("r1", False) not in new


def test_proposals_lie_off_labels_and_yardstick_and_open_in_the_viewer(two_rounds):
    for number in (1, 2):
        regions = round_document(two_rounds, number, "proposals.json")["regions"]
        assert len(regions) <= 3
        for one in regions:
            assert one["segment"] in ("r0", "r1")
            assert one["box"][1] >= 64
            assert one["view"].startswith(f"http://localhost:8700/#seg={one['segment']}&x=")
            assert (two_rounds / f"rounds/discs/round-{number:03d}" / one["first_label"]).exists()
    assert round_document(two_rounds, 1)["proposals"] > 0


def test_a_complete_round_is_not_done_twice_and_other_labels_at_its_place_are_refused(two_rounds):
    report = run(round_settings(two_rounds, round=2), RunContext())
    assert (report.stored, report.skipped) == (0, 1)
    with pytest.raises(MismatchError, match=r"inputs\.labels\.r0"):
        run(round_settings(two_rounds, round=1), RunContext())
    assert "round 3 of discs" in describe(round_settings(two_rounds, round=3))


def test_a_command_that_is_repeated_does_nothing_and_says_how_the_next_round_begins(two_rounds):
    notes = Notes()
    report = run(round_settings(two_rounds), RunContext(reporter=notes))
    assert (report.stored, report.skipped) == (0, 1)
    assert not (two_rounds / "rounds/discs/round-003").exists()
    assert any(f"to label next: {two_rounds}/rounds/discs/round-002/proposals.json" in line for line in notes.said)
    assert "or give --round 3, which takes them as they are" in notes.said[-1]
    assert "next          --round 3, or label first" in describe(round_settings(two_rounds))


def test_a_damaged_manifest_is_refused_by_name_and_no_further_round_begins(two_rounds, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(two_rounds / "rounds", root / "rounds")
    place = root / "rounds/discs/round-002/manifest.json"
    place.write_bytes(place.read_bytes()[:-3])
    with pytest.raises(CorruptDataError, match=r"round-002/manifest\.json"):
        make_plan(round_settings(two_rounds, output_root=str(root)))


def test_a_series_cannot_go_on_in_another_root_and_the_refusal_says_what_can(prepared, two_rounds, tmp_path):
    place = tmp_path / "rounds/discs/round-001"
    shutil.copytree(two_rounds / "rounds/discs/round-001", place)
    with pytest.raises(ConfigError, match=rf"got it at {place}; output_root repeats one round elsewhere"):
        make_plan(round_settings(prepared, output_root=str(tmp_path), round=2))


def test_a_complete_round_removes_what_killed_stages_left(two_rounds):
    stages = "runs/discs-r002/fold-0", "datasets/discs-r002", "predictions/r1/discs-r002-fold-1/done", "labels/r0/v001"
    for stage in stages:
        old = two_rounds / stage / "metrics.csv.4711.0123abcd.partial"
        old.write_bytes(b"x")
        os.utime(old, (time.time() - 7200,) * 2)
    run(round_settings(two_rounds, round=2), RunContext())
    assert list(two_rounds.rglob("*.partial")) == []


@pytest.mark.parametrize("changed", ["stroke", "labels", "version", "settings", "training"])
def test_the_next_round_begins_once_labels_or_settings_changed(two_rounds, tmp_path, changed):
    root = tmp_path / "root"
    shutil.copytree(two_rounds, root)
    more = {}
    if changed == "stroke":
        paint(labels_folder(str(root), "r0") / chosen_labels(str(root), "r0", None, SHAPE).version.name)
    elif changed == "labels":
        label_part(root, "r1", 128)
    elif changed == "version":
        more = {"segments": [{"id": "r0", "version": "v001"}, "r1", "r2"]}
    elif changed == "settings":
        more = {"seed": 1}
    else:
        more = {"train": {**tiny_round(root)["train"], "epochs": 2}}
    assert make_plan(round_settings(root, **more)).number == 3


def paint(version: Location) -> None:
    session, marks = PaintSession(version), Marks(PAINTED, np.ones(PAINTED.shape, bool), "ink")
    session.paint(Sent("tab", 1, "", 0, "rectangle"), lambda: [marks])
    session.close()


def test_first_labels_are_the_newest_version_which_the_next_round_takes(two_rounds):
    boxes = [
        Box(*row["box"]) for row in round_document(two_rounds, 1, "proposals.json")["regions"] if row["segment"] == "r0"
    ]
    painted = chosen_labels(str(two_rounds), "r0", "v001", SHAPE)
    own = planted_segment(10, (4, *SHAPE))[1][:, :96] > 0
    ink, counted = painted.read(Box(0, 0, *SHAPE))
    np.testing.assert_array_equal(ink[:, :96], own)
    assert counted[:, :96].all()
    proposed = np.zeros(SHAPE, bool)
    for box in boxes:
        proposed[box.slices] = True
    assert counted[:, 96:][proposed[:, 96:]].any()
    assert not counted[:, 96:][~proposed[:, 96:]].any()
    newest = chosen_labels(str(two_rounds), "r0", None, SHAPE).version.name
    for number, wanted in ((2, "own"), (3, newest)):
        plan = make_plan(round_settings(two_rounds, round=number))
        assert {one.id: one.version for one in plan.config.segments}["r0"] == wanted


def test_labels_that_are_older_than_a_surface_are_named_before_a_round(two_rounds, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(two_rounds, root)
    assert "prepared again" not in describe(round_settings(root, round=3))
    complete = Location.parse(root) / "segments/r0/prepare/complete.json"
    complete.write_json({**complete.read_mapping(), "content": "other"})
    newest = chosen_labels(str(root), "r0", None, SHAPE).version.name
    assert f"labels {newest} of segment r0 were begun before the segment" in describe(round_settings(root, round=3))


def test_a_round_that_was_stopped_goes_on_and_ends_with_the_same_bytes(prepared, two_rounds, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(prepared, root)
    stop = StopFlag()
    with pytest.raises(Preempted):
        run(round_settings(root), RunContext(stop=stop, reporter=StopsAt("runs/discs-r001/fold-0/report", stop)))
    assert not (root / "rounds/discs/round-001/complete.json").exists()
    run(round_settings(root), RunContext())
    for name in ("complete.json", "round.json", "proposals.json", "blocks.json"):
        assert round_document(root, 1, name) == round_document(two_rounds, 1, name)


def test_folds_and_yardstick_by_blocks_keep_a_moat_between_them(by_blocks):
    root = by_blocks
    homes = round_document(root, 1, "blocks.json")["homes"]
    found = {(name, column): home for name, rows in homes.items() for _, column, home in rows}
    assert sorted(map(str, found.values())) in (["0", "0", "1", "test"], ["0", "1", "1", "test"])
    for fold in (0, 1):
        held_out = [(name, column) for (name, column), home in found.items() if home in (fold, "test")]
        boxes = {name: open_map(str(root), name, f"discs-r001-fold-{fold}").trained_on.train for name in SEGMENTS[:2]}
        assert sum(map(len, boxes.values()))
        for name, column in held_out:
            for _, x0, _, x1 in boxes[name].tolist():
                assert x1 + 32 <= 96 * column or x0 - 32 >= 96 * (column + 1)


def test_a_round_is_repeated_and_gone_on_with_whatever_was_painted_since(prepared, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(prepared, root)
    place = Location.parse(root)
    own = StoredLabels.open(place / "segments/r0", SHAPE, "r0")
    stored = propose_version(place, "r0", own, [], SHAPE, VOXEL_SIZE_UM, "a person")
    proposals = {**tiny_round(root)["proposals"], "as_version": False}
    run(round_settings(root, proposals=proposals), RunContext())
    assert round_document(root, 1)["labels"]["r0"]["version"] == stored
    paint(labels_folder(str(root), "r0") / stored)
    stated = {"round": 1, "proposals": proposals}
    with pytest.raises(MismatchError, match=r"inputs\.labels\.r0"):
        run(round_settings(root, **stated), RunContext())
    first = open_run(str(root / "rounds/discs/round-001")).manifest
    hidden = (root / "labels/r0" / stored).rename(tmp_path / stored)  # the round's own copy stands in for it
    assert make_plan(round_settings(root, proposals=proposals)).record.is_complete()
    hidden.rename(root / "labels/r0" / stored)
    pinned = [{"id": name, "version": stored if name == "r0" else "own"} for name in SEGMENTS]
    again = make_plan(round_settings(root, output_root=str(tmp_path / "again"), segments=pinned, **stated))
    (root / "rounds/discs/round-001/complete.json").unlink()
    going_on = make_plan(round_settings(root, proposals=proposals))
    for plan in (again, going_on):
        assert differences(first, plan.manifest.document) == []
        assert not plan.labels["r0"].read(PAINTED)[1].any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"folds": {"count": 3}}, "expected a segment for each of 3 folds beside the yardstick, got 2"),
        ({"yardstick": {"segments": ["r9"]}}, "expected one of the segments r0, r1, r2, got r9"),
        ({"yardstick": {"share": 0.0}}, "expected labelled papyrus that is kept out"),
        ({"block_px": 16}, "block_px: expected at least sample_px, 32, got 16"),
        ({"train": {"run": "mine"}}, "the round sets run itself"),
        ({"segments": ["r0", "r0"]}, "expected each segment once, got r0 twice"),
        ({"round": 2}, "run inkbatch round discs --round 1 first"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(prepared, tmp_path, changes, words):
    values = tiny_round(prepared, output_root=str(tmp_path / "out"), **changes)
    with pytest.raises((ConfigError, DataError), match=words):
        run(RoundConfig.checked(values, "test"), RunContext())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"segments": ["r0", "r1"], "yardstick": {}}, r"expected r2 among segments, for the yardstick, got none"),
        ({"yardstick": {"segments": ["r0", "r2"]}}, r"yardstick\.segments: expected r2, got r0, too"),
        ({"folds": {"count": 3}}, r"folds\.count: expected 2, as .*blocks\.json holds, got 3"),
        ({"block_px": 48}, r"expected blocks of 48 px, got 96 px"),
    ],
)
def test_yardstick_and_folds_cannot_be_changed_later(two_rounds, changes, words):
    with pytest.raises((ConfigError, DataError), match=words):
        run(round_settings(two_rounds, round=3, **changes), RunContext())
    assert not (two_rounds / "rounds/discs/round-003").exists()


def test_a_yardstick_on_another_surface_is_refused_before_networks_are_trained(two_rounds, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(two_rounds, root)
    for segment, refused in (("r0", False), ("r2", True)):
        complete = Location.parse(root) / "segments" / segment / "prepare/complete.json"
        complete.write_json({**complete.read_mapping(), "content": "other"})
        if refused:
            with pytest.raises(MismatchError, match="surfaces of round-002, got surface r2: was made again"):
                describe(round_settings(root, round=3))
        else:
            assert "round 3 of discs" in describe(round_settings(root, round=3))


def test_a_series_that_shows_no_gain_stops_by_rule_unless_a_round_is_stated(two_rounds, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(two_rounds, root)
    for number in (1, 2):
        place = root / f"rounds/discs/round-{number:03d}/round.json"
        place.write_text(json.dumps({**json.loads(place.read_text()), "verdict": "worse"}))
    with pytest.raises(ConfigError, match="stopped after round 2: none of the last 2 rounds was better"):
        make_plan(round_settings(root, seed=1))
    assert make_plan(round_settings(root)).number == 2
    assert make_plan(round_settings(root, round=3)).number == 3

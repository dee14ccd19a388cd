"""First weights of a round's networks: of a bundle or the round before, which never saw what their fold holds out."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from inkbatch.data.datasets.trained_pixels import TrainedPixels
from inkbatch.data.maps.stored import open_map
from inkbatch.errors import CorruptDataError, DataError, MismatchError, Preempted
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.models.bundle import Bundle
from inkbatch.run.finished import open_run
from inkbatch.run.job import RunContext
from inkbatch.run.signals import StopFlag
from inkbatch.steps.provenance.rerun import rerun
from inkbatch.steps.round.job import RoundConfig, dataset_config, describe, make_plan, run
from inkbatch.steps.round.maps import require_unseen_start
from inkbatch.testing.faults import StopsAt
from inkbatch.testing.rounds import (
    BY_BLOCKS,
    SEGMENTS,
    open_page,
    round_document,
    round_settings,
    tiny_round,
)


def test_a_bundle_that_saw_the_papyrus_is_no_start_for_a_round(two_rounds, tmp_path):
    start = {"start_from": str(two_rounds / "runs/discs-r002/fold-0/bundle")}
    values = tiny_round(two_rounds, name="leaking", round=1)
    values["train"]["model"] |= start
    with pytest.raises(
        DataError, match=r"segment r\d: [\d,]+ pixels would be scored in fold 1 by networks that were trained"
    ):
        run(RoundConfig.checked(values, "test"), RunContext())
    assert not (two_rounds / "rounds/leaking").exists()


@pytest.fixture(scope="module")
def gone_on(two_rounds, tmp_path_factory) -> Path:
    """Make a series whose second round goes on from the networks of its first."""
    root = tmp_path_factory.mktemp("gone-on") / "root"
    shutil.copytree(two_rounds, root)
    third = round_settings(root, round=3, start="before")
    assert "starts        each fold goes on from its network of round 2" in describe(third)
    stop = StopFlag()
    with pytest.MonkeyPatch.context() as priced:
        priced.setenv("INKBATCH_USD_PER_HOUR", "36000")
        with pytest.raises(Preempted):
            run(third, RunContext(stop=stop, reporter=StopsAt("runs/discs-r003/fold-0/report", stop)))
        run(round_settings(root, start="before"), RunContext())  # goes on
    return root


def fold_of(root: Path, number: int, fold: int) -> Bundle:
    return Bundle.open(Location.parse(root / f"runs/discs-r{number:03d}/fold-{fold}/bundle"))


def test_each_fold_goes_on_from_its_own_network_of_the_round_before(gone_on):
    before, found = round_document(gone_on, 2), round_document(gone_on, 3)
    assert found["started_from"] == before["weights_sha256"]
    assert "started_from" not in before
    assert round_document(gone_on, 3, "manifest.json")["inputs"]["starts"] == before["weights_sha256"]
    for fold in (0, 1):
        manifest = json.loads((gone_on / f"runs/discs-r003/fold-{fold}/manifest.json").read_text())
        assert manifest["inputs"]["start_from"] == before["weights_sha256"][f"fold-{fold}"]
        assert str(gone_on) not in json.dumps(manifest["config"])  # ROOT may move


def test_the_page_of_a_round_that_went_on_says_so(gone_on):
    sections = {section.title: section.parts for section in open_page(gone_on, 3).sections}
    assert "of labels and of further steps together" in sections["Better or not"][0].caption
    bundles = [row[2] for row in sections["Made in this round"][0].rows if row[0] == "bundle"]
    starts = round_document(gone_on, 2)["weights_sha256"].values()
    assert [text.split("went on from ")[1][:16] for text in bundles] == [start[:16] for start in starts]
    assert "further steps" not in str(open_page(gone_on, 2).sections)


def test_the_page_shows_the_money_of_all_processes_where_a_price_was_stated(gone_on):
    rows = open_run(str(gone_on / "rounds/discs/round-003")).rows
    assert [row["ended"] == "done" for row in rows] == [False, True]
    found = open_page(gone_on, 3)
    (figure,) = [one for one in found.figures if one.label == "money"]
    assert float(figure.value.split()[0]) == pytest.approx(10 * sum(row["seconds"] for row in rows), abs=0.1)
    assert "Money is the stated price per hour" in found.spent.sentence
    assert not any(one.label == "money" for one in open_page(gone_on, 2).figures)


def test_a_network_that_went_on_remembers_all_that_it_was_ever_shown(gone_on):
    for fold in (0, 1):
        first, last = (fold_of(gone_on, number, fold).document.training["pixels"] for number in (2, 3))
        for record in first:
            same = next(one for one in last if one["segment"] == record["segment"])
            shown = TrainedPixels.of(same)
            assert all(shown.trained(Box(*box)).all() for box in record.get("train", []))
        shown = next((one.get("train", []) for one in last if one["segment"] == "r0"), [])
        assert open_map(str(gone_on), "r0", f"discs-r003-fold-{fold}").trained_on.train.tolist() == shown


def test_a_round_that_goes_on_is_repeated_elsewhere_to_the_bit(gone_on, tmp_path):
    found = rerun(str(gone_on / "rounds/discs/round-003"), str(tmp_path / "again"), RunContext())
    assert found.unequal == ()


def test_a_series_that_goes_on_starts_fresh_in_its_first_round(prepared):
    plan = make_plan(round_settings(prepared, start="before"))
    assert (plan.starts, plan.train.start_from) == ({}, None)
    assert "starts        from fresh weights" in describe(round_settings(prepared, start="before"))


def test_a_network_that_cannot_go_on_is_refused_before_anything_is_written(gone_on, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(gone_on, root)
    other = round_settings(root, round=4, start="before")
    other.train["model"]["config"] = {**other.train["model"]["config"], "widths": [8, 8]}
    for refuse in (describe, partial(run, context=RunContext())):
        with pytest.raises(MismatchError, match=r"fold 0: .*keys do not match residual-unet.*set start: fresh"):
            refuse(other)
    place = root / "runs/discs-r003/fold-1/bundle/weights.safetensors"
    place.write_bytes(place.read_bytes()[:-1])
    with pytest.raises(
        CorruptDataError, match=r"fold-1/bundle/weights.safetensors: sha256 is .* copy the bundle again"
    ):
        run(round_settings(root, round=4, start="before"), RunContext())
    assert not any(
        (root / place).exists() for place in ("rounds/discs/round-004", "datasets/discs-r004", "runs/discs-r004")
    )


def test_a_network_of_another_fold_is_no_start(gone_on, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(gone_on, root)
    folds = [root / f"runs/discs-r003/fold-{fold}" for fold in (0, 1)]
    for place, other in ((folds[0], tmp_path / "kept"), (folds[1], folds[0]), (tmp_path / "kept", folds[1])):
        place.rename(other)
    fourth = round_settings(root, round=4, start="before")
    with pytest.raises(MismatchError, match=r"fold-0/bundle: expected weights \w{16}, as round 3 left them, got"):
        run(fourth, RunContext())
    place = root / "rounds/discs/round-003/round.json"
    digests = round_document(root, 3)["weights_sha256"]
    swapped = {"fold-0": digests["fold-1"], "fold-1": digests["fold-0"]}
    place.write_text(json.dumps({**round_document(root, 3), "weights_sha256": swapped}))
    with pytest.raises(DataError, match=r"segment r\d: [\d,]+ pixels would be scored in fold 0 by networks"):
        run(fourth, RunContext())
    assert not (root / "rounds/discs/round-004").exists()


def test_larger_samples_that_would_reach_into_a_moat_are_no_way_to_go_on(by_blocks):
    same, larger = (
        round_settings(by_blocks, round=2, start="before", context_px=context, **BY_BLOCKS) for context in (0, 16)
    )
    require_unseen_start(make_plan(same))
    with pytest.raises(
        DataError, match=r"would be scored .* by networks that were trained there or within 48 px.*start: fresh"
    ):
        run(larger, RunContext())
    assert not (by_blocks / "rounds/discs/round-002").exists()


def test_a_segment_may_leave_a_series_and_its_blocks_keep_their_homes(two_rounds, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(two_rounds, root)
    blocks = round_document(root, 2, "blocks.json")
    blocks["homes"]["left"] = [[0, 0, 0], [0, 1, 1]]
    (root / "rounds/discs/round-002/blocks.json").write_text(json.dumps(blocks))
    plan = make_plan(round_settings(root, round=3, start="before"))
    require_unseen_start(plan)
    assert plan.homes["left"] == ((0, 0, 0), (0, 1, 1))
    assert set(dataset_config(plan).splits.blocks) == set(SEGMENTS)

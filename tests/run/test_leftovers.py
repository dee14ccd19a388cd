"""Leftovers of killed processes are removed by the next run; files that another process may be writing stay."""

from __future__ import annotations

import os
import time

import pytest

from inkbatch.errors import ConfigError, DataError
from inkbatch.io.store import retrying as module
from inkbatch.io.store.local_files import remove_leftovers
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext, begin
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.training.checkpoints import CheckpointStore


def test_old_temporary_files_are_removed_and_nothing_else(tmp_path):
    old = tmp_path / "c" / "0.4711.0123abcd.partial"
    young, other = tmp_path / "c" / "1.4712.0123abcd.partial", tmp_path / "mine.partial"
    old.parent.mkdir()
    for path in (old, young, other):
        path.write_bytes(b"x")
    for path in (old, other):
        os.utime(path, (time.time() - 7200,) * 2)
    assert remove_leftovers(str(tmp_path)) == 1
    assert sorted(path.name for path in tmp_path.rglob("*.partial")) == [young.name, other.name]


def test_every_job_removes_them_when_it_begins_also_one_that_is_complete(tmp_path):
    run = RunFolder(Location.parse(tmp_path / "run"), RunManifest("tiny", {}, {}, 0))
    run.begin()
    run.complete()
    old = tmp_path / "run" / "losses.csv.4711.0123abcd.partial"
    old.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    assert not begin(run, RunContext())
    assert not old.exists()


def test_checkpoints_that_nothing_points_to_are_removed_by_the_next_run(tmp_path):
    store = CheckpointStore(Location.parse(tmp_path))
    store.save({"step": 1}, 1, 1)
    kept = sorted(store.location.names())
    orphan = next(name for name in kept if name != "pointer.json").replace("000000001", "000000002")
    (tmp_path / orphan).write_bytes(b"half")
    assert store.newest() == {"step": 1}
    assert sorted(store.location.names()) == kept


@pytest.mark.parametrize("name", ["root ", " root", "root\t", "ro\tot", "root\n"])
def test_places_with_blanks_at_their_ends_are_refused_and_not_stripped(name):
    with pytest.raises(ConfigError, match="blanks at its ends"):
        Location.parse(name)


def test_a_body_that_came_short_is_read_once_more(monkeypatch):
    place = Location("memory://short/object")
    place.write_bytes(b"0123456789")
    answers = iter([b"012", b"0123456789"])
    monkeypatch.setattr(type(place.fs), "cat_file", lambda *_, **asked: next(answers))
    monkeypatch.setattr(module, "RETRY_DELAYS_S", (0, 0, 0))
    assert place.read_range(0, 10) == b"0123456789"


def test_a_body_that_stays_short_is_refused(monkeypatch):
    place = Location("memory://short/object")
    monkeypatch.setattr(type(place.fs), "cat_file", lambda *_, **asked: b"012")
    monkeypatch.setattr(module, "RETRY_DELAYS_S", (0, 0, 0))
    with pytest.raises(DataError, match="truncated"):
        place.read_range(0, 10)

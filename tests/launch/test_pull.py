"""Finished predictions come back: what, how often, how it is checked, and what is said of the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inkbatch.errors import ConfigError, CorruptDataError, DataError, StorageError
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.listing import objects_below
from inkbatch.io.store.location import Location
from inkbatch.launch import pull as pulling
from inkbatch.launch.pull import Transfer, pull
from inkbatch.run.job import RunContext
from inkbatch.steps.infer import job as infer
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.testing.faults import preempted_context
from inkbatch.testing.segments import identity_bundle, random_papyrus, write_layers

WITH_COMPLETE = 2  # one file, and complete.json, which is taken away until the folder is whole again


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A local ROOT with a finished prediction ``map``, an unfinished one ``half``, and a report beside the map."""
    folder = tmp_path_factory.mktemp("made")
    layers = write_layers(folder / "layers", random_papyrus((5, 150, 210)))
    identity_bundle(folder / "bundle")
    common = {"segment": "tiny", "root": str(folder / "root")}
    given = {"source": str(layers), "depth_order": "forward", "voxel_size_um": 8.0}
    prepare.run(PrepareConfig(**common, **given), RunContext())
    settings = {**common, "bundle": str(folder / "bundle"), "unit_px": 64, "device": "cpu"}
    infer.run(infer.InferConfig(**settings, name="map"), RunContext())
    with pytest.raises(Exception, match="preemption"):
        infer.run(infer.InferConfig(**settings, name="half"), preempted_context(2))
    (folder / "root/predictions/tiny/map/report.html").write_text("<p>ink")
    return folder / "root"


@pytest.fixture(params=["local", "s3"])
def root(request, made, tmp_path) -> str:
    """The same ROOT on a disk and on an S3 server."""
    place = Location.parse(tmp_path / "root") if request.param == "local" else request.getfixturevalue("s3_root")
    for path in sorted((made / "predictions").rglob("*")):
        if path.is_file():
            (place / str(path.relative_to(made))).write_bytes(path.read_bytes())
    return place.uri


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_results_come_and_the_work_on_them_stays(root, made, tmp_path):
    report = pull(root, "tiny", tmp_path / "here")
    here = files_of(tmp_path / "here/predictions/tiny/map")
    here.pop(".pulled.json")
    there = files_of(made / "predictions/tiny/map")
    assert here == {path: data for path, data in there.items() if not path.startswith("done/")}
    assert {"report.html", "preview.png", "manifest.json", "run.json", "complete.json"} <= set(here)
    assert report.fetched == len(here)
    assert report.fetched_bytes == sum(map(len, here.values()))
    assert Prediction.open(Location.parse(tmp_path / "here/predictions/tiny/map")).pyramid.shape == (150, 210)


def test_what_is_not_finished_is_said_and_not_copied(root, tmp_path):
    report = pull(root, "tiny", tmp_path / "here")
    (half,) = report.unfinished
    assert "half" in str(half)
    assert "not finished" in str(half)
    assert 0 < half.done < half.units
    assert not (tmp_path / "here/predictions/tiny/half").exists()


def test_what_a_listing_does_not_show_yet_comes_all_the_same(made, tmp_path, monkeypatch):
    pull(str(made), "tiny", tmp_path / "whole")
    listed = ("prediction.zarr/0/c/0/0", "preview.png", "manifest.json", "complete.json")
    monkeypatch.setattr(
        pulling, "objects_below", lambda folder: [row for row in objects_below(folder) if row.path not in listed]
    )
    pull(str(made), "tiny", tmp_path / "here")
    here, whole = (files_of(tmp_path / name / "predictions/tiny/map") for name in ("here", "whole"))
    assert here.keys() == whole.keys()


def test_a_listing_that_shows_some_markers_of_a_complete_run_is_not_believed(root, tmp_path, monkeypatch):
    names = Location.names
    monkeypatch.setattr(Location, "names", lambda place: names(place)[:-1] if place.name == "done" else names(place))
    with pytest.raises(StorageError, match="shows 11 markers of 12 units.*listing may lag behind"):
        pull(root, "tiny", tmp_path / "here", names=["map"])
    assert not (tmp_path / "here").exists()


def test_a_second_pull_reads_nothing(root, tmp_path):
    class Never(Transfer):
        def fetch(self, source, row, path):
            pytest.fail(f"{source} was read again")

    pull(root, "tiny", tmp_path / "here")
    assert pull(root, "tiny", tmp_path / "here", transfer=Never()).fetched == 0


def test_only_what_changed_is_copied_again(root, tmp_path):
    pull(root, "tiny", tmp_path / "here")
    (Location.parse(root) / "predictions/tiny/map/report.html").write_bytes(b"<p>more ink")
    report = pull(root, "tiny", tmp_path / "here")
    assert report.fetched == WITH_COMPLETE
    assert (tmp_path / "here/predictions/tiny/map/report.html").read_bytes() == b"<p>more ink"


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_file_that_was_damaged_here_is_copied_again(root, tmp_path, damage):
    pull(root, "tiny", tmp_path / "here")
    path = tmp_path / "here/predictions/tiny/map/prediction.zarr/0/c/0/0"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if damage is None else damage)  # None: same size, one bit
    assert pull(root, "tiny", tmp_path / "here").fetched == WITH_COMPLETE
    assert path.read_bytes() == whole


def test_a_pull_that_was_killed_goes_on_and_is_not_taken_for_whole(root, tmp_path):
    calls = []

    class Killed(Transfer):
        def fetch(self, source, row, path):
            calls.append(row.path)
            if len(calls) >= 4:
                raise KeyboardInterrupt
            super().fetch(source, row, path)

    with pytest.raises(KeyboardInterrupt):
        pull(root, "tiny", tmp_path / "here", transfer=Killed(threads=1))
    assert not (tmp_path / "here/predictions/tiny/map/complete.json").exists()
    report = pull(root, "tiny", tmp_path / "here")
    assert report.kept == 3
    assert (tmp_path / "here/predictions/tiny/map/complete.json").exists()


def test_what_came_before_a_hard_kill_is_recognised(root, tmp_path):
    """A killed process writes no state; with each file noted as it comes, nothing is lost."""
    calls = []

    class Counting(Transfer):
        def fetch(self, source, row, path):
            calls.append(row.path)
            if len(calls) == 6:
                notes = tmp_path / "here/predictions/tiny/map/.pulled.json"
                assert sorted(json.loads(notes.read_text())) == sorted(calls[:5])
            super().fetch(source, row, path)

    pull(root, "tiny", tmp_path / "here", transfer=Counting(threads=1, note_every_s=0.0))
    assert len(calls) >= 6


def test_half_a_file_is_continued_and_not_read_from_its_start(root, tmp_path, monkeypatch):
    real, read = Location.read_range, []

    def breaking(self, start, stop):
        if self.name == "0" and start >= 2000 and len(read) < 3:
            read.append(start)
            raise KeyboardInterrupt
        if self.name == "0":
            read.append(start)
        return real(self, start, stop)

    monkeypatch.setattr(Location, "read_range", breaking)
    slow = Transfer(threads=1, piece_bytes=1000)
    with pytest.raises(KeyboardInterrupt):
        pull(root, "tiny", tmp_path / "here", transfer=slow)
    before = len(read)
    pull(root, "tiny", tmp_path / "here", transfer=slow)
    assert read[before] == 2000


def test_bits_that_flip_on_the_way_are_found_and_refused(root, tmp_path, monkeypatch):
    real = Location.read_range

    def flipped(self, start, stop):
        data = real(self, start, stop)
        return data[:-1] + bytes([data[-1] ^ 1]) if "/c/" in self.uri else data

    monkeypatch.setattr(Location, "read_range", flipped)
    with pytest.raises(CorruptDataError, match="damaged twice"):
        pull(root, "tiny", tmp_path / "here")
    assert not (tmp_path / "here/predictions/tiny/map/complete.json").exists()


def test_a_complete_that_belongs_to_another_run_is_not_finished(root, tmp_path):
    place = Location.parse(root) / "predictions/tiny/map"
    (place / "complete.json").write_json({"digest": "0" * 64})
    assert pull(root, "tiny", tmp_path / "here").finished == []


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("nobody", []), DataError, "run inkbatch infer first"),
        (("tiny", ["mop"]), DataError, "there are half, map"),
        (("../etc", []), ConfigError, "an id is"),
    ],
)
def test_refusals_say_what_there_is(root, tmp_path, arguments, error, words):
    segment, names = arguments
    with pytest.raises(error, match=words):
        pull(root, segment, tmp_path / "here", names)


def test_root_is_not_pulled_into_itself(made):
    with pytest.raises(ConfigError, match="ROOT itself"):
        pull(str(made), "tiny", made)


def test_s3_states_a_digest_for_each_object(made, s3_root):
    (s3_root / "a/b.json").write_bytes(json.dumps({}).encode())
    (row,) = objects_below(s3_root)
    assert (row.path, row.bytes, row.md5) == ("a/b.json", 2, "99914b932bd37a50b983c5e7c90ae93b")

"""Manifests and markers tell the truth."""

from __future__ import annotations

import pytest

from inkbatch.config import digest
from inkbatch.errors import DataError, MismatchError
from inkbatch.geometry import Box, Unit
from inkbatch.io.store.location import Location
from inkbatch.run.record import RunFolder, RunManifest, require_complete

UNITS = [Unit(i, Box(0, i * 4, 4, i * 4 + 4), Box(0, 0, 4, 40)) for i in range(3)]


def folder(place, **config):
    return RunFolder(Location.parse(place), RunManifest("infer", {"stride_px": 16, **config}, {"surface": "abc"}, 3))


def test_an_equal_run_joins_and_another_is_refused_naming_what_differs(tmp_path):
    folder(tmp_path).begin()
    folder(tmp_path).begin()
    with pytest.raises(MismatchError, match=r"config\.stride_px: there 16, here 8"):
        folder(tmp_path, stride_px=8).begin()


def test_a_refusal_names_inputs_of_other_content_without_their_digests_and_ends(tmp_path):
    folder(tmp_path, labels=digest("one")).begin()
    with pytest.raises(MismatchError, match=r"run with other settings or inputs \(config\.labels: other content\); "):
        folder(tmp_path, labels=digest("two")).begin()
    with pytest.raises(MismatchError, match=r"a3: there None, here 3, .* and 4 more\)"):
        folder(tmp_path, labels=digest("one"), **{f"a{number}": number for number in range(10)}).begin()


def test_a_marker_of_another_run_does_not_count(tmp_path):
    one, other = folder(tmp_path), folder(tmp_path, stride_px=8)
    other.mark(UNITS[0], {})
    assert one.done() == set()
    one.mark(UNITS[1], {"tiles": 3})
    assert one.done() == {UNITS[1].name}
    assert one.marker(UNITS[1])["tiles"] == 3
    assert one.missing(UNITS) == [UNITS[0], UNITS[2]]


def test_a_reader_can_tell_whole_from_partial(tmp_path):
    run = folder(tmp_path)
    with pytest.raises(DataError, match="nothing at"):
        require_complete(run.location, "prediction", "run infer")
    run.begin()
    run.mark(UNITS[0], {})
    with pytest.raises(DataError, match="1 of 3 units"):
        require_complete(run.location, "prediction", "run infer")
    run.complete()
    assert run.is_complete()
    assert require_complete(run.location, "prediction", "run infer")["digest"] == run.manifest.digest


def test_a_complete_file_of_another_run_is_refused(tmp_path):
    folder(tmp_path).begin()
    folder(tmp_path, stride_px=8).complete()
    assert not folder(tmp_path).is_complete()
    with pytest.raises(DataError, match="another run"):
        require_complete(Location.parse(tmp_path), "prediction", "run infer")


def test_the_manifest_holds_no_clock(tmp_path):
    folder(tmp_path / "a").begin()
    folder(tmp_path / "b").begin()
    assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "b/manifest.json").read_bytes()


@pytest.mark.parametrize(
    ("job", "advice"),
    [
        ("infer", "give it another name (--name), or give --replace"),
        ("train", "give it another name (--run), or give --replace"),
        ("prepare", "choose another ROOT (--root), or give --replace"),
        ("labels", "use the same ones, or give --replace"),
        ("infer-pictures", "choose another folder (--to), or give --replace"),
    ],
)
def test_a_refusal_advises_what_the_job_has(tmp_path, job, advice):
    place = Location.parse(tmp_path / "run")
    RunFolder(place, RunManifest(job, {"a": 1}, {}, 3)).begin()
    with pytest.raises(MismatchError) as caught:
        RunFolder(place, RunManifest(job, {"a": 2}, {}, 3)).begin()
    assert advice in str(caught.value)

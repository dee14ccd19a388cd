"""A result is never whole while objects are missing, damaged or in each other's place."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from inkbatch.errors import CorruptDataError, DataError, StorageError
from inkbatch.geometry import Box
from inkbatch.io.layers import zarr_holes
from inkbatch.io.store import ledger
from inkbatch.io.store.local_files import NewFile
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.launch.pull import pull
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.run.record import RunFolder
from inkbatch.run.verifying import verify
from inkbatch.steps.ensemble.job import EnsembleConfig
from inkbatch.steps.ensemble.job import run as run_ensemble
from inkbatch.steps.infer.job import run as run_infer
from inkbatch.steps.labels.job import run as run_labels
from inkbatch.steps.labels.settings import LabelsConfig
from inkbatch.steps.prepare.job import make_plan, run
from inkbatch.testing.faults import Notes, stored_bytes
from inkbatch.testing.segments import random_papyrus

FIRST, SECOND = random_papyrus(), 255 - random_papyrus()


def pixels(root: Path | Location | str) -> np.ndarray:
    volume = SurfaceVolume.open(Location.parse(str(root)) / "segments/tiny")
    return volume.read(range(volume.layer_count), Box(0, 0, *volume.shape_yx))


# 1 · Markers are believed only while their objects are there


def damage(place: Location, how: str) -> None:
    if how == "missing":
        place.delete()
    else:
        place.write_bytes(b"" if how == "empty" else place.read_bytes()[:-7])


@pytest.mark.parametrize("store", ["local", "s3"])
@pytest.mark.parametrize("how", ["missing", "empty", "cut"])
def test_a_unit_whose_object_is_gone_is_done_again(prepare_config, source, store, how, tmp_path, request):
    root = Location.parse(tmp_path / "root") if store == "local" else request.getfixturevalue("s3_root")
    config = prepare_config(source, root=str(root))
    run(config, RunContext())
    damage(root / "segments/tiny/surface.zarr/0/c/0/1/2", how)
    notes = Notes()
    report = run(config, RunContext(reporter=notes))
    assert (report.complete, report.stored) == (True, 1)
    assert any("1 unit" in note and "surface.zarr/0/c/0/1/2" in note for note in notes.said)
    np.testing.assert_array_equal(pixels(root), FIRST)


def test_a_shard_that_vanishes_while_others_work_is_found_before_the_run_is_whole(prepare_config, source):
    config = prepare_config(source)
    run(config, RunContext(shard=ShardSpec(0, 2)))
    place = Path(config.root) / "segments/tiny/surface.zarr/0/c/0/0/0"
    place.unlink()
    report = run(config, RunContext(shard=ShardSpec(1, 2)))
    assert report.complete
    np.testing.assert_array_equal(pixels(config.root), FIRST)


def test_arrays_without_metadata_are_made_whole_again(prepare_config, source):
    config = prepare_config(source)
    run(config, RunContext())
    folder = Path(config.root) / "segments/tiny"
    (folder / "surface.zarr/0/zarr.json").write_bytes(b"")
    (folder / "mask.zarr/zarr.json").unlink()
    run(config, RunContext())
    np.testing.assert_array_equal(pixels(config.root), FIRST)
    assert not verify(config.root).faults


@pytest.mark.parametrize("metadata", ["surface.zarr/0/zarr.json", "surface.zarr/zarr.json", "mask.zarr/zarr.json"])
def test_metadata_that_are_cut_are_made_again_and_not_sealed(prepare_config, source, metadata):
    config = prepare_config(source)
    run(config, RunContext())
    before = stored_bytes(config.root)
    place = Path(config.root) / "segments/tiny" / metadata
    place.write_bytes(place.read_bytes()[:-40])
    run(config, RunContext())
    assert {path for path, data in stored_bytes(config.root).items() if data != before[path]} == set()


def test_maps_and_labels_with_holes_are_completed(prepare_config, source, infer_config):
    prepare = prepare_config(source)
    run(prepare, RunContext())
    root = Location.parse(prepare.root)
    run_infer(infer_config(), RunContext())
    labels = LabelsConfig(segment="tiny", root=prepare.root, prediction="map", unit_px=64, clean={"min_area_px": 1})
    run_labels(labels, RunContext())
    ensemble = EnsembleConfig(segment="tiny", root=prepare.root, predictions=["map", "again"], unit_px=64)
    run_infer(infer_config(name="again"), RunContext())
    run_ensemble(ensemble, RunContext())
    before = stored_bytes(Path(prepare.root))
    holes = ("predictions/tiny/map/prediction.zarr/0/c/0/1", "segments/tiny/ink_labels.zarr/0/c/1/1")
    for hole in (*holes, "predictions/tiny/ensemble-mean/disagreement.zarr/0/c/0/0"):
        (root / hole).delete()
    assert run_infer(infer_config(), RunContext()).stored == 1
    assert run_labels(labels, RunContext()).stored == 1
    assert run_ensemble(ensemble, RunContext()).stored == 1
    after = stored_bytes(Path(prepare.root))
    assert {
        name for name in before if before[name] != after[name] and not name.endswith((".html", "run.json"))
    } == set()


def test_a_picture_that_the_end_of_a_job_wrote_is_made_again(prepare_config, source, infer_config):
    prepare = prepare_config(source)
    run(prepare, RunContext())
    report = run_infer(infer_config(), RunContext())
    picture = Path(prepare.root) / "predictions/tiny/map/preview.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:-7])
    notes = Notes()
    again = run_infer(infer_config(), RunContext(reporter=notes))
    assert (again.complete, again.stored) == (True, 0)
    assert any("must be completed again: preview.png: expected" in note for note in notes.said)
    assert picture.read_bytes() == whole
    assert not verify(str(report.location)).faults


def test_a_map_with_holes_is_not_pulled(prepare_config, source, infer_config, tmp_path):
    prepare = prepare_config(source)
    run(prepare, RunContext())
    run_infer(infer_config(), RunContext())
    assert pull(prepare.root, "tiny", tmp_path / "here").finished
    (Path(prepare.root) / "predictions/tiny/map/prediction.zarr/0/c/0/1").unlink()
    with pytest.raises(DataError, match="1 unit of it lost objects .prediction.zarr/0/c/0/1 is missing.*run the job"):
        pull(prepare.root, "tiny", tmp_path / "there")
    assert not (tmp_path / "there").exists()
    run_infer(infer_config(), RunContext())
    assert pull(prepare.root, "tiny", tmp_path / "there").finished


def test_objects_that_vanish_at_once_end_with_75(prepare_config, source, monkeypatch):
    place = "segments/tiny/surface.zarr/0/c/0/0/0"
    config = prepare_config(source)
    mark = RunFolder.mark

    def marked_and_lost(self, unit, facts):
        mark(self, unit, facts)
        (Path(config.root) / place).unlink(missing_ok=True)

    monkeypatch.setattr(RunFolder, "mark", marked_and_lost)
    with pytest.raises(StorageError, match="again after they were stored once more") as e:
        run(config, RunContext())
    assert e.value.exit_code == 75
    assert not (Path(config.root) / "segments/tiny/prepare/complete.json").exists()


def test_data_are_on_the_disk_before_their_marker(prepare_config, source, monkeypatch):
    forced: list[str] = []
    fsync, mark = os.fsync, RunFolder.mark

    def noted(handle):
        forced.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    def marked(self, unit, facts):
        for uri in facts["_ledger"]:
            assert uri in forced
            assert os.path.dirname(uri) in forced
        mark(self, unit, facts)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(RunFolder, "mark", marked)
    assert run(prepare_config(source), RunContext()).complete
    assert forced[-1].endswith("/prepare") or forced[-2].endswith("complete.json")


# 2 · Never exit 0 when incomplete


@pytest.mark.parametrize("shards", [1, 2])
def test_stale_listings_hide_no_unit(prepare_config, source, monkeypatch, shards):
    names: Callable[[Location], list[str]] = Location.names
    monkeypatch.setattr(Location, "names", lambda self: [] if self.name == "done" else names(self))
    reports = [run(prepare_config(source), RunContext(shard=ShardSpec(i, shards))) for i in range(shards)]
    assert reports[-1].complete
    assert not reports[0].complete or shards == 1


# 3 · A chunk in the wrong place is damage


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def test_verify_finds_two_swapped_valid_shards(prepare_config, source):
    config = prepare_config(source)
    run(config, RunContext())
    assert not verify(config.root).faults
    folder = Path(config.root) / "segments/tiny/surface.zarr/0/c/0"
    swap(folder / "0/0", folder / "0/1")
    found = verify(config.root)
    assert {fault.split(":")[0].rpartition("surface.zarr")[2] for fault in found.faults} == {"/0/c/0/0/0", "/0/c/0/0/1"}
    with pytest.raises(DataError, match="2 of .* objects are not what was written"):
        found.require_sound()


def test_verify_compares_copies_without_markers_and_other_objects(prepare_config, source, infer_config, tmp_path):
    prepare = prepare_config(source)
    run(prepare, RunContext())
    folder = Path(str(run_infer(infer_config(), RunContext()).location))
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("done"))
    assert not verify(str(copy)).faults
    swap(copy / "prediction.zarr/0/c/0/0", copy / "prediction.zarr/0/c/0/1")
    assert any("content is not the one" in fault for fault in verify(str(copy)).faults)
    (folder / "preview.png").write_bytes(b"another")
    (folder / "prediction.zarr/0/c/1/1").unlink()
    flipped = bytearray((folder / "prediction.zarr/0/c/0/0").read_bytes())
    flipped[20] ^= 1
    (folder / "prediction.zarr/0/c/0/0").write_bytes(flipped)
    faults = "\n".join(verify(str(folder)).faults)
    assert all(part in faults for part in ("preview.png: expected", "c/1/1: is missing", "fails its checksum"))


def test_chunks_of_foreign_arrays_that_are_missing_are_counted_and_refused_above_a_share(prepare_config, tmp_path):
    array = zarr.create_array(tmp_path / "cube.zarr", shape=(5, 64, 64), chunks=(5, 16, 16), dtype="uint8")
    array[:] = random_papyrus((5, 64, 64)) | 1
    config = prepare_config(tmp_path / "cube.zarr", axes="zyx")
    for x in range(4):
        (tmp_path / f"cube.zarr/c/0/0/{x}").unlink()
    notes = Notes()
    run(config, RunContext(reporter=notes))
    assert any("4 of 16 chunks of" in note for note in notes.said)
    assert json.loads((Path(config.root) / "segments/tiny/prepare/complete.json").read_text())["missing_chunks"] == 4
    with pytest.raises(DataError, match=r"4 of 16 chunks of .* \(25%, at most 10% may be\)"):
        run(config.model_copy(update={"max_missing": 0.1}), RunContext())


def test_of_many_chunks_on_a_web_server_some_are_asked_for(prepare_config, web, monkeypatch):
    array = zarr.create_array(web.folder / "cube.zarr", shape=(5, 64, 64), chunks=(5, 8, 8), dtype="uint8")
    array[:] = random_papyrus((5, 64, 64)) | 1
    for y in range(4):
        shutil.rmtree(web.folder / f"cube.zarr/c/0/{2 * y}")
    monkeypatch.setattr(zarr_holes, "MOST_ASKED", 32)
    config = prepare_config(f"{web.url}/cube.zarr", axes="zyx", max_missing=0.8)
    (holes,) = make_plan(config).holes
    assert (holes.expected, holes.asked) == (64, 32)
    assert 0.3 < holes.share < 0.7
    assert "about" in str(holes)
    with pytest.raises(DataError, match=r"of 64 chunks of .* \(32 were asked for\) .*at most 20% may be"):
        make_plan(config.model_copy(update={"max_missing": 0.2}))


def test_labels_in_an_array_that_lacks_chunks_say_so(prepare_config, source, tmp_path):
    config = prepare_config(source)
    run(config, RunContext())
    shape = pixels(config.root).shape[1:]
    array = zarr.create_array(tmp_path / "ink.zarr", shape=shape, chunks=(32, 32), dtype="uint8")
    array[:32, :32] = 255
    labels = LabelsConfig(segment="tiny", root=config.root, image=str(tmp_path / "ink.zarr"), clean={"min_area_px": 1})
    notes = Notes()
    assert run_labels(labels, RunContext(reporter=notes)).complete
    assert any("chunks of" in note and "are not stored" in note for note in notes.said)
    with pytest.raises(DataError, match="at most 10% may be"):
        run_labels(labels.model_copy(update={"max_missing": 0.1}), RunContext())
    shutil.rmtree(tmp_path / "ink.zarr/c")
    with pytest.raises(DataError, match="none of the .* chunks of .*ink.zarr is stored"):
        run_labels(labels, RunContext())


def test_the_numbers_of_layers_are_said(prepare_config, source):
    (source / "00.tif").unlink()
    (source / "05.tif.part").write_bytes(b"cut")
    notes = Notes()
    run(prepare_config(source), RunContext(reporter=notes))
    said = " ".join(notes.said)
    assert "prepare: 4 layers, numbered 1 to 4; none has number 0: if the surface begins there, fetch it" in said
    assert "; '05.tif.part' looks like a copy that did not end" in said


def test_chunks_under_other_names_than_the_metadata_say_are_refused(prepare_config, tmp_path):
    array = zarr.create_array(
        tmp_path / "v2.zarr",
        shape=(5, 64, 64),
        chunks=(5, 32, 32),
        dtype="uint8",
        zarr_format=2,
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )
    array[:] = random_papyrus((5, 64, 64)) | 1
    metadata = json.loads((tmp_path / "v2.zarr/.zarray").read_text())
    del metadata["dimension_separator"]
    (tmp_path / "v2.zarr/.zarray").write_text(json.dumps(metadata))
    with pytest.raises(DataError, match=r"got names with '/' \(nested\)"):
        run(prepare_config(tmp_path / "v2.zarr", axes="zyx"), RunContext())


def test_a_shard_s_noted_checksum_is_what_a_reader_computes(prepare_config, source):
    config = prepare_config(source, codec="zstd")
    run(config, RunContext())
    found = verify(config.root)
    assert (found.runs, found.faults, found.notes) == (1, [], [])
    place = Location.parse(config.root) / "segments/tiny/surface.zarr/0/c/0/0/0"
    place.write_bytes(place.read_bytes()[:-1])
    with pytest.raises(CorruptDataError):
        SurfaceVolume.open(Location.parse(config.root) / "segments/tiny").read(range(5), Box(0, 0, 64, 64))
    assert len(verify(config.root).faults) == 1


def test_nothing_is_noted_outside_a_recording(tmp_path):
    with ledger.recording() as noted:
        Location.parse(tmp_path / "a").write_bytes(b"one")
        with ledger.unrecorded():
            Location.parse(tmp_path / "b").write_bytes(b"two")
    Location.parse(tmp_path / "c").write_bytes(b"three")
    assert list(noted) == [str(tmp_path / "a")]
    assert NewFile(str(tmp_path / "d")).abandon() is None

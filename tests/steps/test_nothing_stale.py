"""A result is never a mixture, and never older than what it was made from."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from inkbatch.data.maps.stored import open_map
from inkbatch.errors import ConfigError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.store import versions
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.run import pipeline
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.run.record import RunFolder
from inkbatch.run.states import content_of
from inkbatch.run.verifying import verify
from inkbatch.steps.ensemble.job import EnsembleConfig
from inkbatch.steps.ensemble.job import run as run_ensemble
from inkbatch.steps.infer.job import run as run_infer
from inkbatch.steps.labels.job import run as run_labels
from inkbatch.steps.labels.settings import LabelsConfig
from inkbatch.steps.prepare.job import run
from inkbatch.testing.faults import Notes, stored_bytes
from inkbatch.testing.segments import random_papyrus, write_layers

FIRST, SECOND = random_papyrus(), 255 - random_papyrus()


def pixels(root: Path | Location | str) -> np.ndarray:
    volume = SurfaceVolume.open(Location.parse(str(root)) / "segments/tiny")
    return volume.read(range(volume.layer_count), Box(0, 0, *volume.shape_yx))


# 1 · A source that changed is noticed


@pytest.mark.parametrize("known_by", ["content", "time"])
def test_layers_of_equal_size_that_change_between_two_shards_are_refused_and_named(
    prepare_config, source, monkeypatch, known_by
):
    if known_by == "time":
        monkeypatch.setattr(versions, "CONTENT_BYTES", 0)
    config = prepare_config(source)
    run(config, RunContext(shard=ShardSpec(0, 2)))
    before = stored_bytes(Path(config.root))
    write_layers(source, SECOND)
    with pytest.raises(
        MismatchError, match=r"layers: 5 of 5 changed: 00.tif, 01.tif, 02.tif and 2 more.*--replace"
    ) as e:
        run(config, RunContext(shard=ShardSpec(1, 2)))
    assert e.value.exit_code == 65
    assert stored_bytes(Path(config.root)) == before


def test_two_layers_that_change_places_are_noticed_after_completion(prepare_config, source):
    config = prepare_config(source)
    run(config, RunContext())
    os.rename(source / "00.tif", source / "x")
    os.rename(source / "01.tif", source / "00.tif")
    os.rename(source / "x", source / "01.tif")
    with pytest.raises(MismatchError, match=r"2 of 5 changed: 00.tif, 01.tif"):
        run(config, RunContext())
    notes = Notes()
    assert run(config, RunContext(reporter=notes, replace=True)).complete
    assert any(note.startswith("--replace: removing ") and "surface.zarr" in note for note in notes.said)
    np.testing.assert_array_equal(pixels(config.root), FIRST[[1, 0, 2, 3, 4]])


def test_a_layer_that_changes_while_it_is_read_leaves_no_complete_surface(prepare_config, source, monkeypatch):
    config = prepare_config(source)
    complete = RunFolder.complete
    loop = pipeline.run_units

    def changed_meanwhile(*given, **how):
        count = loop(*given, **how)
        write_layers(source, SECOND)
        return count

    monkeypatch.setattr("inkbatch.run.job.run_units", changed_meanwhile)
    with pytest.raises(MismatchError, match="changed while they were read"):
        run(config, RunContext())
    assert complete is RunFolder.complete
    assert not (Path(config.root) / "segments/tiny/prepare/complete.json").exists()


def test_a_change_between_two_units_stops_at_the_next_one_and_units_say_what_they_read(
    prepare_config, source, no_overlap
):
    config = prepare_config(source)
    context = RunContext()
    stored = []

    def rewrite(name, facts):
        stored.append(name)
        write_layers(source, SECOND)

    context.reporter.unit = rewrite
    with pytest.raises(MismatchError, match=r"changed while they were read \(layers: 5 of 5 changed"):
        run(config, context)
    folder = Path(config.root) / "segments/tiny/prepare"
    (marker,) = (folder / "done").iterdir()
    assert len(stored) == 1
    state = json.loads((folder / "manifest.json").read_text())["state"]
    assert json.loads(marker.read_text())["read"] == {"layers": state["layers"]["digest"]}


def test_a_surface_that_is_replaced_under_a_map_stops_it(prepare_config, source, infer_config):
    prepare, context = prepare_config(source), RunContext()
    run(prepare, RunContext())
    content = content_of(Location.parse(prepare.root) / "segments/tiny/prepare")

    def prepare_again(name, facts):
        write_layers(source, SECOND)
        run(prepare, RunContext(replace=True))

    context.reporter.unit = prepare_again
    with pytest.raises(MismatchError, match="changed while they were read.*surface"):
        run_infer(infer_config(), context)
    folder = Path(prepare.root) / "predictions/tiny/map"
    assert not (folder / "complete.json").exists()
    assert {json.loads(marker.read_text())["read"]["surface"] for marker in (folder / "done").iterdir()} == {content}


def test_a_root_and_small_layers_that_moved_are_the_same(prepare_config, source, tmp_path, infer_config):
    config = prepare_config(source)
    run(config, RunContext())
    run_infer(infer_config(), RunContext())
    os.utime(source / "00.tif", ns=(1, 1))  # its content says that it is the same
    shutil.copytree(tmp_path / "root", tmp_path / "moved")
    assert run(config.model_copy(update={"root": str(tmp_path / "moved")}), RunContext()).stored == 0
    assert run_infer(infer_config(root=str(tmp_path / "moved")), RunContext()).stored == 0
    assert not verify(str(tmp_path / "moved")).faults


def test_s3_layers_that_change_are_known_by_their_tags(prepare_config, source, s3_root):
    for path in source.iterdir():
        (s3_root / "layers" / path.name).write_bytes(path.read_bytes())
    config = prepare_config(str(s3_root / "layers"), root=str(s3_root / "root"))
    run(config, RunContext(shard=ShardSpec(0, 2)))
    write_layers(source, SECOND)
    (s3_root / "layers/03.tif").write_bytes((source / "03.tif").read_bytes())
    with pytest.raises(MismatchError, match=r"1 of 5 changed: 03.tif"):
        run(config, RunContext(shard=ShardSpec(1, 2)))


def test_web_layers_that_change_are_known_by_their_dates(prepare_config, source, web):
    shutil.copytree(source, web.folder / "layers")
    config = prepare_config(f"{web.url}/layers")
    run(config, RunContext())
    assert run(config, RunContext()).stored == 0
    write_layers(source, SECOND)
    shutil.copy(source / "03.tif", web.folder / "layers/03.tif")
    with pytest.raises(MismatchError, match=r"1 of 5 changed: 03.tif"):
        run(config, RunContext())


def test_all_that_was_made_from_a_surface_knows_when_it_is_another(prepare_config, source, infer_config, tmp_path):
    prepare = prepare_config(source)
    run(prepare, RunContext())
    run_infer(infer_config(), RunContext())
    labels = LabelsConfig(segment="tiny", root=prepare.root, prediction="map", unit_px=64, clean={"min_area_px": 1})
    run_labels(labels, RunContext())
    old = content_of(Location.parse(prepare.root) / "segments/tiny/prepare")
    write_layers(source, SECOND)
    run(prepare, RunContext(replace=True))
    assert content_of(Location.parse(prepare.root) / "segments/tiny/prepare") not in (None, old)
    with pytest.raises(MismatchError, match="surface: was made again, with other content.*--replace"):
        run_infer(infer_config(), RunContext())
    with pytest.raises(MismatchError, match="surface of tiny has changed since"):
        open_map(prepare.root, "tiny", "map")
    assert run_infer(infer_config(), RunContext(replace=True)).complete
    with pytest.raises(MismatchError, match="have changed since.*prediction map.*surface"):
        run_labels(labels, RunContext())
    assert run_labels(labels, RunContext(replace=True)).complete


def test_an_ensemble_of_a_map_that_was_made_again_is_refused(prepare_config, source, infer_config, tmp_path):
    prepare = prepare_config(source)
    run(prepare, RunContext())
    for name in ("one", "two"):
        run_infer(infer_config(name=name), RunContext())
    config = EnsembleConfig(segment="tiny", root=prepare.root, predictions=["one", "two"], unit_px=64)
    run_ensemble(config, RunContext())
    assert run_ensemble(config, RunContext()).stored == 0
    stored = Path(prepare.root) / "predictions/tiny/two/complete.json"
    stored.write_text(json.dumps({**json.loads(stored.read_text()), "content": "another"}))
    with pytest.raises(MismatchError, match="prediction two: was made again"):
        run_ensemble(config, RunContext())


# 2 · Two jobs that want one place


@pytest.mark.parametrize("store", ["local", "memory", "s3"])
def test_of_many_that_create_an_object_one_succeeds(store, tmp_path, request):
    root = Location.parse(tmp_path) if store == "local" else request.getfixturevalue(f"{store}_root")
    place, won = root / "deep/manifest.json", []
    barrier = threading.Barrier(6)

    def create(number: int) -> None:
        barrier.wait()
        if place.create_json({"number": number}):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stands = place.read_json()["number"]
    if store == "local":
        assert won == [stands]
    assert stands in won  # where a store has no condition, more may believe so, until they read again
    assert not place.create_json({"number": 99})
    assert place.read_json()["number"] == stands
    assert (root / "deep").names() == ["manifest.json"]


def test_the_loser_of_two_prepares_removes_nothing(prepare_config, source):
    config = prepare_config(source)
    run(config, RunContext(shard=ShardSpec(0, 2)))
    before = stored_bytes(Path(config.root))
    with pytest.raises(MismatchError, match="other settings or inputs.*--replace"):
        run(prepare_config(source, depth_order="reversed"), RunContext())
    assert stored_bytes(Path(config.root)) == before


def test_a_refusal_after_the_run_s_record_was_removed_touches_nothing(prepare_config, source):
    config = prepare_config(source)
    run(config, RunContext())
    shutil.rmtree(Path(config.root) / "segments/tiny/prepare")
    before = stored_bytes(Path(config.root))
    page = (Path(config.root) / "segments/tiny/report.html").read_bytes()
    reverse = prepare_config(source, depth_order="reversed")
    with pytest.raises(MismatchError, match="--replace"):
        run(reverse, RunContext())
    assert stored_bytes(Path(config.root)) == before
    assert (Path(config.root) / "segments/tiny/report.html").read_bytes() == page
    assert run(reverse, RunContext(replace=True)).complete
    np.testing.assert_array_equal(pixels(config.root), FIRST[::-1])


def test_a_job_whose_place_was_taken_stops_before_it_stores_more(prepare_config, source, no_overlap):
    config = prepare_config(source)
    other = prepare_config(source, depth_order="reversed")
    context = RunContext()
    taken = threading.Event()

    def take(name, facts):
        if not taken.is_set():
            taken.set()
            run(other, RunContext(replace=True))

    context.reporter.unit = take
    with pytest.raises(MismatchError, match="other settings or inputs"):
        run(config, context)
    np.testing.assert_array_equal(pixels(config.root), FIRST[::-1])
    assert not verify(config.root).faults


def test_replacing_is_not_for_one_shard_of_several(prepare_config, source):
    run(prepare_config(source), RunContext())
    with pytest.raises(ConfigError, match="--replace with 2 shards"):
        run(prepare_config(source, depth_order="reversed"), RunContext(shard=ShardSpec(0, 2), replace=True))

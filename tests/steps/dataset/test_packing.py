"""Packed datasets: the samples of their index, in shards, on any store, read without their segments."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
import zarr

from inkbatch.data.datasets.index import DatasetIndex
from inkbatch.data.datasets.sample_reader import SampleReader
from inkbatch.errors import CorruptDataError, DataError, Preempted
from inkbatch.geometry import Box
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.run.signals import StopFlag
from inkbatch.steps.chains import build_dataset as run
from inkbatch.steps.dataset.job import describe, summary
from inkbatch.testing.datasets import inked, labelled_segment
from inkbatch.testing.letters_dataset import SHAPE, folder_of, settings, tree


def test_a_pack_holds_the_samples_of_its_index_and_needs_no_segments(root):
    changes = {"pairs": {"count": 4}, "unit_samples": 7}
    run(settings(root, **changes), RunContext())
    streamed = SampleReader.open(folder_of(root))
    before = [streamed.read(sample) for sample in streamed.index.samples]
    shutil.rmtree(root / "datasets")
    run(settings(root, **changes, form="pack"), RunContext())
    shutil.rmtree(root / "segments")
    packed = pickle.loads(pickle.dumps(SampleReader.open(folder_of(root))))
    assert packed.index.samples == streamed.index.samples
    for sample, expected in zip(packed.index.samples, before, strict=True):
        for left, right in zip(packed.read(sample), expected, strict=True):
            np.testing.assert_array_equal(left, right)
    foreign = zarr.open_array(root / "datasets/letters/samples.zarr", mode="r")
    assert foreign.shape == (184, 3, 32, 64)
    np.testing.assert_array_equal(foreign[3, :, :, :32], before[3].layers)
    beyond = zarr.open_array(root / "datasets/letters/ignore.zarr", mode="r")[3, :, 32:]
    assert (beyond == 1).all()


@pytest.mark.parametrize("form", ["index", "pack"])
@pytest.mark.parametrize("cache_bytes", [0, 1 << 24])
def test_a_box_of_a_sample_is_read_as_it_lies_in_the_whole_one(root, form, cache_bytes):
    run(settings(root, form=form, pairs={"count": 8}), RunContext())
    place = folder_of(root)
    reader = SampleReader(DatasetIndex.open(place), place, cache_bytes)
    pairs = [sample for sample in reader.index.samples if sample.parts]
    assert {(part.flip, part.turn) for sample in pairs for part in sample.parts} >= {(True, True), (False, True)}
    windows = [Box(0, 0, 32, 32), Box(3, 5, 20, 30), Box(31, 0, 32, 1), Box(2, 29, 9, 32)]
    wide = [Box(4, 20, 12, 50), Box(0, 33, 32, 64), Box(7, 0, 8, 64)]
    for sample in [*reader.index.samples[::17], *pairs]:
        whole = reader.read_stored(sample)
        for window in windows + (wide if sample.parts else []):
            part = reader.read_part(sample, window, range(1, 3))
            np.testing.assert_array_equal(part.layers, whole.layers[(slice(1, 3), *window.slices)])
            np.testing.assert_array_equal(part.labels, whole.labels[window.slices])
            np.testing.assert_array_equal(part.ignore, whole.ignore[window.slices])


def test_shards_pack_the_very_bytes_of_one_process(tmp_path, root):
    shutil.copytree(root, tmp_path / "sharded")
    run(settings(root, form="pack", unit_samples=40), RunContext())
    config = settings(tmp_path / "sharded", form="pack", unit_samples=40)
    reports = [run(config, RunContext(shard=ShardSpec(i, 2))) for i in range(2)]
    assert [report.complete for report in reports] == [False, True]
    assert tree(root / "datasets") == tree(tmp_path / "sharded/datasets")


def test_a_stopped_pack_has_no_index_and_goes_on_where_it_stopped(tmp_path, root, no_overlap):
    shutil.copytree(root, tmp_path / "stopped")
    config = settings(tmp_path / "stopped", form="pack", unit_samples=40)

    stop = StopFlag()

    class Stopping(type(RunContext().reporter)):
        def unit(self, name, facts):
            stop.set("a test")

    with pytest.raises(Preempted):
        run(config, RunContext(stop=stop, reporter=Stopping()))
    with pytest.raises(DataError, match="run build-dataset first"):
        DatasetIndex.open(folder_of(tmp_path / "stopped"))
    report = run(config, RunContext())
    assert report.skipped >= 1
    run(settings(root, form="pack", unit_samples=40), RunContext())
    assert tree(root / "datasets") == tree(tmp_path / "stopped/datasets")


def test_16_bits_are_packed_as_they_are(tmp_path):
    layers = np.random.default_rng(0).integers(0, 65536, (2, *SHAPE), dtype=np.uint16)
    for name, stack in (("left", layers), ("right", layers[..., ::-1])):
        labelled_segment(tmp_path, name, inked(SHAPE, (20, 20, 90, 60)), layers=stack)
    run(settings(tmp_path, form="pack"), RunContext())
    reader = SampleReader.open(folder_of(tmp_path))
    sample = reader.index.samples[17]
    np.testing.assert_array_equal(reader.read(sample).layers, layers[(slice(None), *sample.area.slices)])


def test_damage_in_a_pack_is_named(root):
    run(settings(root, form="pack", unit_samples=40), RunContext())
    reader = SampleReader.open(folder_of(root))
    (root / "datasets/letters/labels.zarr/c/1/0/0").unlink()
    with pytest.raises(CorruptDataError, match=r"labels\.zarr/c/1/0/0"):
        reader.read(reader.index.samples[45])


@pytest.mark.parametrize("store", ["memory_root", "s3_root"])
def test_datasets_on_an_object_store_are_packed_and_read(request, store):
    root = request.getfixturevalue(store)
    labelled_segment(root.uri, "s", inked((64, 96), (10, 10, 50, 50)), shard_px=128)
    changes = {"segments": ["s"], "splits": {"kind": "lists", "train": ["s"]}, "card": {"previews": 0}}
    run(settings(root.uri, **changes, form="pack"), RunContext())
    reader = SampleReader.open(root / "datasets" / "letters")
    streamed = SampleReader(reader.index.model_copy(update={"form": "index"}), reader.location)
    assert len(reader.index.samples) == 15
    for sample in reader.index.samples[::7]:
        for left, right in zip(reader.read(sample), streamed.read(sample), strict=True):
            np.testing.assert_array_equal(left, right)


def test_packing_decodes_overlapping_neighbours_once(root, monkeypatch):
    run(settings(root), RunContext())
    reader = SampleReader.open(folder_of(root))
    row = [sample for sample in reader.index.samples if sample.segment == "left"][:20]  # two rows of ten tiles
    expected = [reader.read_stored(sample) for sample in row]
    calls = []
    arrays = reader.segment_arrays("left")
    read = arrays.read
    monkeypatch.setattr(arrays, "read", lambda box: calls.append(box) or read(box))
    for found, wanted in zip(reader.read_together(row), expected, strict=True):
        for left, right in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(left, right)
    assert sum(box.area for box in calls) <= 20 * 32 * 32
    assert len(calls) <= 2


@pytest.fixture
def masked(tmp_path):
    """A segment of soft labels, of which the right third is held out."""
    held_out = np.zeros(SHAPE, bool)
    held_out[20:120, 110:] = True
    soft = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    labelled_segment(tmp_path / "masked", "left", soft, held_out=held_out, soft=True)
    return tmp_path / "masked", held_out, soft


@pytest.mark.parametrize("form", ["index", "pack"])
def test_of_held_out_samples_only_held_out_pixels_count_and_soft_labels_stay(masked, form):
    root, held_out, soft = masked
    config = settings(root, segments=["left"], splits={"kind": "masks"}, form=form)
    run(config, RunContext())
    reader = SampleReader.open(folder_of(root))
    assert reader.index.has_soft_labels
    assert {sample.split for sample in reader.index.samples} == {"train", "validation"}
    for sample, together in zip(reader.index.samples, reader.read_together(reader.index.samples), strict=True):
        found = reader.read_stored(sample)
        window = sample.area.slices
        np.testing.assert_array_equal(found.labels, soft[window])
        expected = ~held_out[window] if sample.split == "validation" else np.zeros_like(found.ignore)
        np.testing.assert_array_equal(found.ignore, expected)
        np.testing.assert_array_equal(together.ignore, found.ignore)
        part = reader.read_part(sample, Box(3, 5, 20, 30), range(1, 3))
        np.testing.assert_array_equal(part.ignore, found.ignore[3:20, 5:30])
    facts = (folder_of(root) / "complete.json").read_json()["held_out"]["left"]
    assert facts["pixels"] == held_out.sum()
    assert facts["near"] == held_out.sum() - 38 * 29  # rows 51 to 88 of columns 141 to 169
    line = f"left: {facts['pixels']:,} px; {facts['near'] / facts['pixels']:.0%} of them lie within one sample"
    assert line in describe(config)
    assert any(line in row for row in summary(folder_of(root)))
    assert line in (folder_of(root) / "README.md").read_bytes().decode()

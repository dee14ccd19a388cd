"""`inkbatch build-dataset`: the same bytes for the same YAML, whole or in shards, and clear refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import zarr

from inkbatch.data.datasets.index import DatasetIndex
from inkbatch.data.datasets.sample_reader import SampleReader
from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.run.job import RunContext
from inkbatch.steps.chains import build_dataset as run
from inkbatch.steps.dataset.job import describe
from inkbatch.testing.datasets import inked, labelled_segment
from inkbatch.testing.letters_dataset import SHAPE, folder_of, settings, tree, two_segments
from inkbatch.testing.segments import random_papyrus, write_layers


@pytest.mark.parametrize("form", ["index", "pack"])
def test_the_same_yaml_and_inputs_make_the_same_bytes_in_any_root(tmp_path, root, form):
    two_segments(tmp_path / "other")
    changes = {"form": form, "pairs": {"count": 3}}
    assert run(settings(root, **changes), RunContext()).complete
    run(settings(tmp_path / "other", **changes), RunContext())
    assert tree(root / "datasets") == tree(tmp_path / "other/datasets")
    expected = {"index.json", "splits.json", "coco.json", "README.md", "manifest.json", "complete.json"}
    assert expected <= {name.removeprefix("letters/") for name in tree(root / "datasets")}


def test_an_index_streams_from_its_segments(root):
    run(settings(root), RunContext())
    reader = SampleReader.open(folder_of(root))
    index = reader.index
    assert len(index.samples_of("train")) == 9 * 10
    layers = zarr.open_array(root / "segments/right/surface.zarr/0", mode="r")[:]
    labels = zarr.open_array(root / "segments/right/ink_labels.zarr/0", mode="r")[:]
    for sample in index.samples_of("validation")[::7]:
        found = reader.read(sample)
        np.testing.assert_array_equal(found.layers, layers[(slice(None), *sample.area.slices)])
        np.testing.assert_array_equal(found.labels, labels[sample.area.slices] / 255)
        rows = np.arange(sample.box[0], sample.box[2])
        np.testing.assert_array_equal(found.ignore, np.broadcast_to((rows < 40)[:, None], (32, 32)))
        counted = (labels[sample.area.slices] > 0) & ~found.ignore
        assert sample.ink_share == pytest.approx(counted.mean(), abs=1e-6)


def test_a_dataset_that_is_there_is_not_built_twice_and_never_mixed(root):
    run(settings(root), RunContext())
    before = tree(root / "datasets")
    assert run(settings(root), RunContext()).stored == 0
    with pytest.raises(MismatchError, match="seed"):
        run(settings(root, seed=1), RunContext())
    assert tree(root / "datasets") == before


def test_labels_that_changed_are_noticed_by_job_and_reader(root):
    run(settings(root), RunContext())
    index = DatasetIndex.open(folder_of(root))
    shutil.rmtree(root / "segments/right")
    ignore = np.zeros(SHAPE, np.uint8)
    ignore[:40] = 1
    labelled_segment(root, "right", inked(SHAPE, (60, 70, 141, 150)), ignore=ignore)
    with pytest.raises(MismatchError, match="other settings or inputs"):
        run(settings(root), RunContext())
    with pytest.raises(MismatchError, match="changed since the dataset was built"):
        SampleReader(index, folder_of(root)).read(index.samples_of("validation")[0])


def test_a_root_can_be_moved(tmp_path, root):
    run(settings(root), RunContext())
    before = SampleReader.open(folder_of(root))
    expected = before.read(before.index.samples[5])
    root.rename(tmp_path / "moved")
    moved = SampleReader.open(folder_of(tmp_path / "moved"))
    np.testing.assert_array_equal(moved.read(moved.index.samples[5]).layers, expected.layers)


def test_an_edited_index_is_refused(root):
    run(settings(root), RunContext())
    place = folder_of(root) / "index.json"
    place.write_bytes(place.read_bytes().replace(b'"split": "validation"', b'"split": "train"', 1))
    with pytest.raises(MismatchError, match="digest"):
        DatasetIndex.open(folder_of(root))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"voxel_size_um": 9.0}, "expected voxel_size_um 8.0 as in segment left, got 9.0"),
        ({"intensity": "window:1:2"}, "expected intensity .* got window"),
        ({"clahe": {"clip_limit": 2, "cell_px": 64}}, "expected clahe None .* got"),
        ({"lut": [[0, 0], [255, 255]]}, "expected lut None .* got"),
        ({"layers": np.ones((4, *SHAPE), np.uint8)}, "expected layer_count 3 .* got 4"),
        ({"layers": np.ones((3, *SHAPE), np.uint16)}, "expected dtype uint8 .* got uint16"),
    ],
)
def test_segments_that_one_network_cannot_be_fed_are_not_mixed(tmp_path, change, words):
    labelled_segment(tmp_path, "left", inked(SHAPE, (20, 20, 90, 60)))
    labelled_segment(tmp_path, "right", inked(SHAPE, (20, 20, 90, 60)), **change)
    with pytest.raises(MismatchError, match=words):
        run(settings(tmp_path), RunContext())


def test_8_bits_as_they_are_mix_with_the_high_byte_of_16(tmp_path):
    labelled_segment(tmp_path, "left", inked(SHAPE, (20, 20, 90, 60)))
    labelled_segment(tmp_path, "right", inked(SHAPE, (20, 20, 90, 60)), intensity="high-byte")
    run(settings(tmp_path), RunContext())
    assert DatasetIndex.open(folder_of(tmp_path)).contract.intensity == ("high-byte", "keep")


def test_layers_are_chosen_by_source_number_in_depth_order(tmp_path):
    layers = np.arange(1, 7, dtype=np.uint8)[:, None, None] * np.ones((1, *SHAPE), np.uint8)
    for name, order in (("left", "forward"), ("right", "reversed")):
        made = {"source_layers": (10, 16), "depth_order": order}
        labelled_segment(tmp_path, name, inked(SHAPE, (20, 20, 90, 60)), layers=layers, **made)
    run(settings(tmp_path, segments=[{"id": name, "layers": [10, 12]} for name in ("left", "right")]), RunContext())
    reader = SampleReader.open(folder_of(tmp_path))
    for split, numbers in (("train", [1, 2]), ("validation", [5, 6])):
        found = reader.read(reader.index.samples_of(split)[0])
        assert found.layers[:, 0, 0].tolist() == numbers


def test_labels_of_pictures_are_made_first_and_missing_ones_are_refused(tmp_path, prepare_config):
    from inkbatch.steps.prepare.job import run as run_prepare

    source = write_layers(tmp_path / "layers", random_papyrus((3, 96, 96)))
    run_prepare(prepare_config(source), RunContext())
    cv2.imwrite(str(tmp_path / "ink.png"), inked((96, 96), (10, 10, 40, 40)))
    common = {"segments": ["tiny"], "splits": {"kind": "lists", "train": ["tiny"]}}
    with pytest.raises(DataError, match="inkbatch labels tiny"):
        run(settings(tmp_path / "root", **common), RunContext())
    labels = {"image": str(tmp_path / "ink.png"), "clean": {"min_area_px": 10}}
    common["segments"] = [{"id": "tiny", "labels": labels}]
    run(settings(tmp_path / "root", **common), RunContext())
    samples = DatasetIndex.open(folder_of(tmp_path / "root")).samples
    assert max(sample.ink_share for sample in samples) == (24 / 32) ** 2


def test_splits_and_coco_say_what_the_index_says(root):
    run(
        settings(root, splits={"kind": "kfold", "folds": 3}, sampling={"kind": "grid", "border": "left-out"}),
        RunContext(),
    )
    folder = root / "datasets/letters"
    index = DatasetIndex.open(folder_of(root))
    splits = json.loads((folder / "splits.json").read_text())
    for fold, lists in enumerate(splits["folds"]):
        assert lists["train"] == [s.id for s in index.samples_of("train", fold)]
        assert lists["validation"] == [s.id for s in index.samples_of("validation", fold)]
        assert not set(lists["train"]) & set(lists["validation"])
    coco = json.loads((folder / "coco.json").read_text())
    first, sample = coco["annotations"][0], index.samples[0]
    assert first["bbox"] == [sample.box[1], sample.box[0], 32, 32]
    with pytest.raises(ConfigError, match="choose the one that validates"):
        index.samples_of("train")


def test_the_card_states_sources_counts_ink_share_and_licence(root):
    run(settings(root), RunContext())
    card = (root / "datasets/letters/README.md").read_text()
    for words in ("CC BY-NC 4.0", "two phantoms", "| left | memory://left | 0:3 |", "| train | 90 |", "![sample-"):
        assert words in card
    pictures = list((root / "datasets/letters/previews").iterdir())
    assert len(pictures) == 4
    assert all(cv2.imread(str(picture)) is not None for picture in pictures)


def test_boxes_come_from_coco_or_from_ink(tmp_path, root):
    document = {
        "images": [{"id": 1, "file_name": "left.png", "height": SHAPE[0], "width": SHAPE[1]}],
        "categories": [{"id": 1, "name": "ink"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 30, 24, 10]}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    sampling = {"kind": "boxes", "coco": str(tmp_path / "boxes.json")}
    run(settings(root, sampling=sampling, splits={"kind": "lists", "train": ["left"]}, form="pack"), RunContext())
    reader = SampleReader.open(folder_of(root))
    assert [s.box for s in reader.index.samples] == [(30, 20, 40, 44)]
    assert reader.read(reader.index.samples[0]).labels.shape == (10, 24)
    shutil.rmtree(root / "datasets")
    run(settings(root, sampling={"kind": "boxes", "ink": {"min_area_px": 100, "margin_px": 2}}), RunContext())
    index = DatasetIndex.open(folder_of(root))
    assert [s.box for s in index.samples] == [(18, 18, 92, 62), (58, 68, 142, 152)]
    assert {f"{name}.{end}" for name in ("left", "right") for end in ("json", "txt", "png")} == {
        path.name for path in (root / "datasets/letters/boxes").iterdir()
    }


def test_a_folder_layout_becomes_a_dataset_that_can_be_packed(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for folder, shape in ((split, (20, 24, 3)), (f"{split}annot", (20, 24))):
            (tmp_path / "data" / folder).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / "data" / folder / "pot.png"), rng.integers(0, 2, shape, dtype=np.uint8))
    changes = {
        "segments": [],
        "images": {"folder": str(tmp_path / "data")},
        "splits": {"kind": "given"},
        "sampling": {"kind": "whole"},
        "form": "pack",
    }
    run(settings(tmp_path / "root", **changes), RunContext())
    shutil.rmtree(tmp_path / "data")
    reader = SampleReader.open(folder_of(tmp_path / "root"))
    assert [(s.id, s.split) for s in reader.index.samples] == [
        ("train-pot-y00000-x00000", "train"),
        ("validation-pot-y00000-x00000", "validation"),
    ]
    found = reader.read(reader.index.samples[0])
    assert found.layers.shape == (3, 32, 32)
    assert (~found.ignore).sum() == 20 * 24


def test_leakage_is_refused_before_anything_is_written(root):
    config = settings(root, splits={"kind": "shares", "train": 0.5, "validation": 0.5})
    with pytest.raises(DataError, match="split by segment or by blocks"):
        run(config, RunContext())
    assert not (root / "datasets").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"segments": []}, "one of them"),
        ({"segments": ["left", "left"]}, "listed twice"),
        ({"segments": [20230827161847]}, "put quotes around 20230827161847"),
        ({"sampling": {"kind": "boxes"}}, "no boxes"),
        ({"sampling": {"kind": "gird"}}, "grid"),
        ({"splits": {"kind": "kfold", "flods": 3}}, "flods"),
        ({"segments": [{"id": "left", "labels": {"root": "x"}}]}, "labels.root"),
        ({"splits": {"kind": "given"}}, "import a folder layout"),
    ],
)
def test_bad_settings_are_refused_by_name(root, changes, words):
    with pytest.raises(ConfigError, match=words):
        run(settings(root, **changes), RunContext())


def test_a_dry_run_writes_nothing(root):
    text = describe(settings(root, form="pack"))
    assert "180 samples" in text
    assert "units" in text
    assert not (root / "datasets").exists()


def test_copies_of_one_scan_do_not_train_and_validate(tmp_path):
    """The same papyrus under another address, other layer numbers, read from the other side."""
    rng = np.random.default_rng(0)
    layers = rng.integers(1, 255, (5, *SHAPE), dtype=np.uint8)
    labels = inked(SHAPE, (20, 20, 90, 60))
    labelled_segment(tmp_path, "left", labels, layers=layers[:3])
    labelled_segment(tmp_path, "right", labels, layers=layers[::-1][:3], source_layers=(7, 10), depth_order="reversed")
    with pytest.raises(DataError, match="left and right are copies of one surface or picture: leave one out, or keep"):
        run(settings(tmp_path), RunContext())
    labelled_segment(tmp_path, "other", labels, layers=rng.integers(1, 255, (3, *SHAPE), dtype=np.uint8))
    split = {"kind": "lists", "train": ["left", "right"], "validation": ["other"]}
    assert run(settings(tmp_path, segments=["left", "right", "other"], splits=split), RunContext()).complete


def test_a_picture_that_lies_in_two_folders_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    for place in ("train", "trainannot", "val", "valannot"):
        (tmp_path / "pots" / place).mkdir(parents=True)
    for name in ("train/a", "train/b", "val/c"):
        annotation = tmp_path / "pots" / name.replace("/", "annot/")
        cv2.imwrite(str(tmp_path / "pots" / f"{name}.png"), rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        cv2.imwrite(f"{annotation}.png", inked((32, 32), (4, 4, 20, 20)))
    values = {"segments": [], "images": {"folder": str(tmp_path / "pots")}, "sampling": {"kind": "whole"}}
    values["splits"] = {"kind": "given"}
    assert run(settings(tmp_path, name="clean", **values), RunContext()).complete
    for folder in ("pots/{}", "pots/{}annot"):
        shutil.copy(tmp_path / folder.format("train") / "a.png", tmp_path / folder.format("val") / "z.png")
    with pytest.raises(DataError, match="train-a and validation-z are copies"):
        run(settings(tmp_path, **values), RunContext())


def test_labels_lie_where_they_are_said_to_and_samples_that_they_changed_are_new(root):
    run(settings(root, name="earlier"), RunContext())
    corrected = inked(SHAPE, (20, 20, 90, 60))
    corrected[100:120, 100:120] = 255
    other = labelled_segment(root, "corrected", corrected)
    choice = {"id": "left", "labels_in": "segments/corrected"}
    run(settings(root, segments=[choice, "right"], newer_than="earlier"), RunContext())
    shutil.rmtree(Path(other.path))
    index = DatasetIndex.open(folder_of(root))
    changed = np.zeros(SHAPE, bool)
    changed[100:120, 100:120] = True
    for sample in index.samples:
        assert bool(sample.is_new) == (sample.segment == "left" and bool(changed[sample.area.slices].any()))
    with pytest.raises(DataError, match="expected ink_labels.zarr in .*corrected, nothing is there"):
        run(settings(root, segments=[choice, "right"], name="third"), RunContext())


def test_tiles_that_labels_hardly_cover_are_left_out_where_asked(root):
    sampling = {"kind": "grid", "stride_px": 16, "min_counted": 0.75}
    run(settings(root, sampling=sampling), RunContext())
    assert {s.box[0] for s in DatasetIndex.open(folder_of(root)).samples if s.segment == "right"} == {
        32,
        48,
        64,
        80,
        96,
        112,
        118,
    }

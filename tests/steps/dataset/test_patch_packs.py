"""Patch packs of the field are taken as they are: verified, split as they state it, checked for leakage, trainable."""

from __future__ import annotations

import json

import numpy as np
import pytest

from inkbatch.data.datasets.current import require_current
from inkbatch.data.datasets.sample_reader import SampleReader
from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.steps.dataset.job import BuildDatasetConfig, describe, run, summary
from inkbatch.testing.patch_packs import EDGE, LAYERS, SEGMENTS, write_patch_pack
from inkbatch.testing.training import tiny_run

UM = 8.64


def config_of(tmp_path, **changes) -> BuildDatasetConfig:
    patches = {"folder": str(tmp_path / "pack"), "voxel_size_um": UM, "depth_order": "forward", **changes}
    values = {"name": "patches", "root": str(tmp_path / "root"), "patches": patches}
    return BuildDatasetConfig.checked(values, "test")


def folder_of(tmp_path) -> Location:
    return Location.parse(tmp_path / "root/datasets/patches")


@pytest.mark.parametrize("depth_order", ["forward", "reversed"])
def test_patches_and_splits_are_taken_as_they_are(tmp_path, depth_order):
    arrays = write_patch_pack(tmp_path / "pack")
    config = config_of(tmp_path, depth_order=depth_order)
    report = run(config, RunContext())
    assert report.complete
    assert report.units == 9  # files, each verified
    reader = SampleReader.open(folder_of(tmp_path))
    index = reader.index
    assert (index.form, index.sample_px, index.contract.layer_count, index.contract.voxel_size_um) == (
        *("patches", EDGE, LAYERS),
        UM,
    )
    assert not index.is_pictures
    assert index.has_soft_labels
    for split, prefix in (("train", "train"), ("validation", "val")):
        samples = index.samples_of(split)
        assert len(samples) == len(arrays[f"{prefix}_images"])
        for row, sample in enumerate(samples):
            found = reader.read_stored(sample)
            layers = arrays[f"{prefix}_images"][row].transpose(2, 0, 1)
            np.testing.assert_array_equal(found.layers, layers if depth_order == "forward" else layers[::-1])
            np.testing.assert_array_equal(found.labels, arrays[f"{prefix}_labels"][row])
            assert not found.ignore.any()
            part = reader.read_part(sample, Box(3, 4, 20, 30), range(1, 5))
            np.testing.assert_array_equal(part.layers, found.layers[1:5, 3:20, 4:30])
            x0, y0, x1, y1 = arrays[f"{prefix}_xyxys"][row].tolist()
            assert sample.box == (y0, x0, y1, x1)
            assert sample.segment == SEGMENTS[arrays[f"{prefix}_seg_idx"][row]]
            assert sample.ink_share == pytest.approx((found.labels >= 128).mean(), abs=1e-6)
    assert "9 files by SHA-256" in describe(config)
    assert "leakage       none" in describe(config)
    assert summary(folder_of(tmp_path))[0].startswith("train: 18 samples")


@pytest.mark.parametrize(
    "segments",
    [
        {"20231210121321": 0, "w05": 1},
        {"1": "w05", "0": "20231210121321"},
        [{"id": "20231210121321"}, {"name": "w05"}],
        {"0": {"segment_id": "20231210121321"}, "1": {"segment": "w05"}},
    ],
)
def test_segments_are_named_in_every_usual_way(tmp_path, segments):
    write_patch_pack(tmp_path / "pack", segments=segments)
    run(config_of(tmp_path), RunContext())
    assert [one.id for one in SampleReader.open(folder_of(tmp_path)).index.segments] == SEGMENTS


def test_a_changed_file_is_refused_by_name_and_nothing_is_left_to_train_on(tmp_path):
    write_patch_pack(tmp_path / "pack")
    place = tmp_path / "pack/val_images.npy"
    place.write_bytes(place.read_bytes()[:-1] + b"\x00")
    with pytest.raises(DataError, match=r"val_images.npy: expected SHA-256 .* as SHA256SUMS says, got"):
        run(config_of(tmp_path), RunContext())
    assert not (folder_of(tmp_path) / "index.json").exists()


def overlapping() -> dict[str, np.ndarray]:
    boxes = [[x * EDGE, 2 * EDGE + 31, (x + 1) * EDGE, 3 * EDGE + 31] for _ in range(2) for x in range(3)]
    return {"val_xyxys": np.array(boxes, np.int32)}


def test_training_patches_that_show_held_out_pixels_are_refused_or_dropped(tmp_path):
    write_patch_pack(tmp_path / "pack", **overlapping())
    with pytest.raises(DataError, match="6 samples see pixels of held-out ones.*set patches.overlap=drop"):
        run(config_of(tmp_path), RunContext())
    run(config_of(tmp_path, overlap="drop"), RunContext())
    index = SampleReader.open(folder_of(tmp_path)).index
    assert len(index.samples_of("train")) == 12
    assert (folder_of(tmp_path) / "complete.json").read_json()["left_out"] == 6


def test_without_places_leakage_is_not_looked_for_and_that_is_said(tmp_path):
    write_patch_pack(tmp_path / "pack", train_xyxys=None, val_xyxys=None)
    config = config_of(tmp_path)
    assert "not looked for: the pack states no places" in describe(config)
    run(config, RunContext())
    index = SampleReader.open(folder_of(tmp_path)).index
    assert len({(sample.segment, sample.box) for sample in index.samples}) == len(index.samples)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_labels": np.zeros((18, 16, 16), np.uint8)}, r"train_labels.npy: expected uint8 \(18, 32, 32\)"),
        ({"train_images": np.zeros((18, EDGE, EDGE, LAYERS), np.uint16)}, "expected uint8 patches"),
        ({"val_seg_idx": np.zeros(5, np.int64)}, r"expected integers \(6,\), one row for each patch"),
        ({"val_seg_idx": np.full(6, 7, np.int64)}, "expected names for segments 0 to 7, got 2"),
        ({"val_xyxys": np.tile([0, 0, 5, 5], (6, 1))}, "expected boxes x0, y0, x1, y1 of 32 x 32 px"),
        ({"segments": "w05"}, "expected the names of segments"),
        ({"val_images": None}, "val_images.npy: expected this file of a patch pack"),
    ],
)
def test_files_that_do_not_fit_are_refused_by_name(tmp_path, changes, words):
    write_patch_pack(tmp_path / "pack", **changes)
    with pytest.raises(DataError, match=words):
        run(config_of(tmp_path), RunContext())
    assert not folder_of(tmp_path).names()


def test_a_pack_without_digests_is_refused_unless_asked_for(tmp_path):
    write_patch_pack(tmp_path / "pack")
    (tmp_path / "pack/SHA256SUMS").unlink()
    with pytest.raises(DataError, match=r"got nothing; copy it, or set patches.verify=false"):
        run(config_of(tmp_path), RunContext())
    assert run(config_of(tmp_path, verify=False), RunContext()).units == 0


def test_a_pack_that_was_exchanged_since_is_noticed(tmp_path):
    write_patch_pack(tmp_path / "pack")
    run(config_of(tmp_path), RunContext())
    index = SampleReader.open(folder_of(tmp_path)).index
    require_current(folder_of(tmp_path), index, Location.parse(tmp_path / "root"))
    labels = np.load(tmp_path / "pack/val_labels.npy")
    np.save(tmp_path / "pack/val_labels.npy", 255 - labels)
    with pytest.raises(MismatchError, match="changed since"):
        require_current(folder_of(tmp_path), index, Location.parse(tmp_path / "root"))


def test_settings_of_segments_do_not_go_with_a_pack(tmp_path):
    patches = {"folder": "pack", "voxel_size_um": UM, "depth_order": "forward"}
    with pytest.raises(ConfigError, match="patches and splits of its own; drop sample_px"):
        BuildDatasetConfig.checked({"name": "d", "patches": patches, "sample_px": 64}, "test")
    with pytest.raises(ConfigError, match="splits must be given"):
        BuildDatasetConfig.checked({"name": "d", "segments": ["a"], "sample_px": 64}, "test")


@pytest.mark.slow
def test_a_pack_trains_a_network(tmp_path):
    from inkbatch.steps.train.job import TrainConfig
    from inkbatch.steps.train.job import run as train

    write_patch_pack(tmp_path / "pack")
    run(config_of(tmp_path), RunContext())
    terms = {"terms": [{"name": "bce"}, {"name": "soft-dice"}]}
    values = tiny_run(tmp_path / "root", dataset="patches", loss=terms, epochs=1)
    assert train(TrainConfig.checked(values, "test"), RunContext()).complete
    bundle = (tmp_path / "root/runs/first/bundle/bundle.json").read_text()
    assert json.loads(bundle)["contract"]["voxel_size_um"] == UM
    rounding = tiny_run(tmp_path / "root", dataset="patches", run="second", loss={"terms": [{"name": "lovasz"}]})
    with pytest.raises(ConfigError, match="lovasz takes yes or no"):
        train(TrainConfig.checked(rounding, "test"), RunContext())

"""infer-pictures: one map per picture, the same in any number of shards; bundles for surfaces are refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from inkbatch.errors import ConfigError, CorruptDataError, DataError, MismatchError, Preempted
from inkbatch.geometry import Box
from inkbatch.io.clahe import equalise
from inkbatch.io.surface import ClaheSettings
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.run.signals import StopFlag
from inkbatch.steps.infer_pictures import InferPicturesConfig, describe, run
from inkbatch.testing.datasets import inked, labelled_segment
from inkbatch.testing.segments import identity_bundle, network_bundle

SHAPES = {"a": (40, 50), "b": (9, 70), "c": (33, 16)}  # b is lower than a tile


@pytest.fixture
def pictures(tmp_path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found = {name: rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for name, shape in SHAPES.items()}
    (tmp_path / "pictures").mkdir()
    for name, picture in found.items():
        cv2.imwrite(str(tmp_path / f"pictures/{name}.png"), picture[..., ::-1])
    return found


def settings(tmp_path, **changes) -> InferPicturesConfig:
    values = {"bundle": str(tmp_path / "bundle"), "images": str(tmp_path / "pictures"), "device": "cpu"}
    return InferPicturesConfig.checked({**values, "output": str(tmp_path / "maps"), **changes}, "test")


def maps_of(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path) for path in sorted(folder.glob("*.npy"))}


def test_an_identity_bundle_gives_each_picture_back(tmp_path, pictures):
    identity_bundle(tmp_path / "bundle")  # its map is the middle layer: green
    assert run(settings(tmp_path, forms=["npy", "png"]), RunContext()).complete
    found = maps_of(tmp_path / "maps")
    assert {name: plane.shape for name, plane in found.items()} == SHAPES
    for name, plane in found.items():
        assert plane.dtype == np.float32
        np.testing.assert_allclose(plane, pictures[name][..., 1] / 255, atol=1e-5)
        stored = cv2.imread(str(tmp_path / f"maps/{name}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(stored, pictures[name][..., 1])


def test_what_the_contract_says_of_histograms_is_done(tmp_path, pictures):
    clahe = ClaheSettings(clip_limit=2, cell_px=16)
    identity_bundle(tmp_path / "bundle", clahe=clahe)
    run(settings(tmp_path), RunContext())
    whole = Box(0, 0, *SHAPES["a"])
    green = equalise(np.ascontiguousarray(pictures["a"][..., 1]), whole, whole, clahe)
    np.testing.assert_allclose(maps_of(tmp_path / "maps")["a"], green / 255, atol=1e-5)


def test_shards_and_a_stopped_run_leave_the_maps_of_one_run(tmp_path, pictures, no_overlap):
    network_bundle(tmp_path / "bundle")
    run(settings(tmp_path), RunContext())
    expected = maps_of(tmp_path / "maps")
    reports = [run(settings(tmp_path, output=str(tmp_path / "two")), RunContext(shard=ShardSpec(i, 2))) for i in (0, 1)]
    assert [report.complete for report in reports] == [False, True]
    stop = StopFlag()

    class Stopping(type(RunContext().reporter)):
        def unit(self, name, facts):
            stop.set("a test")

    cut = settings(tmp_path, output=str(tmp_path / "cut"))
    with pytest.raises(Preempted):
        run(cut, RunContext(stop=stop, reporter=Stopping()))
    assert run(cut, RunContext()).skipped >= 1
    assert "already complete" in describe(cut)
    for folder in ("two", "cut"):
        for name, plane in maps_of(tmp_path / folder).items():
            np.testing.assert_array_equal(plane, expected[name])


def test_other_pictures_under_the_same_name_are_refused(tmp_path, pictures):
    identity_bundle(tmp_path / "bundle")
    run(settings(tmp_path), RunContext())
    cv2.imwrite(str(tmp_path / "pictures/d.png"), pictures["a"])
    with pytest.raises(MismatchError, match="other settings or inputs"):
        run(settings(tmp_path), RunContext())


@pytest.mark.parametrize(
    ("bundle", "changes", "error", "words"),
    [
        ({"layers": 4}, {}, MismatchError, "bundle expects 4, a picture has 3"),
        ({"lut": [[0, 0], [255, 255]]}, {}, MismatchError, "lut"),
        ({"intensity": ["window:*"]}, {}, MismatchError, "intensity"),
        ({}, {"pixel_um": 20.0}, MismatchError, "voxel_size_um: bundle expects 8.0"),
        ({}, {"images": "nowhere"}, DataError, "expected pictures .* got none"),
        ({}, {"images": None, "dataset": "none"}, DataError, "run build-dataset first"),
        ({}, {"dataset": "both"}, ConfigError, "one of them"),
        ({}, {"forms": []}, ConfigError, "choose from npy, png, mask and overlay"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path, pictures, bundle, changes, error, words):
    identity_bundle(tmp_path / "bundle", **bundle)
    with pytest.raises(error, match=words):
        run(settings(tmp_path, **changes), RunContext())
    assert not (tmp_path / "maps").exists()


def test_an_edited_bundle_is_refused_by_the_edited_value(tmp_path, pictures):
    identity_bundle(tmp_path / "bundle")
    document = tmp_path / "bundle/bundle.json"
    document.write_text(document.read_text().replace('"divisor": 255.0', '"divisor": 200.0'))
    with pytest.raises(MismatchError, match=r"was edited since its weights were stored: divisor \(now 200\.0\)"):
        run(settings(tmp_path), RunContext())
    run(settings(tmp_path, override={"divisor": 200.0}), RunContext())


def test_a_damaged_picture_is_named_and_a_dataset_of_surfaces_refused(tmp_path, pictures):
    identity_bundle(tmp_path / "bundle")
    (tmp_path / "pictures/b.png").write_bytes(b"\x89PNG no picture")
    with pytest.raises(CorruptDataError, match=r"b\.png"):
        run(settings(tmp_path), RunContext())
    from inkbatch.steps.dataset import job as build_dataset

    labelled_segment(tmp_path, "s", inked((64, 64), (0, 0, 30, 30)))
    values = {"name": "letters", "root": str(tmp_path), "segments": ["s"], "sample_px": 32}
    split = {"splits": {"kind": "lists", "train": ["s"]}}
    build_dataset.run(build_dataset.BuildDatasetConfig.checked({**values, **split}, "test"), RunContext())
    with pytest.raises(MismatchError, match="use inkbatch infer SEGMENT"):
        run(settings(tmp_path, images=None, dataset="letters", root=str(tmp_path)), RunContext())

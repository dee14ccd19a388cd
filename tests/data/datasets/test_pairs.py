"""Stitched pairs: both halves move as a whole, layers, labels and ignore masks alike."""

from __future__ import annotations

import numpy as np
import pytest

from inkbatch.data.datasets.index import DatasetIndex, DatasetPart, DatasetSegment, Sample, SurfaceContract
from inkbatch.data.datasets.pairs import PairConfig, make_pairs
from inkbatch.data.datasets.sample_reader import SampleReader
from inkbatch.errors import ConfigError
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.steps.dataset import job as build_dataset
from inkbatch.testing.datasets import inked, labelled_segment


def samples(count=6, folds=None, edge=8):
    return [
        Sample(
            id=f"s{n}",
            segment="a",
            box=(0, n * edge, edge, (n + 1) * edge),
            split="train",
            fold=None if folds is None else n % folds,
            ink_share=n / 10,
            papyrus_share=1,
        )
        for n in range(count)
    ]


def test_each_half_is_flipped_and_turned_in_half_of_the_cases():
    pairs = make_pairs(samples(), PairConfig(count=2000), seed=3)
    parts = [part for pair in pairs for part in pair.parts]
    cases = [(part.flip, part.turn) for part in parts]
    for case in ((False, False), (False, True), (True, False), (True, True)):
        assert 0.22 < cases.count(case) / len(cases) < 0.28
    assert {pair.parts[0].box != pair.parts[1].box for pair in pairs} == {True}
    chosen = [part.box[1] for part in parts]
    assert min(chosen.count(8 * n) for n in range(6)) > 500


def test_pairs_are_the_same_again_and_follow_the_seed():
    first = make_pairs(samples(), PairConfig(count=20), seed=3)
    assert first == make_pairs(samples(), PairConfig(count=20), seed=3)
    assert first != make_pairs(samples(), PairConfig(count=20), seed=4)


def test_with_folds_both_halves_are_of_one_fold():
    fold_of = {s.box: s.fold for s in samples(folds=3)}
    for pair in make_pairs(samples(folds=3), PairConfig(count=30), seed=0):
        assert {fold_of[part.box] for part in pair.parts} == {pair.fold}


def test_samples_of_several_sizes_cannot_be_paired():
    mixed = [*samples(2), Sample(id="x", segment="a", box=(0, 0, 4, 8), split="train", ink_share=0, papyrus_share=1)]
    with pytest.raises(ConfigError, match="squares of one size"):
        make_pairs(mixed, PairConfig(count=1), seed=0)


def test_reading_a_pair_flips_then_turns_layers_labels_and_ignore_mask_alike(tmp_path):
    rng = np.random.default_rng(0)
    layers = rng.integers(1, 255, (2, 40, 60), dtype=np.uint8)
    labels = rng.integers(0, 255, (40, 60), dtype=np.uint8)
    ignore = rng.integers(0, 2, (40, 60), dtype=np.uint8)
    labelled_segment(tmp_path, "a", labels, layers=layers, ignore=ignore)
    pair = Sample(
        id="pair-00000",
        segment="a",
        box=(0, 0, 8, 16),
        split="train",
        ink_share=0,
        papyrus_share=1,
        parts=(
            DatasetPart(segment="a", box=(0, 0, 8, 8), flip=True, turn=True),
            DatasetPart(segment="a", box=(20, 30, 28, 38), turn=True),
        ),
    )
    index = DatasetIndex(
        name="d",
        sample_px=8,
        contract=SurfaceContract(dtype="uint8", intensity=("keep",), voxel_size_um=8, layer_count=2),
        segments=(
            DatasetSegment(
                id="a",
                surface="segments/a",
                ink_labels="segments/a/ink_labels.zarr",
                ignore_mask="segments/a/ignore_mask.zarr",
                source_layers=(0, 2),
                shape_yx=(40, 60),
                voxel_size_um=8,
            ),
        ),
        samples=(pair,),
    )
    found = SampleReader(index, Location.parse(tmp_path / "datasets" / "d")).read_stored(pair)
    for array, plane in zip(found, (layers, labels, ignore), strict=True):
        left, right = plane[..., 0:8, 0:8], plane[..., 20:28, 30:38]
        np.testing.assert_array_equal(array[..., :8], np.rot90(left[..., ::-1], axes=(-2, -1)))
        np.testing.assert_array_equal(array[..., 8:], np.rot90(right, axes=(-2, -1)))
    assert found.layers[0, 0, 0] == layers[0, 0, 0]  # flipped, then its right column became the top row
    ready = SampleReader(index, Location.parse(tmp_path / "datasets" / "d")).read(pair)
    np.testing.assert_allclose(ready.labels, found.labels / 255, rtol=1e-6)
    assert ready.labels.dtype == np.float32
    assert ready.ignore.dtype == bool


@pytest.mark.parametrize("form", ["index", "pack"])
def test_a_box_of_a_sample_is_what_the_whole_sample_shows_there(tmp_path, form):
    rng = np.random.default_rng(1)
    for name in ("left", "right"):
        labels = inked((96, 96), (10, 10, 50, 60))
        labelled_segment(tmp_path, name, labels, ignore=(rng.random((96, 96)) < 0.2).astype(np.uint8))
    values = {"name": "w", "root": str(tmp_path), "segments": ["left", "right"], "sample_px": 32, "form": form}
    values |= {"pairs": {"count": 12}, "splits": {"kind": "lists", "train": ["left", "right"]}}
    build_dataset.run(build_dataset.BuildDatasetConfig.checked(values, "test"), RunContext())
    reader = SampleReader.open(Location.parse(tmp_path / "datasets/w"))
    pairs = [sample for sample in reader.index.samples if sample.parts]
    turned = {(part.flip, part.turn) for sample in pairs for part in sample.parts}
    assert len(turned) == 4  # every way in which a part can lie
    for sample in [*pairs, reader.index.samples[4]]:
        whole = reader.read_stored(sample)
        all_layers = range(len(whole.layers))
        for y0, x0, height, width in ((3, 5, 20, 9), (0, 20, 32, 12), (7, 2, 11, 30), (0, 0, *sample.shape_yx)):
            window = Box(y0, x0, y0 + height, x0 + width)
            for part, full in zip(reader.read_part(sample, window, all_layers), whole, strict=True):
                np.testing.assert_array_equal(part, full[(..., *window.slices)])
        if sample.parts:
            across = Box(4, 25, 20, 50)
            np.testing.assert_array_equal(
                reader.read_part(sample, across, all_layers).layers, whole.layers[(..., *across.slices)]
            )

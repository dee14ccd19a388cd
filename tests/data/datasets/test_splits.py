"""Splits are stratified, deterministic, and never let training see a held-out pixel."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inkbatch.data.datasets.assembling import Assembled, SamplePlan, assemble
from inkbatch.data.datasets.index import DatasetSegment, training, validating
from inkbatch.data.datasets.leakage import find_leaks, pairwise, touching
from inkbatch.data.datasets.zones import Zones
from inkbatch.errors import ConfigError, DataError
from inkbatch.testing.datasets import ArraySegment, inked


def segment_of(name: str, shape=(128, 128)) -> DatasetSegment:
    return DatasetSegment(id=name, surface=name, ink_labels=name, source_layers=(0, 1), shape_yx=shape, voxel_size_um=8)


def spread_ink(shape=(128, 128), seed=0) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) > 0.8).astype(np.uint8) * 255


def build(splits, labels=None, surface_of=None, given=None, **changes) -> Assembled:
    labels = labels or {name: spread_ink(seed=number) for number, name in enumerate("abc")}
    arrays = {name: ArraySegment(plane) for name, plane in labels.items()}
    plan = SamplePlan.checked({"sample_px": 16, "splits": splits, **changes}, "plan")
    segments = [segment_of(name, plane.shape) for name, plane in labels.items()]
    return assemble(segments, arrays, plan, surface_of or {name: name for name in labels}, given)


def ids(samples) -> set[str]:
    return {sample.id for sample in samples}


def of_split(found: Assembled, split: str):
    return [sample for sample in found.samples if sample.split == split]


def seen_pixels(samples, shape=(128, 128), grow=0):
    """Brute force: True where a sample shows a pixel, by segment."""
    planes: dict[str, np.ndarray] = {}
    for sample in samples:
        for name, box in sample.sources:
            plane = planes.setdefault(name, np.zeros(shape, bool))
            plane[max(0, box.y0 - grow) : box.y1 + grow, max(0, box.x0 - grow) : box.x1 + grow] = True
    return planes


def overlap(train, held_out, grow=0) -> int:
    left, right = seen_pixels(train, grow=grow), seen_pixels(held_out)
    return sum(int((left[name] & right[name]).sum()) for name in set(left) & set(right))


def test_leave_one_segment_out_makes_a_fold_of_each_segment():
    found = build({"kind": "leave-one-segment-out", "test": ["c"]}, sampling={"kind": "grid", "stride_px": 8})
    assert {s.segment for s in of_split(found, "test")} == {"c"}
    for fold, (held_out, other) in enumerate([("a", "b"), ("b", "a")]):
        assert {s.segment for s in validating(found.samples, fold)} == {held_out}
        assert {s.segment for s in training(found.samples, fold, ())} == {other}


def test_a_held_out_segment_can_be_sampled_in_another_way_than_it_trains():
    found = build(
        {"kind": "leave-one-segment-out"},
        sampling={"kind": "crops", "per_segment": 4, "min_ink": 0.1, "bare_ratio": 0},
        held_out_sampling={"kind": "grid"},
    )
    assert len(validating(found.samples, 0)) == 64
    assert {s.segment for s in validating(found.samples, 0)} == {"a"}
    assert len(training(found.samples, 0, ())) == 8
    assert {s.segment for s in training(found.samples, 0, ())} == {"b", "c"}


def test_kfold_is_stratified_and_each_sample_validates_once():
    plane = spread_ink((128, 128))
    plane[:, 64:] = 0
    found = build({"kind": "kfold", "folds": 4}, {"a": plane})
    folds = [validating(found.samples, fold) for fold in range(4)]
    assert sorted(name for fold in folds for name in ids(fold)) == sorted(ids(found.samples))
    assert [len(fold) for fold in folds] == [16] * 4
    means = [np.mean([s.ink_share for s in fold]) for fold in folds]
    assert max(means) - min(means) < 0.01
    assert [sum(s.ink_share == 0 for s in fold) for fold in folds] == [8] * 4


def test_kfold_by_segment_keeps_segments_together():
    found = build({"kind": "kfold", "folds": 3, "group": "segment"})
    assert sorted(len({s.segment for s in validating(found.samples, fold)}) for fold in range(3)) == [1, 1, 1]


def test_overlapping_tiles_in_a_kfold_are_refused_or_dropped_in_that_fold_alone():
    overlapping = {"kind": "grid", "stride_px": 8}
    with pytest.raises(DataError, match=r"samples see pixels of held-out ones, for example a-y\d+"):
        build({"kind": "kfold", "folds": 10}, sampling=overlapping)
    found = build({"kind": "kfold", "folds": 10, "overlap": "drop"}, sampling=overlapping, context_px=3)
    used = set()
    for fold in range(10):
        train = training(found.samples, fold, found.dropped[str(fold)])
        assert overlap(train, validating(found.samples, fold), grow=3) == 0
        used |= ids(train)
    assert len(used) > 200


def test_shares_are_exact_and_stratified():
    found = build({"kind": "shares", "train": 0.5, "validation": 0.25, "test": 0.25})
    counts = {split: len(of_split(found, split)) for split in ("train", "validation", "test")}
    assert counts == {"train": 96, "validation": 48, "test": 48}
    means = [np.mean([s.ink_share for s in of_split(found, split)]) for split in counts]
    assert max(means) - min(means) < 0.01


def test_shares_with_overlap_are_refused_or_dropped():
    rules = {"kind": "shares", "train": 0.95, "validation": 0.03, "test": 0.02}
    with pytest.raises(DataError, match="see pixels"):
        build(rules, sampling={"kind": "grid", "stride_px": 12})
    found = build({**rules, "overlap": "drop"}, sampling={"kind": "grid", "stride_px": 12})
    train, validation, test = (of_split(found, split) for split in ("train", "validation", "test"))
    assert overlap(train, validation + test) == overlap(validation, test) == 0
    assert found.left_out > 0


def test_shares_that_do_not_sum_to_one_are_refused():
    with pytest.raises(ConfigError, match="sum to"):
        build({"kind": "shares", "train": 0.5, "validation": 0.25})


@pytest.mark.parametrize("stride", [5, 16])
def test_blocks_keep_a_buffer_of_a_sample_and_its_context(stride):
    labels = {"a": spread_ink((256, 256))}
    found = build(
        {"kind": "blocks", "block_px": 64, "validation": 0.2, "test": 0.1},
        labels,
        sampling={"kind": "grid", "stride_px": stride},
        context_px=4,
    )
    train, held_out = of_split(found, "train"), of_split(found, "validation") + of_split(found, "test")
    left = seen_pixels(train, (256, 256), grow=20)["a"]
    assert not (left & seen_pixels(held_out, (256, 256))["a"]).any()
    assert found.left_out > 0
    blocks = {(s.box[0] // 64, s.box[1] // 64) for s in of_split(found, "validation")}
    assert len(blocks) == 3


def test_blocks_in_folds_drop_what_is_near_in_that_fold():
    labels = {"a": spread_ink((256, 256))}
    found = build({"kind": "blocks", "block_px": 64, "folds": 4}, labels, sampling={"kind": "grid", "stride_px": 8})
    for fold in range(4):
        held_out = validating(found.samples, fold)
        train = training(found.samples, fold, found.dropped[str(fold)])
        near = seen_pixels(train, (256, 256), grow=16)["a"] & seen_pixels(held_out, (256, 256))["a"]
        assert not near.any()
        assert train
        assert len({(s.box[0] // 64, s.box[1] // 64) for s in held_out}) == 4


def test_listed_blocks_keep_their_homes_whatever_the_labels_say():
    homes = {"a": [[0, 0, "test"], [0, 2, 0], [2, 2, 1]], "b": [[0, 0, 0], [3, 3, 1]]}
    splits = {"kind": "listed-blocks", "block_px": 32, "blocks": homes}
    labels = {name: spread_ink(seed=number) for number, name in enumerate("abc")}
    first = build(splits, labels)
    again = build(splits, {name: np.flipud(plane).copy() for name, plane in labels.items()})
    assert [(s.id, s.split, s.fold) for s in first.samples] == [(s.id, s.split, s.fold) for s in again.samples]
    seen = {fold: training(first.samples, fold, first.dropped.get(str(fold), ())) for fold in (0, 1)}
    for fold, block in ((0, (slice(0, 32), slice(64, 96))), (1, (slice(64, 96), slice(64, 96)))):
        assert not seen_pixels(seen[fold], grow=15)["a"][block].any()
        assert {s.segment for s in validating(first.samples, fold)} == {"a", "b"}
        assert not seen_pixels(seen[fold], grow=15)["a"][:32, :32].any()
    assert len(of_split(first, "test")) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"block_px": 8}, "no sample fits in"), ({"buffer_px": 8}, "give at least 16"), ({"blocks": {"z": []}}, "'z'")],
)
def test_listed_blocks_that_cannot_be_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        build({"kind": "listed-blocks", "block_px": 32, "blocks": {"a": [[0, 0, 0]]}, **changes})


def test_blocks_with_crops_train_away_from_a_grid_that_validates():
    found = build(
        {"kind": "blocks", "block_px": 64, "validation": 0.25},
        {"a": spread_ink((256, 256))},
        sampling={"kind": "crops", "per_segment": 20, "min_ink": 0.1, "bare_ratio": 0, "step_px": 1},
        held_out_sampling={"kind": "grid", "stride_px": 16},
    )
    assert len(of_split(found, "train")) == 20
    assert len(of_split(found, "validation")) == 4 * 16


def test_the_buffer_is_exact_to_the_pixel():
    near, clear, inside = (0, 64 + 19, 16, 64 + 35), (0, 64 + 20, 16, 64 + 36), (3, 48, 19, 64)
    boxes = np.array([near, clear, inside], np.int64)
    assert Zones(64, {(0, 0): "validation"}, 20).home(boxes) == [None, "train", "validation"]
    folds = Zones(64, {(0, 0): 0, (0, 1): 1}, 20)
    assert folds.home(boxes) == [1, 1, 0]
    assert folds.near(boxes, 0).tolist() == [True, False, True]


def test_a_buffer_below_a_sample_with_its_context_is_refused():
    with pytest.raises(ConfigError, match="at least 20"):
        build({"kind": "blocks", "block_px": 64, "buffer_px": 19}, context_px=4)
    with pytest.raises(ConfigError, match="no sample fits"):
        build({"kind": "blocks", "block_px": 15})


def test_lists_take_segments_and_samples_and_leave_the_rest_out():
    found = build({"kind": "lists", "train": ["a"], "validation": ["b-y00000-x00016"]})
    assert {s.segment for s in of_split(found, "train")} == {"a"}
    assert ids(of_split(found, "validation")) == {"b-y00000-x00016"}
    assert len(found.samples) == 65


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ({"train": ["a"], "validation": ["bb"]}, "did you mean 'b'"),
        ({"train": ["a"], "validation": ["a"]}, "lists train and validation"),
        ({"train": ["a", "a-y00000-x00016"]}, "both on a list"),
    ],
)
def test_lists_that_name_nothing_or_one_thing_twice_are_refused(lists, words):
    with pytest.raises(ConfigError, match=words):
        build({"kind": "lists", **lists})


def test_two_names_of_one_surface_share_their_pixels():
    with pytest.raises(DataError, match="see pixels"):
        build({"kind": "leave-one-segment-out"}, surface_of={"a": "x", "b": "x", "c": "c"})


def test_context_counts_as_seen():
    rules = {"kind": "lists", "train": ["a-y00000-x00016"], "validation": ["a-y00000-x00000"]}
    build(rules)
    with pytest.raises(DataError, match=r"with 1 px of context"):
        build(rules, context_px=1)


def test_validation_must_not_see_the_test_either():
    rules = {"kind": "lists", "train": ["b"], "validation": ["a-y00000-x00000"], "test": ["a-y00000-x00008"]}
    with pytest.raises(DataError, match=r"validation and test\): 1 sample"):
        build(rules, sampling={"stride_px": 8})


def test_an_empty_split_and_training_without_ink_are_refused():
    with pytest.raises(DataError, match="no sample validates"):
        build({"kind": "blocks", "block_px": 128, "validation": 0.1}, {"a": spread_ink()})
    with pytest.raises(DataError, match="no training sample holds any ink"):
        build({"kind": "lists", "train": ["a"]}, {"a": inked((64, 64))})
    with pytest.raises(DataError, match="no sample trains"):
        build({"kind": "lists", "train": []}, {"a": spread_ink()})


def test_the_order_of_segments_changes_no_split():
    labels = {name: spread_ink(seed=number) for number, name in enumerate("abc")}
    found = build({"kind": "kfold"}, labels)
    other = build({"kind": "kfold"}, dict(reversed(labels.items())))
    assert {s.id: s.fold for s in found.samples} == {s.id: s.fold for s in other.samples}
    assert {s.id: s.fold for s in build({"kind": "kfold"}, labels, seed=1).samples} != {
        s.id: s.fold for s in found.samples
    }


@given(st.integers(0, 10_000), st.integers(0, 6))
@settings(max_examples=25, deadline=None)
def test_touching_finds_what_brute_force_finds(seed, gap):
    rng = np.random.default_rng(seed)

    def boxes(count):
        origin, size = rng.integers(0, 120, (count, 2)), rng.integers(1, 40, (count, 2))
        return np.concatenate([origin, origin + size], axis=1)

    left, right = boxes(20), boxes(12)
    slow = [
        any(a[0] - gap < b[2] and b[0] < a[2] + gap and a[1] - gap < b[3] and b[1] < a[3] + gap for b in right)
        for a in left
    ]
    assert touching(left, right, gap).tolist() == slow
    assert pairwise(left, right, gap).tolist() == slow


def test_pairs_alone_train_and_singles_still_validate():
    alone = {"count": 30, "keep_singles": False}
    found = build({"kind": "lists", "train": ["a"], "validation": ["b"]}, pairs=alone)
    assert {s.parts is None for s in of_split(found, "train")} == {False}
    assert len(of_split(found, "validation")) == 64
    folded = build({"kind": "leave-one-segment-out"}, pairs=alone)
    for fold, name in enumerate("abc"):
        assert {s.parts is None for s in training(folded.samples, fold, ())} == {False}
        assert [s.segment for s in validating(folded.samples, fold)] == [name] * 64
        assert name not in {p.segment for s in training(folded.samples, fold, ()) for p in s.parts}


def test_pairs_leak_through_either_half():
    found = build({"kind": "lists", "train": ["a"], "validation": ["b"]}, pairs={"count": 1})
    pair = found.samples[-1]
    right = pair.parts[1]
    name = f"{right.segment}-y{right.box[0]:05d}-x{right.box[1]:05d}"
    held_out = [s for s in found.samples if s.id == name]
    assert find_leaks([pair], held_out, {"a": "a"}, 0).example == (pair.id, name)


def test_all_kinds_give_equal_samples_again():
    kinds = [{"kind": "kfold"}, {"kind": "blocks", "block_px": 32}, {"kind": "leave-one-segment-out"}]
    for splits, seed in product(kinds, (0, 1)):
        assert build(splits, seed=seed) == build(splits, seed=seed)


def test_labels_without_any_bare_pixel_are_refused():
    whole = {name: np.full((128, 128), 255, np.uint8) for name in "ab"}
    with pytest.raises(DataError, match="every one of them is ink"):
        build({"kind": "lists", "train": ["a"], "validation": ["b"]}, whole)

"""The order of samples: a pure function of seed and epoch, balanced as asked, shared out without loss."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from inkbatch.data.datasets.index import DatasetIndex, Sample
from inkbatch.data.datasets.sample_reader import SampleReader
from inkbatch.errors import ConfigError, DataError
from inkbatch.io.store.location import Location
from inkbatch.training.augment_settings import AugmentConfig
from inkbatch.training.data import READING_THREADS, StepStream, TrainingTiles, reading_threads, require_samples
from inkbatch.training.order import EpochPlan, SamplerConfig, draw_weights, require_drawable


def samples_of(*rows: tuple[str, float]) -> list[Sample]:
    return [
        Sample(id=f"{n}", segment=s, box=(0, 0, 8, 8), split="train", ink_share=ink, papyrus_share=1)
        for n, (s, ink) in enumerate(rows)
    ]


def plan_of(count: int = 23, **changes) -> EpochPlan:
    samples = samples_of(*[("a", 0.1)] * count)
    values = {"sampler": SamplerConfig(), "seed": 0, "batch": 4, **changes}
    return EpochPlan(samples, **values)


def test_an_epoch_is_a_permutation_cut_into_whole_steps():
    plan = plan_of(23)
    assert plan.steps == 5
    order = plan.order(3)
    assert len(set(order.tolist())) == len(order) == 20
    np.testing.assert_array_equal(order, plan_of(23).order(3))
    assert not np.array_equal(order, plan.order(4))
    assert not np.array_equal(order, plan_of(23, seed=1).order(3))


def test_too_few_samples_for_a_step_are_repeated():
    order = plan_of(3, batch=8).order(0)
    assert len(order) == 8
    assert set(np.bincount(order, minlength=3).tolist()) == {2, 3}


@pytest.mark.parametrize("accumulate", [1, 3])
def test_devices_share_each_micro_batch(accumulate):
    one = plan_of(50, batch=4, accumulate=accumulate)
    two = plan_of(50, batch=2, devices=2, accumulate=accumulate)
    assert one.steps == two.steps
    order = one.order(1)
    np.testing.assert_array_equal(order, two.order(1))
    for step in range(one.steps):
        whole = one.step(order, 1, step, 0)
        halves = [two.step(order, 1, step, device) for device in range(2)]
        for number, micro in enumerate(whole):
            assert halves[0][number] + halves[1][number] == micro


def test_every_segment_gets_its_share():
    samples = samples_of(*[("a", 0.1)] * 30, *[("b", 0.1)] * 3, ("c", 0.1))
    weights = draw_weights(samples, SamplerConfig(by_segment=True))
    np.testing.assert_allclose([weights[:30].sum(), weights[30:33].sum(), weights[33]], [1 / 3] * 3)
    plan = EpochPlan(samples, SamplerConfig(by_segment=True, samples_per_epoch=3000), 0, 4)
    found = np.array([samples[index].segment for index in plan.order(0)])
    assert abs((found == "c").mean() - 1 / 3) < 0.05


def test_ink_gets_its_share_whatever_the_segments():
    samples = samples_of(*[("a", 0.0)] * 40, *[("a", 0.2)] * 2, *[("b", 0.0)] * 5, ("b", 0.5))
    inked = np.array([sample.ink_share > 0 for sample in samples])
    for by_segment in (False, True):
        weights = draw_weights(samples, SamplerConfig(ink_share=0.6, by_segment=by_segment))
        assert weights[inked].sum() == pytest.approx(0.6)


def test_segments_and_ink_get_their_shares_together():
    samples = samples_of(*[("a", 0.2)] * 50, *[("a", 0.0)] * 50, *[("b", 0.2)] * 2, *[("b", 0.0)] * 98, ("c", 0.0))
    weights = draw_weights(samples, SamplerConfig(ink_share=0.5, by_segment=True))
    inked = np.array([sample.ink_share > 0 for sample in samples])
    segments = np.array([sample.segment for sample in samples])
    assert weights[inked].sum() == pytest.approx(0.5)
    assert [weights[segments == name].sum() for name in "abc"] == pytest.approx([1 / 3] * 3, abs=1e-3)


def test_an_ink_share_that_cannot_be_had_is_refused():
    with pytest.raises(DataError, match=r"expected samples with ink.*none among 2"):
        draw_weights(samples_of(("a", 0.0), ("a", 0.0)), SamplerConfig(ink_share=0.5))
    with pytest.raises(DataError, match="expected samples without ink"):
        draw_weights(samples_of(("a", 0.5)), SamplerConfig(ink_share=0.5))


SCROLLS = {"a": "first", "b": "first", "c": "second"}


def of_three_segments() -> list[Sample]:
    return samples_of(*[("a", 0.0)] * 20, *[("b", 0.2)] * 4, *[("c", 0.0)] * 3, *[("d", 0.2)] * 9)


@pytest.mark.parametrize(("devices", "accumulate"), [(1, 1), (2, 1), (1, 2)])
def test_every_batch_holds_the_quota_of_every_scroll(devices, accumulate):
    samples = of_three_segments()
    sampler = SamplerConfig(quotas={"first": 5, "second": 1, "d": 2}, samples_per_epoch=64)
    plan = EpochPlan(samples, sampler, 3, 8 // devices, devices, accumulate, SCROLLS)
    order = plan.order(0)
    assert len(order) == 64
    scrolls = [SCROLLS.get(samples[place].segment, samples[place].segment) for place in order]
    for first in range(0, 64, 8):
        assert sorted(scrolls[first : first + 8]) == ["d"] * 2 + ["first"] * 5 + ["second"]
    np.testing.assert_array_equal(order, EpochPlan(samples, sampler, 3, 8, 1, 1, SCROLLS).order(0))
    assert not np.array_equal(order, plan.order(1))


def test_a_scroll_shows_all_its_samples_before_one_comes_again():
    samples = of_three_segments()
    sampler = SamplerConfig(quotas={"first": 6, "second": 2, "d": 0}, samples_per_epoch=32)
    taken = np.bincount(EpochPlan(samples, sampler, 0, 8, scrolls=SCROLLS).order(0), minlength=len(samples))
    assert taken[:24].tolist() == [1] * 24
    assert (taken[24:27] >= 2).all()
    assert not taken[27:].any()


def test_quotas_leave_the_share_of_ink_to_each_scroll():
    samples = of_three_segments()[:24] + samples_of(*[("d", 0.0)] * 90, *[("d", 0.2)] * 10)
    sampler = SamplerConfig(quotas={"first": 2, "d": 2}, ink_share=0.5, samples_per_epoch=4000)
    order = EpochPlan(samples, sampler, 0, 4, scrolls=SCROLLS).order(0)
    for places in (range(24), range(24, 124)):
        inked = [samples[place].ink_share > 0 for place in order if place in places]
        assert np.mean(inked) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("quotas", "error", "words"),
    [
        ({"first": 5, "second": 1, "d": 1}, ConfigError, "expected quotas that sum to the batch of 8, got 7"),
        ({"first": 8}, ConfigError, "got none for d, second; 0 leaves a scroll out"),
        ({"first": 5, "second": 1, "d": 1, "e": 1}, DataError, "e has no training sample; .* are first, second, d"),
    ],
)
def test_quotas_that_the_samples_cannot_fill_are_refused(quotas, error, words):
    with pytest.raises(error, match=words):
        require_drawable(of_three_segments(), SamplerConfig(quotas=quotas), SCROLLS, 8)


def test_a_scroll_that_cannot_give_the_share_of_ink_is_refused():
    config = SamplerConfig(quotas={"first": 6, "second": 2, "d": 0}, ink_share=0.5)
    with pytest.raises(DataError, match="expected samples with ink"):
        require_drawable(of_three_segments(), config, SCROLLS, 8)


def with_new(samples: list[Sample], *new: int) -> list[Sample]:
    return [sample.model_copy(update={"is_new": True}) if n in new else sample for n, sample in enumerate(samples)]


def test_new_samples_take_their_share_of_every_batch():
    samples = with_new(samples_of(*[("a", 0.1)] * 40), 3, 17)
    plan = EpochPlan(samples, SamplerConfig(new_share=0.3, samples_per_epoch=100), seed=0, batch=10)
    batches = plan.order(0).reshape(-1, 10)
    assert (np.isin(batches, [3, 17]).sum(axis=1) == 3).all()
    assert len(set(batches.ravel().tolist())) == 40


def test_new_samples_share_the_quota_of_their_scroll():
    samples = with_new(samples_of(*[("a", 0.1)] * 10, *[("b", 0.1)] * 10), 0, 1)
    sampler = SamplerConfig(new_share=0.25, quotas={"a": 4, "b": 4}, samples_per_epoch=80)
    batches = EpochPlan(samples, sampler, seed=0, batch=8).order(0).reshape(-1, 8)
    assert (np.isin(batches, [0, 1]).sum(axis=1) == 1).all()
    assert ((batches < 10).sum(axis=1) == 4).all()


def test_without_new_samples_the_share_changes_nothing_and_a_share_of_no_sample_is_refused():
    samples = samples_of(*[("a", 0.1)] * 20)
    drawn = EpochPlan(samples, SamplerConfig(new_share=0.3), seed=0, batch=10).order(0)
    assert sorted(drawn.tolist()) == list(range(20))
    with pytest.raises(ConfigError, match="of a batch of 2 that is no sample"):
        require_drawable(samples, SamplerConfig(new_share=0.1), {}, 2)


def test_settings_without_quotas_are_stored_as_they_were():
    assert "quotas" not in SamplerConfig(ink_share=0.5).model_dump()
    assert SamplerConfig(quotas={"a": 1}).model_dump()["quotas"] == {"a": 1}


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_without_samples_or_without_ink_is_refused(split):
    good, bare = samples_of(("a", 0.1)), samples_of(("a", 0.0))
    for samples, words in (([], "holds no sample"), (bare, "none of the 1 samples of split")):
        pair = {"train": good, "validation": good, split: samples}
        with pytest.raises(DataError, match=words) as caught:
            require_samples("d", pair["train"], pair["validation"])
        assert repr(split) in str(caught.value)


@pytest.fixture
def tiles(root):
    place = Location.parse(root) / "datasets" / "tiny"
    index = DatasetIndex.open(place)
    augment = AugmentConfig(warp=0.5, noise=0.5, depth_shift=1)
    return TrainingTiles(SampleReader(index, place), index.samples_of("train"), augment, 5, 16, 3)


def stream_of(tiles: TrainingTiles, **changes) -> StepStream:
    plan = EpochPlan(tiles.samples, SamplerConfig(), 5, 4)
    return StepStream(tiles, plan, 3, **changes)


@pytest.mark.parametrize("in_place", [True, False])
def test_a_stream_from_the_middle_gives_what_the_whole_one_gives(tiles, in_place):
    whole = list(stream_of(tiles).run(0, 0))
    assert [(step.epoch, step.step) for step in whole] == [(e, s) for e in range(3) for s in range(6)]
    for epoch, step in ((0, 4), (1, 0), (1, 6), (2, 5)):
        rest = list(stream_of(tiles, threads=1, ahead=1, in_place=in_place).run(epoch, step))
        expected = whole[epoch * 6 + step :]
        assert len(rest) == len(expected)
        for a, b in zip(rest, expected, strict=True):
            assert a.batches[0].sample_ids == b.batches[0].sample_ids
            assert torch.equal(a.batches[0].layers, b.batches[0].layers)
            assert torch.equal(a.batches[0].labels, b.batches[0].labels)
            seeds = [[change.noise_seed for change in step.batches[0].changes] for step in (a, b)]
            assert seeds[0] == seeds[1]


@pytest.mark.parametrize(("in_place", "ahead"), [(True, 0), (False, 3)])
def test_as_many_steps_as_asked_for_are_read_ahead_and_none_in_place(tiles, monkeypatch, in_place, ahead):
    monkeypatch.setattr("inkbatch.training.data.time.thread_time", time.perf_counter)  # a busy machine waits, too
    stream, begun = stream_of(tiles, ahead=3, in_place=in_place), []
    read = tiles.batch
    monkeypatch.setattr(tiles, "batch", lambda drawn: (begun.append(drawn), read(drawn))[1])
    for given, _ in enumerate(stream.run(0, 0), start=1):
        assert len(begun) == given if in_place else len(begun) <= min(18, given + ahead)
    assert given == len(begun) == 18


def test_where_reading_waits_steps_are_read_ahead_for_a_while_even_so(tiles, monkeypatch):
    monkeypatch.setattr("inkbatch.training.data.LOOK_STEPS", 2)
    monkeypatch.setattr("inkbatch.training.data.AHEAD_STEPS", 5)
    expected = list(stream_of(tiles).run(0, 0))
    stream, readers, slow = stream_of(tiles, in_place=True), [], 7
    read = tiles.batch

    def slowly(drawn):
        readers.append(threading.current_thread())
        time.sleep(0.1 if len(readers) <= slow else 0)
        return read(drawn)

    monkeypatch.setattr(tiles, "batch", slowly)
    found = list(stream.run(0, 0))
    own = [reader is threading.current_thread() for reader in readers]
    assert own[:7] == [True, True, False, False, False, False, False]
    assert own[7:9] == [True, True]
    assert [(step.epoch, step.step) for step in found] == [(step.epoch, step.step) for step in expected]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.batches[0].layers, other.batches[0].layers)


def test_a_tile_is_the_stored_pixels_of_its_sample(root, tiles):
    tiles.augment = AugmentConfig(flip=0, turn=0)
    batch = next(iter(stream_of(tiles).run(0, 0))).batches[0]
    assert batch.layers.shape == (4, 3, 16, 16)
    for number, name in enumerate(batch.sample_ids):
        sample = next(one for one in tiles.samples if one.id == name)
        stored = tiles.reader.read_stored(sample)
        y, x = batch.changes[number].crop_yx
        np.testing.assert_array_equal(batch.layers[number].numpy(), stored.layers[0:3, y : y + 16, x : x + 16])
        np.testing.assert_array_equal(batch.labels[number, 0].numpy(), stored.labels[y : y + 16, x : x + 16])


def test_a_sample_that_cannot_be_read_ends_the_stream(root, tiles):
    for path in (root / "segments" / "s0" / "ink_labels.zarr").rglob("c/*/*"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"ink_labels\.zarr"):
        list(stream_of(tiles).run(0, 0))


@pytest.mark.parametrize(("cores", "wanted"), [(1, 1), (2, 2), (64, READING_THREADS)])
def test_no_more_threads_read_than_cores_that_compute_as_well(cores, wanted, monkeypatch):
    monkeypatch.setattr("inkbatch.training.data.core_count", lambda: cores)
    assert reading_threads(is_shared=True) == wanted
    assert reading_threads(is_shared=False) == READING_THREADS

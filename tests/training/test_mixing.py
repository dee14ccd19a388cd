"""MixUp and CutMix: what a mixed tile holds, who takes part, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from inkbatch.data.datasets.index import DatasetIndex
from inkbatch.data.datasets.sample_reader import SampleReader
from inkbatch.errors import ConfigError
from inkbatch.io.store.location import Location
from inkbatch.models.rules import Normaliser
from inkbatch.training.augment_settings import AugmentConfig, Mix, draw_changes
from inkbatch.training.data import TrainingTiles
from inkbatch.training.losses import LossConfig, LossTerm
from inkbatch.training.mixing import Tile, mix_into, require_mixable
from inkbatch.training.order import EpochPlan, SamplerConfig

PLAIN = {"flip": 0, "turn": 0}


def tile(seed: int) -> Tile:
    rng = np.random.default_rng(seed)
    layers, labels = rng.integers(0, 256, (2, 8, 8), np.uint8), rng.integers(0, 256, (8, 8), np.uint8)
    return Tile(layers, labels, rng.integers(0, 2, (8, 8), np.uint8))


def test_mix_up_is_a_weighted_mean_and_counts_where_both_count():
    own, first, other = tile(0), tile(0), tile(1)
    mix_into(own, other, Mix(share=0.7))
    for name in ("layers", "labels"):
        one, two = (getattr(each, name).astype(float) for each in (first, other))
        assert np.abs(getattr(own, name) - (0.7 * one + 0.3 * two)).max() <= 0.5 + 1e-4
    np.testing.assert_array_equal(own.ignore, first.ignore | other.ignore)


def test_cut_mix_pastes_a_box_with_its_labels_and_ignored_pixels():
    own, first, other = tile(0), tile(0), tile(1)
    mix_into(own, other, Mix(box=(1, 2, 5, 8)))
    inside = np.zeros((8, 8), bool)
    inside[1:5, 2:8] = True
    for name in ("layers", "labels", "ignore"):
        expected = np.where(inside, getattr(other, name), getattr(first, name))
        np.testing.assert_array_equal(getattr(own, name), expected)


def drawn_mixes(count: int, **changes) -> list[Mix | None]:
    config = AugmentConfig(**changes)
    return [draw_changes(config, np.random.default_rng([n]), (64, 64), 64, 5, 5).mix for n in range(count)]


def test_mixes_come_as_often_and_as_large_as_stated():
    found = drawn_mixes(2000, mix_up=0.3, mix_up_alpha=1.0, cut_mix=0.5)
    shares = [one.share for one in found if one is not None and one.box is None]
    boxes = np.array([one.box for one in found if one is not None and one.box is not None])
    assert len(shares) / 2000 == pytest.approx(0.3, abs=0.03)
    assert len(boxes) / 2000 == pytest.approx(0.5, abs=0.03)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.04)  # beta(1, 1) is uniform
    assert boxes.min() == 0
    assert boxes.max() == 64
    assert ((boxes[:, 2] >= boxes[:, 0]) & (boxes[:, 3] >= boxes[:, 1])).all()


def test_other_changes_are_drawn_as_before():
    plain, mixed = (
        draw_changes(AugmentConfig(tone=1, cut_out=1, **more), np.random.default_rng(3), (64, 64), 32, 9, 5)
        for more in ({}, {"cut_mix": 1.0})
    )
    assert plain.mix is None
    assert mixed.mix is not None
    assert (plain.tone, plain.blank_boxes, plain.crop_yx) == (mixed.tone, mixed.blank_boxes, mixed.crop_yx)


def test_the_next_sample_of_the_order_takes_part_on_any_number_of_devices(root):
    place = Location.parse(root) / "datasets" / "tiny"
    index = DatasetIndex.open(place)
    samples = index.samples_of("train", None)
    tiles = TrainingTiles(SampleReader(index, place, 1 << 24), samples, AugmentConfig(mix_up=1), 0, 32, 4)
    plain = TrainingTiles(SampleReader(index, place, 1 << 24), samples, AugmentConfig(), 0, 32, 4)

    def step(source: TrainingTiles, devices: int) -> np.ndarray:
        plan = EpochPlan(samples, SamplerConfig(), 0, 4 // devices, devices)
        order = plan.order(0)
        parts = [source.batch(plan.step(order, 0, 1, device)[0]) for device in range(devices)]
        return np.concatenate([part.layers.numpy() for part in parts])

    mixed = step(tiles, 1)
    np.testing.assert_array_equal(mixed, step(tiles, 2))
    plan = EpochPlan(samples, SamplerConfig(), 0, 4)
    first = plan.step(plan.order(0), 0, 1, 0)[0][0]
    share = tiles.batch([first]).changes[0].mix.share
    one, two = (plain.batch([each]).layers.numpy()[0].astype(float) for each in (first, first.follower))
    assert np.abs(mixed[0] - (share * one + (1 - share) * two)).max() <= 0.5 + 1e-4


@pytest.mark.parametrize(
    ("augment", "term", "normaliser", "words"),
    [
        ({"mix_up": 0.1}, "lovasz", Normaliser(), "lovasz takes yes or no"),
        ({"cut_mix": 0.1}, "bce", Normaliser(kind="robust-mad", statistics="segment"), "tiles of two segments"),
    ],
)
def test_mixes_that_mean_nothing_are_refused(root, augment, term, normaliser, words):
    index = DatasetIndex.open(Location.parse(root) / "datasets" / "tiny")
    with pytest.raises(ConfigError, match=words):
        require_mixable(index, AugmentConfig(**augment), LossConfig(terms=(LossTerm(name=term),)), normaliser)
    require_mixable(index, AugmentConfig(), LossConfig(terms=(LossTerm(name=term),)), normaliser)


def test_chances_of_more_than_one_mix_are_refused():
    with pytest.raises(ValueError, match="sum to 1 at most"):
        AugmentConfig(mix_up=0.6, cut_mix=0.6)

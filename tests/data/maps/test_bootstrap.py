"""The paired bootstrap: the same blocks for both maps, intervals that hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from inkbatch.data.maps.bootstrap import BlockCounts, compare, group_starts, shown_sign
from inkbatch.data.maps.scoring import ScoreHistogram

THRESHOLDS = {"f_beta_at_0.5": 0.5}


def blocks_of(strength, count=40, seed=0, noise_seed=None):
    """Block histograms of one labelled area; `strength` says how well the map shows the ink."""
    rng = np.random.default_rng(seed)
    noise = np.random.default_rng(noise_seed if noise_seed is not None else seed + 1)
    found = []
    for _ in range(count):
        labels = rng.random(400) < rng.uniform(0.1, 0.5)
        value = 0.5 + strength * (labels - 0.5) + 0.3 * noise.standard_normal(400)
        histogram = ScoreHistogram()
        histogram.add(np.clip(value, 0, 1), labels, np.ones(400, bool))
        found.append(histogram)
    return found


def merged(blocks) -> ScoreHistogram:
    whole = ScoreHistogram()
    for block in blocks:
        whole.merge(block)
    return whole


def compared(first, second, draws=400, seed=0):
    counts, wholes = [], []
    for blocks in (first, second):
        whole = merged(blocks)
        kept = BlockCounts(THRESHOLDS, 0.5, group_starts(whole))
        for block in blocks:
            kept.add(block)
        counts.append(kept)
        scores = {"average_precision": whole.average_precision(), "auc": whole.auc()}
        wholes.append({"f_beta_at_0.5": whole.f_beta(0.5), **scores})
    return compare(counts, wholes, draws, 0.95, seed)


def test_scores_of_a_draw_are_those_of_the_drawn_blocks_put_together():
    blocks = blocks_of(0.3, count=5)
    kept = BlockCounts(THRESHOLDS, 0.5, group_starts(merged(blocks)))
    for block in blocks:
        kept.add(block)
    weights = np.array([[1, 1, 1, 1, 1], [0, 3, 0, 2, 0]])
    found = kept.scores(weights)
    for row, times in enumerate(weights):
        whole = ScoreHistogram()
        for block, count in zip(blocks, times, strict=True):
            for _ in range(count):
                whole.merge(block)
        assert found["f_beta_at_0.5"][row] == pytest.approx(whole.f_beta(0.5), abs=1e-12)
        assert found["auc"][row] == pytest.approx(whole.auc(), abs=2e-3)
        assert found["average_precision"][row] == pytest.approx(whole.average_precision(), abs=2e-3)


def test_a_better_map_is_found_and_the_sign_turns_with_the_order():
    better, worse = blocks_of(0.5), blocks_of(0.2)
    ahead, behind = compared(better, worse), compared(worse, better)
    for name, found in ahead.items():
        assert found.low > 0, name
        assert found.low <= found.first - found.second <= found.high
        assert found.better == 1.0
        assert behind[name].high == pytest.approx(-found.low, abs=1e-9)
        assert behind[name].better == 0.0


def test_a_map_against_itself_differs_by_nothing():
    for found in compared(blocks_of(0.3), blocks_of(0.3)).values():
        assert (found.low, found.high, found.better) == (0, 0, 0.5)


def test_maps_that_are_equally_good_are_rarely_called_different():
    called = 0
    for seed in range(40):
        first, second = (blocks_of(0.3, 30, seed, noise) for noise in (2 * seed + 1000, 2 * seed + 1001))
        found = compared(first, second, draws=300, seed=seed)["auc"]
        called += not found.low <= 0 <= found.high
    assert called <= 6  # 2 are expected; 7 or more have a chance of 1 in 200


def test_equal_seeds_give_equal_intervals():
    first, second = blocks_of(0.3), blocks_of(0.25)
    assert compared(first, second, seed=3) == compared(first, second, seed=3)
    assert compared(first, second, seed=3) != compared(first, second, seed=4)


def test_a_map_whose_values_crowd_at_one_end_is_ranked_almost_exactly():
    rng = np.random.default_rng(0)
    labels = rng.random((20, 500)) < 0.3
    crowded = np.clip(1 - np.exp(-(4 + 2 * labels + rng.standard_normal(labels.shape))), 0, 1)  # most above 0.95
    blocks = []
    for values, ink in zip(crowded, labels, strict=True):
        blocks.append(ScoreHistogram())
        blocks[-1].add(values, ink, np.ones(500, bool))
    whole = merged(blocks)
    kept = BlockCounts(THRESHOLDS, 0.5, group_starts(whole))
    for block in blocks:
        kept.add(block)
    found = kept.scores(np.ones((1, 20), np.int64))
    assert found["auc"][0] == pytest.approx(whole.auc(), abs=1e-3)
    assert found["average_precision"][0] == pytest.approx(whole.average_precision(), abs=1e-3)


@pytest.mark.parametrize(
    ("low", "high", "sign"),
    [(0.1, 0.2, 1), (-0.2, -0.1, -1), (-0.1, 0.1, 0), (0.0, 0.1, 0), (None, None, 0), (math.nan, math.nan, 0)],
)
def test_an_interval_shows_a_sign_unless_it_holds_0_or_is_unknown(low, high, sign):
    assert shown_sign(low, high) == sign

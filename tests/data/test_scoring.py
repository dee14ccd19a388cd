"""Scores from histograms agree with scores from sorted pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from inkbatch.data.scoring import BINS, ScoreHistogram


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    labels = rng.random((60, 70)) < 0.3
    probability = np.clip(rng.normal(0.4 + 0.25 * labels, 0.15), 0, 1)
    return (np.round(probability * BINS) / BINS).astype(np.float64).clip(0, 1 - 1 / BINS), labels


def test_auc_is_the_mann_whitney_statistic(sample):
    probability, labels = sample
    histogram = ScoreHistogram()
    histogram.add(probability, labels, np.ones_like(labels))
    expected = mannwhitneyu(probability[labels], probability[~labels]).statistic / (labels.sum() * (~labels).sum())
    assert histogram.auc() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_f_beta_is_its_definition(sample, threshold, beta):
    probability, labels = sample
    histogram = ScoreHistogram()
    histogram.add(probability, labels, np.ones_like(labels))
    found = probability >= threshold
    hits, alarms, misses = (found & labels).sum(), (found & ~labels).sum(), (~found & labels).sum()
    square = beta * beta
    expected = (1 + square) * hits / max((1 + square) * hits + square * misses + alarms, 1)
    assert histogram.f_beta(threshold, beta) == pytest.approx(expected, abs=1e-9)
    assert histogram.best_f_beta(beta)[0] >= expected - 1e-12


def test_windows_add_up_and_uncounted_pixels_do_not_count(sample):
    probability, labels = sample
    counted = np.random.default_rng(1).random(labels.shape) < 0.5
    whole, parts = ScoreHistogram(), ScoreHistogram()
    whole.add(probability, labels, counted)
    for rows in (slice(0, 13), slice(13, 60)):
        parts.add(probability[rows], labels[rows], counted[rows])
    np.testing.assert_array_equal(whole.ink, parts.ink)
    assert whole.ink.sum() + whole.bare.sum() == counted.sum()


def test_one_class_alone_has_no_auc():
    histogram = ScoreHistogram()
    histogram.add(np.ones((2, 2)), np.ones((2, 2), bool), np.ones((2, 2), bool))
    assert math.isnan(histogram.auc())

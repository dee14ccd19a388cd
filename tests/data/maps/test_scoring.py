"""Scores from histograms are those of independent libraries, taken from sorted pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu
from sklearn import metrics
from sklearn.calibration import calibration_curve

from inkbatch.data.maps.scoring import VALUES, ScoreHistogram, auc, average_precision, f_beta, threshold_of
from inkbatch.errors import CorruptDataError


def sample(seed=0, shape=(60, 70)):
    """A map as it is stored, with many ties, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.random(shape) < 0.3
    probability = np.clip(rng.normal(0.4 + 0.25 * labels, 0.15), 0, 0.999).astype(np.float16)
    probability[:20] = np.round(probability[:20], 1)
    return probability, labels


def histogram_of(probability, labels, counted=None) -> ScoreHistogram:
    histogram = ScoreHistogram()
    histogram.add(probability, labels, np.ones_like(labels) if counted is None else counted)
    return histogram


@pytest.mark.parametrize("seed", range(5))
def test_ranking_scores_agree_with_scikit_learn_and_scipy_to_rounding(seed):
    probability, labels = sample(seed)
    histogram = histogram_of(probability, labels)
    p, t = probability.astype(np.float64).ravel(), labels.ravel()
    assert histogram.auc() == pytest.approx(metrics.roc_auc_score(t, p), abs=1e-12)
    assert histogram.average_precision() == pytest.approx(metrics.average_precision_score(t, p), abs=1e-12)
    expected = mannwhitneyu(p[t], p[~t]).statistic / (t.sum() * (~t).sum())
    assert histogram.auc() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_scores_at_a_threshold_agree_with_scikit_learn(threshold, beta):
    probability, labels = sample()
    found = histogram_of(probability, labels).scores(threshold, beta)
    t, ink = labels.ravel(), probability.astype(np.float64).ravel() >= threshold
    quiet = {"zero_division": 0.0}
    assert found["f_beta"] == pytest.approx(metrics.fbeta_score(t, ink, beta=beta, **quiet), abs=1e-12)
    assert found["dice"] == pytest.approx(metrics.f1_score(t, ink, **quiet), abs=1e-12)
    assert found["iou"] == pytest.approx(metrics.jaccard_score(t, ink, **quiet), abs=1e-12)
    assert found["precision"] == pytest.approx(metrics.precision_score(t, ink, **quiet), abs=1e-12)
    assert found["recall"] == pytest.approx(metrics.recall_score(t, ink, **quiet), abs=1e-12)


def test_the_best_threshold_is_the_best_of_all_that_differ():
    probability, labels = sample()
    precision, recall, _ = metrics.precision_recall_curve(labels.ravel(), probability.astype(np.float64).ravel())
    curve = 1.25 * precision * recall / np.maximum(0.25 * precision + recall, 1e-12)
    histogram = histogram_of(probability, labels)
    best, threshold = histogram.best_f_beta()
    assert best == pytest.approx(curve.max(), abs=1e-12)
    assert histogram.f_beta(threshold) == best


@pytest.mark.parametrize("bins", [10, 15])
def test_calibration_agrees_with_scikit_learn(bins):
    probability, labels = sample()
    p, t = probability.astype(np.float64).ravel(), labels.ravel()
    inside = (p * bins) % 1 != 0  # scikit-learn gives what lies on an edge to the bin below it
    share, confidence = calibration_curve(t[inside], p[inside], n_bins=bins)
    found = histogram_of(probability.ravel()[inside], t[inside]).reliability(bins)
    filled = found.pixels > 0
    np.testing.assert_allclose(found.share[filled], share, atol=1e-12)
    np.testing.assert_allclose(found.confidence[filled], confidence, atol=1e-12)
    assert found.pixels.sum() == inside.sum()
    pixels = np.histogram(p[inside], bins, (0, 1))[0]
    assert found.error == pytest.approx(np.average(np.abs(share - confidence), weights=pixels[pixels > 0]), abs=1e-12)


def test_a_certain_pixel_belongs_to_the_last_bin():
    found = histogram_of(np.array([1.0, 1.0, 0.0]), np.array([True, False, False])).reliability(4)
    assert found.pixels.tolist() == [1, 0, 0, 2]
    assert found.share[3] == 0.5
    assert found.error == pytest.approx((0 + 2 * 0.5) / 3)


def test_psnr_follows_from_the_mean_squared_error():
    probability, labels = sample()
    error = metrics.mean_squared_error(labels.astype(np.float64), probability.astype(np.float64))
    assert histogram_of(probability, labels).psnr() == pytest.approx(-10 * math.log10(error), abs=1e-9)
    assert histogram_of(labels.astype(np.float16), labels).psnr() == math.inf


@given(st.integers(0, 60), st.integers(0, 70), st.integers(0, 2**16))
def test_parts_add_up_to_the_whole_whatever_the_cuts(y, x, seed):
    probability, labels = sample(seed % 7)
    counted = np.random.default_rng(seed).random(labels.shape) < 0.5
    parts = ScoreHistogram()
    for rows in (slice(0, y), slice(y, None)):
        for columns in (slice(0, x), slice(x, None)):
            part = histogram_of(probability[rows, columns], labels[rows, columns], counted[rows, columns])
            parts.merge(part)
    whole = histogram_of(probability, labels, counted)
    np.testing.assert_array_equal(whole.ink, parts.ink)
    np.testing.assert_array_equal(whole.bare, parts.bare)
    assert whole.counted == counted.sum()


def test_stacks_of_histograms_are_scored_at_once():
    histograms = [histogram_of(*sample(seed)) for seed in range(3)]
    ink, bare = (np.stack([getattr(h, name) for h in histograms]) for name in ("ink", "bare"))
    np.testing.assert_array_equal(auc(ink, bare), [h.auc() for h in histograms])
    np.testing.assert_array_equal(average_precision(ink, bare), [h.average_precision() for h in histograms])
    counts = np.array([h.found(0.5) for h in histograms]).T
    np.testing.assert_array_equal(f_beta(*counts), [h.f_beta(0.5) for h in histograms])


def test_one_class_alone_has_no_auc():
    only_ink = histogram_of(np.ones((2, 2)), np.ones((2, 2), bool))
    assert math.isnan(only_ink.auc())
    assert math.isnan(histogram_of(np.ones((2, 2)), np.zeros((2, 2), bool)).average_precision())
    assert math.isnan(ScoreHistogram().psnr())


@pytest.mark.parametrize("wrong", [1.5, -0.2, np.nan])
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(CorruptDataError, match="map A: expected a probability from 0 to 1"):
        ScoreHistogram().add(np.array([0.5, wrong]), np.array([True, False]), np.ones(2, bool), "map A")


def test_values_are_all_that_float16_has_from_0_to_1():
    assert (VALUES[0], VALUES[-1], len(VALUES)) == (0.0, 1.0, 15_361)
    assert (np.diff(VALUES) > 0).all()


@pytest.mark.parametrize("recall", [0.5, 0.8, 1.0])
def test_alarms_are_counted_at_the_highest_threshold_with_the_recall(recall):
    probability, labels = sample()
    threshold, alarms = histogram_of(probability, labels).alarms_at_recall(recall)
    found = probability >= np.float16(threshold)
    assert (found & labels).sum() >= recall * labels.sum()
    assert (probability > np.float16(threshold))[labels].sum() < recall * labels.sum()
    assert alarms == pytest.approx(found[~labels].mean())


def test_without_ink_there_is_no_recall_and_so_no_alarm():
    probability, labels = sample()
    assert all(math.isnan(value) for value in histogram_of(probability, np.zeros_like(labels)).alarms_at_recall())


def test_a_threshold_of_0_is_a_stated_one():
    assert threshold_of(None, 0.0, 0.7) == 0.0
    assert threshold_of(None, 0.7) == 0.7
    assert threshold_of(None, None) == threshold_of() == 0.5

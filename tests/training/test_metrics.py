"""Scores against an independent implementation, and stitching against a map that is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from inkbatch.data.maps.scoring import ScoreHistogram
from inkbatch.geometry import Box
from inkbatch.training.metrics import OVERALL, scores, table
from inkbatch.training.stitching import Rows, RowStitcher


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    labels = rng.random((60, 50)) > 0.7
    probability = np.clip(rng.normal(0.35 + 0.3 * labels, 0.2), 0, 0.999).astype(np.float16)
    counted = rng.random((60, 50)) > 0.2
    return probability.astype(np.float32), labels, counted


def histogram_of(probability, labels, counted) -> ScoreHistogram:
    histogram = ScoreHistogram()
    for rows in (slice(0, 23), slice(23, 60)):
        histogram.add(probability[rows], labels[rows], counted[rows])
    return histogram


def test_scores_agree_with_scikit_learn(maps):
    found = scores(histogram_of(*maps))
    probability, labels, counted = maps
    p, t = probability[counted], labels[counted]
    ink = p >= found["threshold"] - 1e-6
    expected = {
        "f05": metrics.fbeta_score(t, ink, beta=0.5),
        "dice": metrics.f1_score(t, ink),
        "iou": metrics.jaccard_score(t, ink),
        "precision": metrics.precision_score(t, ink),
        "recall": metrics.recall_score(t, ink),
        "average_precision": metrics.average_precision_score(t, p),
        "auc": metrics.roc_auc_score(t, p),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_no_other_threshold_has_a_better_f05(maps):
    histogram = histogram_of(*maps)
    best = scores(histogram)["f05"]
    assert best >= max(scores(histogram, threshold)["f05"] for threshold in np.linspace(0, 1, 99))


def test_segments_are_taken_at_the_overall_threshold(maps):
    probability, labels, counted = maps
    bright = histogram_of(np.minimum(probability + 0.2, 0.9), labels, counted)
    rows = table({"a": histogram_of(*maps), "b": bright})
    assert list(rows) == [OVERALL, "a", "b"]
    assert rows["a"]["threshold"] == rows["b"]["threshold"] == rows[OVERALL]["threshold"]
    assert rows["a"] == scores(histogram_of(*maps), rows[OVERALL]["threshold"])


def test_a_map_without_ink_has_no_average_precision():
    histogram = ScoreHistogram()
    histogram.add(np.full((2, 2), 0.5, np.float32), np.zeros((2, 2), bool), np.ones((2, 2), bool))
    found = scores(histogram)
    assert np.isnan(found["average_precision"])
    assert np.isnan(found["auc"])
    assert found["f05"] == 0


def test_overlapping_tiles_are_counted_once_and_averaged():
    blocks: list[Rows] = []
    stitcher = RowStitcher(10, 18, blocks.append)
    window = np.ones((4, 4), np.float32)
    truth, counted = np.zeros((4, 4), np.float32), np.ones((4, 4), bool)
    boxes = [Box(-2, 10, 2, 14), Box(-2, 12, 2, 16), Box(1, 14, 5, 18), Box(9, 10, 13, 14)]
    for value, box in enumerate(boxes):
        stitcher.add(box, np.full((4, 4), value, np.float32), window * (value + 1), truth, counted)
    stitcher.close()
    assert [(block.y0, len(block.probability)) for block in blocks] == [(-2, 3), (1, 4), (9, 4)]
    first = blocks[0]
    np.testing.assert_allclose(first.probability[0], [0, 0, 2 / 3, 2 / 3, 1, 1, 0, 0])
    assert first.counted[0].tolist() == [True] * 6 + [False] * 2
    np.testing.assert_allclose(blocks[1].probability[0], [0, 0, 2 / 3, 2 / 3, 8 / 5, 8 / 5, 2, 2])
    assert sum(int(block.counted.sum()) for block in blocks) == 4 * 6 + 4 * 4 - 2 + 4 * 4


def test_a_tile_above_finished_rows_is_refused():
    stitcher = RowStitcher(0, 4, lambda rows: None)
    tile = np.ones((4, 4), np.float32)
    stitcher.add(Box(8, 0, 12, 4), tile, tile, tile, tile > 0)
    with pytest.raises(ValueError, match="tile at row 4 comes after rows up to 8 were handed on"):
        stitcher.add(Box(4, 0, 8, 4), tile, tile, tile, tile > 0)

"""Scores of an ink map from streamed histograms: F0.5 and its best threshold, Dice, IoU, AP, AUC, precision, recall.

Thresholds fall on the histogram's bin edges; all scores but AP and AUC are taken at one threshold.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from inkbatch.data.scoring import BINS, ScoreHistogram

SCORES = ("f05", "threshold", "dice", "iou", "precision", "recall", "average_precision", "auc")
OVERALL = "overall"


def average_precision(histogram: ScoreHistogram) -> float:
    """Sum over falling thresholds of precision times the gain in recall; NaN where there is no ink."""
    hits = np.cumsum(histogram.ink[::-1]).astype(np.float64)
    found = hits + np.cumsum(histogram.bare[::-1])
    if not hits[-1]:
        return float("nan")
    gains = np.diff(hits, prepend=0.0) / hits[-1]
    return float((gains * hits / np.maximum(found, 1)).sum())


def scores(histogram: ScoreHistogram, threshold: float | None = None) -> dict[str, float]:
    """All scores of one histogram.

    Args:
        histogram: Counted pixels.
        threshold: Probability from which a pixel counts as ink; None takes the one with the best F0.5.

    Returns:
        A value for each name in `SCORES`; NaN where a class is missing and a score needs it.
    """
    best = histogram.best_f_beta()[1] if threshold is None else threshold
    first = min(BINS, max(0, round(best * BINS)))
    hits, alarms = int(histogram.ink[first:].sum()), int(histogram.bare[first:].sum())
    misses = int(histogram.ink.sum()) - hits
    return {
        "f05": histogram.f_beta(best),
        "threshold": best,
        "dice": _ratio(2 * hits, 2 * hits + misses + alarms),
        "iou": _ratio(hits, hits + misses + alarms),
        "precision": _ratio(hits, hits + alarms),
        "recall": _ratio(hits, hits + misses),
        "average_precision": average_precision(histogram),
        "auc": histogram.auc(),
    }


def added(histograms: Mapping[str, ScoreHistogram]) -> ScoreHistogram:
    """All segments together."""
    total = ScoreHistogram()
    for histogram in histograms.values():
        total.ink += histogram.ink
        total.bare += histogram.bare
    return total


def table(histograms: Mapping[str, ScoreHistogram]) -> dict[str, dict[str, float]]:
    """Scores per segment and under `OVERALL`; the segments are taken at the overall best threshold."""
    overall = scores(added(histograms))
    rows = {name: scores(histogram, overall["threshold"]) for name, histogram in sorted(histograms.items())}
    return {OVERALL: overall, **rows}


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0

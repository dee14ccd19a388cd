"""Scores of an ink map from streamed histograms: F0.5 and its best threshold, Dice, IoU, AP, AUC, precision, recall.

All scores but AP and AUC are taken at one threshold.
"""

from __future__ import annotations

from collections.abc import Mapping

from inkbatch.data.maps.scoring import ScoreHistogram

SCORES = ("f05", "threshold", "dice", "iou", "precision", "recall", "average_precision", "auc")
OVERALL = "overall"


def scores(histogram: ScoreHistogram, threshold: float | None = None) -> dict[str, float]:
    """Compute all scores of one histogram.

    Args:
        histogram: Counted pixels.
        threshold: Probability from which a pixel counts as ink; None takes the one with the best F0.5.

    Returns:
        A value for each name in `SCORES`; NaN where a class is missing and a score needs it.
    """
    best = histogram.best_f_beta()[1] if threshold is None else threshold
    found = histogram.scores(best)
    found["f05"] = found.pop("f_beta")
    values = {**found, "average_precision": histogram.average_precision(), "auc": histogram.auc()}
    return {name: values[name] for name in SCORES}


def added(histograms: Mapping[str, ScoreHistogram]) -> ScoreHistogram:
    """Add up the histograms of all segments."""
    total = ScoreHistogram()
    for histogram in histograms.values():
        total.merge(histogram)
    return total


def table(histograms: Mapping[str, ScoreHistogram]) -> dict[str, dict[str, float]]:
    """Compute scores per segment and under `OVERALL`; segments are scored at the overall best threshold."""
    overall = scores(added(histograms))
    rows = {name: scores(histogram, overall["threshold"]) for name, histogram in sorted(histograms.items())}
    return {OVERALL: overall, **rows}

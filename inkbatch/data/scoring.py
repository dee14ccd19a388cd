"""How good an ink map is against labels: AUC and F-beta from histograms, so that any size streams by.

Probabilities are binned into `BINS` equal bins; AUC treats ties inside a bin as half (the Mann-Whitney rule),
thresholds fall on bin edges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 4096


@dataclass
class ScoreHistogram:
    """Counts of probabilities on ink and on bare papyrus.

    Attributes:
        ink: Pixels labelled ink, per bin.
        bare: Pixels labelled bare, per bin.
    """

    ink: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    bare: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, probability: NDArray[Any], labels: NDArray[np.bool_], counted: NDArray[np.bool_]) -> None:
        """Count one window.

        Args:
            probability: (Y, X) in [0, 1].
            labels: True where there is ink.
            counted: True where pixels count (mask, not ignored).
        """
        bins = np.clip((probability.astype(np.float32) * BINS).astype(np.int64), 0, BINS - 1)
        self.ink += np.bincount(bins[counted & labels], minlength=BINS)
        self.bare += np.bincount(bins[counted & ~labels], minlength=BINS)

    def auc(self) -> float:
        """Area under the ROC curve; NaN where one class is missing."""
        ink, bare = self.ink.sum(), self.bare.sum()
        if not ink or not bare:
            return float("nan")
        below = np.cumsum(self.bare) - self.bare
        return float((self.ink * (below + self.bare / 2)).sum() / (ink * bare))

    def f_beta(self, threshold: float, beta: float = 0.5) -> float:
        """F-beta of ``probability >= threshold``; 0 where nothing is found."""
        first = min(BINS, max(0, round(threshold * BINS)))
        return float(self._f_beta_curve(beta)[first]) if first < BINS else 0.0

    def best_f_beta(self, beta: float = 0.5) -> tuple[float, float]:
        """(best F-beta, its threshold)."""
        curve = self._f_beta_curve(beta)
        best = int(np.argmax(curve))
        return float(curve[best]), best / BINS

    def _f_beta_curve(self, beta: float) -> NDArray[np.float64]:
        hits = np.cumsum(self.ink[::-1])[::-1]
        alarms = np.cumsum(self.bare[::-1])[::-1]
        misses = self.ink.sum() - hits
        square = beta * beta
        curve: NDArray[np.float64] = (1 + square) * hits / np.maximum((1 + square) * hits + square * misses + alarms, 1)
        return curve

"""Scores of an ink map against labels, from exact histograms, so that maps of any size can be streamed.

Maps are stored as float16, which has 15,361 values from 0 to 1. Pixels are counted per stored value and label; hence
every score here equals the one taken from sorted pixels, ties included, and histograms of parts add up to that of the
whole. Probabilities of another dtype are rounded to float16 first.

A pixel is found where its probability reaches the threshold (inclusive). The last axis of all histograms runs over the
stored values, so that whole stacks of histograms (regions, resamples) are scored at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.io.pictures.tones import CODES, half_codes

BINS = CODES
DEFAULT_THRESHOLD = 0.5  # where neither the bundle nor the user states one
RECALL = 0.8  # at which alarms on blank ground are counted
ALARMS = f"alarms_at_recall_{RECALL:g}"  # key of their share in documents and tables
AT_RECALL = f"threshold_at_recall_{RECALL:g}"
VALUES: NDArray[np.float64] = np.arange(BINS, dtype=np.uint16).view(np.float16).astype(np.float64)
_CODE_BITS = 14  # next bit: label of a pixel; the one above: pixel does not count
_LABELLED, _COUNTED = 1 << _CODE_BITS, 1 << (_CODE_BITS + 1)
MOST_AT_ONCE = 1 << 23  # OpenCV counts in float32, which is exact up to 2^24

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


def threshold_of(*stated: float | None) -> float:
    """Return the first threshold that is stated, be it 0; else the default."""
    return next((threshold for threshold in stated if threshold is not None), DEFAULT_THRESHOLD)


@dataclass(frozen=True)
class Reliability:
    """Reliability curve: share of ink by predicted probability.

    Attributes:
        confidence: Mean probability of the pixels in each bin; NaN where it is empty.
        share: Share of them that is ink; NaN where it is empty.
        pixels: Their number.
        error: Expected calibration error: mean of ``|share - confidence|`` over all pixels.
    """

    confidence: Floats
    share: Floats
    pixels: Counts
    error: float


@dataclass
class ScoreHistogram:
    """Counts of probabilities on ink and on bare papyrus.

    Attributes:
        ink: Pixels labelled ink, per stored value.
        bare: Pixels labelled bare, per stored value.
    """

    ink: Counts = field(default_factory=lambda: np.zeros(BINS, np.int64))
    bare: Counts = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(
        self,
        probability: NDArray[Any],
        labels: NDArray[np.bool_],
        counted: NDArray[np.bool_],
        place: str = "probability",
    ) -> None:
        """Count one box.

        Args:
            probability: (Y, X) in [0, 1].
            labels: True where there is ink.
            counted: True where pixels count (mask, not ignored).
            place: Source of the probability, for messages.

        Raises:
            CorruptDataError: A probability is not a number, or outside [0, 1].
        """
        bare, ink = score_counts(probability, labels, counted, place)
        self.bare += bare
        self.ink += ink

    def merge(self, other: ScoreHistogram) -> None:
        """Add another part's counts."""
        self.ink += other.ink
        self.bare += other.bare

    @property
    def counted(self) -> int:
        """Pixels that were counted."""
        return int(self.ink.sum() + self.bare.sum())

    def auc(self) -> float:
        """Return the area under the ROC curve; NaN if one class is missing."""
        return float(auc(self.ink, self.bare))

    def average_precision(self) -> float:
        """Return average precision: the sum over thresholds of precision times the gain in recall; NaN without ink."""
        return float(average_precision(self.ink, self.bare))

    def found(self, threshold: float) -> tuple[int, int, int]:
        """Count (hits, false alarms, misses) of ``probability >= threshold``."""
        first = int(np.searchsorted(VALUES, threshold))
        hits, alarms = int(self.ink[first:].sum()), int(self.bare[first:].sum())
        return hits, alarms, int(self.ink.sum()) - hits

    def f_beta(self, threshold: float, beta: float = 0.5) -> float:
        """Return F-beta of ``probability >= threshold``; 0 if nothing is found."""
        hits, alarms, misses = (np.array(count) for count in self.found(threshold))
        return float(f_beta(hits, alarms, misses, beta))

    def best_f_beta(self, beta: float = 0.5) -> tuple[float, float]:
        """Find (best F-beta, its threshold); the lowest of equally good thresholds."""
        curve = self.f_beta_curve(beta)
        best = int(np.argmax(curve))
        return float(curve[best]), float(VALUES[best])

    def f_beta_curve(self, beta: float = 0.5) -> Floats:
        """Return F-beta at every threshold of `VALUES`."""
        hits = np.cumsum(self.ink[::-1])[::-1]
        alarms = np.cumsum(self.bare[::-1])[::-1]
        return f_beta(hits, alarms, self.ink.sum() - hits, beta)

    def precision_recall(self) -> tuple[Floats, Floats]:
        """Return (precision, recall) at every threshold of `VALUES`; precision is 1 where nothing is found."""
        hits = np.cumsum(self.ink[::-1])[::-1]
        found = hits + np.cumsum(self.bare[::-1])[::-1]
        precision = np.divide(hits, found, out=np.ones(BINS), where=found > 0)
        return precision, hits / max(int(hits[0]), 1)

    def alarms_at_recall(self, recall: float = RECALL) -> tuple[float, float]:
        """Find (threshold, share of the bare pixels that are found) at the highest threshold with this recall.

        Both are NaN without ink; the share is NaN without bare pixels.
        """
        hits = np.cumsum(self.ink[::-1])[::-1]
        if not hits[0]:
            return float("nan"), float("nan")
        first = int(np.flatnonzero(hits >= recall * hits[0])[-1])
        bare = int(self.bare.sum())
        return float(VALUES[first]), int(self.bare[first:].sum()) / bare if bare else float("nan")

    def psnr(self) -> float:
        """Return the peak signal-to-noise ratio in dB of the map against its labels as a picture of 0 and 1.

        ``10 log10(1 / mean squared difference)``; infinite for a perfect map, NaN without pixels.
        """
        if not self.counted:
            return float("nan")
        error = float((self.ink * (1 - VALUES) ** 2 + self.bare * VALUES**2).sum()) / self.counted
        return float("inf") if error == 0 else float(-10 * np.log10(error))

    def reliability(self, bins: int = 15) -> Reliability:
        """Return the reliability curve over equal bins of probability; a bin holds its lower edge, the last one both.

        The expected calibration error is the mean of ``|share of ink - mean probability|`` of the bins, weighted by
        their pixels (Naeini et al. 2015, with the probability of ink instead of that of the likelier class).
        """
        both = self.ink + self.bare
        starts = np.searchsorted(VALUES, np.linspace(0, 1, bins + 1)[:-1])
        pixels, ink, mass = (np.add.reduceat(values, starts) for values in (both, self.ink, both * VALUES))
        share, confidence = (
            np.divide(sums, pixels, out=np.full(bins, np.nan), where=pixels > 0) for sums in (ink, mass)
        )
        error = float(np.abs(ink - mass).sum() / pixels.sum()) if pixels.sum() else float("nan")
        return Reliability(confidence, share, pixels, error)

    def scores(self, threshold: float, beta: float = 0.5) -> dict[str, float]:
        """Return the scores that depend on a threshold."""
        hits, alarms, misses = self.found(threshold)
        return {
            "threshold": threshold,
            "f_beta": self.f_beta(threshold, beta),
            "dice": _ratio(2 * hits, 2 * hits + misses + alarms),
            "iou": _ratio(hits, hits + misses + alarms),
            "precision": _ratio(hits, hits + alarms),
            "recall": _ratio(hits, hits + misses),
        }


def score_counts(
    probability: NDArray[Any], labels: NDArray[np.bool_], counted: NDArray[np.bool_], place: str = "probability"
) -> NDArray[np.uint32]:
    """Count one box; the arguments are those of `ScoreHistogram.add`.

    Returns:
        (2, BINS): pixels labelled bare, then those labelled ink, per stored value.

    Raises:
        CorruptDataError: A probability is not a number, or outside [0, 1].
    """
    half = np.asarray(probability, np.float16)
    found = np.zeros((2, BINS), np.uint32)
    rows = max(1, MOST_AT_ONCE // max(half.shape[-1], 1))
    for start in range(0, len(half), rows):
        part = slice(start, start + rows)
        keys = _keys(half_codes(half[part], place), labels[part], counted[part])
        counts = cv2.calcHist([keys.reshape(len(keys), -1)], [0], None, [_COUNTED], [0, _COUNTED]).reshape(2, _LABELLED)
        np.add(found, counts[:, :BINS], out=found, casting="unsafe")  # whole numbers below 2^24
    return found


def _keys(codes: NDArray[np.uint16], labels: NDArray[np.bool_], counted: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Return one key per pixel, from `_COUNTED` on for pixels that do not count; each pass is vectorised."""
    flags = labels.view(np.uint8)
    if not counted.all():
        flags = flags | np.left_shift((~counted).view(np.uint8), np.uint8(1))
    keys = flags.astype(np.uint16)
    keys <<= _CODE_BITS
    keys |= codes
    return keys


def f_beta(hits: NDArray[Any], alarms: NDArray[Any], misses: NDArray[Any], beta: float = 0.5) -> Floats:
    """Compute F-beta from counts: ``(1 + b²) hits / ((1 + b²) hits + b² misses + false alarms)``."""
    square = beta * beta
    below = (1 + square) * hits + square * misses + alarms
    found: Floats = np.divide((1 + square) * hits, below, out=np.zeros(np.shape(below)), where=below > 0)
    return found


def auc(ink: NDArray[Any], bare: NDArray[Any]) -> Floats:
    """Compute the area under the ROC curve of histograms (…, values) by Mann and Whitney: a tie counts half."""
    below = np.cumsum(bare, axis=-1, dtype=np.float64) - bare / 2
    pairs = ink.sum(axis=-1, dtype=np.float64) * bare.sum(axis=-1, dtype=np.float64)
    wins = (ink * below).sum(axis=-1)
    found: Floats = np.divide(wins, pairs, out=np.full(np.shape(pairs), np.nan), where=pairs > 0)
    return found


def average_precision(ink: NDArray[Any], bare: NDArray[Any]) -> Floats:
    """Compute average precision of histograms (…, values): sum of precision times the gain in recall."""
    falling = ink[..., ::-1].astype(np.float64)
    hits = np.cumsum(falling, axis=-1)
    found = hits + np.cumsum(bare[..., ::-1], axis=-1, dtype=np.float64)
    area = (falling * hits / np.maximum(found, 1e-300)).sum(axis=-1)
    total = hits[..., -1]
    result: Floats = np.divide(area, total, out=np.full(np.shape(total), np.nan), where=total > 0)
    return result


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0

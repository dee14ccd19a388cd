"""Paired bootstrap over blocks of a segment, which tells a better map from chance.

Neighbouring pixels resemble each other, so pixels must not be drawn one by one: whole blocks are drawn, with
replacement, the same ones for both maps, as many as there are (Efron and Tibshirani 1993, chapter 8). The spread of the
difference over many draws says how much it would vary with other papyrus like this.

Thresholds stay what they are on the whole map. Ranking scores of the draws are taken from about a thousand groups of
neighbouring values, each with as many pixels as any other; those of the whole map are exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.maps.scoring import BINS, ScoreHistogram, auc, average_precision, f_beta

GROUPS = 1024
DRAWS_AT_ONCE = 64

Floats = NDArray[np.float64]


def shown_sign(low: float | None, high: float | None) -> Literal[-1, 0, 1]:
    """Return the sign that an interval of a difference shows; 0 where it holds 0 or is unknown (None or NaN).

    Args:
        low: Lower end of the interval of ``first - second``.
        high: Upper end.
    """
    if low is None or high is None:
        return 0
    return 1 if low > 0 else -1 if high < 0 else 0


@dataclass(frozen=True)
class Difference:
    """One score of two maps.

    Attributes:
        first: Score of the first map.
        second: Score of the second one.
        low: Lower end of the interval of ``first - second``.
        high: Upper end.
        better: Share of the draws in which the first one is better; a tie counts half.
    """

    first: float
    second: float
    low: float
    high: float
    better: float

    @property
    def document(self) -> dict[str, float]:
        """Stored form."""
        return {
            "first": self.first,
            "second": self.second,
            "difference": self.first - self.second,
            "low": self.low,
            "high": self.high,
            "first_better_share": self.better,
        }


def group_starts(total: ScoreHistogram) -> NDArray[np.int64]:
    """Cut the values into about `GROUPS` groups with equal shares of ink and papyrus; returns their first codes."""
    mass = total.ink / max(int(total.ink.sum()), 1) + total.bare / max(int(total.bare.sum()), 1)
    number = ((np.cumsum(mass) - mass) / mass.sum() * GROUPS).astype(np.int64) if mass.any() else np.arange(BINS)
    return np.flatnonzero(np.diff(number, prepend=-1))


@dataclass
class BlockCounts:
    """Counts of the blocks of one map.

    Attributes:
        thresholds: By name of the score, the threshold that it is taken at.
        beta: Of F-beta.
        starts: First code of each group of values.
        found: Per block, per threshold: hits, false alarms, misses.
        coarse: Per block: (2, groups) pixels on ink and on bare papyrus.
    """

    thresholds: Mapping[str, float]
    beta: float
    starts: NDArray[np.int64]
    found: list[list[tuple[int, int, int]]] = field(default_factory=list)
    coarse: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, block: ScoreHistogram) -> None:
        """Keep a block's counts."""
        self.found.append([block.found(threshold) for threshold in self.thresholds.values()])
        grouped = np.add.reduceat(np.stack([block.ink, block.bare]), self.starts, axis=1)
        self.coarse.append(grouped.astype(np.float32))

    def scores(self, weights: NDArray[np.int64]) -> dict[str, Floats]:
        """Score draws; `weights` (draws, blocks) says how often each block was drawn."""
        hits, alarms, misses = np.tensordot(weights, np.array(self.found, np.int64), axes=1).transpose(2, 1, 0)
        found = {
            name: f_beta(hits[number], alarms[number], misses[number], self.beta)
            for number, name in enumerate(self.thresholds)
        }
        blocks = np.stack(self.coarse)
        ranking: list[tuple[Floats, Floats]] = []
        for start in range(0, len(weights), DRAWS_AT_ONCE):
            ink, bare = np.tensordot(
                weights[start : start + DRAWS_AT_ONCE].astype(np.float64), blocks, axes=1
            ).transpose(1, 0, 2)
            ranking.append((average_precision(ink, bare), auc(ink, bare)))
        found["average_precision"], found["auc"] = (np.concatenate(parts) for parts in zip(*ranking, strict=True))
        return found


def compare(
    maps: Sequence[BlockCounts], whole: Sequence[Mapping[str, float]], draws: int, level: float, seed: int
) -> dict[str, Difference]:
    """Compare two maps, score by score.

    Args:
        maps: Both maps' blocks, in one order.
        whole: Both maps' scores on everything, by the same names.
        draws: Number of draws.
        level: Of the interval, for example 0.95.
        seed: Of the draws.
    """
    count = len(maps[0].coarse)
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    first, second = (blocks.scores(weights) for blocks in maps)
    tails = (1 - level) / 2
    result = {}
    for name in first:
        delta = first[name] - second[name]
        delta = delta[np.isfinite(delta)]
        low, high = np.quantile(delta, [tails, 1 - tails]) if len(delta) else (np.nan, np.nan)
        better = (np.mean(delta > 0) + np.mean(delta == 0) / 2) if len(delta) else np.nan
        result[name] = Difference(whole[0][name], whole[1][name], float(low), float(high), float(better))
    return result

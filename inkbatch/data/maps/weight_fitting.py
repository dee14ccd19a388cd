"""Weights and threshold of an ensemble, fitted on a labelled area.

The weights are hundredths that sum up to one. The search starts from equal weights and from each map alone, and moves
hundredths from one map to another as long as that makes the best score better: 20 at a time, then 10, 5, 2 and 1. It
holds at most `FitRules.pixels` pixels, the same ones on every machine, and adds in one order, so that every shard finds
the same weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from inkbatch.data.datasets.trained_pixels import TrainedPixels
from inkbatch.data.maps.area import area_box
from inkbatch.data.maps.combining import Codes, Combination
from inkbatch.data.maps.scoring import f_beta
from inkbatch.data.maps.stored import StoredMap
from inkbatch.data.maps.truth import Truth, TruthChoice
from inkbatch.errors import DataError
from inkbatch.geometry import Box, cut
from inkbatch.text import share_text

BETAS = {"f05": 0.5, "dice": 1.0}
STEPS = (20, 10, 5, 2, 1)
SCORE_BINS = 2048
READ_PX = 1024
_HASH = np.uint64(0x9E3779B97F4A7C15)  # Knuth's multiplicative hash: 2^64 over the golden ratio, made odd


class FitRules(BaseModel):
    """Rules for fitting weights.

    Attributes:
        labels: See `TruthChoice`.
        white: See `TruthChoice`.
        ignore: See `TruthChoice`.
        area: The labelled area as y0, x0, y1, x1 in pixels, half-open; None takes the whole segment.
        metric: ``f05``, or ``dice``; at its best threshold.
        pixels: At most about so many pixels are used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: str | None = None
    white: float | None = Field(None, gt=0)
    ignore: str | None = None
    area: tuple[int, int, int, int] | None = None
    metric: Literal["f05", "dice"] = "f05"
    pixels: int = Field(1_000_000, ge=1_000, le=20_000_000)

    def choice(self, catalog: str | None) -> TruthChoice:
        """Return the labels to fit to."""
        return TruthChoice(self.labels, self.white, self.ignore, catalog)


@dataclass(frozen=True)
class Fit:
    """Fitted weights and threshold.

    Attributes:
        weights: One per map.
        threshold: The best threshold of the weighted map.
        score: Its score there.
        equal: (score, threshold) with equal weights.
        alone: (score, threshold) of each map alone.
        pixels: Pixels that were used.
        ink_pixels: Those of them that are ink.
        trained_share: Share of the labelled pixels that trained a member's network, and were left out.
    """

    weights: tuple[float, ...]
    threshold: float
    score: float
    equal: tuple[float, float]
    alone: tuple[tuple[float, float], ...]
    pixels: int
    ink_pixels: int
    trained_share: float = 0.0

    def document(self, names: Sequence[str], metric: str) -> dict[str, Any]:
        """Return the stored form."""
        return {
            "metric": metric,
            "weights": dict(zip(names, self.weights, strict=True)),
            "threshold": self.threshold,
            "score": self.score,
            "equal_weights": {"score": self.equal[0], "threshold": self.equal[1]},
            "each_alone": {
                name: {"score": score, "threshold": threshold}
                for name, (score, threshold) in zip(names, self.alone, strict=True)
            },
            "pixels": self.pixels,
            "ink_pixels": self.ink_pixels,
            **({"trained_share": self.trained_share} if self.trained_share else {}),
        }


def fit(maps: Sequence[StoredMap], rule: Combination, truth: Truth, rules: FitRules) -> Fit:
    """Find weights and threshold.

    Raises:
        ConfigError: The area leaves the segment.
        DataError: The area holds no labelled ink, or nothing else, outside the pixels that trained a member.
    """
    codes, ink, trained = _sampled(maps, truth, rules)
    if trained and (not ink.any() or ink.all()):
        raise DataError(
            f"labels {truth.place}: {share_text(trained)} of the area for the weights trained a member's network, and "
            "the rest does not hold both ink and bare papyrus; state another area with fit.area, or give --weight"
        )
    if not ink.any() or ink.all():
        found = "no ink" if not ink.any() else "nothing but ink"
        raise DataError(
            f"labels {truth.place}: the area for the weights holds {found} ({len(ink)} pixels that count); choose an "
            "area with both, or state the value of certain ink with fit.white"
        )
    search = _Search(codes, ink, rule, BETAS[rules.metric])
    count = len(maps)
    alone = [tuple(100 if number == own else 0 for number in range(count)) for own in range(count)]
    equal = tuple(100 // count + (number < 100 % count) for number in range(count))
    best = max((search.climb(start) for start in [equal, *alone]), key=lambda found: found[1][0])
    (score, threshold), weights = best[1], best[0]
    return Fit(
        tuple(weight / 100 for weight in weights),
        threshold,
        score,
        search.score(equal),
        tuple(search.score(start) for start in alone),
        len(ink),
        int(ink.sum()),
        trained,
    )


class _Search:
    """Scores of weights on sampled pixels; each is computed once."""

    def __init__(self, codes: list[Codes], ink: NDArray[np.bool_], rule: Combination, beta: float) -> None:
        self.values = [table[part] for table, part in zip(rule.tables, codes, strict=True)]
        self.rule, self.beta = rule, beta
        self.offset = np.where(ink, SCORE_BINS, 0)
        self.low = min(float(table.min()) for table in rule.tables)
        self.high = max(float(table.max()) for table in rule.tables)
        self.known: dict[tuple[int, ...], tuple[float, float]] = {}

    def score(self, hundredths: tuple[int, ...]) -> tuple[float, float]:
        """Return (best score, its threshold) of weights in hundredths."""
        if hundredths not in self.known:
            rule = replace(self.rule, weights=tuple(weight / 100 for weight in hundredths))
            share = (rule.total(self.values) - np.float32(self.low)) / np.float32(self.high - self.low)
            bins = np.clip((share * SCORE_BINS).astype(np.int64), 0, SCORE_BINS - 1)
            counts = np.bincount(bins + self.offset, minlength=2 * SCORE_BINS).reshape(2, SCORE_BINS)
            alarms, hits = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
            curve = f_beta(hits, alarms, hits[0] - hits, self.beta)
            best = int(np.argmax(curve))
            edge = np.array([self.low + (self.high - self.low) * best / SCORE_BINS], np.float32)
            self.known[hundredths] = float(curve[best]), float(rule.finish(edge)[0])
        return self.known[hundredths]

    def climb(self, start: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[float, float]]:
        """Find the best weights that can be reached from `start`."""
        here = start
        for step in STEPS:
            while True:
                moved = [_moved(here, pair, step) for pair in itertools.permutations(range(len(here)), 2)]
                better = max((way for way in moved if way), key=lambda way: self.score(way)[0], default=here)
                if self.score(better)[0] <= self.score(here)[0]:
                    break
                here = better
        return here, self.score(here)


def _moved(weights: tuple[int, ...], pair: tuple[int, int], step: int) -> tuple[int, ...] | None:
    if weights[pair[0]] < step:
        return None
    changed = list(weights)
    changed[pair[0]] -= step
    changed[pair[1]] += step
    return tuple(changed)


def _sampled(maps: Sequence[StoredMap], truth: Truth, rules: FitRules) -> tuple[list[Codes], NDArray[np.bool_], float]:
    """Read codes per map, and labels, of sampled pixels that count and trained no member; and the share that did."""
    trained = TrainedPixels.together(one.trained_on for one in maps)
    labelled = seen = 0
    whole = Box(0, 0, *truth.shape_yx)
    area = area_box(rules.area, truth.shape_yx)
    share = min(1.0, rules.pixels / area.area)
    limit = np.uint64(int(share * (2**32 - 1)))
    found: list[list[Codes]] = [[] for _ in maps]
    labels: list[NDArray[np.bool_]] = []
    for square in cut(truth.shape_yx, READ_PX, READ_PX):
        box = square.intersect(area)
        if not box.area:
            continue
        ink, counted = truth.read(box)
        learnt = counted & trained.trained(box)
        labelled, seen = labelled + int(counted.sum()), seen + int(learnt.sum())
        counted &= ~learnt
        rows, columns = (np.arange(a, b, dtype=np.uint64) for a, b in ((box.y0, box.y1), (box.x0, box.x1)))
        numbers = (rows[:, None] * np.uint64(whole.width) + columns) * _HASH >> np.uint64(32)
        taken = counted & (numbers <= limit)
        labels.append(ink[taken])
        for values, one in zip(found, maps, strict=True):
            values.append(one.codes(box)[taken])
    return [np.concatenate(values) for values in found], np.concatenate(labels), seen / max(labelled, 1)

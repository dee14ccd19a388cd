"""Several maps of one segment become one, pixel by pixel.

Stored probabilities are whole numbers here (`inkbatch.io.tones.half_codes`), so that every function of one map is a
table. All methods but the median and the maximum are ``finish(sum of weight × table[value])``:

| method | table | finish |
|---|---|---|
| mean | the probability itself | |
| odds | its log odds, cut at ±8.3 (what float16 can tell from 1) | back to a probability |
| ranks | its quantile among the map's own pixels | |

Where all maps are 0 (outside the segment mask) the result is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.maps import StoredMap
from inkbatch.data.scoring import BINS, VALUES
from inkbatch.errors import DataError
from inkbatch.geometry import cut
from inkbatch.io.prediction import CHUNK_PX

Method = Literal["mean", "weighted-mean", "median", "maximum", "odds", "ranks"]
WEIGHTED: frozenset[Method] = frozenset({"weighted-mean", "odds", "ranks"})

STRIP_PX = 1 << 16  # pixels that are worked on at a time: they stay in the cache
RANK_CHUNKS = 256  # stored chunks per map that its quantiles are taken from
LEAST_ODDS_P = 2.0**-12

Codes = NDArray[np.uint16]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Combination:
    """A rule that makes one map of several.

    Attributes:
        method: How.
        weights: One per map, not negative, sum 1.
        tables: One per map, `BINS` entries: what is added up (the plain probability for median and maximum).
    """

    method: Method
    weights: tuple[float, ...]
    tables: tuple[Floats, ...]

    def __call__(self, codes: Sequence[Codes], spread: bool = False) -> tuple[Floats, Floats | None]:
        """Combine one window.

        Args:
            codes: One array (height, width) per map.
            spread: Whether the disagreement is wanted.

        Returns:
            (map, disagreement), float32 (height, width). Disagreement is the standard deviation of the maps' values
            (of their ranks, where these are averaged), all maps counted alike.
        """
        shape = codes[0].shape
        flat = [part.reshape(-1) for part in codes]
        out = np.zeros(flat[0].size, np.float32)
        deviation = np.zeros(flat[0].size, np.float32) if spread else None
        for start in range(0, out.size, STRIP_PX):
            part = slice(start, start + STRIP_PX)
            strip = [values[part] for values in flat]
            if not any(values.any() for values in strip):
                continue
            out[part] = self._strip(strip)
            if deviation is not None:
                deviation[part] = self._deviation(strip)
        return out.reshape(shape), None if deviation is None else deviation.reshape(shape)

    def total(self, codes: Sequence[Codes]) -> Floats:
        """Sum of weight × table[value], before `finish`; always added in the order of the maps."""
        total = np.zeros(codes[0].shape, np.float32)
        for weight, table, values in zip(self.weights, self.tables, codes, strict=True):
            if weight:
                total += np.float32(weight) * table[values]
        return total

    def finish(self, total: Floats) -> Floats:
        """From the sum to the stored value."""
        if self.method == "odds":
            odds: Floats = np.exp(-total)
            odds += np.float32(1)
            np.divide(np.float32(1), odds, out=odds)
            return odds
        return total

    def _strip(self, codes: Sequence[Codes]) -> Floats:
        if self.method == "maximum":
            highest: Floats = self.tables[0][np.maximum.reduce(list(codes))]
            return highest
        if self.method == "median":
            return _median(codes, self.tables[0])
        found = self.finish(self.total(codes))
        if self.method == "odds":
            found[np.bitwise_or.reduce(list(codes)) == 0] = 0
        return found

    def _deviation(self, codes: Sequence[Codes]) -> Floats:
        plain = plain_table()
        tables = self.tables if self.method == "ranks" else (plain,) * len(codes)
        values = [table[part] for table, part in zip(tables, codes, strict=True)]
        mean = sum(values[1:], start=values[0]) / np.float32(len(values))
        squares = np.zeros_like(mean)
        for value in values:
            value -= mean
            value *= value
            squares += value
        squares /= np.float32(len(values))
        return np.sqrt(squares, out=squares)


def plain_table() -> Floats:
    """The probability that each code stands for."""
    return VALUES.astype(np.float32)


def odds_table() -> Floats:
    """The log odds that each code stands for."""
    inside = np.clip(VALUES, LEAST_ODDS_P, 1 - LEAST_ODDS_P)
    return np.log(inside / (1 - inside)).astype(np.float32)


def rank_table(found: StoredMap) -> Floats:
    """The quantile of each code among the map's values above 0, ties in the middle; 0 stays 0.

    Taken from the whole map, or from `RANK_CHUNKS` chunks spread evenly over it: the same ones on every machine.

    Raises:
        DataError: The map is 0 everywhere.
    """
    chunks = list(cut(found.shape_yx, CHUNK_PX, CHUNK_PX))
    counts = np.zeros(BINS, np.int64)
    for picks in (np.unique(np.linspace(0, len(chunks) - 1, RANK_CHUNKS).round().astype(int)), range(len(chunks))):
        for pick in picks:
            counts += np.bincount(found.codes(chunks[pick]).ravel(), minlength=BINS)
        counts[0] = 0
        if counts.any():  # else the sample missed what there is: count all
            break
    if not counts.any():
        raise DataError(f"prediction {found.name}: is 0 everywhere, it has no ranks; leave it out")
    table = (np.cumsum(counts) - counts / 2) / counts.sum()
    table[0] = 0
    return table.astype(np.float32)


def tables_for(method: Method, maps: Sequence[StoredMap]) -> tuple[Floats, ...]:
    """The tables of a method; ranks read a sample of each map."""
    if method == "ranks":
        return tuple(rank_table(found) for found in maps)
    table = odds_table() if method == "odds" else plain_table()
    return (table,) * len(maps)


def _median(codes: Sequence[Codes], table: Floats) -> Floats:
    """Median of the maps: a sorting network over whole rows of pixels, cheap for the handful of maps there are."""
    planes = list(codes)
    count = len(planes)
    for turn in range(count):
        for left in range(turn % 2, count - 1, 2):
            low, high = np.minimum(planes[left], planes[left + 1]), np.maximum(planes[left], planes[left + 1])
            planes[left], planes[left + 1] = low, high
    upper = table[planes[count // 2]]
    if count % 2:
        return upper
    lower: Floats = table[planes[count // 2 - 1]]
    return (lower + upper) / np.float32(2)

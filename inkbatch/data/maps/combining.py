"""Several maps of one segment become one, pixel by pixel.

Stored probabilities are whole numbers here (`io.pictures.tones.half_codes`), so that every function of one map is a
table. Median and maximum are picked among these numbers, which ascend with the probability; all other methods are
``finish(sum of weight × table[value])``:

| method | table | finish |
|---|---|---|
| mean | the probability itself | |
| odds | its log odds, cut at ±8.3 (what float16 can tell from 1) | back to a probability |
| ranks | its quantile among the map's own pixels | |
| zscore | `ZERO_AT` and its distance from the map's mean in standard deviations / `Z_SPAN` | cut at 0 and 1 |

`consensus` is the mean where `inkbatch.data.maps.consensus` confirms a mark, elsewhere the smallest value.
Where all maps are 0 (outside the segment mask) the result is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.data.maps.scoring import BINS, VALUES
from inkbatch.data.maps.stored import StoredMap
from inkbatch.errors import DataError
from inkbatch.geometry import Box, cut
from inkbatch.io.half_floats import TABLE_SIZE, looked_up, to_half, to_single
from inkbatch.io.prediction import CHUNK_PX
from inkbatch.io.threads import CORES, WorkerPool

Method = Literal["mean", "weighted-mean", "median", "maximum", "odds", "ranks", "zscore", "consensus"]
WEIGHTED: frozenset[Method] = frozenset({"weighted-mean", "odds", "ranks", "zscore"})
RELATIVE: frozenset[Method] = frozenset({"ranks", "zscore"})  # the result holds no probabilities
PICKED: frozenset[Method] = frozenset({"median", "maximum"})

STRIP_PX = 1 << 16  # pixels per pass, so that they stay in the cache
RANK_CHUNKS = 256  # stored chunks per map that its quantiles, mean and deviation are taken from
Z_SPAN, ZERO_AT = 16.0, 0.25  # z-scores are stored as ZERO_AT + z / Z_SPAN: from -4 to 12
LEAST_Z = np.float32(2.0**-14)  # 0 is kept for pixels outside
LEAST_ODDS_P = 2.0**-12

counting_pool = WorkerPool("counting", CORES)
"""Counts the values of a map, each thread in some of its chunks."""

Codes = NDArray[np.uint16]
Floats = NDArray[np.float32]
Halves = NDArray[np.float16]


@dataclass(frozen=True)
class Combination:
    """A rule that makes one map of several.

    Attributes:
        method: Name of the rule.
        weights: One per map, not negative, sum 1.
        tables: One per map, `TABLE_SIZE` entries: values to add (plain probability for median and maximum).
    """

    method: Method
    weights: tuple[float, ...]
    tables: tuple[Floats, ...]

    def __call__(self, codes: Sequence[Codes], spread: bool = False) -> tuple[Floats, Floats | None]:
        """Combine one box.

        Args:
            codes: One array (height, width) per map.
            spread: Also compute the disagreement.

        Returns:
            (map, disagreement), float32 (height, width). Disagreement is the standard deviation of the maps' values
            (of their ranks, where these are averaged), all maps counted alike.
        """
        shape = codes[0].shape
        out, deviation = np.zeros(shape, np.float32), np.zeros(shape, np.float32) if spread else None
        self._combine(codes, out, deviation, lambda values: values)
        return out, deviation

    def stored(self, codes: Sequence[Codes], out: Halves, deviation: Halves | None = None) -> None:
        """Combine one box and round it to float16, as it is stored.

        Args:
            codes: See `__call__`.
            out: (height, width), filled with the map.
            deviation: The same with the disagreement; None computes none.
        """
        out[...] = 0
        if deviation is not None:
            deviation[...] = 0
        self._combine(codes, out, deviation, to_half)

    def _combine(
        self,
        codes: Sequence[Codes],
        out: NDArray[Any],
        deviation: NDArray[Any] | None,
        rounded: Callable[[Floats], NDArray[Any]],
    ) -> None:
        height, width = codes[0].shape
        rows = max(1, STRIP_PX // max(width, 1))
        picked = self.method in PICKED
        summed = not picked and (deviation is None or self.method == "odds")  # its disagreement is of probabilities
        for start in range(0, height, rows):
            part = slice(start, start + rows)
            strip = [values[part] for values in codes]
            if not any(values.max() for values in strip):
                continue
            if picked:
                chosen = self._picked(strip)
                out[part] = chosen[0].view(np.float16) if len(chosen) == 1 else rounded(_halfway(*chosen))
            elif summed:
                out[part] = rounded(self._finished(strip, _sum(self._shares(strip))))
            if deviation is None:
                continue
            found = _looked_up(strip, (plain_table(),) * len(strip) if summed else self.tables)
            if not picked and not summed:
                out[part] = rounded(self._finished(strip, self.total(found)))
            deviation[part] = rounded(self._deviation(strip, found))

    @cached_property
    def _weighted_tables(self) -> list[Floats | None]:
        """Tables of weight × value in the order of the maps, None for plain probability; equal ones are one."""
        plain, made = plain_table(), {}
        for weight, table in zip(self.weights, self.tables, strict=True):
            if table is not plain and (weight, id(table)) not in made:
                made[weight, id(table)] = np.float32(weight) * table
        return [made.get((weight, id(table))) for weight, table in zip(self.weights, self.tables, strict=True)]

    def _shares(self, codes: Sequence[Codes]) -> list[Floats]:
        """Multiply each map by its weight; plain probability is widened: faster than a table, and equal bit for bit."""
        found = []
        for values, weight, product in zip(codes, self.weights, self._weighted_tables, strict=True):
            if product is None:
                single = to_single(values.view(np.float16))
                found.append(np.multiply(np.float32(weight), single, out=single))
            else:
                found.append(looked_up(values, product))
        return found

    def total(self, values: Sequence[Floats]) -> Floats:
        """Sum weight × value, before `finish`; always added in the order of the maps."""
        total = np.float32(self.weights[0]) * values[0]
        share = np.empty_like(total)
        for weight, part in zip(self.weights[1:], values[1:], strict=True):
            if weight:
                total += np.multiply(np.float32(weight), part, out=share)
        return total

    def finish(self, total: Floats) -> Floats:
        """Turn the sum into the stored value."""
        if self.method == "odds":
            odds: Floats = np.negative(total)
            np.exp(odds, out=odds)
            odds += np.float32(1)
            np.divide(np.float32(1), odds, out=odds)
            return odds
        if self.method == "zscore":
            return np.clip(total, LEAST_Z, np.float32(1), out=total)
        return total

    def _picked(self, codes: Sequence[Codes]) -> list[Codes]:
        """Pick the largest code, or the one or two in the middle."""
        if self.method == "maximum":
            return [np.maximum.reduce(codes)]
        return _middle(codes)

    def _finished(self, codes: Sequence[Codes], total: Floats) -> Floats:
        found = self.finish(total)
        if self.method in ("odds", "zscore"):
            _clear_outside(codes, found)
        return found

    def _deviation(self, codes: Sequence[Codes], values: Sequence[Floats]) -> Floats:
        count = np.float32(len(values))
        mean = _sum(values)
        mean /= count
        squares: Floats = values[0] - mean
        squares *= squares
        difference = np.empty_like(mean)
        for value in values[1:]:
            np.subtract(value, mean, out=difference)
            difference *= difference
            squares += difference
        squares /= count
        np.sqrt(squares, out=squares)
        if self.method == "zscore":
            _clear_outside(codes, squares)
        return squares


def _clear_outside(codes: Sequence[Codes], values: Floats) -> None:
    """Set pixels to 0 at which all maps are 0."""
    either = codes[0] | codes[1]
    for one in codes[2:]:
        either |= one
    if not either.min():
        values[either == 0] = 0


@cache
def plain_table() -> Floats:
    """Return the probability that each code stands for."""
    return _filled(VALUES)


@cache
def odds_table() -> Floats:
    """Return the log odds that each code stands for."""
    inside = np.clip(VALUES, LEAST_ODDS_P, 1 - LEAST_ODDS_P)
    return _filled(np.log(inside / (1 - inside)))


def rank_table(found: StoredMap) -> Floats:
    """Return the quantile of each code among the map's values above 0, ties in the middle; 0 stays 0.

    Taken from the whole map, or from `RANK_CHUNKS` chunks spread evenly over it: the same ones on every machine.

    Raises:
        DataError: The map is 0 everywhere.
    """
    counts = _counts(found, "ranks")
    table = (np.cumsum(counts) - counts / 2) / counts.sum()
    table[0] = 0
    return _filled(table)


def z_table(found: StoredMap) -> Floats:
    """Return the z-score of each code, as `Z_SPAN` and `ZERO_AT` store it: one stretch for the whole map.

    Mean and standard deviation are those of the map's values above 0, from the same chunks as in `rank_table`.

    Raises:
        DataError: The map has one value everywhere.
    """
    counts = _counts(found, "z-scores")
    mean = float((counts * VALUES).sum() / counts.sum())
    deviation = float(np.sqrt((counts * (VALUES - mean) ** 2).sum() / counts.sum()))
    if not deviation > 0:
        raise DataError(f"prediction {found.name}: is {mean:g} everywhere, it has no z-scores; leave it out")
    return _filled(ZERO_AT + (VALUES - mean) / (deviation * Z_SPAN))


def _counts(found: StoredMap, what: str) -> NDArray[np.int64]:
    """Count the codes of a map but 0, over `RANK_CHUNKS` chunks."""
    chunks = list(cut(found.shape_yx, CHUNK_PX, CHUNK_PX))
    for picks in (np.unique(np.linspace(0, len(chunks) - 1, RANK_CHUNKS).round().astype(int)), range(len(chunks))):
        shares = [[chunks[pick] for pick in picks[core::CORES]] for core in range(CORES)]
        counts: NDArray[np.int64] = np.sum(counting_pool.map(partial(_counted, found), shares), axis=0)
        counts[0] = 0
        if counts.any():  # else the sampled chunks are all empty: count all chunks
            break
    if not counts.any():
        raise DataError(f"prediction {found.name}: is 0 everywhere, it has no {what}; leave it out")
    return counts


def _counted(found: StoredMap, boxes: Sequence[Box]) -> NDArray[np.int64]:
    """Count the codes of a map in some boxes, decoded by the calling thread."""
    counts = np.zeros(BINS, np.int64)
    for box in boxes:
        with found.opened(box) as region:
            codes = found.codes_of(region, box)
        counts += cv2.calcHist([codes], [0], None, [BINS], [0, BINS]).ravel().astype(np.int64)
    return counts


def tables_for(method: Method, maps: Sequence[StoredMap]) -> tuple[Floats, ...]:
    """Return the tables of a method; ranks and z-scores read a sample of each map."""
    if method == "ranks":
        return tuple(rank_table(found) for found in maps)
    if method == "zscore":
        return tuple(z_table(found) for found in maps)
    table = odds_table() if method == "odds" else plain_table()
    return (table,) * len(maps)


def _looked_up(codes: Sequence[Codes], tables: Sequence[Floats]) -> list[Floats]:
    plain = plain_table()
    return [
        to_single(values.view(np.float16)) if table is plain else looked_up(values, table)
        for values, table in zip(codes, tables, strict=True)
    ]


def _sum(values: Sequence[Floats]) -> Floats:
    """Add values, always in this order."""
    total: Floats = values[0] + values[1]
    for part in values[2:]:
        total += part
    return total


def _middle(codes: Sequence[Codes]) -> list[Codes]:
    """Find the one or two maps in the middle, by a sorting network over whole rows of pixels; cheap for few maps."""
    planes = list(codes)
    count = len(planes)
    for turn in range(count):
        for left in range(turn % 2, count - 1, 2):
            low, high = np.minimum(planes[left], planes[left + 1]), np.maximum(planes[left], planes[left + 1])
            planes[left], planes[left + 1] = low, high
    return planes[(count - 1) // 2 : count // 2 + 1]


def _halfway(low: Codes, high: Codes) -> Floats:
    found: Floats = (to_single(low.view(np.float16)) + to_single(high.view(np.float16))) / np.float32(2)
    return found


def _filled(table: NDArray[np.float64]) -> Floats:
    """Convert a table to float32, 0 for codes that stand for no probability."""
    out = np.zeros(TABLE_SIZE, np.float32)
    out[:BINS] = table
    out.flags.writeable = False
    return out

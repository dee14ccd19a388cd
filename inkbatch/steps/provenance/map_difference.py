"""By how much two stored maps differ, read piece by piece in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.geometry import Box, cut
from inkbatch.io.multiscale import Multiscale

PIECE_VALUES = 4 << 20  # of each map at a time
NOTICEABLE = 0.01  # of full scale

Values = NDArray[Any]


@dataclass(frozen=True)
class MapDifference:
    """Numbers over all values that are not 0 in both maps (0 is outside the papyrus).

    Attributes:
        values: How many are compared.
        maximum: Largest absolute difference, in stored units (probability, grey values).
        maximum_at: Where: (y, x) or (z, y, x); None where nothing differs.
        mean: Mean absolute difference.
        share: Share of values that differ at all.
        share_noticeable: Share that differ by more than 1 % of full scale (1 for probability, the dtype's largest value
            for grey values).
        correlation: Pearson's; None where a map is constant.
    """

    values: int
    maximum: float
    maximum_at: tuple[int, ...] | None
    mean: float
    share: float
    share_noticeable: float
    correlation: float | None

    def __str__(self) -> str:
        if not self.values:
            return "both are 0 everywhere"
        if self.maximum_at is None:
            return f"equal in all {self.values:,} values"
        place = ", ".join(str(part) for part in self.maximum_at)
        correlation = "undefined (a map is constant)" if self.correlation is None else f"{self.correlation:.6f}"
        return (
            f"differ in {self.share:.3%} of {self.values:,} values, by more than 1 % of full scale in "
            f"{self.share_noticeable:.3%}; largest {self.maximum:.6g} at ({place}), mean {self.mean:.6g}; "
            f"correlation {correlation}"
        )


class Moments:
    """Means and (co)moments of pairs, joined block by block: the pairwise update of Chan, Golub and LeVeque (1979)."""

    def __init__(self) -> None:
        self.count = 0
        self._mean = np.zeros(2)
        self._moment = np.zeros((2, 2))

    def add(self, one: Values, other: Values) -> None:
        """Add pairs of float64 values, 1-D."""
        if not one.size:
            return
        pairs = np.stack([one, other])
        mean = pairs.mean(axis=1)
        pairs -= mean[:, None]
        step, count = mean - self._mean, one.size
        total = self.count + count
        self._moment += pairs @ pairs.T + np.outer(step, step) * (self.count * count / total)
        self._mean += step * (count / total)
        self.count = total

    @property
    def correlation(self) -> float | None:
        """Pearson's correlation; None where it is undefined."""
        spread = float(self._moment[0, 0]) * float(self._moment[1, 1])
        if spread <= 0:
            return None
        return max(-1.0, min(1.0, float(self._moment[0, 1]) / math.sqrt(spread)))


def compare_maps(one: Multiscale, other: Multiscale) -> MapDifference:
    """Compare two maps of one shape at full resolution; the next piece is read while one is compared.

    Args:
        one: A map, axes (y, x) or (z, y, x).
        other: Another one of the same shape; its dtype and shards may be others.

    Raises:
        CorruptDataError: A stored object is damaged or missing.
    """
    moments = Moments()
    total, differing, noticeable, highest = 0.0, 0, 0, 0.0
    place: tuple[int, ...] | None = None
    limit = NOTICEABLE * max(_full_scale(one), _full_scale(other))
    for box, a, b in _pieces(one, other):
        inside = (a != 0) | (b != 0)
        apart = np.abs(a - b)
        total += float(apart.sum())
        differing += int(np.count_nonzero(apart))
        noticeable += int(np.count_nonzero(apart > limit))
        top = int(apart.argmax())
        if apart.flat[top] > highest:
            highest = float(apart.flat[top])
            *lead, y, x = (int(part) for part in np.unravel_index(top, apart.shape))
            place = (*lead, y + box.y0, x + box.x0)
        moments.add(a[inside], b[inside])
    count = moments.count
    per = 1 / count if count else 0.0
    return MapDifference(count, highest, place, total * per, differing * per, noticeable * per, moments.correlation)


def _pieces(one: Multiscale, other: Multiscale) -> Iterator[tuple[Box, Values, Values]]:
    """Yield pieces of both maps as float64, row-major."""
    depth = math.prod(one.shape[:-2])
    edge = 1 << int(math.log2(max(64.0, math.sqrt(PIECE_VALUES / depth))))
    lead = tuple(slice(0, size) for size in one.shape[:-2])

    def read(box: Box) -> tuple[Box, Values, Values]:
        a, b = (found.levels[0].read((*lead, *box.slices)).astype(np.float64) for found in (one, other))
        return box, a, b

    boxes = list(cut((one.shape[-2], one.shape[-1]), edge, edge))
    with ThreadPoolExecutor(1, "inkbatch-diff") as reader:
        coming = reader.submit(read, boxes[0])
        for following in [*boxes[1:], None]:
            current = coming.result()
            if following is not None:
                coming = reader.submit(read, following)
            yield current


def _full_scale(found: Multiscale) -> float:
    dtype = np.dtype(found.levels[0].layout.dtype)
    return float(np.iinfo(dtype).max) if dtype.kind in "ui" else 1.0

"""Facts on the basins of one unit that other units need, stored as one ``.npz``."""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.instances.ascent import Evidence, Ints, UnitFirstPass, whole_numbers
from inkbatch.geometry import Box
from inkbatch.io.npz import read_npz
from inkbatch.io.store.location import Location

Sums = NDArray[np.float64]


@dataclass(frozen=True)
class BasinFacts:
    """Facts on the basins of a unit; entry i belongs to label i + 1.

    Attributes:
        box: y0, x0, y1, x1 of the write box in the picture.
        ends: (n, 2): y, x of each basin's end in the picture; outside the box where the way leaves it.
        top: (n,): height of the end, 0 where it lies outside.
        area: (n,): pixels, with those of boundary that it grew into.
        sums: (n, 2): sums of y and of x over the pixels.
        extent: (n, 4): y0, x0, y1, x1.
        first: (n, 2): y, x of the first pixel in row-major order.
        evidence: (n, 3): sums of the probability of object and of background, in whole numbers, and the pixels without
            those that it grew into.
        meetings: (m, 3): two basins that share an edge of a pixel, and the greatest height at which they do.
        labels: Labels along the top, bottom, left and right side, one after the other.
        heights: Heights along the same sides.
        dropped: Areas of components of this unit that are too small to be proposed.
        probabilities: (2,): sum of the probability of object over the unit, and its maximum, in whole numbers.
    """

    box: Ints
    ends: Ints
    top: Ints
    area: Ints
    sums: Sums
    extent: Ints
    first: Ints
    evidence: Sums
    meetings: Ints
    labels: Ints
    heights: Ints
    dropped: Ints
    probabilities: Sums

    def side(self, values: Ints, name: str) -> Ints:
        """Cut one side out of `labels` or `heights`."""
        height, width = int(self.box[2] - self.box[0]), int(self.box[3] - self.box[1])
        start = {"top": 0, "bottom": width, "left": 2 * width, "right": 2 * width + height}[name]
        return values[start : start + (width if name in ("top", "bottom") else height)]

    def label_at(self, y: Ints, x: Ints) -> Ints:
        """Look up labels at pixels of the unit's outermost rows and columns (picture coordinates)."""
        y0, x0, y1, x1 = (int(value) for value in self.box)
        width, height = x1 - x0, y1 - y0
        place = np.select(
            [y == y0, y == y1 - 1, x == x0],
            [x - x0, width + x - x0, 2 * width + y - y0],
            2 * width + height + y - y0,
        )
        found: Ints = self.labels[place]
        return found

    def store(self, place: Location) -> int:
        """Write the facts, equal ones as equal bytes; returns how many."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        np.savez_compressed(buffer, **arrays)
        place.write_bytes(buffer.getvalue())
        return buffer.tell()

    @staticmethod
    def read(place: Location) -> BasinFacts:
        """Read stored facts.

        Raises:
            CorruptDataError: They are damaged.
        """
        names = [field.name for field in fields(BasinFacts)]
        found = read_npz(place, "facts of a unit's basins", "delete it and run the same command again", names)
        return BasinFacts(**{name: found[name] for name in names})


def facts_of(found: UnitFirstPass, box: Box, evidence: Evidence) -> BasinFacts:
    """Derive a unit's facts.

    Args:
        found: Its basins.
        box: Its write box in the picture.
        evidence: The map of the write box.
    """
    labels, count = found.labels, len(found.ends)
    inside = np.flatnonzero(labels)
    numbers = labels.ravel()[inside].astype(np.int64) - 1
    y, x = np.divmod(inside, labels.shape[1])
    y, x = y + box.y0, x + box.x0
    low, high = np.full((count, 2), np.iinfo(np.int64).max), np.full((count, 2), -1)
    for axis, values in enumerate((y, x)):
        np.minimum.at(low[:, axis], numbers, values)
        np.maximum.at(high[:, axis], numbers, values)
    first = np.zeros((count, 2), np.int64)
    first[numbers[::-1]] = np.stack([y, x], axis=1)[::-1]  # of equal indices the last one is kept
    probable = whole_numbers(evidence.object)
    weights = [probable.ravel()[inside], whole_numbers(evidence.background).ravel()[inside]]
    weights.append((found.height > 0).ravel()[inside].astype(np.float64))

    def along(values: NDArray[Any]) -> Ints:
        return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]]).astype(np.int64)

    return BasinFacts(
        box=np.array([box.y0, box.x0, box.y1, box.x1], np.int64),
        ends=found.ends.astype(np.int64),
        top=found.top,
        area=np.bincount(numbers, minlength=count).astype(np.int64),
        sums=np.stack([np.bincount(numbers, values, count) for values in (y, x)], axis=1),
        extent=np.concatenate([low, high + 1], axis=1),
        first=first,
        evidence=np.stack([np.bincount(numbers, values, count) for values in weights], axis=1),
        meetings=_meetings(labels, found.height),
        labels=along(labels),
        heights=along(found.height),
        dropped=found.dropped.astype(np.int64),
        probabilities=np.array([probable.sum(), probable.max(initial=0)], np.float64),
    )


def highest(pairs: Ints, height: Ints) -> Ints:
    """Sum up pairs that occur several times: (m, 3) of each pair once, the smaller number first, and its height."""
    low, high = pairs.min(axis=1), pairs.max(axis=1)
    order = np.lexsort((-height, high, low))
    low, high, height = low[order], high[order], height[order]
    is_new = np.ones(len(low), bool)
    is_new[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    return np.stack([low[is_new], high[is_new], height[is_new]], axis=1).astype(np.int64)


def _meetings(labels: NDArray[np.int32], height: NDArray[np.int32]) -> Ints:
    pairs, tops = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int64)]
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        a, b = labels[here], labels[there]
        low = np.minimum(height[here], height[there])
        meet = (a != b) & (low > 0)
        pairs.append(np.stack([a[meet], b[meet]], axis=1).astype(np.int64) - 1)
        tops.append(low[meet].astype(np.int64))
    return highest(np.concatenate(pairs), np.concatenate(tops))

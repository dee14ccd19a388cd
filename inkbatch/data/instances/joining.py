"""Basins of all units of a picture, joined into regions: equal however the picture was cut.

Ways that leave a unit are followed into the next one, which makes basins whole. Then basins that meet are joined, the
highest meeting first, unless the object is narrower there than `neck` times the narrower one of the two middles.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from inkbatch.data.instances.ascent import Ints
from inkbatch.data.instances.unit_facts import BasinFacts, Sums, highest
from inkbatch.data.labels.seams import UnionFind
from inkbatch.errors import DataError


@dataclass(frozen=True)
class Regions:
    """Regions of a picture, or its components; in row-major order of their first pixels.

    Attributes:
        area: (n,): pixels, with those of boundary that they grew into.
        core: (n,): pixels without those.
        centroid: (n, 2): mean y and x of the pixels.
        extent: (n, 4): y0, x0, y1, x1.
        first: (n, 2): y, x of the first pixel.
        top: (n,): greatest height.
        object: (n,): mean probability of object.
        background: (n,): mean probability of background.
    """

    area: Ints
    core: Ints
    centroid: Sums
    extent: Ints
    first: Ints
    top: Ints
    object: Sums
    background: Sums

    def __len__(self) -> int:
        return len(self.area)


@dataclass(frozen=True)
class Joined:
    """First pass of a picture.

    Attributes:
        regions: Objects as the watershed parts them.
        components: Connected components of object pixels (4 neighbours).
        component_of: (regions,): the component that each region is a part of.
        region_of: By (y0, x0) of a unit: the region of each of its labels; entry 0 is -1.
        dropped: Components that are too small and lie in one unit.
    """

    regions: Regions
    components: Regions
    component_of: Ints
    region_of: dict[tuple[int, int], Ints]
    dropped: int

    def too_small(self, min_px: int) -> int:
        """Count what is smaller than `min_px`: components, each once whatever its units, and regions of larger ones."""
        small = self.components.core < min_px
        parts = (self.regions.core < min_px) & ~small[self.component_of]
        return int(small.sum() + parts.sum()) + self.dropped

    def counted(self, min_px: int) -> int:
        """Count the regions, with what is too small."""
        return int((self.regions.core >= min_px).sum()) + self.too_small(min_px)


def join(units: Sequence[BasinFacts], neck: float) -> Joined:
    """Join the basins of all units of one picture.

    Raises:
        DataError: A unit's facts are missing or do not fit those of its neighbours.
    """
    units = sorted(units, key=lambda unit: (int(unit.box[0]), int(unit.box[1])))
    starts = np.array([0, *itertools.accumulate(len(unit.area) for unit in units)], np.int64)
    basin_of = groups(int(starts[-1]), _followed(units, starts))
    count = int(basin_of.max(initial=-1)) + 1
    meetings = highest(*_between(basin_of, _all_meetings(units, starts)))
    basins = _summed(units, basin_of, count)
    grouped = _joined_basins(basins, meetings, neck)
    region_of_basin = _in_order(grouped, basins.first)
    part = groups(count, meetings[:, :2])
    component_of_basin = _in_order(part, basins.first)
    region_of_node, component_of_node = region_of_basin[basin_of], component_of_basin[basin_of]
    regions = _summed(units, region_of_node, int(region_of_basin.max(initial=-1)) + 1)
    component_of = np.zeros(len(regions), np.int64)
    component_of[region_of_node] = component_of_node
    found = {}
    for unit, start, stop in zip(units, starts, starts[1:], strict=False):
        found[int(unit.box[0]), int(unit.box[1])] = np.concatenate([[-1], region_of_node[start:stop]])
    components = _summed(units, component_of_node, int(component_of_basin.max(initial=-1)) + 1)
    dropped = sum(len(unit.dropped) for unit in units)
    return Joined(regions, components, component_of, found, dropped)


def groups(count: int, pairs: Ints) -> Ints:
    """Number the connected groups of `count` things from 0."""
    if not count:
        return np.zeros(0, np.int64)
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _followed(units: Sequence[BasinFacts], starts: Ints) -> Ints:
    """Pair every basin whose way leaves its unit with the one that the way enters."""
    places = {(int(unit.box[0]), int(unit.box[1])): number for number, unit in enumerate(units)}
    rows, columns = sorted({y for y, _ in places}), sorted({x for _, x in places})
    pairs = [np.zeros((0, 2), np.int64)]
    for number, unit in enumerate(units):
        y, x = unit.ends.T
        y0, x0, y1, x1 = unit.box
        outside = np.flatnonzero((y < y0) | (y >= y1) | (x < x0) | (x >= x1))
        row = np.searchsorted(rows, y[outside], side="right") - 1
        column = np.searchsorted(columns, x[outside], side="right") - 1
        for place in {(int(a), int(b)) for a, b in zip(row, column, strict=True)}:
            other = places.get((rows[place[0]], columns[place[1]]))
            if other is None:
                raise DataError("instances: the facts of a unit are missing; run the job again with --replace")
            mine = outside[(row == place[0]) & (column == place[1])]
            there = units[other].label_at(y[mine], x[mine])
            if not there.all():
                raise DataError(
                    "instances: the facts of two units do not fit; their map changed in between, run the job again "
                    "with --replace"
                )
            pairs.append(np.stack([starts[number] + mine, starts[other] + there - 1], axis=1))
    return np.concatenate(pairs)


def _all_meetings(units: Sequence[BasinFacts], starts: Ints) -> Ints:
    """List the meetings inside units and across their seams, with nodes numbered over all units."""
    places = {(int(unit.box[0]), int(unit.box[1])): number for number, unit in enumerate(units)}
    found = [np.zeros((0, 3), np.int64)]
    for number, unit in enumerate(units):
        shifted = unit.meetings.copy()
        shifted[:, :2] += starts[number]
        found.append(shifted)
        y0, x0, y1, x1 = (int(value) for value in unit.box)
        for other, mine, theirs in (((y1, x0), "bottom", "top"), ((y0, x1), "right", "left")):
            if other not in places:
                continue
            there = units[places[other]]
            a, b = unit.side(unit.labels, mine), there.side(there.labels, theirs)
            height = np.minimum(unit.side(unit.heights, mine), there.side(there.heights, theirs))
            meet = height > 0
            rows = [a[meet] - 1 + starts[number], b[meet] - 1 + starts[places[other]], height[meet]]
            found.append(np.stack(rows, axis=1))
    return np.concatenate(found)


def _between(basin_of: Ints, meetings: Ints) -> tuple[Ints, Ints]:
    pairs = basin_of[meetings[:, :2]]
    apart = pairs[:, 0] != pairs[:, 1]
    return pairs[apart], meetings[apart, 2]


def _summed(units: Sequence[BasinFacts], group: Ints, count: int) -> Regions:
    """Sum the facts of the basins of each group."""

    def of(name: str, columns: int) -> Sums:
        values = [np.zeros((0, columns)), *(getattr(unit, name).reshape(-1, columns) for unit in units)]
        return np.concatenate(values)

    def added(values: Sums) -> Sums:
        return np.stack([np.bincount(group, column, count) for column in values.T], axis=1)

    area, extent = added(of("area", 1))[:, 0], np.zeros((count, 4), np.int64)
    boxes = of("extent", 4).astype(np.int64)
    extent[:, :2] = np.iinfo(np.int64).max
    for axis in range(4):
        (np.minimum if axis < 2 else np.maximum).at(extent[:, axis], group, boxes[:, axis])
    first = of("first", 2).astype(np.int64)
    order = np.lexsort((first[:, 1], first[:, 0]))[::-1]
    start = np.zeros((count, 2), np.int64)
    start[group[order]] = first[order]
    top = np.zeros(count, np.int64)
    np.maximum.at(top, group, of("top", 1)[:, 0].astype(np.int64))
    shown = added(of("evidence", 3))
    size = np.maximum(area, 1)
    return Regions(
        area.astype(np.int64),
        shown[:, 2].astype(np.int64),
        added(of("sums", 2)) / size[:, None],
        extent,
        start,
        top,
        shown[:, 0] / size / 65_535,
        shown[:, 1] / size / 65_535,
    )


def _joined_basins(basins: Regions, meetings: Ints, neck: float) -> Ints:
    """Join basins over wide necks, the widest first; the order of equal ones follows from where the basins begin."""
    top = basins.top.astype(np.float64)
    low, high, height = meetings.T
    wide = height >= neck**2 * np.minimum(top[low], top[high])  # groups only grow higher: what fails now never joins
    low, high, height = low[wide], high[wide], height[wide]
    rank = np.empty(len(basins), np.int64)
    rank[np.lexsort((basins.first[:, 1], basins.first[:, 0]))] = np.arange(len(basins))
    one, other = np.minimum(rank[low], rank[high]), np.maximum(rank[low], rank[high])
    sets, peak = UnionFind(len(basins)), top.tolist()
    for number in np.lexsort((other, one, -height)).tolist():
        a, b = sets.find(int(low[number])), sets.find(int(high[number]))
        if a != b and height[number] >= neck**2 * min(peak[a], peak[b]):
            sets.union([(a, b)])
            peak[min(a, b)] = max(peak[a], peak[b])
    return sets.roots()


def _in_order(group: Ints, first: Ints) -> Ints:
    """Number groups from 0 in row-major order of their first pixels."""
    if not len(group):
        return group
    order = np.lexsort((first[:, 1], first[:, 0]))
    _, where, inverse = np.unique(group[order], return_index=True, return_inverse=True)
    number = np.empty(len(where), np.int64)
    number[np.argsort(where)] = np.arange(len(where))
    found = np.empty(len(group), np.int64)
    found[order] = number[inverse]
    return found

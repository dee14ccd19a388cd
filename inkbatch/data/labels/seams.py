"""Components across the seams of units: joined from the units' facts, each counted once, and what becomes of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.labels.component_facts import Component, UnitFacts, area_histogram
from inkbatch.data.labels.components import Bools, Ints
from inkbatch.errors import DataError


class UnionFind:
    """Disjoint sets of the numbers 0 … count - 1."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def find(self, member: int) -> int:
        """Find the representative of a member's set."""
        parents = self._parents
        while parents[member] != member:
            parents[member] = parents[parents[member]]
            member = parents[member]
        return member

    def union(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Join the sets of each pair; the smaller representative stays."""
        for one, other in pairs:
            a, b = self.find(one), self.find(other)
            if a != b:
                self._parents[max(a, b)] = min(a, b)

    def roots(self) -> Ints:
        """Return the representative of every number."""
        return np.array([self.find(member) for member in range(len(self._parents))], np.int64)


@dataclass(frozen=True)
class UnitDecision:
    """Decision on the open components of one unit; entry 0 belongs to number 1 of its facts.

    Attributes:
        ink_kept: Its whole component is large enough.
        ink_stays: It is ink at the end: kept, or taken away and part of a hole that is filled.
        ink_ignored: It goes into the ignore mask.
        bare_filled: It is part of a hole that is filled.
        bare_ignored: It goes into the ignore mask with the hole.
    """

    ink_kept: Bools
    ink_stays: Bools
    ink_ignored: Bools
    bare_filled: Bools
    bare_ignored: Bools


@dataclass(frozen=True)
class Merged:
    """The components of the whole surface.

    Attributes:
        components: Kept ink components, the largest first; perhaps not all of the closed ones (see `facts_of`).
        kept_count: Number of kept components.
        kept_px: Their pixels.
        removed_count: Number of components that were too small.
        removed_px: Their pixels.
        histogram: All components per power of two of their area.
        decisions: By (y0, x0) of the unit.
    """

    components: tuple[Component, ...]
    kept_count: int
    kept_px: int
    removed_count: int
    removed_px: int
    histogram: tuple[int, ...]
    decisions: dict[tuple[int, int], UnitDecision]


def merge(
    facts: Sequence[UnitFacts],
    *,
    min_area_px: int,
    fill_holes: bool = False,
    max_hole_px: int | None = None,
    listed: int | None = None,
) -> Merged:
    """Join the open components of all units.

    Args:
        facts: Of every unit of the surface, in any order.
        min_area_px: Smallest area that is kept.
        fill_holes: Fill holes; the facts must number bare areas.
        max_hole_px: Largest hole that is filled; None fills all.
        listed: At most so many components are listed; None lists all that the facts list.

    Raises:
        DataError: The facts of a unit are missing or do not fit those of its neighbours.
    """
    nodes = _Nodes(sorted(facts, key=lambda unit: unit.box))
    sets, pairs = nodes.joined()
    roots = sets.roots()
    area = _summed(nodes.area, roots)
    kept = nodes.is_ink & (area[roots] >= min_area_px)
    border = _any(nodes.touches_border & nodes.is_ink, roots)[roots]
    components, removed = _components(nodes, roots, area, min_area_px)

    sets.union((int(a), int(b)) for a, b in pairs[(nodes.is_ink & ~kept)[pairs[:, 0]]])
    filled, filled_at_border = _filled(nodes, sets.roots(), kept, pairs[(kept & border)[pairs[:, 0]], 1], max_hole_px)
    filled &= fill_holes
    ignored = np.where(kept, border, filled & filled_at_border)
    found = sorted([*components, *(part for unit in facts for part in unit.kept)], key=lambda c: (-c.area, c.seed))
    sizes = area_histogram(np.array([c.area for c in components] + removed, np.int64))
    histogram = np.sum([unit.histogram for unit in facts], axis=0) + sizes
    return Merged(
        components=tuple(found[:listed]),
        kept_count=sum(unit.kept_count for unit in facts) + len(components),
        kept_px=sum(unit.kept_px for unit in facts) + sum(c.area for c in components),
        removed_count=sum(unit.removed_count for unit in facts) + len(removed),
        removed_px=sum(unit.removed_px for unit in facts) + sum(removed),
        histogram=tuple(int(count) for count in histogram),
        decisions={
            (unit.box[0], unit.box[1]): UnitDecision(
                kept[ink], (kept | filled)[ink], ignored[ink], filled[bare], ignored[bare]
            )
            for unit, ink, bare in nodes.parts()
        },
    )


class _Nodes:
    """The open components of all units under one numbering: each unit's ink, then its bare areas."""

    def __init__(self, facts: Sequence[UnitFacts]) -> None:
        self.facts = facts
        counts = [(len(unit.ink), len(unit.bare)) for unit in facts]
        starts = [0, *itertools.accumulate(ink + bare for ink, bare in counts)]
        self.count = starts[-1]
        self.starts = starts
        rows = []
        for unit in facts:
            rows += [(1, p.area, p.hole_px, p.touches_border, p.outside, p.hole_at_border) for p in unit.ink]
            rows += [(0, p.area, 0, False, p.outside, p.at_border) for p in unit.bare]
        columns = np.array(rows, np.int64).reshape(-1, 6).T
        self.area, self.hole_px = columns[1], columns[2]
        self.is_ink, self.touches_border, self.outside, self.at_border = columns[[0, 3, 4, 5]].astype(bool)
        self.pairs = np.array(
            [
                (start + ink - 1, start + len(unit.ink) + bare - 1)
                for start, unit in zip(starts, facts, strict=False)
                for ink, bare in unit.pairs
            ],
            np.int64,
        ).reshape(-1, 2)

    def joined(self) -> tuple[UnionFind, NDArray[np.int64]]:
        """Join what meets across seams; returns the sets, and all (ink, bare) pairs that share an edge."""
        sets = UnionFind(self.count)
        crossing = [np.zeros((0, 2), np.int64)]
        for here, there, straight in self.seams():
            sets.union(self.same(here, there, straight))
            if straight:
                crossing.append(self.differing(here, there))
        return sets, np.concatenate([self.pairs, *crossing])

    def parts(self) -> Iterable[tuple[UnitFacts, slice, slice]]:
        """Yield each unit with the numbers of its ink and of its bare areas."""
        for start, unit in zip(self.starts, self.facts, strict=False):
            middle = start + len(unit.ink)
            yield unit, slice(start, middle), slice(middle, middle + len(unit.bare))

    def seams(self) -> Iterable[tuple[NDArray[np.int64], NDArray[np.int64], bool]]:
        """Yield pixels that meet across seams: (numbers here, numbers there, True if they share an edge).

        -1 marks pixels without a number.
        """
        by_corner = {unit.box[:2]: index for index, unit in enumerate(self.facts)}
        bottom, right = max(unit.box[2] for unit in self.facts), max(unit.box[3] for unit in self.facts)
        for index, unit in enumerate(self.facts):
            y0, x0, y1, x1 = unit.box
            for place, out, back, exists in (
                ((y0, x1), "right", "left", x1 < right),
                ((y1, x0), "bottom", "top", y1 < bottom),
            ):
                if not exists:
                    continue
                here, there = self._edge(index, out), self._edge(self._at(by_corner, place), back)
                if len(here) != len(there):
                    raise DataError(f"components: units {unit.box} and {place} do not meet; collect their facts again")
                yield here, there, True
                yield here[1:], there[:-1], False
                yield here[:-1], there[1:], False
            if x1 < right and y1 < bottom:
                corner = self._edge(self._at(by_corner, (y1, x1)), "top")[:1]
                yield self._edge(index, "right")[-1:], corner, False
                below, beside = self._at(by_corner, (y1, x0)), self._at(by_corner, (y0, x1))
                yield self._edge(below, "top")[-1:], self._edge(beside, "bottom")[:1], False

    def _at(self, by_corner: dict[tuple[int, int], int], place: tuple[int, int]) -> int:
        if place not in by_corner:
            raise DataError(f"components: expected facts of the unit at {place} (y, x), got none; run that unit first")
        return by_corner[place]

    def _edge(self, index: int, side: str) -> NDArray[np.int64]:
        runs = np.array(self.facts[index].edges[side], np.int64).reshape(-1, 2)
        numbers = np.repeat(runs[:, 0], runs[:, 1])
        start = self.starts[index]
        bare_start = start + len(self.facts[index].ink)
        return np.where(numbers > 0, start + numbers - 1, np.where(numbers < 0, bare_start - numbers - 1, -1))

    def same(self, here: Ints, there: Ints, straight: bool) -> list[tuple[int, int]]:
        """Find the pairs of one kind that meet; bare areas only over edges."""
        known = (here >= 0) & (there >= 0)
        a, b = here[known], there[known]
        alike = self.is_ink[a] & self.is_ink[b]
        if straight:
            alike |= ~self.is_ink[a] & ~self.is_ink[b]
        found = np.unique(np.stack([a[alike], b[alike]], axis=1), axis=0)
        return [(int(one), int(other)) for one, other in found]

    def differing(self, here: Ints, there: Ints) -> NDArray[np.int64]:
        """Find the (ink, bare) pairs that share an edge across the seam."""
        known = (here >= 0) & (there >= 0)
        a, b = here[known], there[known]
        unlike = self.is_ink[a] != self.is_ink[b]
        a, b = a[unlike], b[unlike]
        ink_first = self.is_ink[a]
        return np.unique(np.stack([np.where(ink_first, a, b), np.where(ink_first, b, a)], axis=1), axis=0)


def _summed(values: Ints, roots: Ints) -> Ints:
    sums = np.zeros(len(roots), np.int64)
    np.add.at(sums, roots, values)
    return sums


def _any(flags: Bools, roots: Ints) -> Bools:
    found = np.zeros(len(roots), bool)
    found[roots[flags]] = True
    return found


def _filled(
    nodes: _Nodes, classes: Ints, kept: Bools, around_border: Ints, max_hole_px: int | None
) -> tuple[Bools, Bools]:
    """Find what lies in holes that are small enough, and what lies in an area that meets the border.

    Args:
        nodes: All open components.
        classes: Set of each, where ink that is not kept belongs to the bare area around it.
        kept: Ink that is kept.
        around_border: Bare areas beside kept ink that touches the border.
        max_hole_px: Largest hole that is filled; None fills all.
    """
    bare = ~kept
    filled = bare & ~_any(nodes.outside & bare, classes)[classes]
    if max_hole_px is not None:
        filled &= _summed(np.where(bare, nodes.area + nodes.hole_px, 0), classes)[classes] <= max_hole_px
    at_border = nodes.at_border & bare
    at_border[around_border] = True
    return filled, _any(at_border, classes)[classes]


def _components(nodes: _Nodes, roots: Ints, area: Ints, min_area_px: int) -> tuple[list[Component], list[int]]:
    """Join the components that cross seams: the kept ones, and the areas of the others."""
    members: dict[int, list[Component]] = {}
    for unit, ink, _ in nodes.parts():
        for root, part in zip(roots[ink], unit.ink, strict=True):
            members.setdefault(int(root), []).append(part)
    kept, removed = [], []
    for root, parts in members.items():
        if area[root] < min_area_px:
            removed.append(int(area[root]))
            continue
        y0, x0, y1, x1 = zip(*(part.box for part in parts), strict=True)
        kept.append(
            Component(
                area=int(area[root]),
                box=(min(y0), min(x0), max(y1), max(x1)),
                seed=min(part.seed for part in parts),
                touches_border=any(part.touches_border for part in parts),
            )
        )
    return kept, removed

"""Rules that settle which of several masks that overlap stays, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from inkbatch.data.instances.ascent import Bools
from inkbatch.data.instances.proposals import Proposal
from inkbatch.data.instances.selection import Choice, Instance, Rejection
from inkbatch.data.labels.components import label
from inkbatch.data.labels.seams import UnionFind
from inkbatch.geometry import Box

SAME_IOU = 0.5  # from which a mask that lost is another view of the one that stays


@dataclass(frozen=True)
class Resolved:
    """Instances without overlaps.

    Attributes:
        instances: In row-major order of their first pixels.
        merged: Proposals whose mask was another view of an instance that stays, each with that one's proposal.
        rejected: Proposals of which too little was left.
    """

    instances: tuple[Instance, ...]
    merged: tuple[tuple[Proposal, Proposal], ...]
    rejected: tuple[Rejection, ...]


def resolve(found: Sequence[Instance], object_pixels: Sequence[Bools], choice: Choice) -> Resolved:
    """Settle which of several masks that overlap stays.

    Masks are linked where they overlap enough; of each group that with the highest mean intersection over union with
    the others stays (of equal ones the one of the better score, then the first). What is left of another outside of
    all that stay, opened, survives if it is large enough, holds enough object and overlaps none; a mask that is mostly
    the one that stays is merged.

    Args:
        found: Instances of one picture, in the order of their proposals.
        object_pixels: Per instance: (box.height, box.width), True where the map shows object.
        choice: The rules.
    """
    overlaps = _overlaps(found)
    near: list[set[int]] = [set() for _ in found]
    for one, other in overlaps:
        near[one].add(other)
        near[other].add(one)
    sets = UnionFind(len(found))
    area = [one.area_px for one in found]
    sets.union(pair for pair, common in overlaps.items() if common > choice.rules.linked * min(area[i] for i in pair))
    groups: dict[int, list[int]] = {}
    roots = sets.roots().tolist()
    for member, root in enumerate(roots):
        groups.setdefault(root, []).append(member)

    def iou(one: int, other: int) -> float:
        common = overlaps.get((min(one, other), max(one, other)), 0)
        return common / (area[one] + area[other] - common)

    def rank(member: int, members: list[int]) -> tuple[float, float, int]:
        others = sum(iou(member, other) for other in members if other in near[member])
        score = found[member].score
        return -others / max(len(members) - 1, 1), -score if score == score else 0.0, member

    winners = {root: min(members, key=lambda member: rank(member, members)) for root, members in groups.items()}
    kept = {member: found[member] for member in winners.values()}
    merged: list[tuple[int, int]] = []
    rejected: list[int] = []
    for member in (i for i in range(len(found)) if i not in kept):
        around = [kept[other] for other in sorted(near[member] & kept.keys())]
        rest, winner = _remainder(found[member], object_pixels[member], around, choice), winners[roots[member]]
        if rest is not None:
            kept[member] = rest
        elif iou(member, winner) >= SAME_IOU:
            merged.append((member, winner))
        else:
            rejected.append(member)
    apart = _apart(kept, near)
    rejected += [member for member in kept if member not in apart]
    rejected += [member for member, winner in merged if winner not in apart]
    return Resolved(
        tuple(sorted(apart.values(), key=_first_pixel)),
        tuple((found[one].proposal, found[winner].proposal) for one, winner in merged if winner in apart),
        tuple(Rejection(found[member].proposal, "overlap") for member in sorted(rejected)),
    )


def _overlaps(found: Sequence[Instance]) -> dict[tuple[int, int], int]:
    """Count the common pixels of all pairs whose boxes meet."""
    order = sorted(range(len(found)), key=lambda i: found[i].box)
    open_ones: list[int] = []
    common: dict[tuple[int, int], int] = {}
    for i in order:
        open_ones = [j for j in open_ones if found[j].box.y1 > found[i].box.y0]
        for j in open_ones:
            pixels = _common(found[i], found[j])
            if pixels:
                common[min(i, j), max(i, j)] = pixels
        open_ones.append(i)
    return common


def _common(one: Instance, other: Instance) -> int:
    box = one.box.intersect(other.box)
    if not box.area:
        return 0
    return int(np.count_nonzero(one.mask[box.within(one.box)] & other.mask[box.within(other.box)]))


def _remainder(lost: Instance, object_pixels: Bools, kept: Sequence[Instance], choice: Choice) -> Instance | None:
    """Return the largest part of a mask outside of those that stay, if it may survive."""
    mask = lost.mask.copy()
    for one in kept:
        box = one.box.intersect(lost.box)
        if box.area:
            mask[box.within(lost.box)] &= ~one.mask[box.within(one.box)]
    radius = choice.opening_px
    if radius:
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        padded = np.pad(mask.astype(np.uint8), radius + 1)
        mask = cv2.morphologyEx(padded, cv2.MORPH_OPEN, disc)[radius + 1 : -radius - 1, radius + 1 : -radius - 1] > 0
    parts = label(mask, 4)
    largest = int(np.argmax(parts.areas))
    size = int(parts.areas[largest])
    if size < max(choice.min_px, 1):
        return None
    inside = Box(*(int(value) for value in parts.boxes[largest]))
    rest = replace(lost, box=inside.shift(lost.box.y0, lost.box.x0), mask=parts.labels[inside.slices] == largest)
    if np.count_nonzero(object_pixels[inside.slices] & rest.mask) <= choice.rules.object_share * size:
        return None
    for one in kept:
        common = _common(rest, one)
        if common and common / (size + one.area_px - common) >= choice.rules.leftover_iou:
            return None
    return rest


def _first_pixel(one: Instance) -> tuple[int, int]:
    return one.box.y0, one.box.x0 + int(np.argmax(one.mask[0]))


def _apart(kept: Mapping[int, Instance], near: Sequence[set[int]]) -> dict[int, Instance]:
    """Take pixels of several masks away from all but the first in row-major order of first pixels; none stays empty."""
    done: dict[int, Instance] = {}
    for member in sorted(kept, key=lambda member: _first_pixel(kept[member])):
        one = kept[member]
        mask = one.mask.copy()
        for other in near[member] & done.keys():
            box = done[other].box.intersect(one.box)
            if box.area:
                mask[box.within(one.box)] &= ~done[other].mask[box.within(done[other].box)]
        if mask.any():
            rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
            inside = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
            done[member] = replace(one, box=inside.shift(one.box.y0, one.box.x0), mask=mask[inside.slices])
    return done

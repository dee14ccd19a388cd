"""Rules that settle what becomes of proposals: a mask is chosen or rejected, overlaps are resolved, all is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.data.instances.ascent import Bools, Evidence, Ints
from inkbatch.data.instances.proposals import Proposal
from inkbatch.data.instances.settings import RefinementRules, SelectionRules, area_px, length_px
from inkbatch.data.labels.components import label
from inkbatch.data.labels.seams import UnionFind
from inkbatch.geometry import Box

Reason = Literal["small", "edge", "background", "many parts", "too large", "empty", "outside", "overlap", "not largest"]
REASONS: dict[Reason, str] = {
    "small": "smaller than the least area",
    "edge": "within the stated distance of the picture's edge",
    "background": "background by its mean probability",
    "many parts": "many first-pass regions inside",
    "too large": "each mask over too large a share of the picture",
    "empty": "no pixel in any mask",
    "outside": "the point lies in no object",
    "overlap": "overlaps a better mask, and too little is left of it",
    "not largest": "another object of the picture is larger, and one is kept",
}


SAME_IOU = 0.5  # from which a mask that lost is another view of the one that stays


@dataclass(frozen=True)
class Choice:
    """The selection rules in pixels.

    Attributes:
        rules: The rules.
        edge_px: Objects within this distance of the picture's edge are rejected.
        part_px: Smallest region that counts as a part.
        opening_px: Radius by which remainders are opened.
        min_px: Smallest area of an instance.
    """

    rules: SelectionRules
    edge_px: int
    part_px: int
    opening_px: int
    min_px: int

    @staticmethod
    def of(rules: SelectionRules, min_px: int, pixel_um: float | None) -> Choice:
        """Express the rules in pixels.

        Raises:
            ConfigError: One is in micrometres, and the edge of a pixel is not known.
        """
        edge, opening = round(length_px(rules.edge, pixel_um)), round(length_px(rules.opening, pixel_um))
        return Choice(rules, edge, int(np.ceil(area_px(rules.part_area, pixel_um))), opening, min_px)

    def at_edge(self, box: Box, shape_yx: tuple[int, int]) -> bool:
        """Tell if a box of the picture lies within `edge` of its border."""
        height, width = shape_yx
        return min(box.y0, box.x0, height - box.y1, width - box.x1) < self.edge_px


@dataclass(frozen=True, eq=False)
class FirstPassTile:
    """The first pass around a proposal.

    Attributes:
        box: The tile in pixels of the picture; may leave it.
        shape_yx: Size of the picture.
        evidence: The map in the tile.
        regions: (height, width): number of the region at each pixel, -1 outside.
    """

    box: Box
    shape_yx: tuple[int, int]
    evidence: Evidence
    regions: Ints


@dataclass(frozen=True, eq=False)
class Instance:
    """An object.

    Attributes:
        box: Its box in pixels of the picture.
        mask: (box.height, box.width): its pixels.
        score: Predicted intersection over union; NaN where no network predicted one.
        proposal: The proposal that it comes from.
    """

    box: Box
    mask: Bools
    score: float
    proposal: Proposal

    @property
    def area_px(self) -> int:
        """Pixels."""
        return int(np.count_nonzero(self.mask))


@dataclass(frozen=True)
class Rejection:
    """A proposal that became no instance.

    Attributes:
        proposal: The proposal.
        reason: A key of `REASONS`.
    """

    proposal: Proposal
    reason: Reason


@dataclass(frozen=True)
class Larger:
    """A proposal whose object reaches the border of its tile, where the picture goes on.

    Attributes:
        proposal: The proposal.
    """

    proposal: Proposal


@dataclass(frozen=True)
class Kept:
    """A proposal whose object stays as the first pass has it: no mask is better for sure.

    Attributes:
        proposal: The proposal.
    """

    proposal: Proposal


Answer = Instance | Rejection | Larger | Kept


def from_region(proposal: Proposal, regions: Ints, box: Box | None = None) -> Instance | Rejection:
    """Take the object of a proposal from the first pass: the region that holds its point.

    Args:
        proposal: The proposal.
        regions: The region at each pixel, -1 outside.
        box: Its place in the picture; None is the whole picture.
    """
    box = box or Box(0, 0, *regions.shape)
    y, x = proposal.pixel[0] - box.y0, proposal.pixel[1] - box.x0
    if not (0 <= y < box.height and 0 <= x < box.width) or regions[y, x] < 0:
        return Rejection(proposal, "outside")
    parts = label(regions == regions[y, x], 4)
    own = int(parts.labels[y, x])
    inside = Box(*(int(value) for value in parts.boxes[own]))
    mask = parts.labels[inside.slices] == own
    return Instance(inside.shift(box.y0, box.x0), mask, float("nan"), proposal)


def choose(
    proposal: Proposal,
    masks: Bools,
    scores: NDArray[np.float32],
    first_pass: FirstPassTile,
    choice: Choice,
    rules: RefinementRules,
) -> Instance | Rejection | Kept:
    """Choose one of a network's masks for a proposal, keep the first pass's object, or reject both.

    ``1 - IoU`` is a metric. A mask at distance a from the truth, and at 2 a or more from the first pass's object, is
    therefore no further from the truth than that one. So a `doubt` of 2 takes masks that are better if the network is
    right about them.

    Args:
        proposal: The proposal.
        masks: (m, height, width): masks of the tile.
        scores: (m,): predicted intersection over union of each.
        first_pass: The first pass in the tile.
        choice: The rules for rejections.
        rules: The rules for masks.
    """
    height, width = first_pass.shape_yx
    areas = masks.reshape(len(masks), -1).sum(axis=1)
    if not areas.any():
        return Rejection(proposal, "empty")
    fits = (areas > 0) & (areas <= choice.rules.largest_share * height * width)
    if not fits.any():
        return Rejection(proposal, "too large")
    region = _region_at(proposal, first_pass)
    ranked = scores if rules.masks == "surest" or not region.size else scores * _agreement(masks, areas, region)
    best = int(np.argmax(np.where(fits, ranked, -np.inf)))
    parts = label(masks[best], 4)
    largest = int(np.argmax(parts.areas))
    y0, x0, y1, x1 = (int(value) for value in parts.boxes[largest])
    inside = Box(y0, x0, y1, x1)
    found = Instance(
        inside.shift(first_pass.box.y0, first_pass.box.x0),
        parts.labels[inside.slices] == largest,
        float(scores[best]),
        proposal,
    )
    reason = _reason_against(found, inside, first_pass, choice)
    if reason is not None:
        return Rejection(proposal, reason)
    if region.size:
        (alike,) = _agreement((parts.labels == largest)[None], parts.areas[largest : largest + 1], region)
        if 1 - float(alike) < rules.doubt * (1 - found.score):
            return Kept(proposal)
    return found


def _region_at(proposal: Proposal, first_pass: FirstPassTile) -> Ints:
    """List the pixels of the tile, counted row by row, of the region that holds a proposal's point; none outside."""
    y, x = proposal.pixel[0] - first_pass.box.y0, proposal.pixel[1] - first_pass.box.x0
    height, width = first_pass.regions.shape
    number = first_pass.regions[y, x] if 0 <= y < height and 0 <= x < width else -1
    return np.flatnonzero(first_pass.regions == number) if number >= 0 else np.zeros(0, np.int64)


def _agreement(masks: Bools, areas: NDArray[Any], region: Ints) -> NDArray[np.float64]:
    """Compute the intersection over union of each mask (m, height, width) and the pixels of a region."""
    common = masks.reshape(len(masks), -1)[:, region].sum(axis=1)
    shares: NDArray[np.float64] = common / (areas + region.size - common)
    return shares


def _reason_against(found: Instance, inside: Box, first_pass: FirstPassTile, choice: Choice) -> Reason | None:
    if found.area_px < choice.min_px:
        return "small"
    if choice.at_edge(found.box, first_pass.shape_yx):
        return "edge"
    regions = first_pass.regions[inside.slices][found.mask]
    sizes = np.unique(regions[regions >= 0], return_counts=True)[1]
    if np.count_nonzero(sizes >= choice.part_px) >= choice.rules.parts:
        return "many parts"
    background = first_pass.evidence.background[inside.slices][found.mask]
    return "background" if float(background.mean(dtype=np.float64)) >= choice.rules.background else None


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

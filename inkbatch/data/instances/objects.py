"""Instances of one picture in the order of their labels: regions of the first pass, or a network's masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from inkbatch.data.instances.ascent import Bools, Ints
from inkbatch.data.instances.fates import ProposalFate, RegionFates, require_countable
from inkbatch.data.instances.joining import Joined
from inkbatch.data.instances.overlaps import Resolved, resolve
from inkbatch.data.instances.proposals import Proposal
from inkbatch.data.instances.selection import Answer, Choice, Instance, Kept, Larger, Rejection
from inkbatch.data.instances.unit_facts import Sums
from inkbatch.geometry import Box

ObjectSource = Literal["first-pass", "refined"]


@dataclass(frozen=True, eq=False)
class Objects:
    """Instances of a picture; entry i has the label i + 1.

    Attributes:
        extent: (n, 4): y0, x0, y1, x1.
        first: (n, 2): y, x of the first pixel.
        scores: (n,): intersection over union as the network predicts it; NaN: taken from the first pass.
        masks: Their pixels, (height, width) of the extent each; empty where the labels of regions tell them.
        larger: Numbers, from 0, of those that leave the tile of a network.
    """

    extent: Ints
    first: Ints
    scores: Sums
    masks: tuple[Bools, ...] = ()
    larger: frozenset[int] = frozenset()

    def box(self, index: int) -> Box:
        """Return the box of an instance."""
        return Box(*self.extent[index].tolist())

    def source(self, index: int) -> ObjectSource:
        """Tell what outlined an instance."""
        return "first-pass" if np.isnan(self.scores[index]) else "refined"

    def paint(self, box: Box) -> np.ndarray[tuple[int, ...], np.dtype[np.uint32]]:
        """Draw the labels of a box of the picture from the masks."""
        labels = np.zeros(box.shape, np.uint32)
        y0, x0, y1, x1 = self.extent.T
        for index in np.flatnonzero((y0 < box.y1) & (x0 < box.x1) & (y1 > box.y0) & (x1 > box.x0)).tolist():
            own = self.box(index)
            common = own.intersect(box)
            labels[common.within(box)][self.masks[index][common.within(own)]] = index + 1
        return labels


def of_regions(joined: Joined, fates: RegionFates) -> Objects:
    """Take the regions that are instances."""
    chosen = fates.chosen
    return Objects(joined.regions.extent[chosen], joined.regions.first[chosen], np.full(len(chosen), np.nan))


@dataclass(frozen=True, eq=False)
class Refined:
    """Refined objects of a picture.

    Attributes:
        objects: The instances.
        fates: Of all proposals, in their order.
    """

    objects: Objects
    fates: list[ProposalFate]

    def counts(self, joined: Joined, min_px: int) -> dict[str, int]:
        """Count fates by flat names for tables and sums, and instances by what outlined them."""
        ends = Counter(one.fate for one in self.fates)
        reasons = Counter(one.reason for one in self.fates if one.reason)
        first = int(np.isnan(self.objects.scores).sum())
        return {
            "proposals": len(self.fates),
            "proposals_instance": ends["instance"],
            "proposals_merged": ends["merged"],
            "proposals_rejected": ends["rejected"],
            **{f"proposals_rejected_{reason}": count for reason, count in sorted(reasons.items())},
            "regions": joined.counted(min_px),
            "regions_clustered": sum(one.proposal.parts - 1 for one in self.fates),
            "regions_rejected_small": joined.too_small(min_px),
            "instances_refined": len(self.objects.scores) - first,
            "instances_first_pass": first,
            "instances_kept": first - len(self.objects.larger),
        }


def refined_objects(
    answers: Iterable[tuple[int, Answer, Bools | None]],
    proposals: Sequence[Proposal],
    region: Callable[[Proposal], Instance | Rejection],
    choice: Choice,
    place: str,
) -> Refined:
    """Settle the answers of all units of a picture: overlaps, labels, and what becomes of every proposal.

    Args:
        answers: As `read_answers` gives them, in any order.
        proposals: All of the picture.
        region: Takes the object of a proposal from the first pass, or rejects it.
        choice: The rules.
        place: The picture, for messages.

    Raises:
        DataError: There are more instances than labels can number.
    """
    found: list[tuple[Instance, Bools]] = []
    reasons: dict[Proposal, Rejection] = {}
    larger: set[Proposal] = set()
    for number, answer, shown in sorted(answers, key=lambda one: one[0]):
        settled = region(answer.proposal) if isinstance(answer, Larger | Kept) else answer
        if isinstance(answer, Larger):
            larger.add(answer.proposal)
        if isinstance(settled, Rejection):
            reasons[proposals[number]] = settled
        else:
            found.append((settled, settled.mask if shown is None else shown))
    resolved = resolve([one for one, _ in found], [shown for _, shown in found], choice)
    require_countable(len(resolved.instances), place)
    return Refined(_objects(resolved.instances, larger), _fates(proposals, reasons, resolved))


def _objects(instances: Sequence[Instance], larger: Collection[Proposal]) -> Objects:
    extent = [(one.box.y0, one.box.x0, one.box.y1, one.box.x1) for one in instances]
    first = [(one.box.y0, one.box.x0 + int(np.argmax(one.mask[0]))) for one in instances]
    return Objects(
        np.array(extent, np.int64).reshape(-1, 4),
        np.array(first, np.int64).reshape(-1, 2),
        np.array([one.score for one in instances], np.float64),
        tuple(one.mask for one in instances),
        frozenset(index for index, one in enumerate(instances) if one.proposal in larger),
    )


def _fates(proposals: Sequence[Proposal], reasons: dict[Proposal, Rejection], resolved: Resolved) -> list[ProposalFate]:
    labels = {one.proposal: label for label, one in enumerate(resolved.instances, start=1)}
    merged = {lost: labels[stays] for lost, stays in resolved.merged}
    rejected = {**reasons, **{one.proposal: one for one in resolved.rejected}}

    def fate(one: Proposal) -> ProposalFate:
        if one in labels:
            return ProposalFate(one, "instance", None, labels[one])
        if one in merged:
            return ProposalFate(one, "merged", None, merged[one])
        return ProposalFate(one, "rejected", rejected[one].reason, 0)

    return [fate(one) for one in proposals]

"""Fates of regions and proposals without a network: every one is an instance, merged, or rejected with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from inkbatch.data.instances.ascent import Ints
from inkbatch.data.instances.joining import Joined
from inkbatch.data.instances.proposals import Proposal
from inkbatch.data.instances.selection import Choice, Reason
from inkbatch.errors import DataError
from inkbatch.geometry import Box

MOST_LABELS = 2**32 - 1  # of a picture of labels, uint32; 0 is no object

Fate = Literal["instance", "merged", "rejected"]


@dataclass(frozen=True)
class RegionFates:
    """Fates of the regions of one picture.

    Attributes:
        number: (regions,): label from 1 in row-major order of first pixels; 0 where a region is rejected.
        reasons: (regions,): the reason of a rejection, or None.
        chosen: (instances,): the region of each label, in their order.
    """

    number: Ints
    reasons: tuple[Reason | None, ...]
    chosen: Ints


def region_fates(joined: Joined, shape_yx: tuple[int, int], choice: Choice, place: str) -> RegionFates:
    """Settle which regions are instances.

    Raises:
        DataError: There are more than labels can number.
    """
    regions = joined.regions

    def reason(index: int) -> Reason | None:
        if regions.core[index] < choice.min_px:
            return "small"
        if choice.at_edge(Box(*regions.extent[index].tolist()), shape_yx):
            return "edge"
        return "background" if regions.background[index] >= choice.rules.background else None

    reasons = tuple(reason(index) for index in range(len(regions)))
    kept = np.array([found is None for found in reasons], bool)
    if choice.rules.keep == "largest" and kept.any():
        largest = int(np.argmax(np.where(kept, regions.area, -1)))
        reasons = tuple("not largest" if kept[i] and i != largest else found for i, found in enumerate(reasons))
        kept = np.arange(len(regions)) == largest
    require_countable(int(kept.sum()), place)
    number = np.where(kept, np.cumsum(kept), 0).astype(np.int64)
    return RegionFates(number, reasons, np.flatnonzero(kept).astype(np.int64))


def require_countable(count: int, place: str) -> None:
    """Refuse more instances than a picture of labels can number.

    Raises:
        DataError: There are.
    """
    if count > MOST_LABELS:
        raise DataError(
            f"{place}: expected at most {MOST_LABELS:,} instances, which labels of 32 bits can number, got {count:,}; "
            "raise proposals.min_area, or infer the picture in parts"
        )


@dataclass(frozen=True)
class ProposalFate:
    """Fate of one proposal.

    Attributes:
        proposal: The proposal.
        fate: ``instance``: the first one in an instance; ``merged``: a later one in it; or ``rejected``.
        reason: Reason of a rejection.
        label: The instance, 0 for none.
    """

    proposal: Proposal
    fate: Fate
    reason: Reason | None
    label: int


def proposal_fates(
    proposals: Sequence[Proposal], joined: Joined, fates: RegionFates, region_at: Mapping[tuple[int, int], int]
) -> list[ProposalFate]:
    """Settle what becomes of proposals: the first one in an instance is that instance, later ones are merged.

    Args:
        proposals: In their order, see `proposed`.
        joined: The first pass.
        fates: Of its regions.
        region_at: The region at the pixel of each proposal, -1 outside.
    """
    taken: set[int] = set()
    found = []
    for one in proposals:
        region = region_at.get(one.pixel, -1)
        if region < 0 or (one.rule == "component" and int(joined.component_of[region]) != one.number):
            found.append(ProposalFate(one, "rejected", "outside", 0))
            continue
        label, reason = int(fates.number[region]), fates.reasons[region]
        if reason is not None:
            found.append(ProposalFate(one, "rejected", reason, 0))
        elif label in taken:
            found.append(ProposalFate(one, "merged", None, label))
        else:
            taken.add(label)
            found.append(ProposalFate(one, "instance", None, label))
    return found


def counts_of(found: Sequence[ProposalFate], joined: Joined, fates: RegionFates, min_px: int) -> dict[str, int]:
    """Count the fates of one picture, by flat names for tables and sums."""
    ends = Counter(one.fate for one in found)
    reasons = Counter(one.reason for one in found if one.reason)
    regions = Counter(reason for reason in fates.reasons if reason)
    return {
        "proposals": len(found),
        "proposals_instance": ends["instance"],
        "proposals_merged": ends["merged"],
        "proposals_rejected": ends["rejected"],
        **{f"proposals_rejected_{reason}": count for reason, count in sorted(reasons.items())},
        "regions": joined.counted(min_px),
        "regions_instance": len(fates.chosen),
        "regions_clustered": sum(one.proposal.parts - 1 for one in found),
        "regions_rejected_small": joined.too_small(min_px),
        **{f"regions_rejected_{reason}": count for reason, count in sorted(regions.items()) if reason != "small"},
        "instances_without_proposal": len(fates.chosen) - ends["instance"],
    }

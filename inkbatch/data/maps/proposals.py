"""Proposals: regions where a label helps most, ranked, each with a first label and an ignore mask.

The rank of a region is a product of three numbers from 0 to 1::

    disagreement   mean doubt of the networks over pixels that could be ink
    legibility     certain ink among all that could be ink, less where there is hardly any certain ink
    distance       d / (d + region_px), d from the region's middle to the nearest labelled region
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from inkbatch.config import JobConfig
from inkbatch.data.labels.components import INK_NEIGHBOURS, label
from inkbatch.data.maps.out_of_fold import OutOfFold
from inkbatch.geometry import Box

ENOUGH_INK = 0.02  # share of a region that is certain ink from which its legibility counts in full

Bools = NDArray[np.bool_]


class ProposalRules(JobConfig):
    """Rules of proposals.

    Attributes:
        regions: Most regions that are proposed in one round.
        minutes: Minutes that a person gives to a round; with `minutes_per_region` it lowers `regions`.
        minutes_per_region: Minutes that one region takes.
        region_px: Edge of a region.
        low: Probability below which a first label says bare.
        high: Probability from which it says ink; between the two a pixel is ignored.
        min_area_px: Components of ink with fewer pixels are ignored, and so are those that the region's edge cuts.
        most_labelled: Regions with a larger share of labelled pixels are not proposed.
        min_papyrus: Nor are those with a smaller share of papyrus.
        as_version: Store the labels of the round together with the first labels of its regions as the newest label
            version of each segment, for people to correct; the next round takes it, corrected or not.
    """

    regions: int = Field(12, ge=1)
    minutes: float | None = Field(None, gt=0)
    minutes_per_region: float = Field(5.0, gt=0)
    region_px: int = Field(512, ge=16)
    low: float = Field(0.3, ge=0, lt=1)
    high: float = Field(0.7, gt=0, le=1)
    min_area_px: int = Field(100, ge=0)
    most_labelled: float = Field(0.5, ge=0, le=1)
    min_papyrus: float = Field(0.5, ge=0, le=1)
    as_version: bool = True

    @model_validator(mode="after")
    def _a_band(self) -> ProposalRules:
        if self.low >= self.high:
            raise ValueError(f"expected low < high, got {self.low:g} and {self.high:g}; swap or correct them")
        return self

    @property
    def most(self) -> int:
        """Regions that the budget pays for."""
        if self.minutes is None:
            return self.regions
        return min(self.regions, int(self.minutes / self.minutes_per_region))


@dataclass(frozen=True)
class Candidate:
    """One region that may be proposed.

    Attributes:
        segment: Segment id.
        box: The region.
        disagreement: 0 to 1.
        legibility: 0 to 1.
        distance_px: From its middle to the middle of the nearest labelled region; infinite without one.
    """

    segment: str
    box: Box
    disagreement: float
    legibility: float
    distance_px: float = float("inf")

    def score(self, region_px: int) -> float:
        """Return the product of the three numbers."""
        far = 1.0 if np.isinf(self.distance_px) else self.distance_px / (self.distance_px + region_px)
        return self.disagreement * self.legibility * far

    def document(self, region_px: int) -> dict[str, Any]:
        """Return the stored form."""
        return {
            "segment": self.segment,
            "box": [self.box.y0, self.box.x0, self.box.y1, self.box.x1],
            "disagreement": round(self.disagreement, 6),
            "legibility": round(self.legibility, 6),
            "distance_px": None if np.isinf(self.distance_px) else round(self.distance_px, 1),
            "score": round(self.score(region_px), 6),
        }


def look_at(segment: str, box: Box, found: OutOfFold, papyrus: Bools, rules: ProposalRules) -> Candidate:
    """Measure a region.

    Args:
        segment: Segment id.
        box: The region.
        found: What networks that never saw it say, (Y, X) of the box.
        papyrus: True where there is papyrus.
        rules: The two thresholds.
    """
    heard = papyrus & (found.networks > 0)
    possible = heard & (found.mean >= rules.low)
    certain = heard & (found.mean >= rules.high)
    doubtful = heard & (possible | (found.spread > rules.low / 2))
    disagreement = float(found.doubt[doubtful].mean()) if doubtful.any() else 0.0
    share = certain.sum() / max(int(heard.sum()), 1)
    crisp = certain.sum() / max(int(possible.sum()), 1)
    return Candidate(segment, box, disagreement, float(crisp * min(1.0, share / ENOUGH_INK)))


def distances(boxes: Sequence[Box], labelled: Sequence[Box]) -> list[float]:
    """Return the distance of each box's middle to the nearest middle of a labelled one, in pixels."""
    if not labelled:
        return [float("inf")] * len(boxes)
    there = np.array([(box.y0 + box.y1, box.x0 + box.x1) for box in labelled]) / 2
    middles = [np.array([box.y0 + box.y1, box.x0 + box.x1]) / 2 for box in boxes]
    return [float(np.sqrt(((there - middle) ** 2).sum(axis=1)).min()) for middle in middles]


def ranked(candidates: Sequence[Candidate], rules: ProposalRules) -> list[Candidate]:
    """Return the best candidates, as many as the budget pays for; those that score 0 are never proposed."""
    scored = [(one.score(rules.region_px), one) for one in candidates]
    order = sorted((pair for pair in scored if pair[0] > 0), key=lambda pair: (-pair[0], pair[1].segment, pair[1].box))
    return [one for _, one in order[: rules.most]]


def first_label(found: OutOfFold, papyrus: Bools, rules: ProposalRules) -> tuple[Bools, Bools]:
    """Draw the first label of a region.

    Returns:
        (ink, ignored), boolean (Y, X); what is neither is bare. Ignored are pixels between the two thresholds, those of
        which no network may speak, specks, and components that the region's edge cuts.
    """
    unheard = (found.networks == 0) | ~papyrus
    ink = ~unheard & (found.mean >= rules.high)
    parts = label(ink, INK_NEIGHBOURS)
    edge = np.ones(ink.shape, bool)
    edge[1:-1, 1:-1] = False
    dropped = (parts.areas < rules.min_area_px) | parts.touched(edge)
    dropped[0] = False
    unsure = dropped[parts.labels]
    between = ~unheard & ~ink & (found.mean >= rules.low)
    return ink & ~unsure, unheard | unsure | between

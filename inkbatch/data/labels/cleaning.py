"""Label cleaning: a prediction or a hand-made picture becomes ink labels of 0 and 255, unit by unit.

The rules, in this order: threshold, inversion, dilation, removal of small components, hole filling. Each is defined on
the whole surface; cutting it into units changes no pixel.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from inkbatch.data.labels.components import Bools, UnitComponents
from inkbatch.data.labels.ink import INK_SHARE
from inkbatch.data.labels.seams import UnitDecision

MIN_AREA_PX = 5_000
MAX_HOLE_PX = 500


class CleaningRules(BaseModel):
    """Rules that turn a source into ink labels.

    Attributes:
        threshold: Share of full scale from which (inclusive) a pixel is ink.
        invert: Take pixels below the threshold as ink: dark letters on white.
        dilation_px: Radius of the disc by which ink is grown; 0 leaves it. What lies outside the surface is bare.
        min_area_px: Ink components (8 neighbours, after dilation) of fewer pixels become bare.
        max_hole_px: Largest hole that is filled; 0 fills none, None fills all. A hole is a bare area (4 neighbours,
            after removal) that ink encloses; one that reaches the border of the surface is none. Letters such as
            omicron have holes of their own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float = Field(INK_SHARE, gt=0, le=1)
    invert: bool = False
    dilation_px: int = Field(0, ge=0, le=128)
    min_area_px: int = Field(MIN_AREA_PX, ge=0)
    max_hole_px: int | None = Field(MAX_HOLE_PX, ge=0)

    @property
    def fill_holes(self) -> bool:
        """True if holes are looked for."""
        return self.max_hole_px != 0


def threshold_ink(share: NDArray[np.floating[Any]], rules: CleaningRules) -> Bools:
    """Mark the pixels that are ink by their own value.

    Args:
        share: Probability, or share of full scale, in [0, 1].
        rules: Threshold and inversion.
    """
    found: Bools = share >= share.dtype.type(rules.threshold)
    return ~found if rules.invert else found


def disc(radius_px: int) -> NDArray[np.uint8]:
    """Make a structuring element of all pixels whose centre lies within `radius_px` of the middle one."""
    steps = np.arange(-radius_px, radius_px + 1)
    return (steps[:, None] ** 2 + steps[None, :] ** 2 <= radius_px**2).astype(np.uint8)


def dilated(ink: Bools, radius_px: int) -> Bools:
    """Grow ink by a disc; exact `radius_px` inside the given block, and at the surface's border."""
    if radius_px == 0:
        return ink
    grown: Bools = cv2.dilate(ink.view(np.uint8), disc(radius_px)) != 0
    return grown


def clean_unit(parts: UnitComponents, decision: UnitDecision, max_hole_px: int | None) -> tuple[Bools, Bools]:
    """Apply the decision on open components and the rules on closed ones.

    Args:
        parts: The unit's components; holes are filled where its bare areas were labelled.
        decision: Of this unit, from `seams.merge`.
        max_hole_px: Largest hole that is filled; None fills all.

    Returns:
        (ink, ignored), each (height, width): ignored are the components that touch the border, and the filled holes
        around or in which such a component lies.
    """
    stays = np.ones(len(parts.ink.areas), bool)
    stays[0] = False
    kept, ignored = stays.copy(), stays & parts.ink_border
    stays[parts.ink_open], kept[parts.ink_open] = decision.ink_stays, decision.ink_kept
    ignored[parts.ink_open] = decision.ink_ignored
    ink, left_out = stays[parts.ink.labels], ignored[parts.ink.labels]
    if parts.bare is None:
        return ink, left_out
    first, second = parts.pairs.T
    filled = parts.bare_closed & ((parts.bare.areas <= max_hole_px) if max_hole_px is not None else True)
    bare_ignored = np.zeros(len(filled), bool)
    bare_ignored[second[ignored[first]]] = True
    lost = parts.ink_open[first] & ~kept[first] & parts.bare_closed[second]
    filled[second[lost]] = stays[first[lost]]  # the component around it is gone, so it goes with that place
    filled[parts.bare_open], bare_ignored[parts.bare_open] = decision.bare_filled, decision.bare_ignored
    bare_ignored &= filled
    return ink | filled[parts.bare.labels], left_out | bare_ignored[parts.bare.labels]

"""Ignore masks: pixels that count in no loss and no metric, as it is unknown whether they are ink."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from inkbatch.data.labels.components import Bools

IGNORED = 1  # stored value
NO_MASK = "none"  # in place of a mask that the catalog names


class IgnoreRules(BaseModel):
    """Rules of the ignore mask; without any rule there is no mask.

    Attributes:
        image: A 2-D image of the surface's size, non-zero where pixels are ignored.
        uncertain: (low, high): ignore pixels whose share of full scale is at least `low` and below `high`.
        border: Ignore kept ink components that touch a border: ``surface`` is the outermost pixels, ``papyrus`` also
            pixels with one of their 8 neighbours outside the segment mask.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str | None = None
    uncertain: tuple[float, float] | None = None
    border: Literal["none", "surface", "papyrus"] = "none"

    @model_validator(mode="after")
    def _some_band(self) -> IgnoreRules:
        if self.uncertain is not None and not 0 <= self.uncertain[0] < self.uncertain[1] <= 1:
            low, high = self.uncertain
            raise ValueError(f"uncertain: expected 0 <= low < high <= 1, got {low:g}, {high:g}; swap or correct them")
        return self

    @property
    def any(self) -> bool:
        """True if there is a mask to make."""
        return self.image is not None or self.uncertain is not None or self.border != "none"


def uncertain_pixels(share: NDArray[np.floating[Any]], rules: IgnoreRules) -> Bools:
    """Mark values between the two thresholds; none if there are no thresholds.

    Args:
        share: Probability, or share of full scale, in [0, 1].
        rules: The thresholds.
    """
    if rules.uncertain is None:
        return np.zeros(share.shape, bool)
    low, high = (share.dtype.type(value) for value in rules.uncertain)
    found: Bools = (share >= low) & (share < high)
    return found

"""Denoising of a map: each pixel takes something of its neighbours; units with a halo give what the whole map gives."""

from __future__ import annotations

import math
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Floats = NDArray[np.float32]

GAUSSIAN_REACH = 4  # standard deviations


class DenoiseRules(BaseModel):
    """Denoising of a map; where it is 0 (outside the segment mask) it stays 0.

    Attributes:
        method: ``none``; ``median`` of the square around each pixel, which takes specks away and keeps edges; or
            ``gaussian``, a weighted mean.
        median_px: Edge of the median's square.
        sigma_px: Standard deviation of the gaussian.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["none", "median", "gaussian"] = "none"
    median_px: Literal[3, 5] = 3
    sigma_px: float = Field(1.0, gt=0, le=32)

    @property
    def halo_px(self) -> int:
        """Pixels around a box that its values depend on."""
        if self.method == "median":
            return self.median_px // 2
        return math.ceil(GAUSSIAN_REACH * self.sigma_px) if self.method == "gaussian" else 0


def denoised(values: Floats, rules: DenoiseRules) -> Floats:
    """Denoise a box (height, width).

    Exact where it lies `DenoiseRules.halo_px` inside its block, or at the border of the map, where the outermost pixels
    are repeated.
    """
    if rules.method == "none":
        return values
    if rules.method == "median":
        found = cv2.medianBlur(np.ascontiguousarray(values), rules.median_px)
    else:
        size = 2 * rules.halo_px + 1
        found = cv2.GaussianBlur(
            values, (size, size), rules.sigma_px, sigmaY=rules.sigma_px, borderType=cv2.BORDER_REPLICATE
        )
    return np.where(values == 0, np.float32(0), np.clip(found, 0, 1, dtype=np.float32))

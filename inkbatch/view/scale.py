"""Scales of maps: how stored values become shares from 0 (nothing) to 1 that are drawn, and back for the readout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.io.pictures.z_maps import SHOWN_Z


@dataclass(frozen=True)
class Scale:
    """Scale of a map.

    Attributes:
        low: Value that is drawn as 0.
        high: Value that is drawn as 1.
        depths: For a map of places in a list of depths: the list; a stored 0 is none.
        unit: Name of its values on the page.
    """

    low: float = 0.0
    high: float = 1.0
    depths: tuple[int, ...] = ()
    unit: str = "ink"

    @property
    def document(self) -> dict[str, Any]:
        """The page's key of colours: values at both ends, and the unit."""
        low, high = (self.depths[0], self.depths[-1]) if self.depths else (self.low, self.high)
        return {"low": low, "high": high, "unit": self.unit}

    def shares(self, stored: NDArray[Any]) -> NDArray[np.float16]:
        """Turn stored values into shares, float16; a stored 0, which is no value, becomes 0."""
        if self.depths:
            return (stored.astype(np.float32) / np.float32(len(self.depths))).astype(np.float16)
        if self == PROBABILITY:
            return np.asarray(stored, np.float16)
        share = np.clip((stored.astype(np.float32) - self.low) / (self.high - self.low), 0, 1)
        return np.where(stored == 0, 0, share).astype(np.float16)

    def value(self, share: float) -> float | None:
        """Turn a share back into a value: a depth, or None for none; a value beyond the scale is that of its end."""
        if self.depths:
            place = round(share * len(self.depths))
            return self.depths[place - 1] if place else None
        if self == PROBABILITY:
            return share
        return round(self.low + share * (self.high - self.low), 3) if share else None


PROBABILITY = Scale()
Z_VALUES = Scale(*SHOWN_Z, unit="z")


def depth_scale(depths: Sequence[int]) -> Scale:
    """Return the scale of best depths."""
    return Scale(depths=tuple(int(depth) for depth in depths), unit="layers")

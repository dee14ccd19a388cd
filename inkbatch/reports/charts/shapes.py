"""Parts of a chart: lines, axes and marks; the same for `svg` and `raster`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FLAT_RANGE = 1e-9  # an axis that is shorter is widened


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: Name in the legend; an empty one keeps the line out of it and draws it faint, as a reference.
        points: (x, y); NaN leaves a gap.
        dots: Mark the points.
    """

    name: str
    points: Sequence[tuple[float, float]]
    dots: bool = False

    @staticmethod
    def of(name: str, x: NDArray[np.floating], y: NDArray[np.floating], dots: bool = False) -> Line:
        """Make a line of two arrays of equal length."""
        return Line(name, list(zip(x.tolist(), y.tolist(), strict=True)), dots)

    @property
    def is_reference(self) -> bool:
        """True for a line without a name."""
        return not self.name


@dataclass(frozen=True)
class Scale:
    """Range of an axis.

    Attributes:
        low: First value.
        high: Last value, larger than `low`.
        whole: Ticks at whole numbers only.
    """

    low: float
    high: float
    whole: bool = False

    def share(self, value: float) -> float:
        """Return the place of a value on the axis: 0 at its start, 1 at its end."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return about five round values inside the range."""
        step = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(step))
        step = power * min(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * 0.999)
        if self.whole:
            step = max(1.0, float(round(step)))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [float(f"{number * step:.6g}") for number in range(first, last + 1)]


@dataclass(frozen=True)
class Axis:
    """An axis, whose open ends follow the values.

    Attributes:
        name: Measured quantity, with its unit.
        low: First value; None takes the smallest one drawn.
        high: Last value; None takes the largest one drawn.
        whole: Ticks at whole numbers only.
    """

    name: str
    low: float | None = None
    high: float | None = None
    whole: bool = False

    def scale(self, values: Sequence[float] = ()) -> Scale:
        """Close the open ends around `values`; those that are not finite do not count."""
        known = [value for value in values if math.isfinite(value)] or [0.0]
        room = 0.0 if self.whole else 0.05 * (max(known) - min(known))
        low = min(known) - room if self.low is None else self.low
        high = max(known) + room if self.high is None else self.high
        if high - low <= FLAT_RANGE:
            low, high = (low - 0.5, low + 0.5) if self.low is None else (low, low + 1)
        return Scale(low, high, self.whole)


@dataclass(frozen=True)
class Mark:
    """A named point, or a place on the horizontal axis.

    Attributes:
        name: Text beside it.
        x: Place on the horizontal axis.
        y: Height of the point; None draws an upright line through `x`.
    """

    name: str
    x: float
    y: float | None = None

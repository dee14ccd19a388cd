"""Grey values of a source turned into the surface's: one explicit rule, an optional lookup table, one pass."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import ConfigError, DataError, NonFiniteError

_RANGE_RULE = re.compile(r"(window|percentile):(-?\d+(?:\.\d+)?):(-?\d+(?:\.\d+)?)")
LutPoints = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class IntensityRule:
    """A 16 -> 8 bit rule.

    Attributes:
        kind: ``keep`` (as stored), ``high-byte`` (uint16 / 256, rounded down), ``window`` (LO..HI becomes 0..255,
            linear, rounded to nearest, saturating), or ``percentile`` (a window whose ends are a sample's percentiles).
        low: LO of window (grey value) or percentile (0..100).
        high: HI, likewise.
    """

    kind: str
    low: float = 0.0
    high: float = 0.0

    @staticmethod
    def parse(text: str) -> IntensityRule:
        """Read ``keep``, ``high-byte``, ``window:LO:HI`` or ``percentile:LO:HI``.

        Raises:
            ConfigError: Anything else, or LO >= HI.
        """
        if text in ("keep", "high-byte"):
            return IntensityRule(text)
        match = _RANGE_RULE.fullmatch(text)
        if not match:
            raise ConfigError(f"intensity {text!r}: expected keep, high-byte, window:LO:HI or percentile:LO:HI")
        kind, low, high = match.group(1), float(match.group(2)), float(match.group(3))
        if low >= high or (kind == "percentile" and not 0 <= low < high <= 100):
            raise ConfigError(
                f"intensity {text!r}: expected LO < HI" + (" within 0..100" if kind == "percentile" else "")
            )
        return IntensityRule(kind, low, high)

    @staticmethod
    def default_for(dtype: np.dtype[Any]) -> IntensityRule:
        """Choose ``keep`` for 8 bits, ``high-byte`` for 16.

        Raises:
            ConfigError: Floats have no natural range: a window must be stated.
        """
        if dtype == np.uint8:
            return IntensityRule("keep")
        if dtype == np.uint16:
            return IntensityRule("high-byte")
        raise ConfigError(f"intensity: the layers are {dtype}; state --intensity window:LO:HI (or percentile:LO:HI)")

    def __str__(self) -> str:
        if self.kind not in ("window", "percentile"):
            return self.kind
        return ":".join([self.kind, *(np.format_float_positional(value, trim="-") for value in (self.low, self.high))])


class IntensityMap:
    """Turns arrays of a source's dtype into the surface's dtype.

    Args:
        rule: Resolved rule (no percentile).
        source_dtype: uint8, uint16 or float32.
        lut: Control points (x, y) on 0..255, applied after the rule, linear between them, rounded to nearest.

    Raises:
        ConfigError: Rule and dtype do not go together, or the lookup table is no function on 0..255.
    """

    def __init__(self, rule: IntensityRule, source_dtype: np.dtype[Any], lut: LutPoints | None = None) -> None:
        self.rule = rule
        self.source_dtype = source_dtype
        if rule.kind == "high-byte" and source_dtype != np.uint16:
            raise ConfigError(f"intensity high-byte: expected uint16 layers, got {source_dtype}; use keep")
        if rule.kind == "keep" and source_dtype.kind == "f":
            raise ConfigError("intensity keep: the layers are floats; state --intensity window:LO:HI")
        self.dtype = source_dtype if rule.kind == "keep" else np.dtype(np.uint8)
        if lut is not None and self.dtype != np.uint8:
            raise ConfigError("lut: control points are for 8-bit values; choose an intensity rule that gives 8 bits")
        self._table = self._make_table(lut)

    def _make_table(self, lut: LutPoints | None) -> NDArray[np.uint8] | None:
        points = None if lut is None else lut_table(lut)
        if self.rule.kind in ("keep", "high-byte") and points is None:
            return None
        if self.source_dtype.kind == "f":
            return points
        values = np.arange(2 ** (8 * self.source_dtype.itemsize), dtype=np.float64)
        if self.rule.kind == "high-byte":
            mapped = (values // 256).astype(np.uint8)
        elif self.rule.kind == "window":
            mapped = _windowed(values, self.rule)
        else:
            mapped = values.astype(np.uint8)
        return mapped if points is None else points[mapped]

    def apply(self, stored: NDArray[Any], out: NDArray[Any]) -> None:
        """Convert one layer's pixels.

        Args:
            stored: (height, width) in the source's dtype.
            out: (height, width) in `self.dtype`, filled.

        Raises:
            NonFiniteError: NaN or infinity in a float layer.
        """
        if self.source_dtype.kind == "f":
            if not np.isfinite(stored).all():
                raise NonFiniteError("the layer holds NaN or infinity; fill them in the source, or mark them by a mask")
            windowed = _windowed(stored, self.rule)
            np.copyto(out, windowed if self._table is None else self._table[windowed])
        elif self._table is not None:
            if self.source_dtype == np.uint8:
                cv2.LUT(np.ascontiguousarray(stored), self._table, dst=out)
            else:
                np.take(self._table, stored, out=out)
        elif self.rule.kind == "high-byte":
            np.right_shift(stored, 8, out=out, casting="unsafe")
        else:
            np.copyto(out, stored)


def _windowed(values: NDArray[Any], rule: IntensityRule) -> NDArray[np.uint8]:
    scale = 255.0 / (rule.high - rule.low)
    scaled = (values.astype(np.float64) - rule.low) * scale
    result: NDArray[np.uint8] = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    return result


def lut_table(points: LutPoints) -> NDArray[np.uint8]:
    """Compute the 256 entries of a lookup table given by control points.

    Raises:
        ConfigError: Points not ascending in x from 0 to 255, or y outside 0..255.
    """
    x = [point[0] for point in points]
    y = [point[1] for point in points]
    if len(points) < 2 or x[0] != 0 or x[-1] != 255 or any(b <= a for a, b in itertools.pairwise(x)):
        raise ConfigError(
            f"lut {points}: expected points with ascending x from 0 to 255, e.g. [[0,0],[128,64],[255,255]]"
        )
    if min(y) < 0 or max(y) > 255:
        raise ConfigError(f"lut {points}: expected y in 0..255")
    table: NDArray[np.uint8] = np.rint(np.interp(np.arange(256), x, y)).astype(np.uint8)
    return table


def resolve_percentiles(rule: IntensityRule, sample: NDArray[Any]) -> IntensityRule:
    """Turn a percentile rule into the window that it means on a sample; zeros (outside the papyrus) do not count.

    Args:
        rule: Any rule; others than percentile come back as they are.
        sample: Grey values, any shape.

    Raises:
        DataError: The sample is empty or constant.
    """
    if rule.kind != "percentile":
        return rule
    values = sample[sample != 0]
    if values.size and not np.isfinite(values).all():
        raise NonFiniteError("intensity percentile: the sampled layers hold NaN or infinity")
    low, high = np.percentile(values, [rule.low, rule.high]).tolist() if values.size else (0.0, 0.0)
    if low >= high:
        raise DataError(f"intensity {rule}: the sampled grey values are empty or constant; state window:LO:HI")
    return IntensityRule("window", round(low, 4), round(high, 4))

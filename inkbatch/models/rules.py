"""Rules inside a contract that came with the networks of 2026: statistics of a tile, and how tiles are stitched.

Here they are data; `inkbatch.predict` carries them out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

BY_STATISTICS: tuple[Literal["robust-mad", "percentile-range"], ...] = ("robust-mad", "percentile-range")


class Grown(BaseModel):
    """A model that got further keys later: those are stored only where they differ from their defaults.

    So what was written before, its digests and its seals stay what they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    younger: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _as_before(self, serialise: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        known = type(self).model_fields
        values = serialise(self)
        same = {key for key in self.younger if getattr(self, key) == known[key].get_default(call_default_factory=True)}
        return {key: value for key, value in values.items() if key not in same}


class Normaliser(BaseModel):
    """Rule that turns the intensities of a tile into the network's input.

    Attributes:
        kind: ``fixed``: the contract's clip, divisor, mean and std. ``robust-mad``: clip to percentiles, less the
            median, over 1.4826 times the median absolute deviation. ``percentile-range``: clip to percentiles, and 0 to
            1 between them; percentiles 0 and 100 make it the range from minimum to maximum. ``network``: as ``fixed``,
            and the network's first layer then takes the tile's own statistics.
        percentiles: Lower and upper percentile, 0 to 100, linear between order statistics.
        statistics: ``tile``: of each tile by itself; ``segment``: of all prepared layers of the segment together.
        counts: What counts in the statistics. ``all``: every stored value, zeros beyond the border and values outside
            the mask included; ``nonzero``: values other than 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["fixed", "robust-mad", "percentile-range", "network"] = "fixed"
    percentiles: tuple[float, float] = (1.0, 99.0)
    statistics: Literal["tile", "segment"] = "tile"
    counts: Literal["all", "nonzero"] = "all"

    @property
    def by_statistics(self) -> bool:
        """True if statistics of the data take the place of clip, divisor, mean and std."""
        return self.kind in BY_STATISTICS

    @property
    def per_tile(self) -> bool:
        """True if every tile is normalised by statistics of its own, outside the network."""
        return self.by_statistics and self.statistics == "tile"

    @model_validator(mode="after")
    def _values_agree(self) -> Normaliser:
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(
                f"normaliser: expected percentiles with 0 <= lower < upper <= 100, got {low:g} and {high:g}"
            )
        given = (self.percentiles, self.statistics, self.counts)
        if not self.by_statistics and given != ((1.0, 99.0), "tile", "all"):
            raise ValueError(
                f"normaliser {self.kind}: takes no percentiles, statistics or counts; leave them out, or choose "
                f"{' or '.join(BY_STATISTICS)}"
            )
        return self


class Stitching(BaseModel):
    """Rule that joins the maps of tiles into one map.

    Attributes:
        divide_by: The sum of weighted maps is divided by the sum of ``weights``, or by the ``count`` of tiles (which
            darkens what tiles see at their edges).
        last_tile: ``flush``: a last tile is moved in to touch the border. ``none``: tiles lie at multiples of the
            stride only, and a rim that none of them reaches stays 0.
        tiles: Which tiles are computed: with ``any`` papyrus in them, or those that lie on papyrus as a ``whole``.
        closing_px: Diameter of the ellipse that closes the mask before tiles are chosen (odd), or 0.
        empty_tiles: A tile that is not computed leaves no trace (``skip``), or weighs as one that says 0 (``count``).
        outside: Pixels outside the mask become ``zero``, or ``keep`` what tiles say there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    divide_by: Literal["weights", "count"] = "weights"
    last_tile: Literal["flush", "none"] = "flush"
    tiles: Literal["any", "whole"] = "any"
    closing_px: int = Field(0, ge=0, le=63)
    empty_tiles: Literal["skip", "count"] = "skip"
    outside: Literal["zero", "keep"] = "zero"

    @model_validator(mode="after")
    def _closing_has_a_centre(self) -> Stitching:
        if self.closing_px and self.closing_px % 2 == 0:
            raise ValueError(f"stitching: expected an odd closing_px, or 0, got {self.closing_px}")
        return self

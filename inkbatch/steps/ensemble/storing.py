"""Combining the maps of one unit, and storing the result with its disagreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inkbatch.data.maps.combining import Combination, Halves
from inkbatch.data.maps.consensus import confirmed
from inkbatch.data.maps.stored import StoredMap
from inkbatch.geometry import Box, Unit
from inkbatch.io.pictures.preview import LivePicture
from inkbatch.io.prediction import Prediction, Region


@dataclass(frozen=True)
class Agreement:
    """Rule of the method ``consensus``: marks of one map stay where they hang together with those of another.

    Attributes:
        thresholds: Of each map: the probability from which it marks a pixel.
        reach_px: How far from a pixel its mark is followed.
    """

    thresholds: tuple[float, ...]
    reach_px: int


@dataclass(frozen=True)
class CombinedMaps:
    """The combined map of an ensemble, and the place where its units are stored.

    Attributes:
        maps: The members.
        rule: How their values become one.
        output: The combined map.
        disagreement: Their standard deviation, or None.
        live: Picture of the units that are stored.
    """

    maps: Sequence[StoredMap]
    rule: Combination
    output: Prediction
    disagreement: Prediction | None
    live: LivePicture

    def store(self, unit: Unit, opened: Sequence[Region]) -> Mapping[str, Any]:
        """Combine and store a unit, chunk by chunk; closes what was opened of each map."""
        box = unit.write_box
        deviation = self._deviation(box)

        def make(part: Box, out: Halves) -> None:
            codes = [found.codes_of(region, part) for found, region in zip(self.maps, opened, strict=True)]
            self.rule.stored(codes, out, None if deviation is None else deviation[part.within(box)])

        try:
            stored, lower = self.output.pyramid.write_made(box, make)
        finally:
            for region in opened:
                region.close()
        stored += self._store_deviation(box, deviation)
        self.live.add(box, lower[-1] if lower else self.output.read(box))
        return {"bytes_written": stored}

    def store_agreed(self, agreement: Agreement, unit: Unit, opened: Sequence[Region]) -> Mapping[str, Any]:
        """Store the mean where marks are confirmed, else the smallest value; read with all that marks hang on."""
        try:
            codes = [found.codes_of(region, unit.read_box) for found, region in zip(self.maps, opened, strict=True)]
        finally:
            for region in opened:
                region.close()
        marks = [values.view(np.float16) >= at for at, values in zip(agreement.thresholds, codes, strict=True)]
        inner = unit.write_box.within(unit.read_box)
        kept = confirmed(marks, agreement.reach_px)[inner]
        codes = [np.ascontiguousarray(values[inner]) for values in codes]
        merged = np.empty(unit.write_box.shape, np.float16)
        deviation = self._deviation(unit.write_box)
        self.rule.stored(codes, merged, deviation)
        merged = np.where(kept, merged, np.minimum.reduce(codes).view(np.float16))
        stored = self.output.write(unit.write_box, merged) + self._store_deviation(unit.write_box, deviation)
        self.live.add(unit.write_box, merged)
        return {"bytes_written": stored}

    def _deviation(self, box: Box) -> Halves | None:
        return None if self.disagreement is None else np.empty(box.shape, np.float16)

    def _store_deviation(self, box: Box, deviation: Halves | None) -> int:
        if self.disagreement is None or deviation is None:
            return 0
        return self.disagreement.write(box, deviation)

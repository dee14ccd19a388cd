"""Held-out pixels of segments: what a validation mask marks validates, a moat around it trains nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from inkbatch.data.datasets.counting import BoxCounts, count_marked
from inkbatch.data.datasets.index import SplitName
from inkbatch.data.datasets.segment_arrays import SegmentArrays
from inkbatch.data.datasets.split_rules import SplitRules
from inkbatch.data.datasets.zones import HeldOut
from inkbatch.data.labels.ink import INK_LABEL
from inkbatch.errors import ConfigError, DataError
from inkbatch.geometry import Box, cut

Boxes = NDArray[np.int64]
Bools = NDArray[np.bool_]
READ_PX = 2048


class MaskSplit(SplitRules):
    """Validation by the segments' validation masks; samples that come near held-out pixels train nothing.

    Attributes:
        kind: ``masks``.
        moat_px: Smallest gap between a training sample and a held-out pixel; None, and at least: a sample with its
            context.
    """

    kind: Literal["masks"]
    moat_px: int | None = Field(None, ge=0)

    def expects(self, name: SplitName) -> bool:
        """Expect samples that validate, since masks can hold none that test."""
        return name == "validation"

    def zones(
        self, arrays: Mapping[str, SegmentArrays], sample_px: int, context_px: int, seed: int
    ) -> Mapping[str, MaskZones]:
        """Lay moats around held-out pixels; see `SplitRules`."""
        return mask_zones(arrays, self, sample_px, context_px)

    def held_out_pixels(self, arrays: Mapping[str, SegmentArrays], sample_px: int) -> Mapping[str, HeldOut]:
        """Count what validation masks hold out; see `SplitRules`."""
        return {name: leak_without_moat(own, sample_px) for name, own in arrays.items() if own.holds_out}


@dataclass(frozen=True)
class MaskZones:
    """The held-out pixels of one segment, and the moat around them.

    Attributes:
        arrays: The segment.
        moat_px: Smallest gap between a training sample and a held-out pixel.
    """

    arrays: SegmentArrays
    moat_px: int

    def home(self, boxes: Boxes) -> list[SplitName | int | None]:
        """Find the split of each box: ``validation`` if it shows a held-out pixel, ``train`` if the moat lies between.

        None stands for a box that lies in the moat.
        """
        grown = boxes + np.array([-self.moat_px, -self.moat_px, self.moat_px, self.moat_px])
        held_out = self._count(self.arrays.read_held_out, np.concatenate([boxes, grown]))
        shown, near = held_out[: len(boxes)], held_out[len(boxes) :]
        both = zip(shown.tolist(), near.tolist(), strict=True)
        return ["validation" if seen else None if close else "train" for seen, close in both]

    def near(self, boxes: Boxes, fold: int) -> Bools:
        """Find boxes near a fold; there are no folds."""
        return np.zeros(len(boxes), bool)

    def scored(self, places: BoxCounts) -> BoxCounts:
        """Count the ink of boxes on held-out pixels alone."""

        def held_out_ink(box: Box) -> Bools:
            labels, ignore = self.arrays.read_flat(box)
            ink: Bools = self.arrays.read_held_out(box) & (labels >= INK_LABEL) & (ignore == 0)
            return ink

        return replace(places, ink=self._count(held_out_ink, places.boxes))

    def _count(self, read: Callable[[Box], Bools], boxes: Boxes) -> NDArray[np.int64]:
        return count_marked(read, self.arrays.shape_yx, boxes)


def mask_zones(
    segments: Mapping[str, SegmentArrays], split: MaskSplit, sample_px: int, context_px: int
) -> dict[str, MaskZones]:
    """Lay a moat around the held-out pixels of all segments.

    Raises:
        ConfigError: A moat smaller than a sample with its context.
        DataError: No segment has a validation mask.
    """
    least = sample_px + context_px
    moat_px = least if split.moat_px is None else split.moat_px
    if moat_px < least:
        raise ConfigError(
            f"splits: moat_px {moat_px} is smaller than a sample with its context ({sample_px} + {context_px} px); "
            f"give at least {least}, or leave it out"
        )
    if not any(arrays.holds_out for arrays in segments.values()):
        raise DataError(
            "splits: kind masks needs a segment with a validation mask, none has one; run inkbatch labels with "
            "--validation-mask, or choose another kind"
        )
    return {name: MaskZones(arrays, moat_px) for name, arrays in segments.items()}


def leak_without_moat(arrays: SegmentArrays, sample_px: int) -> HeldOut:
    """Count the held-out pixels within one sample of a pixel that trains; read box by box."""
    reach = sample_px - 1
    kernels = np.ones((2 * reach + 1, 1), np.uint8), np.ones((1, 2 * reach + 1), np.uint8)
    pixels = near = 0
    for box in cut(arrays.shape_yx, READ_PX, READ_PX):
        wide = Box(box.y0 - reach, box.x0 - reach, box.y1 + reach, box.x1 + reach)
        wide = wide.intersect(Box(0, 0, *arrays.shape_yx))
        held_out = arrays.read_held_out(wide)
        inside = box.within(wide)
        if not held_out[inside].any():
            continue
        counts = arrays.read_flat(wide)[1] == 0
        seen = (counts & ~held_out).view(np.uint8)
        for kernel in kernels:
            seen = cv2.dilate(seen, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0).reshape(seen.shape)
        scored = (held_out & counts)[inside]
        pixels += int(np.count_nonzero(scored))
        near += int(np.count_nonzero(scored & (seen[inside] != 0)))
    return HeldOut(pixels, near)


def held_out_lines(found: Mapping[str, HeldOut]) -> list[str]:
    """Say how much is held out, and which share of it would leak without the moat; one line per segment."""
    return [
        f"{name}: {one.pixels:,} px; {one.leak:.0%} of them lie within one sample of pixels that train, and would leak "
        "without the moat"
        for name, one in found.items()
    ]

"""Sampling: a grid of tiles, random crops balanced by ink, given boxes, or whole pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from inkbatch.config import JobConfig
from inkbatch.data.datasets.counting import BoxCounts, count_boxes, count_grid
from inkbatch.data.datasets.ink_boxes import BoxRules, InkBox
from inkbatch.data.datasets.segment_arrays import SegmentArrays
from inkbatch.data.maps.area import area_box
from inkbatch.data.segments import stable_random as chance
from inkbatch.errors import ConfigError, DataError
from inkbatch.geometry import Box, TileGrid

STEPS_PER_SAMPLE = 32

Boxes = tuple[tuple[int, int, int, int], ...]
InkBoxes = dict[str, list[InkBox]]


class SamplingRules(JobConfig):
    """Base of all rules of sampling."""

    takes_every_place: ClassVar[bool] = False  # of a grid: how many a buffer costs can be said
    has_own_shapes: ClassVar[bool] = False  # samples differ in shape, and may be drawn around ink

    def candidates(self, arrays: SegmentArrays, segment: str, sample_px: int) -> BoxCounts:
        """List every place of a segment that may be taken, with its counts.

        Args:
            arrays: The opened segment.
            segment: Its id.
            sample_px: Edge of a sample.

        Returns:
            Places in row-major order (given boxes: in their own).

        Raises:
            ConfigError: A stride larger than the tile; a box that leaves the segment or is given twice.
            DataError: A segment that is smaller than a crop, or larger than a whole sample.
        """
        raise NotImplementedError

    def choose(self, found: BoxCounts, segment: str, seed: int, purpose: str) -> NDArray[np.int64]:
        """Choose the candidates that become samples, as ascending positions: all of them, but for crops.

        Args:
            found: Candidates that may be taken.
            segment: Segment id, for chance and messages.
            seed: The dataset's seed.
            purpose: The split, for chance and messages.

        Raises:
            DataError: Fewer crops than requested, and `accept_fewer` is not set.
        """
        return np.arange(len(found.boxes))

    def written_out(
        self, from_coco: Callable[[str], Mapping[str, Boxes]], around_ink: Callable[[BoxRules], InkBoxes]
    ) -> tuple[Self, InkBoxes]:
        """Return the rules with every box that they take from elsewhere, and the boxes around ink; here none are taken.

        Args:
            from_coco: Reads the boxes of a COCO file, by segment id.
            around_ink: Finds the boxes around ink components, by segment id.
        """
        return self, {}


class GridSampling(SamplingRules):
    """Every tile of a grid anchored at (0, 0).

    Attributes:
        kind: ``grid``.
        stride_px: Step between tile origins; None is `sample_px`.
        border: The last row and column that would reach past the border: ``moved-in`` to touch it (they overlap their
            neighbours), or ``left-out`` (with a stride of `sample_px` no two tiles share a pixel).
        min_papyrus: Tiles with a smaller share of papyrus are dropped.
        min_ink: Tiles with a smaller share of ink are dropped.
        min_counted: Tiles with a smaller share of pixels that count (on papyrus, not ignored) are dropped, which would
            teach next to nothing where labels cover a part of the papyrus; None drops none.
    """

    kind: Literal["grid"] = "grid"
    stride_px: int | None = Field(None, ge=1)
    border: Literal["moved-in", "left-out"] = "moved-in"
    min_papyrus: float = Field(0.5, ge=0, le=1)
    min_ink: float = Field(0.0, ge=0, le=1)
    min_counted: float | None = Field(None, ge=0, le=1)

    takes_every_place: ClassVar[bool] = True

    def candidates(self, arrays: SegmentArrays, segment: str, sample_px: int) -> BoxCounts:
        """List the tiles with enough papyrus, ink and pixels that count; see `SamplingRules`."""
        found = _grid(arrays, self, sample_px)
        enough = (found.papyrus_share >= self.min_papyrus) & (found.ink_share >= self.min_ink)
        return found.take(enough & (found.counted_share >= (self.min_counted or 0)))


class CropSampling(SamplingRules):
    """Random crops with ink, and crops without any.

    Attributes:
        kind: ``crops``.
        per_segment: Crops with ink that each segment gives (in each split that it has a part in).
        min_ink: Smallest share of ink in them.
        bare_ratio: Crops without any ink per crop with ink.
        min_papyrus: Smallest share of papyrus in any crop.
        step_px: Origins are multiples of it; None is a 32nd of `sample_px`.
        accept_fewer: Take what there is where a segment holds fewer places; else that is refused.
    """

    kind: Literal["crops"]
    per_segment: int = Field(ge=1)
    min_ink: float = Field(0.15, gt=0, le=1)
    bare_ratio: float = Field(1.0, ge=0)
    min_papyrus: float = Field(0.5, ge=0, le=1)
    step_px: int | None = Field(None, ge=1)
    accept_fewer: bool = False

    def candidates(self, arrays: SegmentArrays, segment: str, sample_px: int) -> BoxCounts:
        """List the crops with enough papyrus; see `SamplingRules`."""
        height, width = arrays.shape_yx
        if height < sample_px or width < sample_px:
            raise DataError(
                f"segment {segment}: expected at least {sample_px} px along both sides for crops, got {height} x "
                f"{width} px; lower sample_px, or leave the segment out"
            )
        step = self.step_px or max(1, sample_px // STEPS_PER_SAMPLE)
        rows, columns = (np.arange(0, edge - sample_px + 1, step) for edge in (height, width))
        found = count_grid(arrays, rows, columns, (sample_px, sample_px))
        return found.take(found.papyrus_share >= self.min_papyrus)

    def choose(self, found: BoxCounts, segment: str, seed: int, purpose: str) -> NDArray[np.int64]:
        """Choose crops with ink by chance, and as many without as go with them; see `SamplingRules`."""
        order = np.argsort(chance.keys(found.boxes, seed, "crops", segment, purpose), kind="stable")
        share = found.ink_share
        inked = order[share[order] >= self.min_ink]
        bare = order[found.ink[order] == 0]
        what = f"segment {segment} ({purpose})"
        inked = self._first(inked, self.per_segment, f"{what}: crops with an ink share of {self.min_ink:.0%}")
        bare = self._first(bare, round(len(inked) * self.bare_ratio), f"{what}: crops without ink")
        return np.sort(np.concatenate([inked, bare]))

    def _first(self, picks: NDArray[np.int64], wanted: int, what: str) -> NDArray[np.int64]:
        if len(picks) < wanted and not self.accept_fewer:
            raise DataError(
                f"{what}: expected {wanted}, got {len(picks)} places; lower per_segment, min_ink, bare_ratio or "
                "step_px, or set accept_fewer: true"
            )
        return picks[:wanted]


class BoxSampling(SamplingRules):
    """Given boxes.

    Attributes:
        kind: ``boxes``.
        boxes: By segment id: (y0, x0, y1, x1) in full-resolution pixels, half-open, inside the segment.
        coco: A COCO file beside or instead of them; a picture's file name without its ending is the segment id.
        ink: Rules of boxes around ink components, beside or instead of them; also written into ``boxes/`` as COCO
            JSON, as a text list and as a picture.
        fit: ``as-is`` keeps each box; ``centred`` takes `sample_px` squared around its centre, moved into the segment.
    """

    kind: Literal["boxes"]
    boxes: dict[str, Boxes] = Field(default_factory=dict)
    coco: str | None = None
    ink: BoxRules | None = None
    fit: Literal["as-is", "centred"] = "as-is"

    has_own_shapes: ClassVar[bool] = True

    @model_validator(mode="after")
    def _some_boxes(self) -> BoxSampling:
        if not self.boxes and self.coco is None and self.ink is None:
            raise ValueError("no boxes: give boxes by segment id, a coco file, or rules of boxes around ink")
        return self

    def written_out(
        self, from_coco: Callable[[str], Mapping[str, Boxes]], around_ink: Callable[[BoxRules], InkBoxes]
    ) -> tuple[Self, InkBoxes]:
        """Write out the boxes of the COCO file and those around ink; see `SamplingRules`."""
        listed = {} if self.coco is None else from_coco(self.coco)
        around = {} if self.ink is None else around_ink(self.ink)
        boxes: dict[str, Boxes] = dict(self.boxes)
        for found in (listed, {name: tuple(entry.box for entry in entries) for name, entries in around.items()}):
            for name, more in found.items():
                boxes[name] = boxes.get(name, ()) + more
        return self.model_copy(update={"boxes": boxes, "coco": None, "ink": None}), around

    def candidates(self, arrays: SegmentArrays, segment: str, sample_px: int) -> BoxCounts:
        """List the given boxes of the segment; see `SamplingRules`."""
        return count_boxes(arrays, _given(self, segment, arrays.shape_yx, sample_px))


class WholeSampling(SamplingRules):
    """The whole segment (a picture) is one sample, zero-filled and ignored up to `sample_px` squared."""

    kind: Literal["whole"]

    def candidates(self, arrays: SegmentArrays, segment: str, sample_px: int) -> BoxCounts:
        """List the one place that holds the segment; see `SamplingRules`."""
        height, width = arrays.shape_yx
        if height > sample_px or width > sample_px:
            raise DataError(
                f"segment {segment}: expected at most {sample_px} px along both sides for whole samples, got "
                f"{height} x {width} px; raise sample_px, or sample a grid"
            )
        return count_boxes(arrays, [Box(0, 0, sample_px, sample_px)])


Sampling = Annotated[GridSampling | CropSampling | BoxSampling | WholeSampling, Field(discriminator="kind")]


def _grid(arrays: SegmentArrays, sampling: GridSampling, sample_px: int) -> BoxCounts:
    stride = sampling.stride_px or sample_px
    if stride > sample_px:
        raise ConfigError(
            f"sampling: stride_px {stride} is larger than sample_px {sample_px}, pixels would be left out; "
            "make it smaller"
        )
    grid = TileGrid(arrays.shape_yx, sample_px, stride)
    axes = [
        (axis, axis.count if sampling.border == "moved-in" else axis.regular_count)
        for axis in (grid.rows, grid.columns)
    ]
    rows, columns = (np.array([axis.origin(i) for i in range(count)], np.int64) for axis, count in axes)
    return count_grid(arrays, rows, columns, (sample_px, sample_px))


def _given(sampling: BoxSampling, segment: str, shape_yx: tuple[int, int], sample_px: int) -> list[Box]:
    whole = Box(0, 0, *shape_yx)
    found: list[Box] = []
    for numbers in sampling.boxes.get(segment, ()):
        box = area_box(numbers, shape_yx, f"segment {segment}: box")
        box = _centred(box, whole, sample_px, segment) if sampling.fit == "centred" else box
        if box in found:
            raise ConfigError(f"segment {segment}: box {list(numbers)} occurs twice (or fits as one); leave one out")
        found.append(box)
    return found


def _centred(box: Box, whole: Box, sample_px: int, segment: str) -> Box:
    if whole.height < sample_px or whole.width < sample_px:
        raise DataError(
            f"segment {segment}: expected at least {sample_px} px along both sides for centred boxes, got "
            f"{whole.height} x {whole.width} px; lower sample_px, or keep boxes as they are (fit: as-is)"
        )
    y0 = min(max(0, (box.y0 + box.y1 - sample_px) // 2), whole.height - sample_px)
    x0 = min(max(0, (box.x0 + box.x1 - sample_px) // 2), whole.width - sample_px)
    return Box(y0, x0, y0 + sample_px, x0 + sample_px)

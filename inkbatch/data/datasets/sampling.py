"""Sampling: a grid of tiles, random crops balanced by ink, given boxes, or whole pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from inkbatch.config import JobConfig
from inkbatch.data.datasets.counting import BoxCounts, count_boxes, count_grid
from inkbatch.data.datasets.ink_boxes import BoxRules
from inkbatch.data.datasets.segment_arrays import SegmentArrays
from inkbatch.data.segments import stable_random as chance
from inkbatch.errors import ConfigError, DataError
from inkbatch.geometry import Box, TileGrid

STEPS_PER_SAMPLE = 32

Chooser = Callable[[NDArray[np.int64]], NDArray[np.bool_]]


class GridSampling(JobConfig):
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


class CropSampling(JobConfig):
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


class BoxSampling(JobConfig):
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
    boxes: dict[str, tuple[tuple[int, int, int, int], ...]] = Field(default_factory=dict)
    coco: str | None = None
    ink: BoxRules | None = None
    fit: Literal["as-is", "centred"] = "as-is"

    @model_validator(mode="after")
    def _some_boxes(self) -> BoxSampling:
        if not self.boxes and self.coco is None and self.ink is None:
            raise ValueError("no boxes: give boxes by segment id, a coco file, or rules of boxes around ink")
        return self


class WholeSampling(JobConfig):
    """The whole segment (a picture) is one sample, zero-filled and ignored up to `sample_px` squared."""

    kind: Literal["whole"]


Sampling = Annotated[GridSampling | CropSampling | BoxSampling | WholeSampling, Field(discriminator="kind")]


def candidates(arrays: SegmentArrays, segment: str, sampling: Sampling, sample_px: int) -> BoxCounts:
    """List every place of a segment that the sampling may take, with its counts.

    Args:
        arrays: The opened segment.
        segment: Its id.
        sampling: Rules of sampling.
        sample_px: Edge of a sample.

    Returns:
        Places in row-major order (given boxes: in their own).

    Raises:
        ConfigError: A stride larger than the tile; a box that leaves the segment or is given twice.
        DataError: A segment that is smaller than a crop, or larger than a whole sample.
    """
    height, width = arrays.shape_yx
    if isinstance(sampling, GridSampling):
        found = _grid(arrays, sampling, sample_px)
        enough = (found.papyrus_share >= sampling.min_papyrus) & (found.ink_share >= sampling.min_ink)
        return found.take(enough & (found.counted_share >= (sampling.min_counted or 0)))
    if isinstance(sampling, CropSampling):
        if height < sample_px or width < sample_px:
            raise DataError(
                f"segment {segment}: expected at least {sample_px} px along both sides for crops, got {height} x "
                f"{width} px; "
                "lower sample_px, or leave the segment out"
            )
        step = sampling.step_px or max(1, sample_px // STEPS_PER_SAMPLE)
        rows, columns = (np.arange(0, edge - sample_px + 1, step) for edge in (height, width))
        found = count_grid(arrays, rows, columns, (sample_px, sample_px))
        return found.take(found.papyrus_share >= sampling.min_papyrus)
    if isinstance(sampling, BoxSampling):
        return count_boxes(arrays, _given(sampling, segment, arrays.shape_yx, sample_px))
    if height > sample_px or width > sample_px:
        raise DataError(
            f"segment {segment}: expected at most {sample_px} px along both sides for whole samples, got "
            f"{height} x {width} px; raise sample_px, or sample a grid"
        )
    return count_boxes(arrays, [Box(0, 0, sample_px, sample_px)])


def choose(found: BoxCounts, segment: str, sampling: Sampling, seed: int, purpose: str) -> NDArray[np.int64]:
    """Choose the candidates that become samples, as ascending positions.

    Args:
        found: Candidates that may be taken.
        segment: Segment id, for chance and messages.
        sampling: Rules of sampling.
        seed: The dataset's seed.
        purpose: The split, for chance and messages.

    Raises:
        DataError: Fewer crops than requested, and `accept_fewer` is not set.
    """
    if not isinstance(sampling, CropSampling):
        return np.arange(len(found.boxes))
    order = np.argsort(chance.keys(found.boxes, seed, "crops", segment, purpose), kind="stable")
    share = found.ink_share
    inked = order[share[order] >= sampling.min_ink]
    bare = order[found.ink[order] == 0]
    what = f"segment {segment} ({purpose})"
    inked = _first(inked, sampling.per_segment, f"{what}: crops with an ink share of {sampling.min_ink:.0%}", sampling)
    bare = _first(bare, round(len(inked) * sampling.bare_ratio), f"{what}: crops without ink", sampling)
    return np.sort(np.concatenate([inked, bare]))


def _first(picks: NDArray[np.int64], wanted: int, what: str, sampling: CropSampling) -> NDArray[np.int64]:
    if len(picks) < wanted and not sampling.accept_fewer:
        raise DataError(
            f"{what}: expected {wanted}, got {len(picks)} places; lower per_segment, min_ink, bare_ratio or "
            "step_px, or set accept_fewer: true"
        )
    return picks[:wanted]


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
        y0, x0, y1, x1 = numbers
        if not (0 <= y0 < y1 <= whole.y1 and 0 <= x0 < x1 <= whole.x1):
            raise ConfigError(
                f"segment {segment}: box {list(numbers)} (y0, x0, y1, x1) is empty or leaves its {whole.y1} x "
                f"{whole.x1} px; boxes are full-resolution pixels, half-open"
            )
        box = Box(y0, x0, y1, x1)
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

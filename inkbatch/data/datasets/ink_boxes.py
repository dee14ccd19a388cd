"""Boxes around ink components, chosen by their size and by the curvature of their outline."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from inkbatch.data.datasets.curvature import SMOOTHING_PX, contour_shape
from inkbatch.data.labels.cleaning import MIN_AREA_PX
from inkbatch.data.labels.component_facts import Component, UnitFacts, facts_of
from inkbatch.data.labels.components import INK_NEIGHBOURS, Bools, border_pixels, label, unit_components
from inkbatch.data.labels.ink import INK_LABEL
from inkbatch.data.labels.seams import merge
from inkbatch.errors import DataError
from inkbatch.geometry import Box, cut
from inkbatch.io.multiscale import Multiscale


class BoxRules(BaseModel):
    """Conditions on the components that get a box.

    Attributes:
        min_area_px: Smallest area of a component.
        max_area_px: Largest area; None sets no limit.
        min_side_px: Shortest side of its bounding box, both sides.
        max_side_px: Longest side of its bounding box; bounds what is read at once.
        min_curvature: Least mean curvature of its outline, per pixel; see `contour_shape`.
        max_curvature: Largest mean curvature; None sets no limit.
        min_turns: Least number of full turns of its outline; straight strokes and blots have 1, letters more.
        max_turns: Largest number of full turns; None sets no limit.
        smoothing_px: Smoothing of the outline before its curvature is measured.
        at_border: True if components that touch the border of the surface get a box.
        margin_px: The box is grown by so much on each side, up to the border of the surface.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_area_px: int = Field(MIN_AREA_PX, ge=1)
    max_area_px: int | None = Field(None, ge=1)
    min_side_px: int = Field(1, ge=1)
    max_side_px: int = Field(4096, ge=1, le=16_384)
    min_curvature: float = Field(0.0, ge=0)
    max_curvature: float | None = Field(None, gt=0)
    min_turns: float = Field(0.0, ge=0)
    max_turns: float | None = Field(None, gt=0)
    smoothing_px: float = Field(SMOOTHING_PX, gt=0)
    at_border: bool = True
    margin_px: int = Field(16, ge=0)

    @model_validator(mode="after")
    def _ranges_are_not_empty(self) -> BoxRules:
        for low, high in (
            ("min_area_px", "max_area_px"),
            ("min_side_px", "max_side_px"),
            ("min_curvature", "max_curvature"),
            ("min_turns", "max_turns"),
        ):
            least, most = getattr(self, low), getattr(self, high)
            if most is not None and least > most:
                raise ValueError(f"{low} {least:g} is above {high} {most:g}, so no component fits; lower {low}")
        return self

    def fits_size(self, component: Component) -> bool:
        """Return True if area, sides and place fit."""
        y0, x0, y1, x1 = component.box
        sides = (y1 - y0, x1 - x0)
        return (
            component.area >= self.min_area_px
            and (self.max_area_px is None or component.area <= self.max_area_px)
            and min(sides) >= self.min_side_px
            and max(sides) <= self.max_side_px
            and (self.at_border or not component.touches_border)
        )

    def fits_shape(self, curvature: float, turns: float) -> bool:
        """Return True if the outline fits."""
        return (
            curvature >= self.min_curvature
            and (self.max_curvature is None or curvature <= self.max_curvature)
            and turns >= self.min_turns
            and (self.max_turns is None or turns <= self.max_turns)
        )


class InkBox(BaseModel):
    """A box around one component.

    Attributes:
        number: From 1, row-major by the box's upper left corner.
        box: (y0, x0, y1, x1), half-open, full-resolution pixels, margin included.
        area: Pixels of the component.
        curvature: Mean curvature of its outline, per pixel.
        turns: Full turns of its outline.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    box: tuple[int, int, int, int]
    area: int
    curvature: float
    turns: float


def find_components(labels: Multiscale, min_area_px: int) -> tuple[Component, ...]:
    """Find all ink components of at least `min_area_px`, the largest first; reads one unit at a time."""
    facts = list(_facts(labels, min_area_px))
    return merge(facts, min_area_px=min_area_px).components


def find_boxes(labels: Multiscale, rules: BoxRules) -> list[InkBox]:
    """Find the boxes around components that fit the rules, row-major.

    Args:
        labels: ``ink_labels.zarr``, (Y, X) uint8; 0 (bare) to 255 (ink).
        rules: Conditions on the components.

    Raises:
        DataError: No component fits; says how many there are.
    """
    components = find_components(labels, rules.min_area_px)
    found = []
    for component in components:
        if not rules.fits_size(component):
            continue
        shape = contour_shape(component_mask(labels, component), rules.smoothing_px)
        if rules.fits_shape(shape.curvature, shape.turns):
            found.append((_grown(component.box, rules.margin_px, labels.shape), component, shape))
    if not found:
        raise DataError(
            f"{labels.location}: none of its {len(components)} components of at least {rules.min_area_px} px fits the "
            "other rules of boxes (sides, curvature, turns); widen them"
        )
    found.sort(key=lambda row: (row[0], row[1].seed))
    return [
        InkBox(
            number=number,
            box=box,
            area=component.area,
            curvature=round(shape.curvature, 6),
            turns=round(shape.turns, 6),
        )
        for number, (box, component, shape) in enumerate(found, start=1)
    ]


def component_mask(labels: Multiscale, component: Component) -> Bools:
    """Read the mask of one component in its bounding box, without its neighbours."""
    box = Box(*component.box)
    parts = label(labels.levels[0].read(box.slices) >= INK_LABEL, INK_NEIGHBOURS)
    y, x = component.seed
    own: NDArray[np.bool_] = parts.labels == parts.labels[y - box.y0, x - box.x0]
    return own


def _facts(labels: Multiscale, min_area_px: int) -> Iterator[UnitFacts]:
    height, width = labels.shape
    for box in cut((height, width), labels.shard_px, labels.shard_px):
        ink = labels.levels[0].read(box.slices) >= INK_LABEL
        border = border_pixels(box, (height, width))
        yield facts_of(unit_components(ink, box, (height, width), border=border, min_area_px=min_area_px, holes=False))


def _grown(box: tuple[int, int, int, int], margin: int, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    y0, x0, y1, x1 = box
    return max(0, y0 - margin), max(0, x0 - margin), min(shape[0], y1 + margin), min(shape[1], x1 + margin)

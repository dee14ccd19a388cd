"""Rules for instances: every length and area in pixels or micrometres; the published values are the defaults."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from inkbatch.config import JobConfig
from inkbatch.errors import ConfigError

_LENGTH = re.compile(r"(\d+(?:\.\d+)?) ?(px|um|µm)?")
_AREA = re.compile(r"(\d+(?:\.\d+)?) ?(px|um2|µm2|µm²)?")


def _length(value: float | str) -> float | str:
    if isinstance(value, str) and not _LENGTH.fullmatch(value):
        raise ValueError(f"expected pixels (12 or 12px) or micrometres (40um), got {value!r}")
    return value


def _area(value: float | str) -> float | str:
    if isinstance(value, str) and not _AREA.fullmatch(value):
        raise ValueError(f"expected pixels (50 or 50px) or square micrometres (800um2), got {value!r}")
    return value


Length = Annotated[Annotated[float, Field(ge=0)] | str, AfterValidator(_length)]
Area = Annotated[Annotated[float, Field(ge=0)] | str, AfterValidator(_area)]


def length_px(value: float | str, pixel_um: float | None) -> float:
    """Convert a length to pixels.

    Raises:
        ConfigError: It is in micrometres, and the edge of a pixel is not known.
    """
    return _converted(value, _LENGTH, pixel_um, 1)


def area_px(value: float | str, pixel_um: float | None) -> float:
    """Convert an area to pixels.

    Raises:
        ConfigError: It is in square micrometres, and the edge of a pixel is not known.
    """
    return _converted(value, _AREA, pixel_um, 2)


def _converted(value: float | str, pattern: re.Pattern[str], pixel_um: float | None, power: int) -> float:
    if not isinstance(value, str):
        return float(value)
    found = pattern.fullmatch(value)
    if found is None:
        raise ConfigError(f"instances: expected a number of pixels or micrometres, got {value!r}; write 12px or 40um")
    number, unit = float(found[1]), found[2]
    if unit in (None, "px"):
        return number
    if pixel_um is None:
        raise ConfigError(
            f"instances: {value} needs the edge of a pixel, which nothing states; give pixel_um, or the value in pixels"
        )
    return float(number / pixel_um**power)


class ProposalRules(JobConfig):
    """Rules from a map to proposals.

    Attributes:
        object_from: Probability of object from which (inclusive) a pixel belongs to one.
        boundary_from: Probability of boundary from which a pixel is boundary, in maps that have that class.
        boundary_min: Components of boundary up to this area do not part objects.
        min_area: Smallest area of a component or region that is proposed.
        cluster: Centroids of regions this close to each other are one proposal, at their mean.
        reach: Distances to the border of an object are measured up to this one; beyond it an object's middle is flat.
        neck: Regions stay apart where the object between their middles is narrower than this share of the
            narrower one.
        grow: Objects grow into the pixels of boundary around them, by at most this; None takes the width that the
            maps' network was taught, as its bundle states it, else that of the dataset whose pictures the maps show,
            else 2 px. Maps of two classes have no such pixels.
    """

    object_from: float = Field(0.5, gt=0, le=1)
    boundary_from: float = Field(0.5, gt=0, le=1)
    boundary_min: Area = 100.0
    min_area: Area = 50.0
    cluster: Length = 20.0
    reach: Length = 64.0
    neck: float = Field(0.95, gt=0, le=1)
    grow: Length | None = None


class SelectionRules(JobConfig):
    """Rules that reject an object or settle which of several that overlap stays.

    Attributes:
        edge: Objects within this distance of the picture's edge are rejected.
        largest_share: Masks over more than this share of the picture are dropped.
        parts: A mask with so many first-pass regions of at least `part_area` inside it is rejected.
        part_area: Smallest area of a first-pass region that counts for `parts`.
        background: A mask whose mean background probability is at least this is rejected.
        linked: Two masks overlap where their intersection is more than this share of the smaller one.
        opening: What is left of a mask that lost to another is opened by this radius.
        keep: ``largest`` keeps one object per picture, that of most pixels; the others are rejected.
        object_share: Such a remainder survives with more than this share of object pixels …
        leftover_iou: … and an intersection over union below this with every mask that stays.
    """

    edge: Length = 4.0
    largest_share: float = Field(0.5, gt=0, le=1)
    parts: int = Field(10, ge=1)
    part_area: Area = 100.0
    background: float = Field(0.7, gt=0, le=1)
    linked: float = Field(0.4, ge=0, le=1)
    opening: Length = 5.0
    keep: Literal["all", "largest"] = "all"
    object_share: float = Field(0.1, ge=0, le=1)
    leftover_iou: float = Field(0.1, ge=0, le=1)


class RefinementRules(JobConfig):
    """Rules by which a promptable network is asked.

    Attributes:
        cell_px: Edge of a cell, a part of the units' edge.
        halo_px: Pixels around a cell that its tile shows; objects that reach further are taken from the first pass.
        prompts: ``point`` gives the network a point in each object, ``box`` the first pass's box as well.
        masks: Of a prompt's masks the ``surest`` has the highest predicted IoU; the ``agreeing`` one has the highest
            product of that and its IoU with the first pass's object, which tells an object from its parts.
        doubt: The first pass's object stays unless the mask differs from it by at least this many times what the
            network doubts: ``1 - IoU >= doubt * (1 - predicted IoU)``. 0 always takes the mask; 2 takes masks that are
            better for sure if the network is right about them.
    """

    cell_px: int = Field(512, ge=32)
    halo_px: int = Field(256, ge=0)
    prompts: Literal["point", "box"] = "box"
    masks: Literal["agreeing", "surest"] = "agreeing"
    doubt: float = Field(0.0, ge=0)

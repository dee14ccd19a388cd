"""Rules that settle what becomes of one proposal: a mask is chosen, the first pass stays, or both are rejected."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.data.instances.ascent import Bools, Evidence, Ints
from inkbatch.data.instances.proposals import Proposal
from inkbatch.data.instances.settings import RefinementRules, SelectionRules, area_px, length_px
from inkbatch.data.labels.components import label
from inkbatch.geometry import Box

Reason = Literal["small", "edge", "background", "many parts", "too large", "empty", "outside", "overlap", "not largest"]
REASONS: dict[Reason, str] = {
    "small": "smaller than the least area",
    "edge": "within the stated distance of the picture's edge",
    "background": "background by its mean probability",
    "many parts": "many first-pass regions inside",
    "too large": "each mask over too large a share of the picture",
    "empty": "no pixel in any mask",
    "outside": "the point lies in no object",
    "overlap": "overlaps a better mask, and too little is left of it",
    "not largest": "another object of the picture is larger, and one is kept",
}


@dataclass(frozen=True)
class Choice:
    """The selection rules in pixels.

    Attributes:
        rules: The rules.
        edge_px: Objects within this distance of the picture's edge are rejected.
        part_px: Smallest region that counts as a part.
        opening_px: Radius by which remainders are opened.
        min_px: Smallest area of an instance.
    """

    rules: SelectionRules
    edge_px: int
    part_px: int
    opening_px: int
    min_px: int

    @staticmethod
    def of(rules: SelectionRules, min_px: int, pixel_um: float | None) -> Choice:
        """Express the rules in pixels.

        Raises:
            ConfigError: One is in micrometres, and the edge of a pixel is not known.
        """
        edge, opening = round(length_px(rules.edge, pixel_um)), round(length_px(rules.opening, pixel_um))
        return Choice(rules, edge, int(np.ceil(area_px(rules.part_area, pixel_um))), opening, min_px)

    def at_edge(self, box: Box, shape_yx: tuple[int, int]) -> bool:
        """Tell if a box of the picture lies within `edge` of its border."""
        height, width = shape_yx
        return min(box.y0, box.x0, height - box.y1, width - box.x1) < self.edge_px


@dataclass(frozen=True, eq=False)
class FirstPassTile:
    """The first pass around a proposal.

    Attributes:
        box: The tile in pixels of the picture; may leave it.
        shape_yx: Size of the picture.
        evidence: The map in the tile.
        regions: (height, width): number of the region at each pixel, -1 outside.
    """

    box: Box
    shape_yx: tuple[int, int]
    evidence: Evidence
    regions: Ints

    @functools.cached_property
    def sizes(self) -> Ints:
        """(n,): pixels of each region in the tile."""
        return np.bincount(self.regions.ravel() + 1)[1:].astype(np.int64)


@dataclass(frozen=True, eq=False)
class Instance:
    """An object.

    Attributes:
        box: Its box in pixels of the picture.
        mask: (box.height, box.width): its pixels.
        score: Predicted intersection over union; NaN where no network predicted one.
        proposal: The proposal that it comes from.
    """

    box: Box
    mask: Bools
    score: float
    proposal: Proposal

    @property
    def area_px(self) -> int:
        """Pixels."""
        return int(np.count_nonzero(self.mask))


@dataclass(frozen=True)
class Rejection:
    """A proposal that became no instance.

    Attributes:
        proposal: The proposal.
        reason: A key of `REASONS`.
    """

    proposal: Proposal
    reason: Reason


@dataclass(frozen=True)
class Larger:
    """A proposal whose object reaches the border of its tile, where the picture goes on.

    Attributes:
        proposal: The proposal.
    """

    proposal: Proposal


@dataclass(frozen=True)
class Kept:
    """A proposal whose object stays as the first pass has it: no mask is better for sure.

    Attributes:
        proposal: The proposal.
    """

    proposal: Proposal


Answer = Instance | Rejection | Larger | Kept


def from_region(proposal: Proposal, regions: Ints, box: Box | None = None) -> Instance | Rejection:
    """Take the object of a proposal from the first pass: the region that holds its point.

    Args:
        proposal: The proposal.
        regions: The region at each pixel, -1 outside.
        box: Its place in the picture; None is the whole picture.
    """
    box = box or Box(0, 0, *regions.shape)
    y, x = proposal.pixel[0] - box.y0, proposal.pixel[1] - box.x0
    if not (0 <= y < box.height and 0 <= x < box.width) or regions[y, x] < 0:
        return Rejection(proposal, "outside")
    parts = label(regions == regions[y, x], 4)
    own = int(parts.labels[y, x])
    inside = Box(*(int(value) for value in parts.boxes[own]))
    mask = parts.labels[inside.slices] == own
    return Instance(inside.shift(box.y0, box.x0), mask, float("nan"), proposal)


def choose(
    proposal: Proposal,
    masks: Bools,
    scores: NDArray[np.float32],
    first_pass: FirstPassTile,
    choice: Choice,
    rules: RefinementRules,
) -> Instance | Rejection | Kept:
    """Choose one of a network's masks for a proposal, keep the first pass's object, or reject both.

    ``1 - IoU`` is a metric. A mask at distance a from the truth, and at 2 a or more from the first pass's object, is
    therefore no further from the truth than that one. So a `doubt` of 2 takes masks that are better if the network is
    right about them.

    Args:
        proposal: The proposal.
        masks: (m, height, width): masks of the tile.
        scores: (m,): predicted intersection over union of each.
        first_pass: The first pass in the tile.
        choice: The rules for rejections.
        rules: The rules for masks.
    """
    near = _hull(masks)
    if near is None:
        return Rejection(proposal, "empty")
    masks = masks[:, near.slices[0], near.slices[1]]
    areas = np.array([np.count_nonzero(mask) for mask in masks])
    fits = (areas > 0) & (areas <= choice.rules.largest_share * math.prod(first_pass.shape_yx))
    if not fits.any():
        return Rejection(proposal, "too large")
    region = _region_at(proposal, first_pass, near)
    ranked = scores if rules.masks == "surest" or region is None else scores * region.agreement(masks, areas)
    best = int(np.argmax(np.where(fits, ranked, -np.inf)))
    parts = label(masks[best], 4)
    largest = int(np.argmax(parts.areas))
    own = parts.labels == largest
    box = Box(*parts.boxes[largest].tolist())
    inside = box.shift(near.y0, near.x0)
    found = Instance(inside.shift(first_pass.box.y0, first_pass.box.x0), own[box.slices], float(scores[best]), proposal)
    reason = _reason_against(found, inside, first_pass, choice)
    if reason is not None:
        return Rejection(proposal, reason)
    if region is not None:
        (alike,) = region.agreement(own[None], parts.areas[largest : largest + 1])
        if 1 - float(alike) < rules.doubt * (1 - found.score):
            return Kept(proposal)
    return found


def _hull(masks: Bools) -> Box | None:
    """Find the box around all pixels of several masks (m, height, width); None where there are none."""
    boxes = [cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8)) for mask in masks]
    hulls = [Box(y, x, y + height, x + width) for x, y, width, height in boxes if width]
    return functools.reduce(Box.union, hulls) if hulls else None


@dataclass(frozen=True, eq=False)
class _Region:
    """The region that holds a proposal's point.

    Attributes:
        pixels: Its pixels in a part of the tile.
        size: Its pixels in all of the tile.
    """

    pixels: Bools
    size: int

    def agreement(self, masks: Bools, areas: NDArray[Any]) -> NDArray[np.float64]:
        """Compute the intersection over union with each of some masks (m, height, width) of that part."""
        common = np.array([np.count_nonzero(mask & self.pixels) for mask in masks])
        shares: NDArray[np.float64] = common / (areas + self.size - common)
        return shares


def _region_at(proposal: Proposal, first_pass: FirstPassTile, near: Box) -> _Region | None:
    """Take the region that holds a proposal's point, as far as `near` shows it; None where the point lies outside."""
    y, x = proposal.pixel[0] - first_pass.box.y0, proposal.pixel[1] - first_pass.box.x0
    height, width = first_pass.regions.shape
    number = int(first_pass.regions[y, x]) if 0 <= y < height and 0 <= x < width else -1
    if number < 0:
        return None
    return _Region(first_pass.regions[near.slices] == number, int(first_pass.sizes[number]))


def _reason_against(found: Instance, inside: Box, first_pass: FirstPassTile, choice: Choice) -> Reason | None:
    if found.area_px < choice.min_px:
        return "small"
    if choice.at_edge(found.box, first_pass.shape_yx):
        return "edge"
    regions = first_pass.regions[inside.slices][found.mask]
    sizes = np.unique(regions[regions >= 0], return_counts=True)[1]
    if np.count_nonzero(sizes >= choice.part_px) >= choice.rules.parts:
        return "many parts"
    background = first_pass.evidence.background[inside.slices][found.mask]
    return "background" if float(background.mean(dtype=np.float64)) >= choice.rules.background else None

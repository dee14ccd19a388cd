"""Refinement: a promptable network outlines the objects that the first pass proposes, one tile after the other.

Cells lie on a grid anchored at (0, 0); a proposal belongs to the cell that holds its point, and is asked in one tile:
the cell with a halo around it, filled up with zeros beyond the picture's border::

      cell | cell          tile of the left cell
      -----+-----         +---------------+
           |              |     cell  |   |   a point here reaches `halo_px` over the seam,
      -----+-----         |    * - - -|-> |   and no other tile is asked for it
                          +---------------+

So no object is cut at a seam and none is joined again: an answer that reaches the border of its tile is larger than the
tile can show, and that object is taken from the first pass. Which units a picture is computed in changes nothing, nor
does what lies beyond a tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from inkbatch.config import JobConfig
from inkbatch.data.instances.ascent import Evidence
from inkbatch.data.instances.proposals import Proposal
from inkbatch.data.instances.selection import Choice, FirstPassTile, Instance, Rejection, choose
from inkbatch.data.labels.components import label
from inkbatch.geometry import Box
from inkbatch.models.prompting import PromptedSegmenter


class RefineConfig(JobConfig):
    """Refinement by a promptable network.

    Attributes:
        bundle: Folder or URI of a network that `inkbatch import-promptable` wrote.
        cell_px: Edge of a cell, a part of the units' edge.
        halo_px: Pixels around a cell that its tile shows; objects that reach further are taken from the first pass.
        prompts: ``point`` gives the network a point in each object, ``box`` the first pass's box as well.
    """

    bundle: str
    cell_px: int = Field(512, ge=32)
    halo_px: int = Field(256, ge=0)
    prompts: Literal["point", "box"] = "box"


@dataclass(frozen=True)
class Larger:
    """A proposal whose object reaches the border of its tile, where the picture goes on.

    Attributes:
        proposal: The proposal.
    """

    proposal: Proposal


Value = TypeVar("Value", bound=np.generic)
Answer = Instance | Rejection | Larger


def cells_of(proposals: Sequence[Proposal], cell_px: int) -> dict[Box, list[Proposal]]:
    """Group proposals by the cell that holds their point: cells in row-major order, proposals in theirs."""
    groups: dict[Box, list[Proposal]] = {}
    for one in proposals:
        y, x = (at // cell_px * cell_px for at in one.pixel)
        groups.setdefault(Box(y, x, y + cell_px, x + cell_px), []).append(one)
    return dict(sorted(groups.items(), key=lambda item: (item[0].y0, item[0].x0)))


def refine_tile(
    segmenter: PromptedSegmenter,
    pixels: NDArray[np.uint8],
    proposals: Sequence[Proposal],
    first_pass: FirstPassTile,
    choice: Choice,
    prompts: Literal["point", "box"] = "box",
) -> list[Answer]:
    """Ask the network for the proposals of one cell.

    Args:
        segmenter: The network.
        pixels: (Y, X, 3) of the tile, RGB, 0 beyond the picture.
        proposals: Those whose points lie in the cell.
        first_pass: The first pass in the tile.
        choice: The rules.
        prompts: What the network is given.

    Returns:
        One answer per proposal, in their order.
    """
    tile = first_pass.box
    corner = np.array([tile.y0, tile.x0], np.float64)
    points = np.array([one.point_yx for one in proposals], np.float64).reshape(-1, 2) - corner
    boxes = None
    if prompts == "box":
        found = [(one.box.y0, one.box.x0, one.box.y1, one.box.x1) for one in proposals]
        boxes = np.clip(np.array(found, np.float64) - np.tile(corner, 2), 0, np.tile(tile.shape, 2))
    masks, scores = segmenter.masks(segmenter.embed(pixels), points, boxes)
    inside = np.zeros(tile.shape, bool)
    inside[tile.intersect(Box(0, 0, *first_pass.shape_yx)).within(tile)] = True
    return [
        _settled(choose(one, mask & inside, score, first_pass, choice), first_pass)
        for one, mask, score in zip(proposals, masks, scores, strict=True)
    ]


def _settled(found: Instance | Rejection, first_pass: FirstPassTile) -> Answer:
    """Turn an object that leaves its tile, where the picture goes on, over to the first pass."""
    if isinstance(found, Rejection):
        return found
    tile, (height, width) = first_pass.box, first_pass.shape_yx
    leaves = (
        (found.box.y0 == tile.y0 and tile.y0 > 0)
        or (found.box.x0 == tile.x0 and tile.x0 > 0)
        or (found.box.y1 == tile.y1 and tile.y1 < height)
        or (found.box.x1 == tile.x1 and tile.x1 < width)
    )
    return Larger(found.proposal) if leaves else found


def tile_of(array: NDArray[Value], box: Box, fill: int = 0) -> NDArray[Value]:
    """Cut a box out of a picture in memory, (Y, X) or (Y, X, 3); `fill` beyond its border."""
    inside = box.intersect(Box(0, 0, *array.shape[:2]))
    out: NDArray[Value] = np.full((*box.shape, *array.shape[2:]), fill, array.dtype)
    if inside.area:
        out[inside.within(box)] = array[inside.slices]
    return out


def from_region(proposal: Proposal, regions: NDArray[np.int64]) -> Instance | Rejection:
    """Take the object of a proposal from the first pass: the region that holds its point.

    Args:
        proposal: The proposal.
        regions: (Y, X) of the picture, -1 outside.
    """
    y, x = proposal.pixel
    if not (0 <= y < regions.shape[0] and 0 <= x < regions.shape[1]) or regions[y, x] < 0:
        return Rejection(proposal, "outside")
    mask = regions == regions[y, x]
    parts = label(mask, 4)
    own = int(parts.labels[y, x])
    box = Box(*(int(value) for value in parts.boxes[own]))
    return Instance(box, parts.labels[box.slices] == own, float("nan"), proposal)


def refine(
    segmenter: PromptedSegmenter,
    picture: NDArray[np.uint8],
    evidence: Evidence,
    regions: NDArray[np.int64],
    proposals: Sequence[Proposal],
    choice: Choice,
    config: RefineConfig,
) -> list[Answer]:
    """Ask the network for all proposals of a picture in memory.

    Args:
        segmenter: The network.
        picture: (Y, X, 3) uint8, RGB.
        evidence: Its map.
        regions: The first pass, see `from_region`.
        proposals: See `proposed`.
        choice: The rules.
        config: Cells and prompts; its bundle plays no part.

    Returns:
        One answer per proposal, cell by cell.
    """
    shape = picture.shape[0], picture.shape[1]
    answers: list[Answer] = []
    for cell, members in cells_of(proposals, config.cell_px).items():
        tile = cell.grow(config.halo_px)
        boundary = None if evidence.boundary is None else tile_of(evidence.boundary, tile)
        seen = Evidence(tile_of(evidence.object, tile), boundary, tile_of(evidence.background, tile, 1))
        around = FirstPassTile(tile, shape, seen, tile_of(regions, tile, -1))
        answers += refine_tile(segmenter, tile_of(picture, tile), members, around, choice, config.prompts)
    return answers

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
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.instances.ascent import Evidence
from inkbatch.data.instances.proposals import Proposal
from inkbatch.data.instances.selection import Answer, Choice, FirstPassTile, Instance, Larger, choose
from inkbatch.data.instances.settings import RefinementRules
from inkbatch.geometry import Box
from inkbatch.models.prompting import PromptedSegmenter

HELD = 32  # prompts whose masks are in memory at a time: of a tile of 1,024 px each takes 3 MB

Value = TypeVar("Value", bound=np.generic)


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
    rules: RefinementRules,
) -> list[Answer]:
    """Ask the network for the proposals of one cell.

    Args:
        segmenter: The network.
        pixels: (Y, X, 3) of the tile, RGB, 0 beyond the picture.
        proposals: Those whose points lie in the cell.
        first_pass: The first pass in the tile.
        choice: The rules for rejections.
        rules: The rules for prompts and masks.

    Returns:
        One answer per proposal, in their order.
    """
    tile = first_pass.box
    corner = np.array([tile.y0, tile.x0], np.float64)
    points = np.array([one.point_yx for one in proposals], np.float64).reshape(-1, 2) - corner
    boxes = None
    if rules.prompts == "box":
        found = [(one.box.y0, one.box.x0, one.box.y1, one.box.x1) for one in proposals]
        boxes = np.clip(np.array(found, np.float64) - np.tile(corner, 2), 0, np.tile(tile.shape, 2))
    features = segmenter.embed(pixels)
    inside = np.zeros(tile.shape, bool)
    inside[tile.intersect(Box(0, 0, *first_pass.shape_yx)).within(tile)] = True
    answers: list[Answer] = []
    for start in range(0, len(proposals), HELD):
        part = slice(start, start + HELD)
        masks, scores = segmenter.masks(features, points[part], None if boxes is None else boxes[part])
        if not inside.all():
            masks = masks & inside
        answers += [
            _settled(choose(one, mask, score, first_pass, choice, rules), first_pass)
            for one, mask, score in zip(proposals[part], masks, scores, strict=True)
        ]
    return answers


def _settled(found: Answer, first_pass: FirstPassTile) -> Answer:
    """Turn an object that leaves its tile, where the picture goes on, over to the first pass."""
    if not isinstance(found, Instance):
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


def refine(
    segmenter: PromptedSegmenter,
    picture: NDArray[np.uint8],
    first_pass: FirstPassTile,
    proposals: Sequence[Proposal],
    choice: Choice,
    rules: RefinementRules,
) -> list[Answer]:
    """Ask the network for the proposals of a picture, or of whole cells of it.

    Args:
        segmenter: The network.
        picture: (Y, X, 3) uint8, RGB: the pixels of the first pass's box.
        first_pass: The first pass of the picture, or of the part that the tiles of these proposals show.
        proposals: See `proposed`.
        choice: The rules for rejections.
        rules: Those for cells, prompts and masks.

    Returns:
        One answer per proposal, cell by cell.
    """
    seen, corner = first_pass.evidence, (-first_pass.box.y0, -first_pass.box.x0)
    answers: list[Answer] = []
    for cell, members in cells_of(proposals, rules.cell_px).items():
        tile = cell.grow(rules.halo_px)
        here = tile.shift(*corner)
        boundary = None if seen.boundary is None else tile_of(seen.boundary, here)
        evidence = Evidence(tile_of(seen.object, here), boundary, tile_of(seen.background, here, 1))
        around = FirstPassTile(tile, first_pass.shape_yx, evidence, tile_of(first_pass.regions, here, -1))
        answers += refine_tile(segmenter, tile_of(picture, here), members, around, choice, rules)
    return answers

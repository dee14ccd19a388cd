"""Blocks of segments whose split or fold is given, so that it stays the same in every round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from inkbatch.data.datasets.segment_arrays import SegmentArrays
from inkbatch.data.datasets.split_rules import SplitRules, require_known
from inkbatch.data.datasets.zones import Zones, zone_buffer_px

BlockHome = Literal["validation", "test"] | Annotated[int, Field(ge=0)]
ListedBlock = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)], BlockHome]


class ListedBlockSplit(SplitRules):
    """Square blocks inside segments, each with its split or fold; see ``blocks``, which deals them by itself.

    Attributes:
        kind: ``listed-blocks``.
        block_px: Edge of a block.
        blocks: By segment id: (row, column, home) of each block of the grid; home is ``validation``, ``test``, or the
            number of the fold in which it validates. A segment or block that is not listed trains in every fold.
        buffer_px: Smallest gap between a training sample and a block that is held out from it; None, and at least: a
            sample with its context.
    """

    kind: Literal["listed-blocks"]
    block_px: int = Field(ge=1)
    blocks: Mapping[str, tuple[ListedBlock, ...]]
    buffer_px: int | None = Field(None, ge=0)

    def zones(
        self, arrays: Mapping[str, SegmentArrays], sample_px: int, context_px: int, seed: int
    ) -> Mapping[str, Zones]:
        """Lay out the listed blocks; see `SplitRules`."""
        buffer_px = zone_buffer_px(self.block_px, self.buffer_px, sample_px, context_px)
        for name in self.blocks:
            require_known(name, list(arrays))
        blocks = {name: {(row, column): home for row, column, home in self.blocks.get(name, ())} for name in arrays}
        return {name: Zones(self.block_px, own, buffer_px) for name, own in blocks.items()}

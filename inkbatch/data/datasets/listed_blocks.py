"""Blocks of segments whose split or fold is given, so that it stays the same in every round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from inkbatch.config import JobConfig

BlockHome = Literal["validation", "test"] | Annotated[int, Field(ge=0)]
ListedBlock = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)], BlockHome]


class ListedBlockSplit(JobConfig):
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

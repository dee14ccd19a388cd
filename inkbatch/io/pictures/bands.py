"""Reading a stored map as consecutive bands of rows: any size in bounded memory, each stored chunk decoded once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.shards.array import ShardedArray

Flip = Literal["none", "x", "y", "xy"]


@dataclass(frozen=True)
class MapView:
    """A part of one level of a map (Y, X), perhaps mirrored.

    Attributes:
        array: The level's array.
        box: The part, in pixels of that level.
        flip: ``x`` mirrors left and right, ``y`` top and bottom, ``xy`` both.
    """

    array: ShardedArray
    box: Box
    flip: Flip = "none"

    @staticmethod
    def of(pyramid: Multiscale, level: int = 0, flip: Flip = "none") -> MapView:
        """View one whole level."""
        array = pyramid.levels[level]
        return MapView(array, Box(0, 0, *array.layout.shape), flip)

    @property
    def shape_yx(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.box.shape

    @property
    def chunk_rows(self) -> int:
        """Rows of a stored chunk: the lowest band that decodes nothing twice."""
        return self.array.layout.chunks[-2]

    @property
    def shard_rows(self) -> int:
        """Rows of a zarr shard: the lowest band that fetches each stored object once."""
        return self.array.layout.shards[-2]

    def bands(self, rows: int) -> Iterator[NDArray[Any]]:
        """Read the view from its top to its bottom; the next band is read while one is used.

        Args:
            rows: Rows of a band; a multiple of `chunk_rows` decodes each chunk once. The first and the last band may be
                lower, for bands lie on a grid anchored at row 0 of the map.

        Yields:
            (rows, width) in the stored dtype.
        """
        box = self.box
        cuts = [box.y0, *range((box.y0 // rows + 1) * rows, box.y1, rows), box.y1]
        boxes = [Box(y0, box.x0, y1, box.x1) for y0, y1 in itertools.pairwise(cuts)]
        if "y" in self.flip:
            boxes.reverse()
        with ThreadPoolExecutor(1, thread_name_prefix="inkbatch-bands") as reader:
            ahead = reader.submit(self._read, boxes[0])
            for following in [*boxes[1:], None]:
                band = ahead.result()
                if following is not None:
                    ahead = reader.submit(self._read, following)
                yield band

    def _read(self, box: Box) -> NDArray[Any]:
        band = self.array.read(box.slices)
        if "y" in self.flip:
            band = band[::-1]
        if "x" in self.flip:
            band = band[:, ::-1]
        return band


def reblock(blocks: Iterable[NDArray[Any]], rows: int) -> Iterator[NDArray[Any]]:
    """Cut consecutive blocks of rows into blocks of `rows` rows; the last one may be lower.

    A result that lies inside one block is a view of it.
    """
    held: list[NDArray[Any]] = []
    count = 0
    for block in blocks:
        start = 0
        while start < len(block):
            part = block[start : start + rows - count]
            held.append(part)
            count += len(part)
            start += len(part)
            if count == rows:
                yield held[0] if len(held) == 1 else np.concatenate(held)
                held, count = [], 0
    if held:
        yield held[0] if len(held) == 1 else np.concatenate(held)

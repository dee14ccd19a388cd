"""Tiles of a rendered surface: the voxels around a few thousand pixels are copied into one brick and sampled there."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.geometry import Box
from inkbatch.render.geometry import Pixels
from inkbatch.render.sampling import Brick, Lines, sample_lines
from inkbatch.render.touched import MARGIN, ChunkGrid, Hulls, hulls_of_pixels
from inkbatch.render.volume import Chunk

TILE_PX = 128  # pixels on a side
SMALL_PX = 8  # tiles of this side are cut along the layers
BRICK_VOXELS = 4 << 20  # of a brick at most; where the surface is torn or steep, tiles are cut smaller

Chunks = Mapping[Chunk, "Future[NDArray[Any]]"]

_here = threading.local()


@dataclass(frozen=True, eq=False)
class Tile:
    """Pixels and layers that are sampled together.

    Attributes:
        box: Its pixels in the raster.
        layers: Which of the layers that are read.
        pixels: Their positions and normals.
        low: First voxel of the brick, (z, y, x).
        high: One past the last.
        leaves: Whether points may lie outside the volume.
        grid: The volume's chunks.
        chunks: Those that sampling needs.
    """

    box: Box
    layers: slice
    pixels: Pixels
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    leaves: bool
    grid: ChunkGrid
    chunks: set[Chunk]

    def render(self, chunks: Chunks, offsets: NDArray[np.float32], reach: int, out: NDArray[Any]) -> None:
        """Sample the tile.

        Args:
            chunks: The chunks it needs, read or being read.
            offsets: Of its layers.
            reach: See `Lines`.
            out: (layers, height, width) to fill.
        """
        if not chunks:
            out[...] = 0
            return
        valid = self.pixels.valid
        if valid.all():
            points, normals = self.pixels.points.reshape(3, -1), self.pixels.normals.reshape(3, -1)
        else:
            points, normals = self.pixels.points[:, valid], self.pixels.normals[:, valid]
        values = _buffer("values", len(offsets) * points.shape[1], out.dtype).reshape(len(offsets), -1)
        sample_lines(self._brick(chunks, out.dtype), Lines.of(points, normals, reach), offsets, values)
        if points.shape[1] == valid.size:
            out[...] = values.reshape(out.shape)
        else:
            out[...] = 0
            out[:, valid] = values

    def _brick(self, chunks: Chunks, dtype: np.dtype[Any]) -> Brick:
        """Read the voxels of the tile, 0 outside the volume and where no point needs them."""
        shape = tuple(int(n) for n in self.high - self.low)
        brick = _buffer("brick", math.prod(shape), dtype).reshape(shape)
        brick[...] = 0
        for place, future in chunks.items():
            voxels = future.result()
            to, source = [], []
            for axis in range(3):
                start = place[axis] * self.grid.chunk[axis]
                first = max(start, int(self.low[axis]))
                last = min(start + voxels.shape[axis], int(self.high[axis]))
                to.append(slice(first - int(self.low[axis]), max(first, last) - int(self.low[axis])))
                source.append(slice(first - start, max(first, last) - start))
            brick[tuple(to)] = voxels[tuple(source)]
        z, y, x = (int(n) for n in self.low)
        return Brick(brick, (z, y, x), self.grid.shape if self.leaves else None)


def _buffer(name: str, size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return memory of this thread, used again by every tile; contents undefined."""
    kept: NDArray[np.uint8] | None = getattr(_here, name, None)
    needed = size * dtype.itemsize
    if kept is None or kept.size < needed:
        kept = np.empty(needed, np.uint8)
        setattr(_here, name, kept)
    return kept[:needed].view(dtype)


def cut_tile(box: Box, pixels: Pixels, layers: slice, offsets: NDArray[np.float32], grid: ChunkGrid) -> Iterator[Tile]:
    """Make tiles of some pixels and layers whose bricks are not too large.

    Args:
        box: The pixels' place in the raster.
        pixels: Their positions and normals.
        layers: Which layers.
        offsets: Of all layers that are read.
        grid: The volume's chunks.
    """
    taken = offsets[layers]
    hulls = hulls_of_pixels(pixels)
    low, high, leaves = _bounds(hulls, taken, grid)
    if math.prod(int(n) for n in high - low) <= BRICK_VOXELS or box.area * len(taken) == 1:
        yield Tile(box, layers, pixels, low, high, leaves, grid, grid.touched(hulls, taken))
        return
    if len(taken) > 1 and max(box.shape) <= SMALL_PX:
        middle = (layers.start + layers.stop) // 2
        for some in (slice(layers.start, middle), slice(middle, layers.stop)):
            yield from cut_tile(box, pixels, some, offsets, grid)
        return
    for half in _halves(box):
        rows, columns = half.within(box)
        part = Pixels(pixels.points[:, rows, columns], pixels.normals[:, rows, columns], pixels.valid[rows, columns])
        yield from cut_tile(half, part, layers, offsets, grid)


def _halves(box: Box) -> tuple[Box, Box]:
    if box.height >= box.width:
        middle = (box.y0 + box.y1) // 2
        return Box(box.y0, box.x0, middle, box.x1), Box(middle, box.x0, box.y1, box.x1)
    middle = (box.x0 + box.x1) // 2
    return Box(box.y0, box.x0, box.y1, middle), Box(box.y0, middle, box.y1, box.x1)


def _bounds(
    hulls: Hulls, offsets: NDArray[np.float32], grid: ChunkGrid
) -> tuple[NDArray[np.int64], NDArray[np.int64], bool]:
    """Return the first voxel and one past the last that sampling needs, and whether points may leave the volume."""
    if not hulls.count:
        return np.zeros(3, np.int64), np.zeros(3, np.int64), False
    least, most = hulls.along(float(offsets.min()), float(offsets.max()))
    low, high = np.floor(least.min(axis=1) - MARGIN), np.floor(most.max(axis=1) + MARGIN) + 2
    size = np.array(grid.shape)
    leaves = bool((low < 0).any() or (high > size + 1).any())
    low, high = np.clip(low, 0, size), np.clip(high, 2, size + 2)
    return low.astype(np.int64), high.astype(np.int64), leaves

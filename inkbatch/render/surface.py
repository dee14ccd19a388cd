"""Layers that are rendered as they are read: a `LayerSource` over a mesh and a volume."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.config import digest
from inkbatch.errors import ConfigError
from inkbatch.geometry import Box, cells
from inkbatch.io.layers.base import CheckedLayerSource
from inkbatch.io.ome import Spacing
from inkbatch.io.threads import decode_pool
from inkbatch.render.geometry import Raster
from inkbatch.render.tiles import TILE_PX, Chunks, Tile, cut_tile
from inkbatch.render.touched import ChunkGrid, hulls_of_mesh
from inkbatch.render.volume import Chunk, ChunkReader, Volume

AHEAD = 24  # tiles whose chunks are read ahead
JOBS_AT_MOST = 8  # tiles that are sampled or wait for a thread
REACH_VOXELS = 500  # products of places in a brick stay below 2 ** 31
UNIT_PX = 1024  # read at a time: touches tens of chunks
DEFAULT_CACHE_BYTES = 256 << 20


@dataclass(frozen=True)
class Layers:
    """Choice of the layers that are rendered.

    Attributes:
        count: Layers; for an even number none lies on the surface itself.
        step: From one to the next along the normal, in voxels of level 0.
        flip: Run against the normals: layer 0 is then the far end along them.
    """

    count: int
    step: float = 1.0
    flip: bool = False

    def offsets(self, level_scale: float) -> NDArray[np.float32]:
        """Return the offset of each layer along the normal, in voxels of the sampled level."""
        found = (np.arange(self.count) - (self.count - 1) / 2) * self.step * level_scale
        return np.asarray(-found if self.flip else found, np.float32)


class RenderedSurface(CheckedLayerSource):
    """Layers around a mesh, sampled from a volume; `read` renders.

    Pixels without a surface are 0 in every layer, points outside the volume are 0.

    Attributes:
        raster: The mesh and its pixels.
        volume: The volume's level.
        offsets: Of the layers, in voxels of that level.
        spacing: Of layers and pixels, where the volume's voxel size is known.
        chunks: The reader, with its cache.
    """

    def __init__(self, raster: Raster, volume: Volume, layers: Layers, cache_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self.raster, self.volume, self.layers = raster, volume, layers
        self.offsets = layers.offsets(raster.level_scale)
        self.reach = math.ceil(float(np.abs(self.offsets).max())) + 1
        if self.reach > REACH_VOXELS:
            raise ConfigError(
                f"{raster.mesh.uri}: expected layers within {REACH_VOXELS} voxels of the surface, got {layers.count} "
                f"of {layers.step:g} voxels; take fewer layers, a smaller step, or a coarser level"
            )
        self.uri = raster.mesh.uri
        self.shape_zyx = (layers.count, *raster.shape_yx)
        self.dtype = volume.dtype
        self.block_layers = layers.count
        self.resident_bytes = cache_bytes + 2 * raster.mesh.points.nbytes  # the mesh and its normals
        self.unit_px = UNIT_PX
        base = volume.base_um
        if base is not None:
            pixel_um = base / raster.pixels_per_voxel
            self.spacing = Spacing(base * layers.step, pixel_um, pixel_um)
        self.grid = ChunkGrid(volume.shape_zyx, volume.chunk_zyx)
        self.chunks = ChunkReader(volume, cache_bytes)
        self.fingerprint = digest({"mesh": raster.mesh.fingerprint, "volume": volume.fingerprint})

    def planned_chunks(self, box: Box) -> set[Chunk]:
        """List the chunks that rendering a box reads at most, from the mesh alone."""
        return self.grid.touched(hulls_of_mesh(self.raster, box), self.offsets)

    def vertices_outside(self, box: Box | None = None) -> tuple[int, int]:
        """Count the vertices with a normal: those whose layers leave the volume, and all.

        Args:
            box: Only those around these pixels.
        """
        mesh = self.raster.mesh
        rows, columns = self.raster.cells(box or Box(0, 0, *self.shape_zyx[1:]))
        part = np.s_[rows.start : rows.stop + 1, columns.start : columns.stop + 1]
        good = mesh.has_normal[part]
        scale = self.raster.mesh_factor * self.raster.level_scale
        points = mesh.points[:, *part][:, good].astype(np.float64) * scale
        inside = self._inside(points, mesh.normals[:, *part][:, good])
        return int(inside.size - np.count_nonzero(inside)), int(inside.size)

    def coverage(self, box: Box) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Find the pixels where there is a surface, and where all its layers are inside the volume; nothing is read.

        Returns:
            Two arrays (height, width): pixels with a surface, and those of them that have all their layers.
        """
        surface, whole = np.zeros(box.shape, bool), np.zeros(box.shape, bool)
        for part in cells(box, TILE_PX, TILE_PX):
            pixels, here = self.raster.pixels(part), part.within(box)
            surface[here] = pixels.valid
            whole[here] = pixels.valid & self._inside(pixels.points, pixels.normals)
        return surface, whole

    def _inside(self, points: NDArray[np.float64], normals: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Tell whether both ends of each line of layers, and so all of it, are inside the volume."""
        size = np.array(self.volume.shape_zyx).reshape(3, *[1] * (points.ndim - 1))
        inside = np.ones(points.shape[1:], bool)
        for end in (self.offsets[0], self.offsets[-1]):
            at = points + float(end) * normals
            inside &= ((at >= 0) & (at <= size - 1)).all(axis=0)
        return inside

    def _fill(self, indices: range, box: Box, out: NDArray[Any]) -> None:
        waiting: deque[tuple[Tile, Chunks]] = deque()
        jobs: deque[Future[None]] = deque()

        def start() -> None:
            tile, chunks = waiting.popleft()
            part = out[(tile.layers, *tile.box.within(box))]
            offsets = self.offsets[indices.start :][tile.layers]
            jobs.append(decode_pool.submit(tile.render, chunks, offsets, self.reach, part))

        try:
            for tile in self.tiles(box, self.offsets[indices.start : indices.stop]):
                waiting.append((tile, self.chunks.ask(tile.chunks)))
                while len(waiting) > self._ahead(tile):
                    start()
                while len(jobs) > JOBS_AT_MOST:
                    jobs.popleft().result()
            while waiting:
                start()
            while jobs:
                jobs.popleft().result()
        finally:
            for job in jobs:
                job.cancel()
            wait(jobs)

    def tiles(self, box: Box, offsets: NDArray[np.float32]) -> Iterator[Tile]:
        """Cut a box into tiles, each with the chunks that its layers need; nothing is read.

        Args:
            box: Pixels inside the layers.
            offsets: Of the layers, in voxels of the volume's level.
        """
        for part in cells(box, TILE_PX, TILE_PX):
            yield from cut_tile(part, self.raster.pixels(part), slice(0, len(offsets)), offsets, self.grid)

    def _ahead(self, tile: Tile) -> int:
        """Count the tiles whose chunks are read ahead: as many as half of the cache holds."""
        return min(AHEAD, self.chunks.most // (2 * max(1, len(tile.chunks))))

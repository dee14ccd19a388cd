"""The raster that a mesh spans: its size, and the position and normal of each pixel, as the field has them.

Facts were found by trying; the arithmetic is float64, hence layers differ from those of float32 renderers by one grey
value in about 0.005 % of the pixels (8 bits) or 0.5 % (16 bits).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inkbatch.geometry import Box
from inkbatch.render.mesh import Mesh


@dataclass(frozen=True, eq=False)
class Pixels:
    """Position and normal of the pixels of a box.

    Attributes:
        points: (3, height, width) float64, in voxels of the sampled level, axes z, y, x first.
        normals: (3, height, width) float32, unit length.
        valid: (height, width), where the surface has values; points and normals are undefined elsewhere.
    """

    points: NDArray[np.float64]
    normals: NDArray[np.float32]
    valid: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Raster:
    """Pixels of the flattened surface, laid on a mesh.

    Attributes:
        mesh: The mesh.
        pixels_per_voxel: Pixels per voxel of level 0, nominally: 1 is full resolution.
        level_scale: What turns coordinates of level 0 into those of the sampled level: ``2 ** -level``.
        mesh_factor: What turns the mesh's coordinates into those of level 0, where it was drawn at another size. The
            raster grows with it; normals do not change.
    """

    mesh: Mesh
    pixels_per_voxel: float = 1.0
    level_scale: float = 1.0
    mesh_factor: float = 1.0

    @property
    def shape_yx(self) -> tuple[int, int]:
        """(height, width): grid size times pixels per vertex, halves rounded up."""
        counts = zip(self.mesh.shape_yx, self.steps_yx, strict=True)
        height, width = (max(1, math.floor(count / step + 0.5)) for count, step in counts)
        return height, width

    @property
    def steps_yx(self) -> tuple[float, float]:
        """Grid steps from one pixel to the next along rows and columns."""
        per_voxel = self.pixels_per_voxel * self.mesh_factor
        return self.mesh.scale_yx[0] / per_voxel, self.mesh.scale_yx[1] / per_voxel

    def grid(self, axis: int, start: int, stop: int) -> NDArray[np.float64]:
        """Compute grid coordinates of pixels ``[start, stop)`` along an axis (0 rows, 1 columns), clamped to the grid.

        Pixel centres lie at half steps, vertex c at coordinate c: the raster spans 0 to `count`, vertices only
        0 to ``count - 1``.
        """
        count, step, size = self.mesh.shape_yx[axis], self.steps_yx[axis], self.shape_yx[axis]
        found = count / 2 + (np.arange(start, stop) - (size - 1) / 2) * step
        return np.clip(found, 0, count - 1)

    def pixels(self, box: Box) -> Pixels:
        """Compute position and normal of each pixel of a box inside the raster.

        Positions are bilinear between the four vertices around a pixel, all of which must be there; the normal is that
        of the nearest vertex, halves away from zero: it jumps half-way between vertices.
        """
        (top, below, down), (left, right, across) = (
            _cells(self.grid(axis, *ends), self.mesh.shape_yx[axis])
            for axis, ends in enumerate(((box.y0, box.y1), (box.x0, box.x1)))
        )
        rows, columns = (_nearest(self.grid(a, *ends)) for a, ends in enumerate(((box.y0, box.y1), (box.x0, box.x1))))
        mesh, valid = self.mesh, self.mesh.valid
        nearest = np.ix_(rows, columns)
        good = mesh.has_normal[nearest]
        for pair in ((top, left), (top, right), (below, left), (below, right)):
            good &= valid[np.ix_(*pair)]
        first, start = top[0], left[0]
        part = mesh.points[:, first : below[-1] + 1, start : right[-1] + 1].astype(np.float64)
        between = part[:, :, left - start] + (part[:, :, right - start] - part[:, :, left - start]) * across
        upper, lower = between[:, top - first], between[:, below - first]
        points = upper + (lower - upper) * down[:, None]
        points *= self.mesh_factor * self.level_scale
        return Pixels(points, np.ascontiguousarray(mesh.normals[:, rows[:, None], columns]), good)

    def cells(self, box: Box) -> tuple[range, range]:
        """Find the cells of the grid (rows, columns; cell c is between vertices c and c + 1) that pixels are in."""
        ranges = []
        for axis, ends in enumerate(((box.y0, box.y1), (box.x0, box.x1))):
            near, _, _ = _cells(self.grid(axis, *ends)[[0, -1]], self.mesh.shape_yx[axis])
            ranges.append(range(int(near[0]), int(near[1]) + 1))
        return ranges[0], ranges[1]


def _cells(grid: NDArray[np.float64], count: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Return the vertices before and after each coordinate, and the part of the way between them."""
    before = np.minimum(np.floor(grid).astype(np.intp), count - 2)
    return before, before + 1, grid - before


def _nearest(grid: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.floor(grid + 0.5).astype(np.intp)

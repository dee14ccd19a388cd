"""Nearest points of one surface to points of another, as places on its grid of vertices.

Both meshes lie in one system of coordinates. A tree of vertices finds where to begin; from there a few Gauss-Newton
steps on the bilinear cells find the foot of the perpendicular.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from inkbatch.render.mesh import Mesh

STEPS = 8  # Gauss-Newton; curved cells of published meshes take two or three
OUTSIDE = 0.02  # of a cell: a foot that lies farther beyond the grid is none

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NearestPoints:
    """Feet of perpendiculars on a surface.

    Attributes:
        mesh: The surface.
        reach: Largest distance of a point from it, in voxels.
    """

    mesh: Mesh
    reach: float

    @cached_property
    def _vertices(self) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """Vertices that are there: (n, 3) points and (n, 2) places on the grid."""
        places = np.argwhere(self.mesh.valid)
        return np.ascontiguousarray(self.mesh.points[:, places[:, 0], places[:, 1]].T), places

    @cached_property
    def _spacing(self) -> float:
        """Distance from a vertex within which each point of its cells lies, in voxels."""
        along = [stretch / scale for stretch, scale in zip(self.mesh.stretch_yx, self.mesh.scale_yx, strict=True)]
        return 2 * math.hypot(*along)

    def of(self, points: Floats) -> Floats:
        """Find the place of each point (n, 3), axes z, y, x, on the grid: (n, 2) rows and columns.

        NaN where the surface is farther than `reach`, ends, or has a hole.
        """
        found = np.full((len(points), 2), np.nan)
        if not len(points):
            return found
        first = self._nearest_vertices(points)
        near = first[:, 0] >= 0
        if near.any():
            found[near] = self._feet(points[near], first[near].astype(np.float64))
        return found

    def _nearest_vertices(self, points: Floats) -> NDArray[np.intp]:
        """Return the place of the vertex nearest to each point, (-1, -1) where none is near."""
        from scipy.spatial import cKDTree  # imported late: most jobs need no tree

        vertices, places = self._vertices
        margin = self.reach + self._spacing
        low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
        inside = np.flatnonzero(((vertices >= low) & (vertices <= high)).all(axis=1))
        found = np.full((len(points), 2), -1, np.intp)
        if not len(inside):
            return found
        _, which = cKDTree(vertices[inside]).query(points, distance_upper_bound=margin)
        hit = which < len(inside)
        found[hit] = places[inside[which[hit]]]
        return found

    def _feet(self, points: Floats, places: Floats) -> Floats:
        top = np.array(self.mesh.shape_yx, np.float64) - 1
        for _ in range(STEPS):
            step = self._step(points, places)[0]
            places = np.clip(places + np.clip(step, -1, 1), 0, top)
        step, distance, whole = self._step(points, places)
        beyond = np.abs(places + step - np.clip(places + step, 0, top)).max(axis=1)
        good = whole & (distance <= self.reach) & (beyond <= OUTSIDE)
        return np.where(good[:, None], places, np.nan)

    def _step(self, points: Floats, places: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Return the Gauss-Newton step (n, 2), the distance, and whether all four vertices around a place are there."""
        mesh, shape = self.mesh, np.array(self.mesh.shape_yx)
        cell = np.minimum(np.floor(places).astype(np.intp), shape - 2)
        (row, column), (down, across) = cell.T, (places - cell).T[:, :, None]
        corners = [(row + dy, column + dx) for dy in (0, 1) for dx in (0, 1)]
        whole = np.logical_and.reduce([mesh.valid[corner] for corner in corners])
        a, b, c, d = (mesh.points[:, y, x].T.astype(np.float64) for y, x in corners)
        upper, lower = a + (b - a) * across, c + (d - c) * across
        along_rows = lower - upper
        along_columns = (b - a) + ((d - c) - (b - a)) * down
        rest = points - (upper + along_rows * down)
        uu, vv = (along_rows**2).sum(axis=1), (along_columns**2).sum(axis=1)
        uv = (along_rows * along_columns).sum(axis=1)
        ru, rv = (rest * along_rows).sum(axis=1), (rest * along_columns).sum(axis=1)
        below = uu * vv - uv * uv
        step = np.stack([vv * ru - uv * rv, uu * rv - uv * ru], axis=1)
        step = np.divide(step, below[:, None], out=np.zeros_like(step), where=below[:, None] > 0)
        return step, np.sqrt((rest**2).sum(axis=1)), np.asarray(whole)

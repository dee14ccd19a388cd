"""The chunks of a volume that a surface touches: of known pixels, or from the mesh alone, before anything is read."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.geometry import Box
from inkbatch.render.geometry import Pixels, Raster
from inkbatch.render.volume import Chunk

PIECE_PX = 8  # pixels on a side that share a box of voxels, where pixels are known
PIECE_VOXELS = 16.0  # along the normal that share a box of voxels
CELL_PX = 24  # of a cell of the mesh, at most, that has a box of its own
MARGIN = 0.01  # voxels: more than what float32 rounds away


@dataclass(frozen=True, eq=False)
class Hulls:
    """Boxes around the positions of small parts of a surface, and the extremes of their normals.

    Attributes:
        low: (3, parts), smallest position, axes z, y, x first.
        high: (3, parts), largest one.
        normal_low: (3, parts), smallest components of normals.
        normal_high: (3, parts), largest ones.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    normal_low: NDArray[np.float32]
    normal_high: NDArray[np.float32]

    @property
    def count(self) -> int:
        """Parts."""
        return int(self.low.shape[1])

    def along(self, first: float, last: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return smallest and largest coordinates between two offsets along the normals, (3, parts) each."""
        shifts = [end * normal for end in (first, last) for normal in (self.normal_low, self.normal_high)]
        return self.low + np.minimum.reduce(shifts), self.high + np.maximum.reduce(shifts)


@dataclass(frozen=True)
class ChunkGrid:
    """Division of a volume into chunks, axes (z, y, x).

    Attributes:
        shape: Voxels of the volume.
        chunk: Voxels of a chunk.
    """

    shape: tuple[int, int, int]
    chunk: Chunk

    def touched(self, hulls: Hulls, offsets: NDArray[np.floating[Any]]) -> set[Chunk]:
        """Find the chunks that sampling at some offsets can read; each point takes the next voxel on each axis too."""
        if not hulls.count:
            return set()
        parts = [hulls.along(*ends) for ends in _groups(offsets)]
        low, high = (np.concatenate(side, axis=1) for side in zip(*parts, strict=True))
        size, part = np.array(self.shape)[:, None], np.array(self.chunk)[:, None]
        meets = ((high >= -MARGIN) & (low < size + MARGIN)).all(axis=0)
        first = np.clip(np.floor(low[:, meets] - MARGIN), 0, size - 1).astype(np.int64) // part
        last = np.clip(np.floor(high[:, meets] + MARGIN) + 1, 0, size - 1).astype(np.int64) // part
        found: set[Chunk] = set()
        for z0, y0, x0, z1, y1, x1 in set(map(tuple, np.concatenate([first, last]).T.tolist())):
            found.update(itertools.product(range(z0, z1 + 1), range(y0, y1 + 1), range(x0, x1 + 1)))
        return found


def _groups(offsets: NDArray[np.floating[Any]]) -> list[tuple[float, float]]:
    """Cut a range of offsets into parts of at most `PIECE_VOXELS`: (first, last) of each."""
    low, high = float(offsets.min()), float(offsets.max())
    edges = np.linspace(low, high, max(2, 1 + int(np.ceil((high - low) / PIECE_VOXELS))))
    return [(float(a), float(b)) for a, b in itertools.pairwise(edges)]


def hulls_of_pixels(pixels: Pixels) -> Hulls:
    """Compute the hulls of the pieces of `PIECE_PX` on a side, as far as pixels are valid."""
    ends = []
    for array in (pixels.points, pixels.normals):
        for pick, empty in ((np.minimum, np.inf), (np.maximum, -np.inf)):
            ends.append(_pieces(array, pixels.valid, pick, empty))
    filled = np.isfinite(ends[0][0])
    low, high, normal_low, normal_high = (end[:, filled] for end in ends)
    return Hulls(low, high, normal_low, normal_high)


def _pieces(array: NDArray[Any], valid: NDArray[np.bool_], pick: np.ufunc, empty: float) -> NDArray[Any]:
    """Compute extremes of the valid pixels of each piece, (3, rows, columns); `empty` for pieces without any."""
    height, width = valid.shape
    if not valid.all():
        array = np.where(valid, array, array.dtype.type(empty))
    if height % PIECE_PX or width % PIECE_PX:
        array = np.pad(array, ((0, 0), (0, -height % PIECE_PX), (0, -width % PIECE_PX)), constant_values=empty)
    rows = pick.reduce(array.reshape(3, -1, PIECE_PX, array.shape[2]), axis=2)
    return np.asarray(pick.reduce(rows.reshape(3, rows.shape[1], -1, PIECE_PX), axis=3))


def hulls_of_mesh(raster: Raster, box: Box) -> Hulls:
    """Compute hulls of a box of pixels from the cells of the mesh alone; they hold those of its pixels.

    Cells that are wide on the raster are cut: a part of a bilinear patch lies in the hull of its own corners.
    """
    mesh = raster.mesh
    rows, columns = raster.cells(box)
    part = np.s_[rows.start : rows.stop + 1, columns.start : columns.stop + 1]
    has_normal, normals = mesh.has_normal[part], mesh.normals[:, *part]
    points = mesh.points[:, *part].astype(np.float64) * (raster.mesh_factor * raster.level_scale)
    cuts = [max(1, math.ceil(1 / (step * CELL_PX) - 0.1)) for step in raster.steps_yx]
    good = _four(mesh.valid[part], np.logical_and) & _four(has_normal, np.logical_or)
    good = good.repeat(cuts[0], 0).repeat(cuts[1], 1)
    corners = _refined(_refined(points, cuts[0], 1), cuts[1], 2)
    ends = [_four(corners, np.minimum), _four(corners, np.maximum)]
    for pick, empty in ((np.minimum, np.inf), (np.maximum, -np.inf)):
        extreme = _four(np.where(has_normal, normals, np.float32(empty)), pick)
        ends.append(extreme.repeat(cuts[0], 1).repeat(cuts[1], 2))
    low, high, normal_low, normal_high = (end[:, good] for end in ends)
    return Hulls(low, high, normal_low, normal_high)


def _refined(points: NDArray[np.float64], cuts: int, axis: int) -> NDArray[np.float64]:
    """Compute the corners of cells that are cut along one axis; linear between the vertices."""
    count = points.shape[axis]
    places = np.arange((count - 1) * cuts + 1) / cuts
    before = np.minimum(places.astype(np.intp), count - 2)
    shape = [1, 1, 1]
    shape[axis] = -1
    share = (places - before).reshape(shape)
    return np.asarray(points.take(before, axis) * (1 - share) + points.take(before + 1, axis) * share)


def _four(corners: NDArray[Any], pick: np.ufunc) -> NDArray[Any]:
    """Combine the four corners of each cell; the last two axes become shorter by one."""
    rows = pick(corners[..., 1:, :], corners[..., :-1, :])
    return np.asarray(pick(rows[..., 1:], rows[..., :-1]))

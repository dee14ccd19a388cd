"""The chunks of a volume that a surface touches: of a box of pixels, or from the mesh alone, before anything is read."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.geometry import Box
from inkbatch.render.geometry import Picture, Pixels
from inkbatch.render.volume import Chunk

PIECE_PX = 8  # pixels on a side that share a box of voxels, where pixels are known
PIECE_VOXELS = 16.0  # along the normal that share a box of voxels
CELL_PX = 24  # of a cell of the mesh, at most, that has a box of its own
MARGIN = 0.01  # voxels: more than what float32 rounds away


@dataclass(frozen=True)
class ChunkGrid:
    """How a volume is cut into chunks, axes (z, y, x).

    Attributes:
        shape: Voxels of the volume.
        chunk: Voxels of a chunk.
    """

    shape: tuple[int, int, int]
    chunk: Chunk

    def within(self, low: NDArray[Any], high: NDArray[Any]) -> set[Chunk]:
        """Chunks that sampling in any of some boxes of points reads; each point takes the voxel after it as well.

        Args:
            low: (3, boxes), smallest coordinates.
            high: (3, boxes), largest ones.
        """
        size = np.array(self.shape)[:, None]
        part = np.array(self.chunk)[:, None]
        meets = ((high >= 0) & (low < size)).all(axis=0)
        first = np.clip(np.floor(low[:, meets] - MARGIN), 0, size - 1).astype(np.int64) // part
        last = np.clip(np.floor(high[:, meets] + MARGIN) + 1, 0, size - 1).astype(np.int64) // part
        spans = np.unique(np.concatenate([first, last]), axis=1).T.tolist()
        found: set[Chunk] = set()
        for z0, y0, x0, z1, y1, x1 in spans:
            found.update(itertools.product(range(z0, z1 + 1), range(y0, y1 + 1), range(x0, x1 + 1)))
        return found


def groups_of(offsets: NDArray[np.floating[Any]]) -> list[tuple[float, float]]:
    """Cut a range of offsets into parts of at most `PIECE_VOXELS`: (first, last) of each."""
    low, high = float(offsets.min()), float(offsets.max())
    edges = np.linspace(low, high, max(2, 1 + int(np.ceil((high - low) / PIECE_VOXELS))))
    return [(float(a), float(b)) for a, b in itertools.pairwise(edges)]


def touched_by_pixels(pixels: Pixels, offsets: NDArray[np.floating[Any]], grid: ChunkGrid) -> set[Chunk]:
    """Chunks that sampling these pixels reads, and hardly any other: boxes are pieces of `PIECE_PX`."""
    if not pixels.valid.any():
        return set()
    height, width = pixels.valid.shape
    padding = ((0, 0), (0, -height % PIECE_PX), (0, -width % PIECE_PX))
    found: set[Chunk] = set()
    for first, last in groups_of(offsets):
        ends = [pixels.points + first * pixels.normals, pixels.points + last * pixels.normals]
        low = np.where(pixels.valid, np.minimum(*ends), np.inf)
        high = np.where(pixels.valid, np.maximum(*ends), -np.inf)
        low = np.pad(low, padding, constant_values=np.inf)
        high = np.pad(high, padding, constant_values=-np.inf)
        shape = (3, low.shape[1] // PIECE_PX, PIECE_PX, low.shape[2] // PIECE_PX, PIECE_PX)
        low, high = low.reshape(shape).min(axis=(2, 4)), high.reshape(shape).max(axis=(2, 4))
        filled = np.isfinite(low[0])
        found |= grid.within(low[:, filled], high[:, filled])
    return found


def touched_by_mesh(picture: Picture, box: Box, offsets: NDArray[np.floating[Any]], grid: ChunkGrid) -> set[Chunk]:
    """Chunks that sampling a box of pixels can read, from the cells of the mesh alone: at least those that it does read.

    Cells that are wide on the picture are cut: a part of a bilinear patch lies in the hull of its own corners.
    """
    mesh = picture.mesh
    rows, columns = picture.cells(box)
    whole = mesh.valid[rows.start : rows.stop + 1, columns.start : columns.stop + 1]
    part = np.s_[:, rows.start : rows.stop + 1, columns.start : columns.stop + 1]
    normals = np.where(mesh.has_normal[part[1:]], mesh.normals[part], np.nan)
    scale = picture.mesh_factor * picture.level_scale
    points = mesh.points[part].astype(np.float64) * scale
    good = _all_four(whole) & _any_four(mesh.has_normal[part[1:]])
    cuts = [max(1, round(1 / (step * CELL_PX))) for step in picture.steps_yx]
    corners = _refined(_refined(points, cuts[0], 1), cuts[1], 2)
    good = good.repeat(cuts[0], 0).repeat(cuts[1], 1)
    low, high = _four(corners, np.minimum), _four(corners, np.maximum)
    n_low, n_high = (
        _four(np.where(np.isnan(normals), empty, normals), pick).repeat(cuts[0], 1).repeat(cuts[1], 2)
        for empty, pick in ((np.inf, np.minimum), (-np.inf, np.maximum))
    )
    low, high, n_low, n_high = (array[:, good] for array in (low, high, n_low, n_high))
    found: set[Chunk] = set()
    for ends in groups_of(offsets):
        shifts = [end * normal for end in ends for normal in (n_low, n_high)]
        found |= grid.within(low + np.minimum.reduce(shifts), high + np.maximum.reduce(shifts))
    return found


def _refined(points: NDArray[np.float64], cuts: int, axis: int) -> NDArray[np.float64]:
    """Corners of cells that are cut along one axis; linear between the vertices."""
    count = points.shape[axis]
    places = np.arange((count - 1) * cuts + 1) / cuts
    before = np.minimum(places.astype(np.intp), count - 2)
    shape = [1, 1, 1]
    shape[axis] = -1
    share = (places - before).reshape(shape)
    return points.take(before, axis) * (1 - share) + points.take(before + 1, axis) * share


def _four(corners: NDArray[Any], pick: Any) -> NDArray[Any]:
    """Smallest or largest of the four corners of each cell, (3, rows, columns)."""
    rows = pick(corners[:, 1:], corners[:, :-1])
    found: NDArray[Any] = pick(rows[:, :, 1:], rows[:, :, :-1])
    return found


def _all_four(valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return valid[1:, 1:] & valid[1:, :-1] & valid[:-1, 1:] & valid[:-1, :-1]


def _any_four(valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return valid[1:, 1:] | valid[1:, :-1] | valid[:-1, 1:] | valid[:-1, :-1]

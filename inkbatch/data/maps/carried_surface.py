"""Map of another rendering of the same papyrus, carried by the nearest points of two surfaces (``x/y/z.tif``).

Each vertex of the segment's mesh finds the nearest point of the map's mesh, in three dimensions and within a stated
distance; between vertices the place on the other mesh is bilinear, as surfaces are. Pixels whose cell has no such
partner, or whose cell the other mesh tears apart, are not seen. The two meshes lie in the coordinates of one volume.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.data.maps.carried import SEEN_SHARE, Carried, open_teacher
from inkbatch.data.maps.stored import StoredMap
from inkbatch.data.segments.prepared import open_prepared
from inkbatch.errors import DataError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.halving import halve
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.render.mesh import Mesh, is_mesh, open_mesh
from inkbatch.render.nearest import NearestPoints

BLOCK_PX = 512  # read at a time
SMALLEST_BLOCK_PX = 32
MOST_MAP_PX = 1 << 24  # of the map, for one block
TORN = 3.0  # times the usual step on the other mesh, from one vertex to the next
PROBED = 4096  # vertices that are looked up before anything is read
LEAST_FOUND = 0.01  # of them

Floats = NDArray[np.float32]
Read = tuple[Floats, NDArray[np.bool_]]


@dataclass(frozen=True, eq=False)
class Grid:
    """Pixels of a flattened surface on the grid of its mesh: vertex c lies at c, pixel centres at half steps.

    Attributes:
        mesh: The mesh.
        shape_yx: (height, width) of the surface.
    """

    mesh: Mesh
    shape_yx: tuple[int, int]

    @property
    def steps_yx(self) -> tuple[float, float]:
        """Grid steps from one pixel to the next."""
        (rows, columns), (height, width) = self.mesh.shape_yx, self.shape_yx
        return rows / height, columns / width

    def places(self, axis: int, start: int, stop: int) -> NDArray[np.float64]:
        """Return grid coordinates of pixels along an axis, clamped to the vertices, as renderers do."""
        count, size = self.mesh.shape_yx[axis], self.shape_yx[axis]
        found = count / 2 + (np.arange(start, stop) - (size - 1) / 2) * self.steps_yx[axis]
        return np.clip(found, 0, count - 1)

    def pixels(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn grid coordinates (2, …) into pixels."""
        shape = (2,) + (1,) * (places.ndim - 1)
        counts, sizes, steps = (
            np.array(pair, np.float64).reshape(shape) for pair in (self.mesh.shape_yx, self.shape_yx, self.steps_yx)
        )
        return np.asarray((places - counts / 2) / steps + (sizes - 1) / 2)


@dataclass(frozen=True, eq=False)
class SurfaceMatch:
    """Pixels of one flattened surface on another one.

    Attributes:
        source: The surface of the map.
        target: That of the segment.
        reach: Largest distance between the two, in voxels.
    """

    source: Grid
    target: Grid
    reach: float

    @cached_property
    def nearest(self) -> NearestPoints:
        """Finder of points on the source."""
        return NearestPoints(self.source.mesh, self.reach)

    @cached_property
    def scale(self) -> float:
        """Pixels of the source per pixel of the target, by the distances of their vertices."""
        sizes = []
        for grid in (self.target, self.source):
            mesh = grid.mesh
            edges = [stretch / scale for stretch, scale in zip(mesh.stretch_yx, mesh.scale_yx, strict=True)]
            sizes.append(float(np.sqrt(np.prod(edges) * np.prod(grid.steps_yx))))
        return sizes[0] / sizes[1]

    @cached_property
    def found_share(self) -> float:
        """Share of the target's vertices, evenly picked, that have a partner."""
        places = np.argwhere(self.target.mesh.valid)
        places = places[:: max(1, len(places) // PROBED)]
        points = self.target.mesh.points[:, places[:, 0], places[:, 1]].T.astype(np.float64)
        return float(np.isfinite(self.nearest.of(points)[:, 0]).mean())

    def places(self, box: Box) -> NDArray[np.float64]:
        """Find the pixel (y, x) of the source, (2, height, width), for each pixel of a box; NaN where there is none."""
        (rows, first_row), (columns, first_column) = (
            _vertices(self.target.places(axis, *ends), self.target.mesh.shape_yx[axis])
            for axis, ends in enumerate(((box.y0, box.y1), (box.x0, box.x1)))
        )
        last_row, last_column = int(rows[-1]) + 2, int(columns[-1]) + 2
        window = np.s_[first_row:last_row, first_column:last_column]
        points, valid = self.target.mesh.points[:, *window], self.target.mesh.valid[window]
        on_grid = np.full((2, *valid.shape), np.nan)
        on_grid[:, valid] = self.nearest.of(points[:, valid].T.astype(np.float64)).T
        on_grid[:, valid] = self.source.pixels(on_grid[:, valid])
        whole = self._whole(on_grid)
        y, x = rows - first_row, columns - first_column
        top, left = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
        down, across = (y - top)[:, None], (x - left)[None]
        corner = [on_grid[:, (top + dy)[:, None], (left + dx)[None]] for dy in (0, 1) for dx in (0, 1)]
        upper = corner[0] + (corner[1] - corner[0]) * across
        lower = corner[2] + (corner[3] - corner[2]) * across
        found = upper + (lower - upper) * down
        return np.where(whole[np.ix_(top, left)], found, np.nan)

    def _whole(self, on_grid: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Mark cells whose four vertices have partners that lie together on the source."""
        rows, columns = on_grid.shape[1] - 1, on_grid.shape[2] - 1
        corners = np.stack([on_grid[:, dy : rows + dy, dx : columns + dx] for dy in (0, 1) for dx in (0, 1)])
        usual = self.scale / min(self.target.steps_yx)
        with np.errstate(invalid="ignore"):
            wide = corners.max(axis=0) - corners.min(axis=0)
            return np.asarray((wide <= TORN * usual).all(axis=0))


def _vertices(places: NDArray[np.float64], count: int) -> tuple[NDArray[np.float64], int]:
    """Keep coordinates inside the last cell, and return them with the first vertex that they need."""
    kept = np.minimum(places, np.nextafter(count - 1, 0))
    return kept, int(kept[0])


class SurfaceCarriedMap(Carried):
    """Map of another surface near the segment's.

    Args:
        found: The map.
        mask: Papyrus of the map's own segment.
        match: Where its pixels lie.
    """

    def __init__(self, found: StoredMap, mask: Multiscale, match: SurfaceMatch) -> None:
        super().__init__(found, mask, match.target.shape_yx)
        self.match, self.map_pixels = match, max(1.0, match.scale**2)
        self.level = max(0, int(np.floor(np.log2(match.scale) + 0.5)))  # halvings before pixels are picked
        meshes = {"from_mesh": match.source.mesh.fingerprint, "onto_mesh": match.target.mesh.fingerprint}
        self.identity |= {**meshes, "reach_voxels": match.reach}
        self.request |= {"from_mesh": match.source.mesh.uri, "onto_mesh": match.target.mesh.uri}
        self.how = (
            f"by nearest points within {match.reach:g} voxels, found for {match.found_share:.0%} of the vertices; "
            f"{match.scale:.4g} of the map's pixels per pixel"
        )
        self._both = lru_cache(maxsize=2)(self._read)

    def read(self, box: Box) -> Floats:
        """Read a box; see `LabelSource.read`."""
        return self._both(box)[0]

    def seen(self, box: Box) -> NDArray[np.bool_]:
        """Mark pixels of a box that have a partner on papyrus of the map's own segment."""
        return self._both(box)[1]

    def _read(self, box: Box) -> Read:
        values, seen = np.zeros(box.shape, np.float32), np.zeros(box.shape, bool)
        for block in _blocks(box):
            values[block.within(box)], seen[block.within(box)] = self._block(block)
        values.setflags(write=False)
        return values, seen

    def _block(self, block: Box) -> Read:
        places = self.match.places(block)
        there = np.isfinite(places[0])
        if not there.any():
            return np.zeros(block.shape, np.float32), there
        step = 2**self.level
        low, high = places[:, there].min(axis=1), places[:, there].max(axis=1)
        y0, x0 = (max(0, int(np.floor(edge)) // step * step - 2 * step) for edge in low)
        y1, x1 = (int(np.ceil(edge)) + 1 + 2 * step for edge in high)
        part = Box(y0, x0, y1, x1).intersect(Box(0, 0, *self.map.shape_yx))
        if part.area > MOST_MAP_PX:
            return self._in_quarters(block, part)
        papyrus = self.papyrus(part)
        values = self.map.prediction.read(part).astype(np.float32) * papyrus
        for _ in range(self.level):
            values, papyrus = halve(values, "mean"), halve(papyrus, "mean")
        y, x = (
            ((np.where(there, axis, -9) - first + 0.5) / step - 0.5).astype(np.float32)
            for axis, first in zip(places, (y0, x0), strict=True)
        )
        share, found = (_picked(one, y, x) for one in (papyrus, values))
        share = np.where(there, share, 0)
        mean = np.divide(found, share, out=np.zeros(block.shape, np.float32), where=share > 0)
        return np.clip(mean, 0, 1), np.asarray(share >= SEEN_SHARE)

    def _in_quarters(self, block: Box, part: Box) -> Read:
        """Read a block whose pixels lie far apart on the map in smaller ones.

        Raises:
            DataError: It is small already.
        """
        edge = max(block.shape) // 2
        if edge < SMALLEST_BLOCK_PX:
            raise DataError(
                f"map {self.map.name}: expected neighbouring pixels of the segment close together, got "
                f"{part.area:,} px of the map for {block}; give meshes of one piece of papyrus"
            )
        values, seen = np.zeros(block.shape, np.float32), np.zeros(block.shape, bool)
        for quarter in _blocks(block, edge):
            values[quarter.within(block)], seen[quarter.within(block)] = self._block(quarter)
        return values, seen


def _picked(values: Floats, y: Floats, x: Floats) -> Floats:
    """Pick values bilinearly at places, those of the nearest pixel beyond the border."""
    return np.asarray(cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _blocks(box: Box, edge: int = BLOCK_PX) -> Iterator[Box]:
    """Cut a box at multiples of `edge`, so that equal pixels are computed alike however boxes are cut."""
    for y in range(box.y0 // edge * edge, box.y1, edge):
        for x in range(box.x0 // edge * edge, box.x1, edge):
            yield Box(y, x, y + edge, x + edge).intersect(box)


def open_carried_by_surface(
    root: str,
    address: str,
    segment: str,
    surface: SurfaceVolume,
    reach: float,
    meshes: tuple[str | None, str | None] = (None, None),
) -> SurfaceCarriedMap:
    """Open a map of another surface for the pixels of a segment; see `open_teacher`.

    Args:
        root: ROOT of the segment.
        address: The map.
        segment: The segment that it is carried onto.
        surface: Its surface.
        reach: Largest distance of the two surfaces, in voxels.
        meshes: Those of the map's segment and of this one; None takes what the segment was rendered from.

    Raises:
        DataError: See `open_teacher`; or a mesh is not known.
        MismatchError: Hardly a point of one surface lies near the other.
    """
    teacher = open_teacher(root, address, segment, surface)
    own = teacher.map.segment
    its_mesh = meshes[0] or open_prepared(teacher.root.uri, own)[0].provenance.source
    source = Grid(_mesh(teacher.place, own, its_mesh, "from_mesh"), teacher.map.shape_yx)
    target = Grid(_mesh(teacher.place, segment, meshes[1] or surface.provenance.source, "onto_mesh"), surface.shape_yx)
    match = SurfaceMatch(source, target, reach)
    if match.found_share < LEAST_FOUND:
        raise MismatchError(
            f"{teacher.place}: expected surfaces within {reach:g} voxels of each other, got {match.found_share:.1%} of "
            f"the vertices of {target.mesh.uri} that near {source.mesh.uri}; give meshes in the coordinates of one "
            "volume, or a larger reach_voxels"
        )
    return SurfaceCarriedMap(teacher.map, teacher.mask, match)


def _mesh(place: str, segment: str, where: str, setting: str) -> Mesh:
    location = Location.parse(where)
    if not is_mesh(location):
        raise DataError(
            f"{place}: expected the surface of {segment} (x.tif, y.tif, z.tif, meta.json) at {location}, got none; "
            f"state {setting}, a folder that holds them"
        )
    return open_mesh(str(location))

"""Surface meshes in tifxyz form: ``x.tif``, ``y.tif``, ``z.tif``, ``meta.json``, perhaps ``mask.tif`` in one folder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.config import digest
from inkbatch.errors import DataError, MismatchError, NonFiniteError
from inkbatch.geometry import Box
from inkbatch.io.layers import LayerSource, open_layer_source
from inkbatch.io.store.location import Location

MISSING_X = -1.0  # of a vertex that is not there; so is one with z <= 0
KEPT = 255  # the mask's value of a vertex that stays
SMALLEST_SIDE = 3  # vertices: normals need a neighbour on both sides
MOST_STRETCH = 6.0  # of the true distance of vertices over the stated one, and the other way round
MOST_MEASURED = 1 << 20  # vertices whose distances are measured
MASK_BAND_PIXELS = 16 << 20
META = "meta.json"
FORMAT = "tifxyz"


@dataclass(frozen=True, eq=False)
class Mesh:
    """A grid of vertices in voxels of the volume's level 0; the centre of voxel (k, j, i) lies at z = k, y = j, x = i.

    Attributes:
        uri: The folder, for messages.
        points: (3, rows, columns) float32, axes z, y, x first; finite where `valid`.
        valid: (rows, columns), False where the surface has a hole or the mask leaves it out.
        scale_yx: Vertices per voxel along rows and columns, as float32 stores them: 0.05 is one every 20 voxels,
            nominally; the true distance of the vertices is never looked at.
        fingerprint: Digest of the files' sizes and of ``meta.json``.
    """

    uri: str
    points: NDArray[np.float32]
    valid: NDArray[np.bool_]
    scale_yx: tuple[float, float]
    fingerprint: str = ""

    @property
    def shape_yx(self) -> tuple[int, int]:
        """(rows, columns) of the grid."""
        return self.points.shape[1], self.points.shape[2]

    @cached_property
    def normals(self) -> NDArray[np.float32]:
        """Unit normals (3, rows, columns), axes z, y, x first; NaN where there is none.

        Cross product of the differences along columns and along rows, each between the two neighbours; the vertex
        itself plays no part. Where x runs along columns and y along rows, normals point to larger z. None in the first
        and last row and column, and beside missing vertices.
        """
        normals = np.full(self.points.shape, np.nan, np.float32)
        around = self.valid[1:-1, 2:] & self.valid[1:-1, :-2] & self.valid[2:, 1:-1] & self.valid[:-2, 1:-1]
        for row in range(1, self.shape_yx[0] - 1):  # a row at a time: little memory for large meshes
            middle = self.points[:, row].astype(np.float64)
            across = middle[:, 2:] - middle[:, :-2]
            down = self.points[:, row + 1, 1:-1].astype(np.float64) - self.points[:, row - 1, 1:-1]
            product = _cross(across, down)
            length = np.sqrt((product**2).sum(axis=0))
            good = around[row - 1] & (length > 0)
            inner = normals[:, row, 1:-1]
            inner[:, good] = product[:, good] / length[good]
        return normals

    @cached_property
    def stretch_yx(self) -> tuple[float, float]:
        """True distance of vertices over that of the scale, along rows and columns; see `stretch_of`."""
        return stretch_of(self.points, self.valid, self.scale_yx)

    @cached_property
    def has_normal(self) -> NDArray[np.bool_]:
        """(rows, columns): vertices that are there and have a normal; pixels nearest to others have no values."""
        return np.asarray(self.valid & np.isfinite(self.normals[0]))


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the cross product of vectors whose components are ordered z, y, x."""
    (az, ay, ax), (bz, by, bx) = a, b
    return np.stack([ax * by - ay * bx, az * bx - ax * bz, ay * bz - az * by])


def is_mesh(location: Location) -> bool:
    """Look whether a folder holds a tifxyz mesh."""
    return (location / "x.tif").exists() and (location / META).exists()


def open_mesh(uri: str) -> Mesh:
    """Read a tifxyz folder.

    Raises:
        DataError: A file is missing, no vertex is there, the scale is no positive number, or the grid is too small.
        MismatchError: The files differ in size, or vertices lie far from where the scale says.
        NonFiniteError: A vertex is NaN or infinite.
        CorruptDataError: A file is damaged.
    """
    location = Location.parse(uri)
    meta = _meta(location)
    scale_yx = _scale(location, meta)
    sources = [_open(location, name) for name in ("z.tif", "y.tif", "x.tif")]
    sizes = {name: source.shape_zyx[1:] for name, source in zip("zyx", sources, strict=True)}
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{name}.tif {size[0]} x {size[1]}" for name, size in sorted(sizes.items()))
        raise MismatchError(
            f"{location}: expected one grid of vertices, got {said} (rows x columns); copy the mesh "
            "again from its source"
        )
    rows, columns = sizes["x"]
    if min(rows, columns) < SMALLEST_SIDE:
        raise DataError(
            f"{location}: expected a grid of at least {SMALLEST_SIDE} x {SMALLEST_SIDE} vertices, got {rows} x "
            f"{columns}; a normal needs neighbours on both sides, so choose a larger part of the surface"
        )
    points = np.stack([_plane(source) for source in sources])
    valid = (points[0] > 0) & (points[2] != MISSING_X)
    kept, mask_print = _kept(location, (rows, columns))
    valid &= kept
    if not valid.any():
        raise DataError(f"{location}: expected vertices, got none with z > 0 that mask.tif keeps; check the mesh")
    prints = {"meta": meta, "files": [source.fingerprint for source in sources], "mask": mask_print}
    prints["points"] = digest({"sum": points.sum(axis=(1, 2), dtype=np.float64).tolist(), "valid": int(valid.sum())})
    mesh = Mesh(str(location), points, valid, scale_yx, digest(prints))
    _require_spacing(mesh)
    return mesh


def _meta(location: Location) -> dict[str, Any]:
    try:
        meta = (location / META).read_mapping()
    except FileNotFoundError as error:
        raise DataError(f"{location}: expected {META} beside x.tif, got none; copy the whole tifxyz folder") from error
    if meta.get("format", FORMAT) != FORMAT:
        raise DataError(
            f"{location / META}: expected format {FORMAT}, got {meta['format']!r}; export the mesh again as {FORMAT}"
        )
    return meta


def _scale(location: Location, meta: dict[str, Any]) -> tuple[float, float]:
    """Read the vertices per voxel along (rows, columns); the file says columns first."""
    scale = meta.get("scale")
    numbers = scale if isinstance(scale, list) and len(scale) == 2 else []
    if not numbers or not all(_is_positive(n) for n in numbers):
        raise DataError(
            f"{location / META}: expected scale as two positive numbers (vertices per voxel, such as [0.05, 0.05]), "
            f"got {scale!r}; correct it in the file or export the mesh again"
        )
    along_columns, along_rows = (float(np.float32(one)) for one in numbers)
    return along_rows, along_columns


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def stretch_of(
    points: NDArray[np.float32], valid: NDArray[np.bool_], scale_yx: tuple[float, float]
) -> tuple[float, float]:
    """Compute the median distance of neighbouring vertices over what the scale says, along (rows, columns).

    1 where no two neighbours are there. Of large meshes a part is measured, evenly spread.
    """
    step = max(1, math.isqrt(valid.size // MOST_MEASURED))
    found = []
    for axis, scale in enumerate(scale_yx):
        after, before = [slice(None, None, step)] * 2, [slice(None, None, step)] * 2
        after[axis], before[axis] = slice(1, None, step), slice(None, -1, step)
        both = valid[tuple(after)] & valid[tuple(before)]
        steps = (points[:, *after] - points[:, *before])[:, both].astype(np.float64)
        found.append(float(np.median(np.sqrt((steps**2).sum(axis=0)))) * scale if both.any() else 1.0)
    return found[0], found[1]


def _require_spacing(mesh: Mesh) -> None:
    """Refuse vertices that lie far from where the scale says: it is wrong, or coordinates are of another level.

    Published meshes are up to 4 times as wide as they say, so that only a larger factor is no stretching.

    Raises:
        MismatchError: The distance of neighbours is off by more than `MOST_STRETCH`.
    """
    for axis, stretch, scale in zip("yx", mesh.stretch_yx, mesh.scale_yx, strict=True):
        if stretch and not 1 / MOST_STRETCH <= stretch <= MOST_STRETCH:
            raise MismatchError(
                f"{mesh.uri}: expected vertices about {1 / scale:.4g} voxels apart along {axis}, as scale in {META} "
                f"says, got {stretch / scale:.4g} (factor {max(stretch, 1 / stretch):.4g}); correct the scale, or "
                "export the mesh in voxels of level 0"
            )


def _open(location: Location, name: str) -> LayerSource:
    if not (location / name).exists():
        raise DataError(f"{location}: expected {name}, got none; copy the whole tifxyz folder")
    source = open_layer_source(str(location / name))
    if source.shape_zyx[0] != 1:
        raise DataError(
            f"{location / name}: expected one channel, got {source.shape_zyx[0]}; export the mesh again as tifxyz"
        )
    return source


def _plane(source: LayerSource) -> NDArray[np.float32]:
    """Read the vertices of one file as float32 (rows, columns)."""
    rows, columns = source.shape_zyx[1:]
    first = source.first_layer
    if source.dtype != np.float32:
        raise DataError(f"{source.uri}: expected float32 vertices, got {source.dtype}; export the mesh again as tifxyz")
    try:
        with source:
            plane = source.read(range(first, first + 1), Box(0, 0, rows, columns))[0]
    except NonFiniteError as error:
        raise NonFiniteError(
            f"{source.uri}: expected finite vertices, got NaN or infinity; write missing vertices as -1, -1, -1"
        ) from error
    return np.asarray(plane, np.float32)


def _kept(location: Location, shape_yx: tuple[int, int]) -> tuple[NDArray[np.bool_], str]:
    """Read which vertices ``mask.tif`` keeps, and its fingerprint; one pixel below 255 in a vertex's block drops it.

    Raises:
        MismatchError: The mask is no whole multiple of the grid.
    """
    place = location / "mask.tif"
    if not place.exists():
        return np.ones(shape_yx, bool), ""
    source = _open(location, "mask.tif")
    rows, columns = shape_yx
    height, width = source.shape_zyx[1:]
    if height % rows or width % columns:
        raise MismatchError(
            f"{place}: expected a whole multiple of the grid ({rows} x {columns} vertices), got {height} x {width} "
            "pixels; give the mask of this very mesh, or remove it"
        )
    down, across = height // rows, width // columns
    kept = np.empty(shape_yx, bool)
    band = max(1, MASK_BAND_PIXELS // (down * width))
    first = source.first_layer
    with source:
        for row in range(0, rows, band):
            last = min(row + band, rows)
            seen = source.read(range(first, first + 1), Box(row * down, 0, last * down, width))[0]
            kept[row:last] = (seen.reshape(last - row, down, columns, across) >= KEPT).all(axis=(1, 3))
    return kept, source.fingerprint

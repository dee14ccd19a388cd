"""Integer geometry: boxes in (y, x), the global tile grid, and units.

Everything here is pixels of the full-resolution surface, half-open, and exact. No floats, no I/O, no numpy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Box:
    """Half-open rectangle ``[y0, y1) x [x0, x1)`` in full-resolution pixels; may be empty, never inverted."""

    y0: int
    x0: int
    y1: int
    x1: int

    def __post_init__(self) -> None:
        if self.y1 < self.y0 or self.x1 < self.x0:
            raise ValueError(f"inverted box {self.y0}:{self.y1}, {self.x0}:{self.x1}")

    @property
    def height(self) -> int:
        """Rows."""
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        """Columns."""
        return self.x1 - self.x0

    @property
    def area(self) -> int:
        """Pixels."""
        return self.height * self.width

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of this box in an array whose origin is (0, 0)."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def within(self, outer: Box) -> tuple[slice, slice]:
        """Return the index of this box in an array that holds `outer`.

        Raises:
            ValueError: This box leaves `outer`.
        """
        if not outer.contains(self):
            raise ValueError(f"{self} leaves {outer}")
        return slice(self.y0 - outer.y0, self.y1 - outer.y0), slice(self.x0 - outer.x0, self.x1 - outer.x0)

    def contains(self, other: Box) -> bool:
        """Tell if `other` is inside this box."""
        return self.y0 <= other.y0 and self.x0 <= other.x0 and other.y1 <= self.y1 and other.x1 <= self.x1

    def intersect(self, other: Box) -> Box:
        """Return the common part; an empty box if there is none."""
        y0, x0 = max(self.y0, other.y0), max(self.x0, other.x0)
        return Box(y0, x0, max(y0, min(self.y1, other.y1)), max(x0, min(self.x1, other.x1)))

    def union(self, other: Box) -> Box:
        """Return the smallest box that holds both."""
        return Box(min(self.y0, other.y0), min(self.x0, other.x0), max(self.y1, other.y1), max(self.x1, other.x1))

    def grow(self, margin: int) -> Box:
        """Return the box with so many pixels more on every side; it may leave the surface."""
        return Box(self.y0 - margin, self.x0 - margin, self.y1 + margin, self.x1 + margin)

    def shift(self, y: int, x: int) -> Box:
        """Move the box so many rows down and columns to the right."""
        return Box(self.y0 + y, self.x0 + x, self.y1 + y, self.x1 + x)

    def downscale(self, factor: int) -> Box:
        """Return the pixels of a `factor` x coarser grid that this box touches."""
        return Box(self.y0 // factor, self.x0 // factor, -(-self.y1 // factor), -(-self.x1 // factor))


@dataclass(frozen=True)
class Unit:
    """One unit of work: a write box of whole stored objects, and the box that must be read for it.

    Attributes:
        index: Position in the plan's list; the same on every machine.
        write_box: What this unit alone writes. Write boxes of a plan never overlap and tile the output.
        read_box: What must be read so that the write box is complete by itself; contains the write box.
    """

    index: int
    write_box: Box
    read_box: Box

    @property
    def name(self) -> str:
        """Stable name for markers and messages, for example ``y00000-x02048``."""
        return f"y{self.write_box.y0:05d}-x{self.write_box.x0:05d}"


def cut(shape_yx: tuple[int, int], step_y: int, step_x: int) -> Iterator[Box]:
    """Cut an area into write boxes on a grid anchored at (0, 0), row-major; the last ones are clipped to the border."""
    height, width = shape_yx
    for y0 in range(0, height, step_y):
        for x0 in range(0, width, step_x):
            yield Box(y0, x0, min(y0 + step_y, height), min(x0 + step_x, width))


def cells(box: Box, height: int, width: int) -> Iterator[Box]:
    """Cut a box along the lines of a grid anchored at (0, 0), row-major; cells at its edges are clipped."""
    if not box.area:
        return
    for y0 in range(box.y0 - box.y0 % height, box.y1, height):
        for x0 in range(box.x0 - box.x0 % width, box.x1, width):
            yield Box(y0, x0, y0 + height, x0 + width).intersect(box)


@dataclass(frozen=True)
class TileAxis:
    """Tile origins along one axis: 0, stride, 2·stride, … and a last tile moved in to touch the border.

    With ``length 10, tile 4, stride 3`` the last origin falls on the grid; with ``length 11`` it is moved in::

        length 10:  |0123|            length 11:  |0123|
                      |3456|                         |3456|
                          |6789|                         |6789|
                                                          |789A|   <- moved in: origin 7, not 9

    An axis shorter than the tile has one tile at 0 that reaches past the border; it is read zero-filled.

    Without `flush` no tile is moved in and none reaches past the border: the last pixels may lie in no tile.
    """

    length: int
    tile: int
    stride: int
    flush: bool = True

    def __post_init__(self) -> None:
        if self.length < 1 or self.tile < 1 or not 1 <= self.stride <= self.tile:
            raise ValueError(
                f"length {self.length}, tile {self.tile}, stride {self.stride}: expected 1 <= stride <= tile"
            )

    @property
    def regular_count(self) -> int:
        """Tiles whose origin is a multiple of the stride."""
        if self.length < self.tile and not self.flush:
            return 0
        return max(0, self.length - self.tile) // self.stride + 1

    @property
    def has_moved(self) -> bool:
        """True if the last tile had to be moved in."""
        return self.flush and self.length > self.tile and (self.length - self.tile) % self.stride != 0

    @property
    def count(self) -> int:
        """All tiles along this axis."""
        return self.regular_count + int(self.has_moved)

    def origin(self, index: int) -> int:
        """Return the first pixel of tile `index`."""
        return index * self.stride if index < self.regular_count else self.length - self.tile

    def touching(self, start: int, stop: int) -> range:
        """Return the indices of the tiles that touch ``[start, stop)``; contiguous, since origins ascend."""
        if stop <= start:
            return range(0)
        first = max(0, -(-(start - self.tile + 1) // self.stride))  # first origin > start - tile
        last = min(self.regular_count - 1, (stop - 1) // self.stride)
        end = last + 1
        if self.has_moved and self.length > start and self.length - self.tile < stop:
            end = self.count
            if first > last:
                first = self.count - 1
        return range(min(first, end), end)


@dataclass(frozen=True)
class TileGrid:
    """The one global tile grid of a surface, anchored at (0, 0).

    A unit computes the tiles that touch its write box, row by row; hence each output pixel sums the same tiles in the
    same order, however units are cut. `flush` is that of both axes.
    """

    shape_yx: tuple[int, int]
    tile_px: int
    stride_px: int
    flush: bool = True

    @property
    def rows(self) -> TileAxis:
        """Tile origins along y."""
        return TileAxis(self.shape_yx[0], self.tile_px, self.stride_px, self.flush)

    @property
    def columns(self) -> TileAxis:
        """Tile origins along x."""
        return TileAxis(self.shape_yx[1], self.tile_px, self.stride_px, self.flush)

    def touching(self, box: Box) -> tuple[range, range]:
        """Return the row and column indices of all tiles that touch `box`; both empty where none does."""
        rows, columns = self.rows.touching(box.y0, box.y1), self.columns.touching(box.x0, box.x1)
        return (rows, columns) if rows and columns else (range(0), range(0))

    def hull(self, rows: range, columns: range) -> Box:
        """Return the smallest box that holds these tiles; it leaves the surface only if that is smaller than a tile."""
        if not rows or not columns:
            return Box(0, 0, 0, 0)
        return Box(
            self.rows.origin(rows[0]),
            self.columns.origin(columns[0]),
            self.rows.origin(rows[-1]) + self.tile_px,
            self.columns.origin(columns[-1]) + self.tile_px,
        )

    def units(self, unit_px: int) -> list[Unit]:
        """Cut the surface into units of `unit_px` squared; each read box holds all tiles that touch its write box."""
        boxes = cut(self.shape_yx, unit_px, unit_px)
        return [Unit(index, box, self.read_box(box)) for index, box in enumerate(boxes)]

    def read_box(self, write_box: Box) -> Box:
        """Return the smallest box that holds a write box and every tile that touches it."""
        tiles = self.hull(*self.touching(write_box))
        if tiles.contains(write_box):
            return tiles
        return write_box.union(tiles) if tiles.area else write_box

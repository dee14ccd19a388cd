"""Geometry: write boxes tile the output exactly, and every pixel sees the same tiles however units are cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkbatch.geometry import Box, TileAxis, TileGrid, cells, cut

axes = st.integers(1, 24).flatmap(
    lambda tile: st.builds(TileAxis, st.integers(1, 90), st.just(tile), st.integers(1, tile))
)
grids = st.integers(1, 16).flatmap(
    lambda tile: st.builds(
        TileGrid, st.tuples(st.integers(1, 60), st.integers(1, 60)), st.just(tile), st.integers(1, tile)
    )
)


def test_the_drawing_in_the_docstring_is_true():
    on_the_grid, moved = TileAxis(10, 4, 3), TileAxis(11, 4, 3)
    assert [on_the_grid.origin(i) for i in range(on_the_grid.count)] == [0, 3, 6]
    assert [moved.origin(i) for i in range(moved.count)] == [0, 3, 6, 7]


@given(axes)
def test_tiles_cover_every_pixel_and_stay_inside(axis):
    seen = np.zeros(axis.length + axis.tile, int)
    for index in range(axis.count):
        seen[axis.origin(index) : axis.origin(index) + axis.tile] += 1
    assert seen[: axis.length].min() >= 1
    if axis.length >= axis.tile:
        assert axis.origin(axis.count - 1) + axis.tile == axis.length
    assert len({axis.origin(index) for index in range(axis.count)}) == axis.count


@given(axes, st.data())
def test_touching_finds_exactly_the_tiles_that_overlap(axis, data):
    start = data.draw(st.integers(0, axis.length - 1))
    stop = data.draw(st.integers(start, axis.length))
    expected = [i for i in range(axis.count) if axis.origin(i) < stop and axis.origin(i) + axis.tile > start]
    assert list(axis.touching(start, stop)) == (expected if stop > start else [])


@given(st.tuples(st.integers(1, 70), st.integers(1, 70)), st.integers(1, 40), st.integers(1, 40))
def test_write_boxes_tile_the_output_exactly(shape, step_y, step_x):
    written = np.zeros(shape, int)
    for box in cut(shape, step_y, step_x):
        written[box.slices] += 1
    assert (written == 1).all()


@given(grids, st.integers(1, 40))
def test_units_read_every_tile_that_touches_what_they_write(grid, unit_px):
    for unit in grid.units(unit_px):
        rows, columns = grid.touching(unit.write_box)
        for row in rows:
            for column in columns:
                y, x = grid.rows.origin(row), grid.columns.origin(column)
                assert unit.read_box.contains(Box(y, x, y + grid.tile_px, x + grid.tile_px))
        assert unit.read_box.contains(unit.write_box)


@given(grids, st.integers(1, 40), st.integers(1, 40), st.data())
def test_a_pixel_sees_the_same_tiles_however_units_are_cut(grid, one, other, data):
    y = data.draw(st.integers(0, grid.shape_yx[0] - 1))
    x = data.draw(st.integers(0, grid.shape_yx[1] - 1))

    def seen(unit_px):
        unit = next(u for u in grid.units(unit_px) if u.write_box.contains(Box(y, x, y + 1, x + 1)))
        rows, columns = grid.touching(unit.write_box)
        return [
            (row, column)
            for row in rows
            for column in columns
            if 0 <= y - grid.rows.origin(row) < grid.tile_px and 0 <= x - grid.columns.origin(column) < grid.tile_px
        ]

    assert seen(one) == seen(other) != []


@given(st.integers(0, 90), st.integers(0, 90), st.integers(0, 60), st.integers(0, 60), *[st.integers(1, 40)] * 2)
def test_cells_tile_a_box_along_the_lines_of_the_whole_grid(y0, x0, height, width, step_y, step_x):
    box = Box(y0, x0, y0 + height, x0 + width)
    seen = np.zeros((200, 200), int)
    for cell in cells(box, step_y, step_x):
        assert cell.area
        assert box.contains(cell)
        assert (cell.y0 // step_y, cell.x0 // step_x) == ((cell.y1 - 1) // step_y, (cell.x1 - 1) // step_x)
        seen[cell.slices] += 1
    assert (seen[box.slices] == 1).all()
    assert seen.sum() == box.area


def test_unit_names_sort_and_do_not_repeat():
    names = [unit.name for unit in TileGrid((500, 700), 64, 16).units(128)]
    assert len(set(names)) == len(names)
    assert names == sorted(names)


def test_a_box_refuses_to_be_inverted_or_to_leave_its_outer_box():
    with pytest.raises(ValueError, match="inverted"):
        Box(4, 0, 2, 1)
    with pytest.raises(ValueError, match="leaves"):
        Box(0, 0, 4, 4).within(Box(1, 0, 4, 4))


def test_a_stride_larger_than_the_tile_is_refused():
    with pytest.raises(ValueError, match="stride"):
        TileAxis(100, 8, 9)

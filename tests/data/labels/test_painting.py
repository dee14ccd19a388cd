"""Shapes and tools of the label editor: which pixels they paint."""

import itertools

import numpy as np
import pytest

from inkbatch.data.labels import painting_tools
from inkbatch.data.labels.components import label
from inkbatch.data.labels.painting import count_marks, halved_codes, paint
from inkbatch.data.labels.painting_shapes import polygon, rectangle, stroke
from inkbatch.data.labels.painting_tools import component_at, fill, smart, specks, take
from inkbatch.errors import DataError
from inkbatch.geometry import Box

SHAPE = (600, 700)


def drawn(shape, shape_yx=SHAPE):
    out = np.zeros(shape_yx, bool)
    for box, mask in shape.strips(shape_yx):
        assert not out[box.slices].any()  # each row of tiles once
        out[box.slices] = mask
    return out


def centres(shape_yx=SHAPE):
    return np.mgrid[: shape_yx[0], : shape_yx[1]] + 0.5


# ---- shapes ----------------------------------------------------------------------------------------------------------


def test_a_stroke_is_all_pixels_whose_centre_its_brush_passes_over():
    rng, shape = np.random.default_rng(3), (300, 290)
    y, x = centres(shape)
    for _ in range(3):
        points = [(*rng.uniform(-20, 310, 2), radius) for radius in rng.uniform(0.5, 40, 3)]
        swept, surely = np.zeros(shape, bool), np.zeros(shape, bool)
        for one, other in itertools.pairwise(points):
            for share in np.linspace(0, 1, 300):
                cy, cx, r = (a * (1 - share) + b * share for a, b in zip(one, other, strict=True))
                square = (y - cy) ** 2 + (x - cx) ** 2
                swept |= square <= r * r
                surely |= square <= (r + 0.03) ** 2
        found = drawn(stroke(points), shape)
        assert not (swept & ~found).any()
        assert not (found & ~surely).any()


def test_a_brush_reaches_to_its_radius_and_no_farther():
    found = drawn(stroke([(100.5, 200.5, 10)]))
    assert all(found[place] for place in ((90, 200), (110, 200), (100, 190), (100, 210)))
    assert not any(found[place] for place in ((89, 200), (111, 200), (100, 189), (100, 211)))


def test_a_polygon_holds_the_centres_inside_by_the_even_odd_rule():
    star = [(300 + 280 * np.cos(a), 350 + 280 * np.sin(a)) for a in np.arange(5) * 4 * np.pi / 5 + 0.1]
    y, x = centres()
    crossings = np.zeros(SHAPE, int)
    for (y0, x0), (y1, x1) in zip(star, star[1:] + star[:1], strict=True):
        meets = (np.minimum(y0, y1) <= y) & (y < np.maximum(y0, y1))
        crossings += meets & (x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x)
    found = drawn(polygon(star))
    np.testing.assert_array_equal(found, crossings % 2 == 1)
    assert not found[300, 350]  # the middle of a star is crossed twice


def test_a_shape_is_clipped_to_the_segment_and_the_same_wherever_it_is_cut():
    np.testing.assert_array_equal(np.argwhere(drawn(rectangle(Box(0, 0, 9, 9)), (3, 4))).max(axis=0), (2, 3))
    assert not list(stroke([(-90, -90, 20)]).strips(SHAPE))
    assert not list(polygon([(1e6, 1e6), (1e6, 1e6 + 9), (1e6 + 9, 1e6)]).strips(SHAPE))
    far = drawn(stroke([(y + 3 * 256, x + 2 * 256, 30) for y, x in ((250, 250), (270, 290))]), (1500, 1500))
    near = drawn(stroke([(250, 250, 30), (270, 290, 30)]))
    np.testing.assert_array_equal(far[768:1100, 512:1000], near[:332, :488])


def test_counts_and_halves():
    codes = np.array([[1, 2, 4], [8, 9, 13], [0, 0, 6]], np.uint8)
    assert count_marks(codes) == {"ink": 3, "not_ink": 2, "ignore": 3, "supervision": 3}
    np.testing.assert_array_equal(halved_codes(codes), [[11, 13], [0, 6]])


# ---- tools -----------------------------------------------------------------------------------------------------------


def painted(strokes, codes):
    out = codes.copy()
    for marks in strokes:
        paint(out[marks.box.slices], marks.mask, marks.layer, erase=marks.erase)
    return out


def reading(array):
    return lambda box: array[box.slices]


def test_fill_takes_what_is_joined_and_labelled_alike():
    codes = np.zeros((40, 50), np.uint8)
    codes[5:20, 5:20] = 1
    codes[8:12, 8:12] = 8  # a hole in the supervision area
    found = painted(fill(reading(codes), (9, 9), codes.shape, "ink", erase=False), codes)
    assert (found[8:12, 8:12] == 9).all()
    assert (found == codes).sum() == codes.size - 16
    erased = painted(fill(reading(codes), (6, 6), codes.shape, "ink", erase=True), codes)
    assert not (erased & 1).any()


def test_an_open_area_is_not_filled(monkeypatch):
    monkeypatch.setattr(painting_tools, "FIRST_FILL_PX", 16)
    monkeypatch.setattr(painting_tools, "LARGEST_FILL_PX", 64)
    inside = np.ones((200, 200), bool)
    with pytest.raises(DataError, match="at most 64 px around the pointer"):
        component_at(reading(inside), (100, 100), inside.shape)
    inside[:] = False
    inside[90:120, 95:97] = True  # larger than the first window
    box, mask = component_at(reading(inside), (100, 95), inside.shape)
    assert (mask.sum(), box.height) == (60, 64)
    with pytest.raises(DataError, match="y 200"):
        component_at(reading(inside), (200, 95), inside.shape)


def test_take_accepts_a_map_above_the_threshold_and_ignores_the_band():
    values = np.linspace(0, 1, 2000).reshape(40, 50)
    values[3, 3] = np.nan
    area = Box(2, 0, 40, 50)
    found = painted(
        take([(area, np.ones(area.shape, bool))], reading(values), 0.6, (0.4, 0.6)), np.zeros((40, 50), np.uint8)
    )
    np.testing.assert_array_equal(found == 1, values >= 0.6)
    np.testing.assert_array_equal(found == 4, (values >= 0.4) & (values < 0.6))


def test_a_smart_stroke_stops_at_the_edge_of_the_map():
    y, x = centres((120, 160))
    letter = np.hypot(y - 60, x - 60) < 18
    other = np.hypot(y - 60, x - 100) < 6
    values = np.where(letter | other, 0.9, 0.1)
    read = reading(values)
    box, mask = smart(stroke([(60, 50, 45), (60, 70, 45)]), stroke([(60, 50, 1), (60, 70, 1)]), values.shape, read)
    found = np.zeros(values.shape, bool)
    found[box.slices] = mask
    np.testing.assert_array_equal(found, letter)  # the neighbour is not joined to the line
    box, mask = smart(
        stroke([(60, 130, 20)]), stroke([(60, 130, 1)]), values.shape, lambda box: np.full(box.shape, 0.3)
    )
    assert mask.sum() == drawn(stroke([(60, 130, 20)]), values.shape).sum()  # no edge: as it was drawn
    box, mask = smart(stroke([(500, 130, 20)]), stroke([(500, 130, 1)]), values.shape, read)
    assert (box.area, mask.size) == (0, 0)  # off the segment


def test_specks_are_those_of_the_whole_segment_however_it_is_cut(monkeypatch):
    monkeypatch.setattr(painting_tools, "CLEAN_PX", 256)
    rng = np.random.default_rng(1)
    ink = rng.random((400, 300)) < 0.3
    ink[200:300, 250:262] = True
    codes = ink.astype(np.uint8)
    tiles = [(y, x) for y in range(2) for x in range(2)]
    found = painted(specks(reading(codes), tiles, Box(0, 0, 400, 300), codes.shape, 40, "ink"), codes)
    whole = label(ink, 8)
    keep = whole.areas >= 40
    keep[0] = False
    np.testing.assert_array_equal(found > 0, keep[whole.labels])
    box = Box(100, 100, 400, 300)
    inside = painted(specks(reading(codes), tiles, box, codes.shape, 40, "ink"), codes)
    assert (inside == codes)[:100].all()
    assert (inside != codes).any()

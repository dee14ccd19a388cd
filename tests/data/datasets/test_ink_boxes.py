"""Boxes: chosen by size and curvature, whole across seams; COCO, list and picture say the same."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from scipy import ndimage

from inkbatch.data.datasets.coco import draw_boxes, parse_coco, read_coco, write_box_list, write_coco
from inkbatch.data.datasets.curvature import contour_shape, outer_contour
from inkbatch.data.datasets.ink_boxes import BoxRules, component_mask, find_boxes, find_components
from inkbatch.errors import CorruptDataError, DataError
from inkbatch.geometry import Box, cut
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location


def disc(radius: float, size: int) -> np.ndarray:
    yy, xx = np.mgrid[:size, :size] - (size - 1) / 2
    return yy**2 + xx**2 <= radius**2


def star(size: int = 121, arms: int = 6) -> np.ndarray:
    yy, xx = np.mgrid[:size, :size] - (size - 1) / 2
    return np.hypot(yy, xx) <= 38 + 16 * np.cos(arms * np.arctan2(yy, xx))


@pytest.fixture
def labels(tmp_path):
    """A disc across a seam, a star, a bar, a speck inside the star's bounding box, something at the border."""
    mask = np.zeros((300, 420), bool)
    mask[30:131, 78:179] |= disc(50, 101)  # seams at 64 and 128
    mask[150:271, 220:341] |= star()
    mask[155:163, 225:233] = True
    mask[40:52, 220:400] = True
    mask[200:260, 0:40] = True
    pyramid = Multiscale.create(
        Location.parse(tmp_path / "ink_labels.zarr"),
        mask.shape,
        dtype="uint8",
        chunk=(32, 32),
        shard_px=64,
        voxel_size_um=8.0,
        provenance={},
    )
    for box in cut(mask.shape, 64, 64):
        pyramid.write(box, mask[box.slices].astype(np.uint8) * 255)
    return pyramid, mask


@pytest.mark.parametrize("radius", [40, 120, 400])
def test_the_curvature_of_a_disc_is_one_over_its_radius(radius):
    shape = contour_shape(disc(radius, 2 * radius + 5))
    assert shape.curvature == pytest.approx(1 / radius, rel=0.06)
    assert shape.turns == pytest.approx(1, rel=0.06)
    assert shape.length_px == pytest.approx(2 * math.pi * radius, rel=0.04)


def test_turning_the_pixel_grid_changes_little():
    square = np.zeros((160, 160), bool)
    square[40:120, 40:120] = True
    turned = ndimage.rotate(square.astype(float), 30, reshape=False, order=1) > 0.5
    assert contour_shape(square).turns == pytest.approx(1, abs=0.02)
    assert contour_shape(turned).turns == pytest.approx(1, abs=0.05)


def test_a_star_turns_more_than_a_disc_of_its_size():
    assert contour_shape(star()).turns > 2.5
    assert contour_shape(star()).curvature > 2 * contour_shape(disc(40, 121)).curvature


def test_a_hole_does_not_count_for_the_outer_contour():
    ring = disc(40, 91)
    ring[40:50, 40:50] = False
    assert contour_shape(ring) == contour_shape(disc(40, 91))
    assert len(outer_contour(np.zeros((4, 4), bool))) == 0
    assert contour_shape(np.ones((1, 1), bool)).turns == 0


def test_components_are_those_of_the_whole_surface(labels):
    pyramid, mask = labels
    found = find_components(pyramid, 1)
    numbered, count = ndimage.label(mask, np.ones((3, 3)))
    assert len(found) == count == 5
    for component in found:
        own = numbered == numbered[component.seed]
        assert component.area == own.sum()
        np.testing.assert_array_equal(component_mask(pyramid, component), own[Box(*component.box).slices])


def test_boxes_are_chosen_by_size_and_by_curvature(labels):
    pyramid, _ = labels

    def boxes(**rules):
        return [entry.box for entry in find_boxes(pyramid, BoxRules(min_area_px=1_000, margin_px=0, **rules))]

    disc_box, bar, at_border = (30, 78, 131, 179), (40, 220, 52, 400), (200, 0, 260, 40)
    everything = boxes()
    star_box = everything[2]
    assert everything == [disc_box, bar, star_box, at_border]
    assert boxes(min_turns=2) == [star_box]
    assert boxes(max_turns=2) == [disc_box, bar, at_border]
    assert boxes(max_curvature=0.025) == [disc_box, bar]
    assert boxes(min_curvature=0.018, max_curvature=0.025) == [disc_box]
    assert boxes(min_side_px=50) == [disc_box, star_box]
    assert boxes(max_side_px=150) == [disc_box, star_box, at_border]
    assert boxes(max_area_px=3_000) == [bar, at_border]
    assert boxes(at_border=False) == [disc_box, bar, star_box]


def test_margins_end_at_the_border_of_the_surface(labels):
    entry = find_boxes(labels[0], BoxRules(min_area_px=1_000, max_side_px=60, margin_px=45))[-1]
    assert entry.box == (155, 0, 300, 85)


def test_no_box_at_all_is_an_error_that_says_how_many_there_were(labels):
    with pytest.raises(DataError, match="none of its 4 components"):
        find_boxes(labels[0], BoxRules(min_area_px=1_000, min_turns=50))


@pytest.mark.parametrize("values", [{"max_area_px": 100}, {"min_turns": 3, "max_turns": 2}])
def test_empty_ranges_are_refused(values):
    with pytest.raises(ValueError, match="no component fits"):
        BoxRules(**values)


def test_coco_brings_back_what_was_written(labels, tmp_path):
    boxes = find_boxes(labels[0], BoxRules(min_area_px=1_000))
    place = Location.parse(tmp_path / "coco.json")
    write_coco(place, "ink_labels.png", (300, 420), boxes)
    (image,) = read_coco(place)
    assert (image.file_name, image.shape_yx) == ("ink_labels.png", (300, 420))
    assert [(a.id, a.category, a.box) for a in image.annotations] == [(b.number, "ink", Box(*b.box)) for b in boxes]
    assert place.read_json()["annotations"][0]["bbox"] == [62, 14, 133, 133]


def test_the_list_and_the_picture_hold_every_box(labels, tmp_path):
    boxes = find_boxes(labels[0], BoxRules(min_area_px=1_000, margin_px=4))
    write_box_list(Location.parse(tmp_path / "boxes.txt"), boxes)
    header, *rows = (tmp_path / "boxes.txt").read_text().splitlines()
    assert header.split("\t")[:5] == ["number", "y0", "x0", "y1", "x1"]
    assert [[int(value) for value in row.split("\t")[:6]] for row in rows] == [
        [b.number, *b.box, b.area] for b in boxes
    ]
    draw_boxes(Location.parse(tmp_path / "boxes.png"), labels[0], boxes)
    picture = cv2.imread(str(tmp_path / "boxes.png"))
    assert picture.shape == (300, 420, 3)
    y0, x0, y1, x1 = boxes[0].box
    for y, x in ((y0, x0), (y0, x1 - 1), (y1 - 1, x0), (y1 - 1, x1 - 1)):
        assert tuple(picture[y, x]) == (0, 96, 255)


def coco(**changes):
    annotation = {"id": 7, "image_id": 1, "category_id": 1, "bbox": [1.5, 2.0, 3.0, 4.2], **changes}
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 10, "width": 20, "license": 0}],
        "categories": [{"id": 1, "name": "ink"}],
        "annotations": [annotation],
    }


def test_a_box_takes_every_pixel_that_it_touches():
    (image,) = parse_coco(coco(), "here")
    assert image.annotations[0].box == Box(2, 1, 7, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": [18, 2, 3, 3]}, "leaves a.png"),
        ({"bbox": [-2, 2, 3, 3]}, "leaves a.png"),
        ({"bbox": [1, 1, 0, 3]}, "empty"),
        ({"bbox": [1, 1, float("nan"), 3]}, "bbox"),
        ({"bbox": [1, 1]}, "bbox"),
        ({"image_id": 2}, "image 2"),
        ({"category_id": 9}, "category 9"),
    ],
)
def test_coco_files_that_contradict_themselves_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        parse_coco(coco(**changes), "here")


def test_other_files_are_no_coco(tmp_path):
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(DataError, match="not a COCO file"):
        read_coco(Location.parse(tmp_path / "list.json"))
    (tmp_path / "cut.json").write_text('{"images": [')
    with pytest.raises(CorruptDataError, match=r"cut\.json"):
        read_coco(Location.parse(tmp_path / "cut.json"))

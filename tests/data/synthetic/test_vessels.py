"""Vessel drawings: seeded, whole, and masks that tell where the section is."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import ndimage

from inkbatch.data.synthetic.vessels import FILLINGS, VesselConfig, draw_vessel, write_vessels
from inkbatch.io.store.location import Location
from inkbatch.testing.faults import stored_bytes

SMALL = VesselConfig(shape_yx=(160, 200), count=7, seed=3)


def test_a_drawing_follows_from_its_seed_and_number_alone():
    one, same = draw_vessel(SMALL, 2), draw_vessel(SMALL.model_copy(update={"count": 99}), 2)
    np.testing.assert_array_equal(one.image, same.image)
    np.testing.assert_array_equal(one.mask, same.mask)
    assert (draw_vessel(SMALL, 3).mask != one.mask).any()
    assert (draw_vessel(SMALL.model_copy(update={"seed": 4}), 2).mask != one.mask).any()


@pytest.mark.parametrize("index", range(25))
def test_every_section_is_one_piece_inside_the_drawing(index):
    config = SMALL.model_copy(update={"tilt_deg": 10.0})
    drawing = draw_vessel(config, index)
    assert drawing.image.shape == (160, 200, 3)
    assert drawing.image.dtype == drawing.mask.dtype == np.uint8
    assert set(np.unique(drawing.mask)) == {0, 255}
    assert ndimage.label(drawing.mask, np.ones((3, 3)))[1] == 1
    frame = np.ones(drawing.mask.shape, bool)
    frame[1:-1, 1:-1] = False
    assert not drawing.mask[frame].any()
    assert 0.005 < (drawing.mask != 0).mean() < 0.4


@pytest.mark.parametrize("filling", FILLINGS)
def test_fillings_differ_inside_the_section_and_nowhere_else(filling):
    plain = {"shape_yx": (480, 480), "fillings": (filling,), "noise": 0.0, "both_sides": 0.0, "tilt_deg": 0.0}
    config = SMALL.model_copy(update=plain)
    mean, darkest = [], []
    for index in range(6):
        drawing = draw_vessel(config, index)
        assert drawing.filling == filling
        values = section_values(drawing)
        mean.append(values.mean())
        darkest.append(values.min())
    assert {
        "black": max(mean) < 0.3,
        "grey": min(mean) > 0.3 and max(mean) < 0.85 and min(darkest) > 0.3,
        "hatched": min(mean) > 0.3 and max(mean) < 0.9 and max(darkest) < 0.3,
        "dotted": min(mean) > 0.6 and min(darkest) < 0.3,
        "white": min(mean) > 0.97,
    }[filling]


def section_values(drawing) -> np.ndarray:
    """Grey values inside the section, away from its outline and from the lines of the other half, 1 is paper."""
    inside = ndimage.binary_erosion(drawing.mask != 0, iterations=4)
    columns = np.flatnonzero((drawing.mask != 0).any(axis=0))
    inside[:, columns[-1] - 6 :] = False  # the axis
    return drawing.image[..., 0][inside].astype(float) / drawing.image[..., 0].max()


def test_folders_hold_every_drawing_once_and_the_same_bytes_again(tmp_path):
    one, two = Location.parse(tmp_path / "one"), Location.parse(tmp_path / "two")
    assert write_vessels(one, SMALL) == {"train": 5, "val": 1, "test": 1}
    write_vessels(two, SMALL)
    assert stored_bytes(tmp_path / "one") == stored_bytes(tmp_path / "two")
    assert (one / "val").names() == (one / "val_annotations").names() == ["00005.png"]
    image = cv2.imread(str(tmp_path / "one/train/00002.png"))[..., ::-1]
    mask = cv2.imread(str(tmp_path / "one/train_annotations/00002.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(image, draw_vessel(SMALL, 2).image)
    np.testing.assert_array_equal(mask, draw_vessel(SMALL, 2).mask)


@pytest.mark.parametrize("values", [{"shape_yx": (32, 512)}, {"fillings": ()}, {"shares": (0.5, 0.5, 0.5)}])
def test_settings_that_cannot_be_drawn_are_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        VesselConfig(**values)

"""Inputs of a depth probe: strokes of a known share, nulls that hold the same grey values, whole windows."""

import numpy as np
import pytest

from inkbatch.data.synthetic.phantom import InkConfig
from inkbatch.data.synthetic.strokes import INK_SHARE, strokes, with_ink
from inkbatch.geometry import Box
from inkbatch.steps.probe.inputs import NULLS, null_input, sheet_faces

WINDOW = np.random.default_rng(0).integers(0, 255, (9, 40, 50), dtype=np.uint8)


def test_strokes_cover_a_known_share_and_follow_from_place_and_seed():
    box = Box(64, 128, 192, 320)
    mask = strokes(box, 12, 0, seed=1)
    assert mask.mean() == pytest.approx(INK_SHARE, abs=0.01)
    np.testing.assert_array_equal(mask, strokes(box, 12, 0, seed=1))
    assert (mask != strokes(box, 12, 0, seed=2)).any()
    assert (mask != strokes(Box(0, 0, 128, 192), 12, 0, seed=1)).any()


def test_planted_ink_lies_in_its_layer_and_nowhere_else_far_from_it():
    plane = np.full((40, 50), 50, np.float32)
    ink = InkConfig(amplitude=50, depth_layer=4, width_layers=0.5, crackle=0)
    rise = with_ink(WINDOW // 2, plane, ink).astype(int) - WINDOW // 2
    assert (rise[4] == 50).all()
    assert (rise[[0, 1, 7, 8]] == 0).all()


def test_shuffled_layers_are_the_same_layers_and_none_stays_near_its_place():
    shuffled = null_input("layers shuffled", WINDOW, 4, seed=3)
    places = [next(z for z in range(9) if (layer == WINDOW[z]).all()) for layer in shuffled]
    assert sorted(places) == list(range(9))
    assert all(place != z for z, place in enumerate(places))


def test_the_other_nulls_keep_what_they_promise():
    assert (null_input("one layer repeated", WINDOW, 4, seed=3) == WINDOW[4]).all()
    voxels = null_input("voxels shuffled", WINDOW, 4, seed=3)
    assert sorted(voxels.ravel()) == sorted(WINDOW.ravel())
    assert (voxels != WINDOW).mean() > 0.9


@pytest.mark.parametrize("name", NULLS)
def test_nulls_follow_from_the_seed(name):
    np.testing.assert_array_equal(null_input(name, WINDOW, 4, 5), null_input(name, WINDOW, 4, 5))


def test_faces_are_where_the_bright_sheet_begins_and_ends():
    assert sheet_faces(np.array([60, 62, 90, 130, 140, 135, 120, 80, 60])) == (3, 6)

"""Out of fold: no network speaks of a pixel that it was trained on, or of one within a tile and its context."""

from __future__ import annotations

import numpy as np
import pytest

from inkbatch.data.datasets.trained_pixels import NOTHING, TrainedPixels
from inkbatch.data.maps.out_of_fold import joined, may_speak, require_unseen
from inkbatch.errors import DataError
from inkbatch.geometry import Box

BOX = Box(0, 0, 40, 60)


def trained_on(*boxes):
    return TrainedPixels(np.array(boxes, np.int64).reshape(-1, 4), NOTHING.train)


def test_a_network_is_silent_up_to_a_tile_and_its_context_around_what_it_was_trained_on():
    speaks = may_speak(trained_on((10, 20, 20, 30)), BOX, reach_px=8)
    y, x = np.mgrid[0:40, 0:60]
    away_y, away_x = np.maximum(10 - y, y - 19), np.maximum(20 - x, x - 29)
    np.testing.assert_array_equal(speaks, np.maximum(away_y, away_x) > 8)


def test_what_lies_beyond_the_box_silences_its_edge():
    speaks = may_speak(trained_on((100, 0, 120, 60)), Box(60, 0, 100, 60), reach_px=10)
    assert speaks[:30].all()
    assert not speaks[30:].any()


def test_a_network_that_was_trained_on_nothing_here_speaks_everywhere():
    assert may_speak(NOTHING, BOX, 8).all()


def test_silent_networks_change_neither_mean_nor_spread():
    maps = [np.full((2, 3), value, np.float32) for value in (0.2, 0.8, 0.99)]
    speaking = [np.array([[1, 1, 0], [1, 0, 0]], bool), np.array([[1, 1, 1], [0, 0, 0]], bool), np.zeros((2, 3), bool)]
    found = joined(maps, speaking)
    np.testing.assert_array_equal(found.networks, [[2, 2, 1], [1, 0, 0]])
    np.testing.assert_allclose(found.mean, [[0.5, 0.5, 0.8], [0.2, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(found.spread, [[0.3, 0.3, 0], [0, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(found.doubt, [[0.6, 0.6, 0.2], [0.2, 0, 0]], atol=1e-6)


def test_pixels_that_a_network_has_seen_are_refused_with_segment_and_place():
    networks = np.full((4, 5), 3, np.uint8)
    networks[2, 4] = 2
    require_unseen("s", Box(100, 50, 104, 55), networks < 3, networks, 2, "scored", 32)
    with pytest.raises(DataError, match=r"segment s: 1 pixel would be scored .* within 32 px .* y 102, x 54"):
        require_unseen("s", Box(100, 50, 104, 55), np.ones((4, 5), bool), networks, 3, "scored", 32)

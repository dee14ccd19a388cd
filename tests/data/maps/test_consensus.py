"""Marks that a second map confirms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from inkbatch.data.maps.consensus import confirmed

EVERYWHERE = np.ones((3, 3))


def marks(seed: int) -> np.ndarray:
    rough = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((120, 90)), 3)
    return rough > 0.08


@pytest.mark.parametrize("count", [2, 3])
def test_components_that_a_second_map_marks_are_kept_whole(count):
    maps = [marks(seed) for seed in range(count)]
    wanted = np.zeros(maps[0].shape, bool)
    for own, one in enumerate(maps):
        others = np.any([maps[other] for other in range(count) if other != own], axis=0)
        labels, number = ndimage.label(one, EVERYWHERE)
        for label in range(1, number + 1):
            if (others & (labels == label)).any():
                wanted |= labels == label
    assert wanted.any()
    assert not wanted[np.any(maps, axis=0)].all()
    np.testing.assert_array_equal(confirmed(maps, 500), wanted)


def test_a_mark_further_than_the_steps_is_not_confirmed():
    line, dot = np.zeros((3, 40), bool), np.zeros((3, 40), bool)
    line[1, 2:38] = dot[1, 2] = True
    found = confirmed([line, dot], 10)
    assert found.sum() == 11
    assert found[1, 2:13].all()


def test_no_pixel_depends_on_more_than_the_steps_around_it():
    maps = [marks(1), marks(2)]
    whole = confirmed(maps, 8)
    part = confirmed([one[30:90, 20:70] for one in maps], 8)
    np.testing.assert_array_equal(part[8:-8, 8:-8], whole[38:82, 28:62])

"""Taps of a carried map: area where it is finer, the nearest pixel where it is coarser."""

from __future__ import annotations

import numpy as np
import pytest

from inkbatch.data.maps.carried import Taps


def test_a_finer_map_is_averaged_by_area():
    values = np.random.default_rng(1).random((7, 3)).astype(np.float32)
    expected = values.repeat(5, axis=0).reshape(5, 7, 3).mean(axis=1)  # seven fifths of a pixel each
    np.testing.assert_allclose(Taps.of(0, 5, 7, 5).apply(values), expected, rtol=1e-6)


def test_a_coarser_map_gives_the_nearest_pixel():
    values = np.arange(3, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(Taps.of(0, 7, 3, 7).apply(values)[:, 0], [0, 0, 1, 1, 1, 2, 2])


def test_an_equal_map_is_kept():
    values = np.random.default_rng(2).random((9, 4)).astype(np.float32)
    np.testing.assert_array_equal(Taps.of(0, 9, 9, 9).apply(values), values)


@pytest.mark.parametrize(("source_px", "target_px"), [(1003, 613), (613, 1003)])
def test_a_part_equals_that_of_the_whole(source_px, target_px):
    values = np.random.default_rng(3).random((source_px, 2)).astype(np.float32)
    taps = Taps.of(200, 331, source_px, target_px)
    first, last = taps.span
    whole = Taps.of(0, target_px, source_px, target_px).apply(values)
    np.testing.assert_array_equal(taps.apply(values[first:last]), whole[200:331])
    assert (0, source_px) == Taps.of(0, target_px, source_px, target_px).span

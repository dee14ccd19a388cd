"""Half precision through OpenCV is NumPy's, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from inkbatch.io.half_floats import TABLE_SIZE, looked_up, to_half, to_single

FINITE = np.arange(TABLE_SIZE, dtype=np.uint16).view(np.float16)
FINITE = FINITE[np.isfinite(FINITE) & (FINITE.view(np.uint16) != 0x8000)]  # all but minus zero


def test_every_half_becomes_the_same_single_and_comes_back():
    single = to_single(FINITE.reshape(1, -1))
    np.testing.assert_array_equal(single, FINITE.astype(np.float32).reshape(1, -1))
    np.testing.assert_array_equal(to_half(single).view(np.uint16), FINITE.view(np.uint16).reshape(1, -1))


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-5, 1e-7])
def test_rounding_is_numpys_for_large_and_for_tiny_values(scale):
    values = (np.random.default_rng(0).random((300, 211)) * scale).astype(np.float32)
    np.testing.assert_array_equal(to_half(values).view(np.uint16), values.astype(np.float16).view(np.uint16))


def test_values_half_way_go_to_the_even_neighbour():
    inside = FINITE[(FINITE >= 0) & (FINITE < 1)].astype(np.float64)
    middle = ((inside + np.nextafter(inside.astype(np.float16), np.float16(2)).astype(np.float64)) / 2).astype(
        np.float32
    )
    np.testing.assert_array_equal(to_half(middle[None]), middle[None].astype(np.float16))


@pytest.mark.parametrize("shape", [(1, 1), (1, 77), (77, 1), (5, 9)])
def test_shapes_and_views_are_kept(shape):
    values = np.random.default_rng(0).random((2 * shape[0], 2 * shape[1])).astype(np.float32)[::2, ::2]
    assert to_half(values).shape == shape
    np.testing.assert_array_equal(to_half(values), values.astype(np.float16))
    np.testing.assert_array_equal(to_single(values.astype(np.float16)), values.astype(np.float16).astype(np.float32))
    codes = np.random.default_rng(0).integers(0, TABLE_SIZE, shape).astype(np.uint16)
    table = np.random.default_rng(1).random(TABLE_SIZE)
    np.testing.assert_array_equal(looked_up(codes, table), table[codes])

"""Halved blocks: means and maxima of four, rounded alike however they are cut."""

from __future__ import annotations

import numpy as np
import pytest

from inkbatch.io.halving import halve


def test_max_pooling_loses_no_single_pixel():
    mask = np.zeros((9, 7), np.uint8)
    mask[8, 6] = 1
    assert halve(mask, "max")[4, 3] == 1
    assert halve(halve(mask, "max"), "max").sum() == 1


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float16"])
def test_halving_is_the_mean_of_four(dtype):
    block = np.random.default_rng(3).integers(0, 200, (2, 6, 8)).astype(dtype)
    four = block.reshape(2, 3, 2, 4, 2).astype(np.float64).mean(axis=(2, 4))
    expected = np.floor(four + 0.5) if np.dtype(dtype).kind == "u" else four
    np.testing.assert_allclose(halve(block, "mean").astype(np.float64), expected, rtol=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (37, 50), (40, 3)])
def test_halving_float16_in_strips_changes_no_bit(shape, monkeypatch):
    block = np.random.default_rng(0).random(shape).astype(np.float16)
    whole = halve(block, "mean")
    monkeypatch.setattr("inkbatch.io.halving.STRIP_PX", 60)
    np.testing.assert_array_equal(halve(block, "mean"), whole)

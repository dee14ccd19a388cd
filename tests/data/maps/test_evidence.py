"""Moments, windows and depths of a sweep's maps, against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from inkbatch.data.maps.depth_agreement import pairs_of
from inkbatch.data.maps.evidence import (
    BLOCK_PX,
    SMALL_PX,
    MomentSums,
    WindowGrid,
    border_px,
    peak_of,
    window_numbers,
)
from inkbatch.geometry import Box

SHAPE = (300, 410)
STRETCHES = [(0.3, 0.1), (0.5, 0.2), (0.4, 0.05)]


def maps(bundles: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shared = rng.random(SHAPE)
    found = [np.clip(0.5 * shared + 0.5 * rng.random(SHAPE), 0.01, 1).astype(np.float16) for _ in range(bundles)]
    for values in found:
        values[:, :70] = 0
    return found


def moments(means: list[np.ndarray], height_px: int):
    sums = MomentSums(SHAPE, len(means))
    for y in range(0, SHAPE[0], height_px):
        box = Box(y, 0, min(y + height_px, SHAPE[0]), SHAPE[1])
        here = [values[box.slices] for values in means]
        sums.add(box, here, STRETCHES[: len(means)], (here[0] > 0).astype(np.float32))
    return sums.moments


@pytest.mark.parametrize("bundles", [1, 2, 3])
def test_windows_are_their_definition(bundles):
    means = maps(bundles)
    grid = WindowGrid(SHAPE, 2)
    found = window_numbers(moments(means, BLOCK_PX), grid)
    filled = means[0] > 0
    z = [
        (values.astype(np.float64) - mean) / deviation
        for values, (mean, deviation) in zip(means, STRETCHES, strict=False)
    ]
    for number, box in enumerate(grid.boxes):
        inside = filled[box.slices]
        assert found.filled[number] == pytest.approx(inside.mean(), abs=1e-6)
        if not inside.any():
            continue
        here = [values[box.slices][inside].astype(np.float64) for values in z]
        assert found.z[number] == pytest.approx(np.mean(here), abs=1e-4)
        pairs = [(here[a], here[b]) for a, b in pairs_of(bundles)]
        if bundles > 1:
            wanted = np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs])
            assert found.agreement[number] == pytest.approx(wanted, abs=1e-3)
    assert np.isnan(found.agreement).all() == (bundles == 1)


def test_the_cutting_of_the_pass_changes_no_bit():
    means = maps(2)
    one, many = moments(means, 512), moments(means, BLOCK_PX)
    for name in ("filled", "covered", "z", "own", "square", "product", "small"):
        np.testing.assert_array_equal(getattr(one, name), getattr(many, name))


def test_windows_are_whole_blocks_of_about_the_asked_size():
    grid = WindowGrid.of((1000, 700), 2.5, 7.91)
    assert grid.window_px == 320
    assert len(grid.boxes) == 4 * 3
    assert sum(box.area for box in grid.boxes) == 1000 * 700
    assert WindowGrid.of((100, 100), 0.1, 7.91).window_px == BLOCK_PX


def test_a_peak_has_depth_width_and_height():
    depths = list(range(-6, 7))
    profile = 0.2 + 2 * np.exp(-0.5 * ((np.array(depths) - 2.3) / 1.5) ** 2)
    found = peak_of(profile, depths)
    assert found.depth == pytest.approx(2.3, abs=0.15)
    assert found.width == pytest.approx(3.5, abs=1)
    assert found.height == pytest.approx(1.95, abs=0.1)
    flat = peak_of(np.full(13, 0.4), depths)
    assert (flat.height, flat.width) == (0, 13)


def test_the_border_is_told_from_the_windows_edge():
    covered = np.ones((36, 36), np.float32)
    covered[:, 29:] = 0  # within a block
    grid = WindowGrid((9 * BLOCK_PX, 9 * BLOCK_PX), 3)
    found = border_px(covered, grid).reshape(3, 3)
    assert found[1, 1] == 5 * SMALL_PX
    assert found[0, 0] == found[1, 2] == 0

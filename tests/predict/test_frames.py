"""Frames: maps of one scale on another one's pixels, the same however they are cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inkbatch.geometry import Box, cut
from inkbatch.predict.frames import Frame

RATIOS = [0.4, 0.5, 1.0, 1.3, 2.0, 3.9, 4.0]
SHAPE = (60, 83)


def own_shape(ratio: float) -> tuple[int, int]:
    return round(SHAPE[0] * ratio), round(SHAPE[1] * ratio)


def brought(frame: Frame, values: np.ndarray, edge: int) -> np.ndarray:
    result = np.full(SHAPE, np.nan, np.float32)
    for box in cut(SHAPE, edge, edge):
        part = np.ascontiguousarray(values[frame.box(box).slices])
        result[box.slices] = frame.brought(torch.from_numpy(part), box).numpy()
    return result


@pytest.mark.parametrize("ratio", RATIOS)
def test_cutting_changes_no_bit(ratio):
    frame = Frame(ratio, own_shape(ratio))
    values = np.random.default_rng(0).random(frame.shape_yx, np.float32)
    whole = brought(frame, values, 128)
    for edge in (7, 32):
        np.testing.assert_array_equal(whole, brought(frame, values, edge))


@pytest.mark.parametrize("ratio", RATIOS)
def test_a_slope_stays_a_slope_and_a_constant_a_constant(ratio):
    frame = Frame(ratio, own_shape(ratio))
    y, x = ((np.arange(size) + 0.5) / ratio for size in frame.shape_yx)  # centres, in pixels of the other surface
    found = brought(frame, (y[:, None] + 2 * x).astype(np.float32), 32)
    wanted = (np.arange(SHAPE[0]) + 0.5)[:, None] + 2 * (np.arange(SHAPE[1]) + 0.5)
    inside = np.s_[5:-5, 5:-5]
    np.testing.assert_allclose(found[inside], wanted[inside], atol=1e-3)
    np.testing.assert_array_equal(brought(frame, np.full(frame.shape_yx, 0.25, np.float32), 32), np.float32(0.25))


def test_a_finer_map_of_whole_squares_is_their_mean():
    frame = Frame(4.0, (240, 332))
    values = np.random.default_rng(1).random(frame.shape_yx, np.float32)
    np.testing.assert_allclose(brought(frame, values, 32), values.reshape(60, 4, 83, 4).mean(axis=(1, 3)), rtol=1e-5)


def test_equal_scales_hand_back_what_came():
    values = torch.rand(8, 9)
    assert Frame(1.0, (20, 20)).brought(values, Box(0, 0, 8, 9)) is values

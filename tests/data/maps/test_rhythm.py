"""Rows, letters and marks told from a map alone, on columns whose letters are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from inkbatch.data.maps.evidence import SMALL_PX
from inkbatch.data.maps.rhythm import rhythms_of
from inkbatch.geometry import Box
from inkbatch.testing.letters import write_column

PIXEL_UM = 8.0
MM = PIXEL_UM * SMALL_PX / 1000
FINER = 4  # pixels of a drawn column in one of the map's squares
WINDOW_PX = 320


def written(height_mm: float, pitch_mm: float, noise: float, slope: float = 0.0) -> tuple[np.ndarray, float, float]:
    """Draw z values of a column as a network would, blurred and noisy; letters' height and rows' distance in mm."""
    height, pitch = (round(size / MM * FINER) for size in (height_mm, pitch_mm))
    column = write_column(lines=6, letters=9, height_px=height, pitch_px=pitch, slope=slope)
    ink = cv2.dilate(column.ink, np.ones((9, 9)))
    ink = ink[: len(ink) // FINER * FINER, : ink.shape[1] // FINER * FINER]
    small = cv2.resize(ink, None, fx=1 / FINER, fy=1 / FINER, interpolation=cv2.INTER_AREA)
    grain = cv2.GaussianBlur(np.random.default_rng(0).standard_normal(small.shape), (0, 0), 1)
    z = 3 * cv2.GaussianBlur(small, (0, 0), 1.2) + noise * grain / grain.std()
    tall = np.median([box.height for _, _, box in column.letters]) + 8
    return z.astype(np.float32), float(tall) / FINER * MM, pitch / FINER * MM


def inside(small: np.ndarray, margin_mm: float) -> list[Box]:
    """List windows whose letters lie in the column."""
    margin = round(margin_mm / MM)
    height, width = (side * SMALL_PX for side in small.shape)
    return [
        Box(y, x, y + WINDOW_PX, x + WINDOW_PX)
        for y in range(margin * SMALL_PX, height - margin * SMALL_PX - WINDOW_PX, WINDOW_PX)
        for x in range(margin * SMALL_PX, width - margin * SMALL_PX - WINDOW_PX, WINDOW_PX)
    ]


def within(found: list[float], truth: float) -> tuple[float, float]:
    """Return the share of windows that were told something, and of those the share within 15 %."""
    told = np.array([one for one in found if one == one])
    return len(told) / len(found), float(np.mean(np.abs(told / truth - 1) <= 0.15))


@pytest.mark.parametrize(("height_mm", "pitch_mm", "noise"), [(1.8, 3.4, 0.6), (2.5, 3.75, 0.6), (3.5, 5.25, 0.2)])
def test_rows_and_letters_are_told_within_15_per_cent(height_mm, pitch_mm, noise):
    small, letter_mm, row_mm = written(height_mm, pitch_mm, noise, slope=0.01)
    found = rhythms_of(small, inside(small, row_mm), PIXEL_UM)
    for lengths, truth in (([one.row_mm for one in found], row_mm), ([one.letter_mm for one in found], letter_mm)):
        told, right = within(lengths, truth)
        assert told >= 0.5
        assert right >= 0.95


@pytest.mark.parametrize("grain_px", [0.5, 1.5, 4.0])
def test_noise_has_rows_and_letters_seldom(grain_px):
    found = []
    for seed in range(2):
        noise = cv2.GaussianBlur(np.random.default_rng(seed).standard_normal((240, 240)), (0, 0), grain_px)
        found += rhythms_of(noise.astype(np.float32), inside(noise, 5.0), PIXEL_UM)
    assert np.mean([one.row_mm == one.row_mm for one in found]) <= 0.2
    assert np.mean([one.letter_mm == one.letter_mm for one in found]) <= 0.2


def test_marks_are_as_wide_as_they_are_drawn():
    y, x = np.mgrid[:300, :300]
    bars = (np.cos(2 * np.pi * y * MM / 4.0) > 0.3) * (np.sin(2 * np.pi * x * MM / 1.1) > 0)
    (found,) = rhythms_of(bars.astype(np.float32), [Box(1600, 1600, 1920, 1920)], PIXEL_UM)
    assert found.row_mm == pytest.approx(4.0, abs=0.15)
    assert 0.2 < found.mark_mm < 1.1


def test_a_map_without_values_tells_nothing():
    (found,) = rhythms_of(np.zeros((300, 300), np.float32), [Box(0, 0, 320, 320)], PIXEL_UM)
    assert np.isnan([found.row_mm, found.letter_mm, found.mark_mm]).all()
    assert found.row_strength == 0

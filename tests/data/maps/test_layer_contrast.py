"""Contrast by layer: a layer that is rough nearly everywhere stands out, ink and the edge of a sheet do not."""

from __future__ import annotations

import numpy as np
import pytest

from inkbatch.data.maps.layer_contrast import ROUGH, contrasts, quieter, times_rougher

LAYERS, BLOCKS, PLACE = 21, 40, 10


def profile(gain: np.ndarray, inked: float = 0.0) -> list[float]:
    """Blocks of noise as loud as `gain` by layer; ink as bright as `inked` crosses a third of each of half of them."""
    rng, found = np.random.default_rng(0), []
    for number in range(BLOCKS):
        noise = 15 * gain[:, None, None] * rng.standard_normal((LAYERS, 16, 16))
        if number % 2:
            noise[PLACE - 1 : PLACE + 2, :, :5] += inked
        found.append(contrasts(np.clip(100 + noise, 0, 255).astype(np.uint8)))
    return quieter(found)


def bump(times: float, thickness: float) -> np.ndarray:
    """Gain of a layer that is rougher than others."""
    return 1 + (times - 1) * np.exp(-0.5 * ((np.arange(LAYERS) - PLACE) / thickness) ** 2)


@pytest.mark.parametrize("thickness", [1.0, 2.0, 3.0])
def test_a_layer_of_twice_the_contrast_is_rough(thickness):
    assert times_rougher(profile(bump(2.0, thickness)), PLACE) > ROUGH


@pytest.mark.parametrize("contrast", [0, 25, 60])
def test_ink_in_half_of_the_blocks_is_not(contrast):
    assert times_rougher(profile(np.ones(LAYERS), contrast), PLACE) < ROUGH


def test_the_edge_of_a_sheet_is_not():
    edge = np.where(np.arange(LAYERS) < PLACE, 0.3, 1.0)
    assert times_rougher(profile(edge), PLACE) < ROUGH


def test_few_layers_or_no_blocks_tell_nothing():
    assert times_rougher([], 0) is None
    assert times_rougher([15.0, 15.0, 15.0], 1) is None
    assert quieter([]) == []

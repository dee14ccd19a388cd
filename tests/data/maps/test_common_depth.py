"""Windows against themselves at other depths: promises on profiles drawn with and without ink."""

from __future__ import annotations

import numpy as np
import pytest

from inkbatch.data.maps import common_depth
from inkbatch.data.maps.common_depth import heights, held, least_covariance

DEPTHS = list(range(-6, 7))
INKED, AT = 12, 9


def profiles(seed: int, *, windows: int = 60, inked: int = 0, series: int = 2) -> np.ndarray:
    """Heavy-tailed texture, alike in neighbouring depths; ink of some windows at one depth of the last series."""
    rng = np.random.default_rng(seed)
    noise = rng.lognormal(0, 1, (series, len(DEPTHS) + 2, windows))
    found = noise[:, :-2] + 2 * noise[:, 1:-1] + noise[:, 2:]
    found[-1, AT - 1 : AT + 2, :inked] += np.array([30.0, 60.0, 30.0])[:, None]
    return found


def test_windows_that_peak_at_one_depth_are_called_and_hardly_any_other():
    found = held(profiles(0, inked=INKED), DEPTHS)
    assert found.called[:INKED].all()
    assert found.called[INKED:].sum() <= 1
    assert set(found.series) == {1}
    assert set(found.depth[1]) == {AT}
    assert found.least <= 3


def test_segments_without_ink_are_called_at_most_five_times_in_a_hundred():
    assert sum(bool(held(profiles(seed), DEPTHS).called.any()) for seed in range(1000)) <= 50


def test_a_window_alone_or_peaks_at_many_depths_are_never_called():
    scattered = profiles(1)
    scattered[1, np.arange(12), np.arange(12)] += 1000
    assert not held(scattered, DEPTHS).called.any()
    assert not held(profiles(2, windows=1, inked=1), DEPTHS).called.any()


def test_a_layer_that_is_rougher_everywhere_is_called_far_less_often_than_without_the_division(monkeypatch):
    """Not never: the faintest 5 % of 60 windows are 3, and their rise is known as well as 3 windows tell."""
    rougher = 1 + 3 * np.exp(-0.5 * (np.array(DEPTHS) / 1.5) ** 2)[:, None]

    def called() -> int:
        return sum(bool(held(profiles(seed) * rougher, DEPTHS).called.any()) for seed in range(40))

    divided = called()
    monkeypatch.setattr(common_depth, "rises", lambda found, away: np.ones(found.shape[:2]))
    assert divided <= 6 < 30 < called()


def test_ink_in_most_windows_is_called_all_the_same():
    found = held(profiles(6, inked=48), DEPTHS)
    assert found.called[:48].mean() > 0.9
    assert found.called[48:].sum() <= 3


def test_a_window_does_not_choose_its_own_depth():
    found = profiles(3, inked=INKED)
    before = held(found, DEPTHS)
    found[0, 2, 20] = 1e6
    after = held(found, DEPTHS)
    assert (after.series[20], after.depth[1, 20]) == (before.series[20], before.depth[1, 20])


def test_without_depths_away_from_ink_there_is_no_null():
    found = held(profiles(4, inked=INKED)[:, :3], DEPTHS[:3])
    assert len(found.null) == 0
    assert not found.called.any()
    assert found.least > 60


def test_empty_maps_are_never_called():
    found = profiles(0, inked=INKED)
    least = least_covariance([0.004, 0.004])
    loud, faint = held(found * 10, DEPTHS, least), held(found / 10, DEPTHS, least)
    assert loud.called[:INKED].all()
    assert not loud.empty
    assert not faint.called.any()
    assert faint.empty
    assert least_covariance([0.1, 0.3]) == pytest.approx(0.02**2 / 0.03)


def test_a_peak_at_the_end_of_the_range_is_none_and_says_how_many_windows_have_it():
    found = profiles(0, inked=INKED)
    inside, ends = held(found, DEPTHS), held(found[:, : AT + 1], DEPTHS[: AT + 1])
    assert inside.called[:INKED].all()
    assert inside.cut_off == 0
    assert not ends.called.any()
    assert INKED <= ends.cut_off <= INKED + 1


def test_null_scores_are_heights_away_from_the_depth_of_ink():
    found = profiles(5, windows=3, inked=3, series=1)
    one, far = held(found, DEPTHS), [place for place in range(len(DEPTHS)) if abs(place - AT) > 2]
    np.testing.assert_array_equal(np.sort(one.null), np.sort(heights(found)[0, far].ravel()))

"""p- and q-values by permutation, the control, and the sentence."""

from __future__ import annotations

import numpy as np
import pytest

from inkbatch.data.maps.discovery import (
    Q_CALLED,
    ControlPoint,
    Ground,
    Outlook,
    faintest_seen,
    least_together,
    p_values,
    q_values,
    sentence,
)


def test_a_p_value_is_never_zero():
    null = np.array([0.0, 1.0, 2.0, 2.0])
    np.testing.assert_allclose(p_values(np.array([3.0, 2.0, 1.5, -1.0]), null), [1 / 5, 3 / 5, 3 / 5, 1])


def test_q_values_are_those_of_benjamini_and_hochberg():
    p = np.array([0.01, 0.04, 0.03, 0.5, 0.03])
    np.testing.assert_allclose(q_values(p), [0.05, 0.05, 0.05, 0.5, 0.05])
    assert q_values(np.zeros(0)).size == 0


def test_segments_without_ink_are_called_at_most_five_times_in_a_hundred():
    """Null and real scores of one heavy-tailed kind: some window of 1,000 segments is called at q ≤ 0.05."""
    rng = np.random.default_rng(0)
    called = 0
    for _ in range(1000):
        scores, null = rng.lognormal(0, 1, 100), rng.lognormal(0, 1, 300)
        called += bool((q_values(p_values(scores, null)) <= Q_CALLED).any())
    assert called <= 50


def test_of_those_called_at_most_five_in_a_hundred_are_false():
    rng = np.random.default_rng(1)
    false, total, found = 0, 0, 0
    for _ in range(100):
        scores, null = rng.standard_normal(200), rng.standard_normal(600)
        scores[:40] += 4.5
        called = q_values(p_values(scores, null)) <= Q_CALLED
        found, false, total = found + called[:40].sum(), false + called[40:].sum(), total + called.sum()
    assert found >= 0.9 * 40 * 100
    assert false <= 0.05 * total


def test_so_many_windows_must_stand_out_together():
    assert least_together(100, 299) == 7
    scores, null = np.zeros(100), np.linspace(0, 1, 299)
    for count, called in ((6, 0), (7, 7)):
        scores[:] = 0.5
        scores[:count] = 2
        assert (q_values(p_values(scores, null)) <= Q_CALLED).sum() == called


def test_a_contrast_was_seen_if_all_stronger_ones_were():
    loud, faint = ControlPoint(40, 20, 20), ControlPoint(10, 0, 20)
    assert loud.share == 1.0
    assert faintest_seen([faint, loud]) == 40
    assert faintest_seen([faint]) is None
    broken = [ControlPoint(10, 20, 20), ControlPoint(20, 3, 20), ControlPoint(40, 20, 20)]
    assert faintest_seen(broken) == 40  # 10 was luck: stronger ink was missed


SEEN = [ControlPoint(20.0, 19, 20), ControlPoint(10.0, 1, 20)]
FEW, DARK = [ControlPoint(20.0, 0, 1)], [ControlPoint(-20.0, 20, 20)]
GROUND = Ground(940, {"too little papyrus": 50, "within half a tile of the border": 10})


@pytest.mark.parametrize(
    ("called", "points", "outlook", "words"),
    [
        (
            0,
            SEEN,
            Outlook(100, 7),
            "No strokes above contrast 20 in 94% of the area, unless they fill fewer than 20 windows. 6% could",
        ),
        (0, SEEN[1:], Outlook(100, 7), "planted strokes of contrast 10 would not have been seen either"),
        (0, [], Outlook(100, 7), "No window is unlike the null in 94% of the area; no control was made."),
        (0, SEEN, Outlook(100, 101), "Nothing can be called: 101 windows would have to stand out together, and only"),
        (0, SEEN, Outlook(100, 7, cut_off=8), "8 windows stand out at the first or the last depth"),
        (0, [], Outlook(100, 7, empty=True), "The networks see nothing here, and no control was made: this says noth"),
        (0, SEEN, Outlook(100, 7, empty=True), "No strokes above contrast 20 in 94% of the area"),
        (0, FEW, Outlook(2, 2), "either, for they filled 1 of the 2 windows that must stand out together: this says"),
        (0, DARK, Outlook(100, 7), "No dark strokes above contrast 20 in 94% of the area"),
        (0, [], Outlook(0, 0, empty=True), "Nothing could be judged: this says nothing about ink. 6% could not be"),
        (3, SEEN, Outlook(100, 7), "3 of 100 windows are unlike the null at q ≤ 0.05. 6% could not be judged"),
    ],
)
def test_the_sentence_claims_no_ink_and_says_what_was_not_judged(called, points, outlook, words):
    said = sentence(called, points, GROUND, outlook)
    assert words in said
    assert "1% within half a tile of the border" in said
    assert " ink" not in said.replace("says nothing about ink", "")

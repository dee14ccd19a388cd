"""Verdicts from made-up answers: each word for its own reason, and never a clear one where two readings explain all."""

import numpy as np
import pytest

from inkbatch.steps.probe.evidence import Scene
from inkbatch.steps.probe.verdict import judge
from inkbatch.steps.stored_probe import has_reading

DEPTH = 7
PEAK = (0.4, 0.8, 0.4, 0.0, 0.0, 0.0, 0.0)  # lift by place: this bundle wants its ink at place 1
NULLS = {"layers shuffled": (0.1, 0.05), "one layer repeated": (0.01, 0.8), "voxels shuffled": (0.0, 0.0)}
QUIET = {name: (0.02, lift) for name, (_, lift) in NULLS.items()}


def measures(
    answers, lift=PEAK, start=1, nulls=NULLS, reversed_lift=None, windows=3, ridge=1.0, sure=0.95, undisturbed=0.97
):
    """Windows that agree: `answers` by (order, first layer), the same lift in both orders unless stated."""
    rng = np.random.default_rng(0)
    lifts = {"forward": list(lift), "reversed": list(reversed_lift or lift)}
    planted = {order: {} for order in lifts}
    for place in range(DEPTH):
        for order, depth in (("forward", start + place), ("reversed", start + DEPTH - 1 - place)):
            value = lifts[order][place]
            planted[order][str(depth)] = {"lift": value, "gain": 0.2 * value, "certainty": 0.96}

    def blocks(value):
        return [*(value * rng.uniform(0.8, 1.2, 15)).tolist(), None]

    found = {order: {str(s): blocks(v) for (o, s), v in answers.items() if o == order} for order in lifts}
    profile = np.exp(-0.5 * ((np.arange(DEPTH) - 1) / 1.5) ** 2)  # of a thin layer at place 1, where ink is seen best
    layers = (ridge * 50 * profile).tolist()
    contrasts = {
        order: {start: {"lit": 100, "certainty": sure, "layers": layers} for start in found[order]} for order in lifts
    }
    shared = {"answers": found, "contrasts": contrasts, "planted": planted, "faces": [start, start + 4]}
    quiet = {name: {"answer": a, "lift": b, "certainty": undisturbed} for name, (a, b) in nulls.items()}
    return [{**shared, "box": [0, x, 8, x + 8], "nulls": quiet} for x in range(windows)]


def sweep(ink_depth, starts=range(3), lift=PEAK, floor=0.002, scale=0.2):
    """Answer ink at a layer of the surface as a well-behaved bundle does."""
    answers = {}
    for start in starts:
        for order, place in (("forward", ink_depth - start), ("reversed", start + DEPTH - 1 - ink_depth)):
            seen = lift[place] if 0 <= place < DEPTH else 0
            answers[order, start] = floor + scale * seen
    return answers


SCENE = Scene(DEPTH, ("forward", 1))


@pytest.mark.parametrize(
    ("ink_depth", "order", "start", "words"),
    [
        (2, "forward", 1, "clear"),
        (1, "forward", 0, "displaced by 1 layer (up)"),
        (3, "forward", 2, "displaced by 1 layer (down)"),
        (6, "reversed", 1, "clear"),
        (7, "reversed", 2, "displaced by 1 layer (down)"),
    ],
)
def test_order_and_window_follow_from_where_the_ink_answers(ink_depth, order, start, words):
    verdict = judge(measures(sweep(ink_depth)), SCENE)
    assert (verdict.order, verdict.start, verdict.words, verdict.usable) == (order, start, words, True)
    assert verdict.confidence >= 0.95


def test_one_window_of_layers_still_tells_the_order():
    answers = {("forward", 1): 0.01, ("reversed", 1): 0.2}
    verdict = judge(measures(answers), SCENE)
    assert (verdict.words, verdict.order) == ("clear", "reversed")


def test_ink_that_both_orders_can_see_is_not_called_clear():
    verdict = judge(measures(sweep(6, starts=range(9))), SCENE)
    assert not verdict.usable
    assert "two readings show the same ink" in verdict.reason


def test_both_orders_see_it_but_one_sees_it_far_better():
    strong, weak = PEAK, tuple(0.4 * value for value in PEAK)
    answers = {key: value for key, value in sweep(6, range(9), strong).items() if key[0] == "forward"}
    answers |= {key: value for key, value in sweep(6, range(9), weak).items() if key[0] == "reversed"}
    verdict = judge(measures(answers, strong, reversed_lift=weak), SCENE)
    assert (verdict.order, verdict.start, verdict.usable) == ("forward", 5, True)


def test_a_bundle_that_does_not_see_planted_ink_is_blind():
    verdict = judge(measures(sweep(2), lift=(0.05, 0.1, 0.05, 0, 0, 0, 0), nulls=QUIET), SCENE)
    assert (verdict.words, verdict.usable) == ("blind", False)
    assert "does not see ink" in verdict.reason


def test_a_bundle_that_answers_nulls_but_not_planted_ink_is_a_false_positive():
    verdict = judge(measures(sweep(2), lift=(0.05, 0.1, 0.05, 0, 0, 0, 0)), SCENE)
    assert (verdict.words, verdict.usable) == ("false positives", False)


def test_papyrus_without_ink_is_told_from_a_blind_bundle_by_planted_ink():
    verdict = judge(measures(sweep(2, scale=0.02)), SCENE)
    assert (verdict.words, verdict.usable) == ("no ink", False)
    assert "too little of their own" in verdict.reason


@pytest.mark.parametrize(
    "nulls",
    [
        {**NULLS, "one layer repeated": (0.12, 0.8)},
        {**NULLS, "voxels shuffled": (0.1, 0.0)},
        {**NULLS, "layers shuffled": (0.12, 0.7)},
    ],
)
def test_a_null_input_that_answers_like_ink_is_a_false_positive(nulls):
    verdict = judge(measures(sweep(2), nulls=nulls), SCENE)
    assert (verdict.words, verdict.usable) == ("false positives", False)


def test_noise_on_shuffled_layers_that_hides_planted_ink_is_no_reason_to_refuse():
    assert judge(measures(sweep(2), nulls={**NULLS, "layers shuffled": (0.5, 0.1)}), SCENE).words == "clear"


def test_readings_that_cannot_see_the_ink_and_answer_are_false_positives():
    verdict = judge(measures(sweep(2, floor=0.25)), SCENE)
    assert (verdict.words, verdict.usable) == ("false positives", False)
    assert "cannot see the ink" in verdict.reason


def test_a_map_of_what_is_no_thin_layer_is_a_false_positive():
    verdict = judge(measures(sweep(2), ridge=0.1), SCENE)
    assert (verdict.words, verdict.usable) == ("false positives", False)
    assert "stands out" in verdict.reason
    assert verdict.numbers["ridge"] == pytest.approx(0.1, abs=0.01)


def test_a_map_that_is_unsure_of_what_it_marks_is_not_believed():
    verdict = judge(measures(sweep(2), sure=0.89), SCENE)
    assert (verdict.words, verdict.numbers["doubt"]) == ("false positives", pytest.approx(0.11 / 0.03, abs=0.01))
    assert "times as unsure" in verdict.reason
    assert judge(measures(sweep(2), sure=0.92), SCENE).words == "clear"


def test_windows_that_do_not_agree_are_not_clear():
    rows = measures(sweep(2), windows=1) + measures(sweep(6), windows=1)
    assert not judge(rows, SCENE).usable


def test_equal_measures_give_equal_verdicts():
    assert judge(measures(sweep(2)), SCENE, seed=1) == judge(measures(sweep(2)), SCENE, seed=1)


def test_where_one_layer_repeated_shows_no_ink_that_in_papyrus_is_the_measure():
    verdict = judge(measures(sweep(2), sure=0.85, undisturbed=0.0), SCENE)
    assert (verdict.words, verdict.numbers["doubt"]) == ("false positives", pytest.approx(0.15 / 0.04, abs=0.01))


def test_a_verdict_without_a_reading_shows_no_order_and_no_confidence():
    assert not has_reading({"usable": False, "confidence": 0.0})
    assert has_reading({"usable": False, "confidence": 0.6})
    assert has_reading({"usable": True, "confidence": 0.99})

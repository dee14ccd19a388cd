"""Letters from strokes, on columns whose letters are known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inkbatch.data.instances.letters import LetterRules, letter_rows, read_letters
from inkbatch.data.labels.components import label
from inkbatch.errors import ConfigError
from inkbatch.testing.letters import write_column

RULES = LetterRules(min_stroke=10)


def strokes_of(ink):
    found = label(ink >= 0.5, 8)
    return found.boxes[1:], found.areas[1:]


def read(column, rules=RULES, pixel_um=None):
    return read_letters(*strokes_of(column.ink), rules, pixel_um)


@pytest.mark.parametrize("seed", range(4))
def test_every_letter_is_found_in_its_line_and_place(seed):
    column = write_column(seed=seed)
    writing = read(column)
    assert [(one.line, one.box) for one in writing.letters] == [(line, box) for line, _, box in column.letters]
    assert [one.place for one in writing.letters] == list(range(1, 10)) * 5


def test_letters_in_several_strokes_are_one():
    column = write_column()
    writing = read(column)
    strokes = {name: len(one.strokes) for (_, name, _), one in zip(column.letters, writing.letters, strict=True)}
    assert {name: strokes[name] for name in "ΕΗΤΥ" if name in strokes} == {
        name: count for name, count in {"Ε": 2, "Η": 3, "Τ": 2, "Υ": 2}.items() if name in strokes
    }


def test_pitch_and_height_are_those_of_the_column():
    column = write_column(lines=7, height_px=50, pitch_px=88)
    writing = read(column)
    assert writing.pitch_px == pytest.approx(88, rel=0.01)
    assert writing.height_px == np.median([box.height for _, _, box in column.letters])
    assert [line.letters for line in writing.lines] == [9] * 7
    np.testing.assert_allclose(np.diff([line.y0 for line in writing.lines]), 88, atol=4)  # letters differ


@pytest.mark.parametrize("slope", [-0.05, 0.03])
def test_lines_that_rise_or_fall_are_followed(slope):
    column = write_column(letters=16, slope=slope)
    writing = read(column)
    assert writing.slope == pytest.approx(slope, abs=0.006)
    assert [(one.line, one.box) for one in writing.letters] == [(line, box) for line, _, box in column.letters]


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_strokes_changes_nothing(random):
    boxes, areas = strokes_of(write_column(lines=3, letters=4).ink)
    order = list(range(len(boxes)))
    random.shuffle(order)
    one, other = read_letters(boxes, areas, RULES), read_letters(boxes[order], areas[order], RULES)
    assert [(a.line, a.place, a.box) for a in one.letters] == [(b.line, b.place, b.box) for b in other.letters]
    assert [sorted(a.strokes) for a in one.letters] == [sorted(order[i] for i in b.strokes) for b in other.letters]


def test_one_line_has_no_pitch():
    writing = read(write_column(lines=1))
    assert writing.pitch_px is None
    assert [line.letters for line in writing.lines] == [9]


def test_a_map_without_strokes_has_no_letters():
    writing = read_letters(np.zeros((0, 4), np.int64), np.zeros(0, np.int64), RULES)
    assert writing.letters == ()
    assert math.isnan(writing.height_px)


def test_strokes_that_are_far_apart_or_together_too_wide_stay_apart():
    boxes = np.array([[0, 0, 40, 30], [0, 34, 40, 64], [0, 90, 40, 120]])
    areas = np.full(3, 200)
    assert len(read_letters(boxes, areas, LetterRules(join=5, widest=2.0)).letters) == 2
    assert len(read_letters(boxes, areas, LetterRules(join=5, widest=1.0)).letters) == 3
    assert len(read_letters(boxes, areas, LetterRules(join=3)).letters) == 3


def test_heights_are_said_in_millimetres_where_the_scale_is_known():
    writing = read(write_column(lines=2))
    boxes = [letter.box for letter in writing.letters]
    row = letter_rows(writing, boxes, 8.0)[0]
    assert row["height_mm"] == pytest.approx(row["height_px"] * 0.008)
    assert letter_rows(writing, boxes, None)[0]["height_mm"] is None


def test_rules_in_micrometres_need_a_scale():
    column = write_column(lines=2)
    assert read(column, RULES.model_copy(update={"join": "50um"}), 8.0).letters
    with pytest.raises(ConfigError, match="needs the edge of a pixel"):
        read(column, RULES.model_copy(update={"join": "50um"}))

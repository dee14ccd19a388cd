"""Sizes, durations and counts as a person says them."""

from __future__ import annotations

import pytest

from inkbatch.text import bytes_text, count_text, done_text, rough_range_text, rough_seconds_text, seconds_text


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (3.5 * 2**20, "3.5 MiB"),
        (2**31, "2.0 GiB"),
        (2**41, "2,048.0 GiB"),
    ],
)
def test_a_size_is_said_in_the_unit_that_fits(count, said):
    assert bytes_text(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.04, "0.0 s"), (61, "1 min 01 s"), (3599.6, "1 h 00 min"), (7265, "2 h 01 min")]
)
def test_a_measured_duration_is_said_to_the_second(seconds, said):
    assert seconds_text(seconds) == said


@pytest.mark.parametrize(("seconds", "said"), [(0.123, "0.12 s"), (5, "5 s"), (600, "10 min"), (9000, "2.5 h")])
def test_an_estimated_duration_is_said_roughly(seconds, said):
    assert rough_seconds_text(seconds) == said


@pytest.mark.parametrize(("count", "said"), [(0, "0 units"), (1, "1 unit"), (1200, "1,200 units")])
def test_one_is_not_many(count, said):
    assert count_text(count, "unit") == said


def test_a_plural_of_its_own_is_taken():
    assert [count_text(count, "process", "processes") for count in (1, 2)] == ["1 process", "2 processes"]


def test_what_is_there_is_said_as_one_says_it():
    assert done_text(3, complete=False) == "3 already done"
    assert done_text(3, complete=True) == "already complete"


def test_a_range_is_said_by_its_ends():
    assert rough_range_text((900, 2400)) == "15 min to 40 min"

"""Run-length texts are those of the competition: its own example, row by row, and back again without a loss."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from inkbatch.errors import DataError
from inkbatch.io.pictures.rle import decode, encode, texts

masks = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda shape: arrays(bool, shape))


@pytest.mark.parametrize("shape", [(1, 16), (4, 4), (2, 8)])
def test_the_example_of_the_documentation(shape):
    """'1 3 10 5' implies pixels 1,2,3,10,11,12,13,14 are to be included in the mask."""
    mask = decode("1 3 10 5", shape)
    assert (np.flatnonzero(mask) + 1).tolist() == [1, 2, 3, 10, 11, 12, 13, 14]
    assert encode(mask) == "1 3 10 5"


def test_pixels_are_numbered_from_left_to_right_then_from_top_to_bottom():
    """1 is pixel (1,1), 2 is pixel (1,2)."""
    mask = np.zeros((3, 4), bool)
    mask[0, 1] = mask[2, 0] = True
    assert encode(mask) == "2 1 9 1"


@given(masks)
def test_mask_to_text_to_mask_is_the_identity(mask):
    np.testing.assert_array_equal(decode(encode(mask), mask.shape), mask)


@given(masks)
def test_text_to_mask_to_text_is_the_identity(mask):
    text = encode(mask)
    assert encode(decode(text, mask.shape)) == text


@given(masks)
def test_a_text_names_every_pixel_once_in_the_fewest_runs(mask):
    numbers = [int(word) for word in encode(mask).split()]
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    pixels = [pixel for start, length in pairs for pixel in range(start, start + length)]
    assert pixels == (np.flatnonzero(mask.ravel()) + 1).tolist()
    assert all(start > before + length for (before, length), (start, _) in itertools.pairwise(pairs))


@given(masks, st.lists(st.integers(0, 9), max_size=4))
@example(np.ones((2, 1), bool), [1, 1])  # a block without rows ends no run
def test_how_rows_are_cut_changes_no_character(mask, cuts):
    parts = np.split(mask, sorted(min(cut, len(mask)) for cut in cuts))
    assert "".join(texts(parts)) == encode(mask)


@given(masks)
def test_texts_are_those_of_the_competitions_script_where_that_is_right(mask):
    mask[0, 0] = mask[-1, -1] = False
    flat = mask.ravel().astype(np.int8)
    starts = np.flatnonzero(np.diff(flat) == 1) + 2
    ends = np.flatnonzero(np.diff(flat) == -1) + 2
    expected = " ".join(f"{start} {end - start}" for start, end in zip(starts, ends, strict=True))
    assert encode(mask) == expected


def test_an_empty_mask_is_an_empty_text():
    assert encode(np.zeros((3, 3), bool)) == ""
    assert not decode("", (3, 3)).any()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 3 10", "pairs of whole numbers"),
        ("1 x", "pairs of whole numbers"),
        ("1 -3", "pairs of whole numbers"),
        ("0 3", "ascend from 1"),
        ("1 0", "positive"),
        ("10 2 1 3", "ascend"),
        ("1 3 3 2", "share no pixel"),
        ("8 2", "runs up to pixel 9"),
        ("9 2", "runs up to pixel 10"),
    ],
)
def test_texts_that_are_none_are_refused(text, words):
    shape = (2, 4) if text == "8 2" else (3, 3)
    with pytest.raises(DataError, match=words):
        decode(text, shape)

"""Label images in three classes: the boundary has the stated width, and no object is lost in it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from inkbatch.data.labels.objects import CLASS_GREYS, ObjectLabels, boundary_classes, class_labels
from inkbatch.errors import DataError


def two_squares() -> np.ndarray:
    labels = np.zeros((20, 30), np.uint16)
    labels[4:16, 4:14], labels[4:16, 14:26] = 7, 9
    return labels


@pytest.mark.parametrize("width", [1, 2, 3])
def test_the_boundary_is_as_wide_as_stated_and_parts_objects_that_touch(width):
    classes = boundary_classes(two_squares(), width, "here")
    one, other = [1] * (10 - 2 * width), [1] * (12 - 2 * width)
    edge, gap = [2] * width, [0] * 4
    assert classes[10].tolist() == gap + edge + one + edge + edge + other + edge + gap


def test_the_border_of_the_picture_is_no_boundary():
    assert (boundary_classes(np.full((5, 6), 3, np.uint8), 2, "here") == 1).all()


@settings(max_examples=15, deadline=None)
@given(arrays(np.uint16, (12, 13), elements=st.integers(0, 2)), st.integers(1, 2))
def test_a_pixel_is_inner_exactly_where_a_disc_around_it_holds_its_own_number(labels, width):
    try:
        classes = boundary_classes(labels, width, "here")
    except DataError:
        return
    for y, x in np.argwhere(labels > 0):
        near = [
            labels[y + j, x + i] == labels[y, x]
            for j in range(-width, width + 1)
            for i in range(-width, width + 1)
            if j * j + i * i <= width * width and 0 <= y + j < 12 and 0 <= x + i < 13
        ]
        assert classes[y, x] == (1 if all(near) else 2)
    assert ((classes == 0) == (labels == 0)).all()


def test_a_width_that_eats_objects_is_refused_with_their_numbers():
    labels = two_squares()
    labels[18:20, 0:2] = 11
    with pytest.raises(DataError, match=r"here: a boundary of 2 px leaves nothing of 1 of 3 objects \(numbers 11\)"):
        boundary_classes(labels, 2, "here")


def test_given_classes_are_kept_and_other_values_refused():
    classes = np.array([[0, 1, 2]], np.uint8)
    assert class_labels(classes, ObjectLabels(given="classes"), "here").tolist() == [list(CLASS_GREYS)]
    with pytest.raises(DataError, match=r"expected the classes 0 .* got values 5, 6, 7"):
        class_labels(classes + np.uint8(5), ObjectLabels(given="classes"), "here")

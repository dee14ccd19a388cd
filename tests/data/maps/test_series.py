"""Series: the order in which a network is given the layers of a window, real ones and nulls."""

from __future__ import annotations

import numpy as np
import pytest

from inkbatch.data.maps.series import Series, series_of, shuffled_order

HOW = {"segment": "page", "seed": 0}


def test_both_directions_and_both_nulls_make_five_series():
    found = series_of("both", ("shuffled", "repeated"))
    assert [one.name for one in found] == ["forward", "reversed", "forward-shuffled", "reversed-shuffled", "repeated"]
    assert [one.name for one in series_of("reversed", ("repeated", "repeated"))] == ["reversed", "repeated"]
    assert [one.name for one in series_of("forward", ())] == ["forward"]


def test_orders_of_a_window_are_what_their_names_say():
    assert Series().order(5, **HOW).tolist() == [0, 1, 2, 3, 4]
    assert Series("reversed").order(5, **HOW).tolist() == [4, 3, 2, 1, 0]
    assert Series(null="repeated").order(5, **HOW).tolist() == [2] * 5
    there, back = (Series(direction, "shuffled").order(26, **HOW) for direction in ("forward", "reversed"))
    assert there.tolist() == back[::-1].tolist()
    assert sorted(there) == list(range(26))


def test_a_shuffle_follows_from_segment_and_seed_and_keeps_no_layer_near_its_place():
    order = shuffled_order(26, "page", 0)
    assert order.tolist() == shuffled_order(26, "page", 0).tolist()
    assert order.tolist() != shuffled_order(26, "page", 1).tolist()
    assert order.tolist() != shuffled_order(26, "other", 0).tolist()
    assert np.abs(order - np.arange(26)).min() >= 2


def test_a_shuffle_of_today_is_that_of_tomorrow():
    assert shuffled_order(8, "page", 0).tolist() == [3, 7, 5, 6, 1, 2, 0, 4]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_window_of_few_layers_is_shuffled_as_far_as_it_goes(count):
    assert sorted(shuffled_order(count, "page", 0)) == list(range(count))

"""The yardstick tells a better round from chance, and says when no further round should follow."""

from __future__ import annotations

import math

import numpy as np
import pytest

from inkbatch.data.maps.bootstrap import Difference
from inkbatch.data.maps.scoring import ScoreHistogram
from inkbatch.data.maps.yardstick import Measured, difference, stopped_because, verdict_of
from inkbatch.errors import DataError


def measured(noise, blocks=24, seed=0, ink=True):
    """A map on noisy blocks, the same ink for every noise."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(blocks):
        labels = (rng.random((16, 16)) < 0.3) & ink
        block = ScoreHistogram()
        rough = rng.standard_normal(labels.shape)
        block.add(np.clip(0.3 + 0.4 * labels + noise * rough, 0, 1).astype(np.float16), labels, np.ones_like(labels))
        found.append(block)
    return Measured(0.5, found)


def test_a_clearly_better_map_is_better_and_the_reverse_worse():
    good, poor = measured(0.1), measured(0.4)
    for score, found in difference(good, poor, 200, 0.95, 0).items():
        assert verdict_of(found) == "better", score
    assert verdict_of(difference(poor, good, 200, 0.95, 0)["f05"]) == "worse"


def test_equal_maps_show_no_difference():
    found = difference(measured(0.2), measured(0.2), 200, 0.95, 0)
    assert verdict_of(found["auc"]) == "no difference that can be shown"
    assert verdict_of(None) == "first"
    assert verdict_of(Difference(1, 1, math.nan, math.nan, 0.5)) == "no difference that can be shown"


def test_a_yardstick_of_one_block_or_without_ink_is_refused():
    for few in (measured(0.1, blocks=1), measured(0.1, ink=False)):
        with pytest.raises(DataError, match="expected ink, and at least two blocks"):
            difference(few, few, 200, 0.95, 0)


@pytest.mark.parametrize(
    ("verdicts", "patience", "stops"),
    [
        (["first"], 1, False),
        (["first", "better"], 1, False),
        (["first", "worse"], 1, True),
        (["first", "worse"], 2, False),
        (["first", "better", "worse", "no difference that can be shown"], 2, True),
        (["first", "worse", "better", "worse"], 2, False),
    ],
)
def test_rounds_stop_after_so_many_in_a_row_that_are_not_better(verdicts, patience, stops):
    assert (stopped_because(verdicts, patience) is not None) == stops

"""Proposals go where networks disagree about legible ink far from labels, and their first labels leave doubt out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from inkbatch.data.maps.out_of_fold import OutOfFold
from inkbatch.data.maps.proposals import Candidate, ProposalRules, distances, first_label, look_at, ranked
from inkbatch.geometry import Box

RULES = ProposalRules(region_px=32, min_area_px=10)
BOX = Box(0, 0, 32, 32)
PAPYRUS = np.ones((32, 32), bool)


def map_of(mean, spread=0.0, networks=3):
    mean = np.asarray(mean, np.float32)
    return OutOfFold(mean, np.full(mean.shape, spread, np.float32), np.full(mean.shape, networks, np.uint8))


def letter(value=0.9, ground=0.1):
    mean = np.full((32, 32), ground, np.float32)
    mean[8:24, 12:16] = value
    return mean


def test_a_region_scores_by_disagreement_legibility_and_distance():
    agreed, disputed = (look_at("s", BOX, map_of(letter(), spread), PAPYRUS, RULES) for spread in (0.05, 0.2))
    assert disputed.disagreement == pytest.approx(0.4)
    assert disputed.score(32) > agreed.score(32) > 0
    near = Candidate("s", BOX, disputed.disagreement, disputed.legibility, 32)
    assert near.score(32) == pytest.approx(disputed.score(32) / 2)


def test_a_smear_is_less_legible_than_a_stroke_and_bare_ground_not_at_all():
    stroke, smear, bare = (
        look_at("s", BOX, map_of(mean, 0.2), PAPYRUS, RULES).legibility
        for mean in (letter(), letter(ground=0.5), letter(value=0.2))
    )
    assert stroke > smear > bare == 0


def test_the_budget_of_a_person_bounds_the_list_and_zero_is_never_proposed():
    many = [Candidate("s", Box(0, x, 32, x + 32), 0.1 + x / 1000, 1.0) for x in range(0, 320, 32)]
    nothing = Candidate("s", Box(64, 0, 96, 32), 0.0, 1.0)
    found = ranked([*many, nothing], ProposalRules(regions=4, region_px=32))
    assert [one.box.x0 for one in found] == [288, 256, 224, 192]
    assert len(ranked([*many, nothing], ProposalRules(regions=4, minutes=11, region_px=32))) == 2
    assert len(ranked([*many, nothing], ProposalRules(regions=40, region_px=32))) == 10


def test_distance_is_that_to_the_nearest_labelled_region():
    boxes = [Box(0, 0, 10, 10), Box(0, 30, 10, 40)]
    assert distances(boxes, [Box(0, 10, 10, 20), Box(50, 50, 60, 60)]) == [10, 20]
    assert distances(boxes, []) == [math.inf, math.inf]


def test_a_first_label_ignores_the_band_specks_cut_components_and_what_no_network_may_say():
    mean = np.full((32, 32), 0.1, np.float32)
    mean[8:24, 12:16] = 0.9  # a stroke
    mean[8:24, 16] = 0.5  # its uncertain edge
    mean[4:6, 4:6] = 0.9  # a speck
    mean[20:32, 24:28] = 0.9  # goes on beyond the region
    found = map_of(mean)
    found.networks[0, :] = 0
    ink, ignored = first_label(found, PAPYRUS, RULES)
    assert np.count_nonzero(ink) == 16 * 4
    assert ink[8:24, 12:16].all()
    wanted = np.zeros((32, 32), bool)
    wanted[8:24, 16] = wanted[4:6, 4:6] = wanted[20:32, 24:28] = wanted[0] = True
    np.testing.assert_array_equal(ignored, wanted)


def test_thresholds_that_leave_no_band_are_refused():
    with pytest.raises(ValidationError, match="expected low < high"):
        ProposalRules(low=0.7, high=0.7)

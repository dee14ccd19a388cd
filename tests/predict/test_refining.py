"""Refinement tile by tile, with a network whose right answer is known: it hands back the object at the point."""

import numpy as np
import pytest

from inkbatch.data.instances.ascent import Evidence
from inkbatch.data.instances.proposals import Proposal, first_pass_of, limits_of, proposed
from inkbatch.data.instances.selection import Choice, FirstPassTile, Instance, Larger, Rejection, from_region
from inkbatch.data.instances.settings import ProposalRules, RefinementRules, SelectionRules
from inkbatch.data.labels.components import label
from inkbatch.data.synthetic.grains import GrainConfig, make_section
from inkbatch.geometry import Box
from inkbatch.predict import refining
from inkbatch.predict.refining import cells_of, refine
from inkbatch.testing.oracles import Oracle, numbered

RULES = ProposalRules(min_area=20, cluster=6)
SECTION = make_section(GrainConfig(shape_yx=(150, 170), radius_px=(8, 16), seed=3), 0)


def maps_of(instances):
    inside = (instances > 0).astype(np.float32)
    edges = np.zeros_like(inside)
    edges[:, 1:][(instances[:, 1:] != instances[:, :-1])] = 1
    edges[1:][(instances[1:] != instances[:-1])] = 1
    edges *= inside
    return np.stack([1 - inside, inside - edges, edges])


def refined(instances, cell_px, halo_px, oracle=None, edge=0):
    values = maps_of(instances)
    limits = limits_of(RULES, None)
    joined, regions = first_pass_of(values, limits)
    choice = Choice.of(SelectionRules(edge=edge, parts=100), limits.min_px, None)
    rules = RefinementRules(cell_px=cell_px, halo_px=halo_px)
    shape = instances.shape
    whole = FirstPassTile(Box(0, 0, *shape), shape, Evidence.of(values), regions)
    return refine(oracle or Oracle(), numbered(instances), whole, proposed(joined, limits), choice, rules)


def as_set(answers):
    return {(one.box, one.mask.tobytes()) for one in answers if isinstance(one, Instance)}


@pytest.fixture(scope="module")
def whole():
    return refined(SECTION.instances, 512, 0)


def test_objects_across_seams_are_whole(whole):
    truth = label(SECTION.instances > 0, 4)
    assert truth.areas.size > 1
    expected = {int(n) for n in np.unique(SECTION.instances) if n}
    found = {int(np.median(SECTION.instances[one.box.slices][one.mask])) for one in whole if isinstance(one, Instance)}
    assert len(found) > 0.8 * len(expected)
    for one in (one for one in whole if isinstance(one, Instance)):
        values = SECTION.instances[one.box.slices]
        number = values[one.mask][0]
        assert one.area_px == np.count_nonzero(SECTION.instances == number)


@pytest.mark.parametrize("cell_px", [32, 40, 96])
def test_cells_change_nothing_where_the_halo_holds_every_object(whole, cell_px):
    assert as_set(refined(SECTION.instances, cell_px, 64)) == as_set(whole)


def test_two_more_rows_change_nothing_above_them(whole):
    taller = np.pad(SECTION.instances, ((0, 2), (0, 0)))
    found, before = as_set(refined(taller, 32, 64)), as_set(whole)
    assert {one for one in found if one[0].y1 < 140} == {one for one in before if one[0].y1 < 140}


def test_an_object_larger_than_its_tile_is_handed_to_the_first_pass():
    instances = np.zeros((120, 120), np.uint16)
    instances[10:110, 10:110] = 1
    answers = refined(instances, 32, 16)
    assert answers
    assert all(isinstance(one, Larger) for one in answers)
    values = maps_of(instances)
    _, regions = first_pass_of(values, limits_of(RULES, None))
    taken = from_region(answers[0].proposal, regions)
    assert isinstance(taken, Instance)
    assert np.isnan(taken.score)
    assert taken.box == Box(10, 10, 110, 110)  # with its boundary


def test_a_tile_at_the_border_is_filled_up_and_not_moved():
    oracle = Oracle()
    refined(SECTION.instances, 64, 32, oracle)
    assert set(oracle.tiles) == {(128, 128, 3)}
    assert len(oracle.tiles) <= 9  # each cell with proposals once


def test_a_tile_of_many_prompts_holds_few_masks_at_a_time(whole, monkeypatch):
    class Counting(Oracle):
        asked = 0

        def masks(self, features, points_yx, boxes=None):
            self.asked = max(self.asked, len(points_yx))
            return super().masks(features, points_yx, boxes)

    monkeypatch.setattr(refining, "HELD", 3)
    oracle = Counting()
    assert as_set(refined(SECTION.instances, 512, 0, oracle)) == as_set(whole)
    assert oracle.asked == 3


def test_every_proposal_gets_one_answer():
    values = maps_of(SECTION.instances)
    limits = limits_of(RULES, None)
    asked = proposed(first_pass_of(values, limits)[0], limits)
    answers = refined(SECTION.instances, 32, 64, edge=4)
    assert len(answers) == len(asked)
    assert {one.reason for one in answers if isinstance(one, Rejection)} >= {"edge"}


def test_a_cell_holds_the_points_from_its_corner_on():
    at = [Proposal((31.4, 0.0), Box(0, 0, 1, 1), 1, "region"), Proposal((31.6, 31.0), Box(0, 0, 1, 1), 1, "region")]
    assert list(cells_of(at, 32)) == [Box(0, 0, 32, 32), Box(32, 0, 64, 32)]


def test_a_proposal_outside_of_every_region_is_rejected():
    regions = np.full((4, 4), -1, np.int64)
    found = from_region(Proposal((1.0, 1.0), Box(0, 0, 2, 2), 4, "component"), regions)
    assert isinstance(found, Rejection)
    assert found.reason == "outside"

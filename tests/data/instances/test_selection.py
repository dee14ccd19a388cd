"""The published rules on a network's masks: which one is chosen, why others are rejected, who wins an overlap."""

from __future__ import annotations

import numpy as np
import pytest

from inkbatch.data.instances.ascent import Evidence
from inkbatch.data.instances.overlaps import resolve
from inkbatch.data.instances.proposals import Proposal
from inkbatch.data.instances.selection import Choice, FirstPassTile, Instance, Kept, Rejection, choose
from inkbatch.data.instances.settings import RefinementRules, SelectionRules, area_px, length_px
from inkbatch.errors import ConfigError
from inkbatch.geometry import Box

SHAPE = (100, 120)
CHOICE = Choice.of(SelectionRules(part_area=4, parts=3), 20, None)


def disc(y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.hypot(rows - y, columns - x) < radius


def tile(shown=None, regions=None) -> FirstPassTile:
    probability = (disc(50, 60, 40) if shown is None else shown).astype(np.float32)
    if regions is None:
        regions = np.where(probability > 0, 0, -1)
    return FirstPassTile(Box(0, 0, *SHAPE), SHAPE, Evidence.of(probability), regions)


def proposal(y=50.0, x=60.0) -> Proposal:
    return Proposal((y, x), Box(40, 50, 60, 70), 300, "component")


PUBLISHED = RefinementRules(masks="surest")
DOUBTING = RefinementRules(doubt=2)


def chosen(masks, scores, first_pass=None, rules=PUBLISHED):
    return choose(proposal(), np.stack(masks), np.array(scores, np.float32), first_pass or tile(), CHOICE, rules)


def test_the_mask_of_the_best_score_is_chosen_unless_it_covers_half_of_the_picture():
    found = chosen([disc(50, 60, 10), disc(50, 60, 14), np.ones(SHAPE, bool)], [0.7, 0.8, 0.9])
    assert found.area_px == disc(50, 60, 14).sum()
    assert found.score == pytest.approx(0.8)
    assert found.box == Box(37, 47, 64, 74)


def test_the_first_pass_tells_which_of_a_part_an_object_and_several_is_meant():
    parts = [disc(50, 60, 10), disc(50, 60, 20), disc(50, 60, 35)]
    first_pass = tile(disc(50, 60, 21))
    rules = RefinementRules()
    assert chosen(parts, [0.9, 0.8, 0.85], first_pass, rules).area_px == disc(50, 60, 20).sum()
    assert chosen(parts, [0.9, 0.8, 0.85], first_pass).area_px == disc(50, 60, 10).sum()
    assert chosen(parts, [0.9, 0.1, 0.85], first_pass, rules).area_px == disc(50, 60, 35).sum(), "nor by it alone"
    assert chosen(parts, [0.9, 0.8, 0.85], tile(regions=np.full(SHAPE, -1)), rules).area_px == disc(50, 60, 10).sum()


def test_a_mask_is_taken_where_it_is_better_for_sure_and_else_the_first_pass_stays():
    """A mask of IoU 0.64 with the region: better for sure if the network doubts by less than half of 0.36."""
    first_pass, mask = tile(disc(50, 60, 25)), disc(50, 60, 20)
    differs = 1 - mask.sum() / disc(50, 60, 25).sum()
    for score, taken in ((1 - differs / 2 - 0.01, Kept), (1 - differs / 2 + 0.01, Instance)):
        assert isinstance(chosen([mask], [score], first_pass, DOUBTING), taken)
    assert isinstance(chosen([mask], [0.1], first_pass, RefinementRules()), Instance)
    assert isinstance(chosen([disc(50, 60, 25)], [1.0], first_pass, DOUBTING), Instance)
    assert isinstance(chosen([disc(50, 60, 2)], [0.5], first_pass, DOUBTING), Rejection)


@pytest.mark.parametrize("seed", range(3))
def test_a_mask_that_is_taken_is_never_further_from_the_truth_if_the_network_is_right(seed):
    rng, taken = np.random.default_rng(seed), 0
    for _ in range(40):
        truth, mask, region = (disc(*rng.normal((50, 60), off), rng.normal(18, off)) for off in (1, 1, 4))
        right = iou(mask, truth)
        if isinstance(chosen([mask], [right], tile(region), DOUBTING), Instance):
            taken += 1
            assert right >= iou(region, truth) - 1e-6
    assert 3 < taken < 37


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_of_a_mask_in_pieces_the_largest_stays():
    found = chosen([disc(50, 60, 10) | disc(20, 20, 4)], [0.5])
    assert found.area_px == disc(50, 60, 10).sum()


many = np.where(disc(50, 60, 40), (np.arange(SHAPE[1]) // 5)[None], -1)


@pytest.mark.parametrize(
    ("masks", "first_pass", "reason"),
    [
        ([np.zeros(SHAPE, bool)], None, "empty"),
        ([np.ones(SHAPE, bool)], None, "too large"),
        ([disc(50, 60, 2)], None, "small"),
        ([disc(12, 60, 10)], None, "edge"),
        ([disc(50, 60, 12)], tile(regions=many), "many parts"),
        ([disc(50, 60, 12)], tile(disc(50, 60, 6)), "background"),
    ],
)
def test_a_rejection_names_its_rule(masks, first_pass, reason):
    found = chosen(masks, [0.9], first_pass)
    assert isinstance(found, Rejection)
    assert found.reason == reason


def instance(mask: np.ndarray, score: float, at: Proposal) -> Instance:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    return Instance(box, mask[box.slices], score, at)


def resolved(masks, scores, shown=None):
    shown = np.ones(SHAPE, bool) if shown is None else shown
    found = [
        instance(mask, score, proposal(float(i))) for i, (mask, score) in enumerate(zip(masks, scores, strict=True))
    ]
    return resolve(found, [shown[one.box.slices] for one in found], CHOICE)


def test_three_views_of_one_object_are_one_instance_and_two_merged_proposals():
    found = resolved([disc(50, 60, 15), disc(50, 60, 16), disc(50, 61, 18)], [0.9, 0.9, 0.9])
    assert [one.area_px for one in found.instances] == [disc(50, 60, 16).sum()]
    assert len(found.merged) == 2
    assert not found.rejected


def test_what_is_left_of_a_loser_survives_if_it_is_large_and_shows_object():
    masks = [disc(50, 40, 15), disc(50, 40, 15) | disc(50, 75, 12)]
    found = resolved([masks[0], disc(50, 41, 15), masks[1]], [0.9, 0.8, 0.3])
    assert len(found.instances) == 2
    assert len(found.merged) == 1
    bare = resolved([masks[0], disc(50, 41, 15), masks[1]], [0.9, 0.8, 0.3], shown=disc(50, 40, 18))
    assert len(bare.instances) == 1


def test_no_pixel_belongs_to_two_instances():
    found = resolved([disc(50, 40, 15), disc(50, 65, 15)], [0.9, 0.8])
    count = np.zeros(SHAPE, int)
    for one in found.instances:
        count[one.box.slices] += one.mask
    assert len(found.instances) == 2
    assert count.max() == 1


def test_lengths_and_areas_are_in_pixels_or_micrometres():
    assert length_px(12, None) == length_px("12px", None) == length_px("24 um", 2.0) == 12
    assert area_px("800um2", 4.0) == area_px(50, None) == 50
    with pytest.raises(ConfigError, match="needs the edge of a pixel"):
        length_px("24um", None)
    with pytest.raises(ConfigError, match="expected pixels"):
        SelectionRules.checked({"edge": "4 inches"}, "instances")

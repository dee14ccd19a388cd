"""The first pass: basins, regions and proposals are those of the whole picture, however it is cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from inkbatch.data.instances.ascent import Evidence, first_pass, heights, object_domain
from inkbatch.data.instances.joining import join
from inkbatch.data.instances.proposals import first_pass_of, limits_of, propose, proposed
from inkbatch.data.instances.settings import ProposalRules
from inkbatch.data.instances.unit_facts import BasinFacts, facts_of
from inkbatch.errors import CorruptDataError, DataError
from inkbatch.geometry import Box, cut
from inkbatch.io.store.location import Location
from inkbatch.testing.instances import grain_map, parted_map, three_classes

RULES = ProposalRules(reach=16, boundary_min=20, min_area=20)
LIMITS = limits_of(RULES, None)


def facts_and_labels(values, unit_px, limits=LIMITS):
    whole = Box(0, 0, *values.shape[-2:])
    for box in cut(whole.shape, unit_px, unit_px):
        read = box.grow(limits.halo_px).intersect(whole)
        sides = (box.y0 > 0, box.y1 < whole.y1, box.x0 > 0, box.x1 < whole.x1)
        found = first_pass(Evidence.of(values[(..., *read.slices)]), (box.y0, box.x0), box.within(read), sides, limits)
        yield box, facts_of(found, box, Evidence.of(values[(..., *box.slices)])), found.labels


def cut_first_pass(values, unit_px):
    parts = list(facts_and_labels(values, unit_px))
    joined = join([facts for _, facts, _ in parts], LIMITS.neck)
    regions = np.full(values.shape[-2:], -1)
    for box, _, labels in parts:
        regions[box.slices] = joined.region_of[box.y0, box.x0][labels]
    return joined, regions


def large(joined, regions):
    """Regions that are large enough to be proposed, numbered anew, as a picture of labels."""
    kept = np.flatnonzero(joined.regions.core >= LIMITS.min_px)
    numbers = np.full(len(joined.regions) + 1, 0)
    numbers[kept] = np.arange(1, len(kept) + 1)
    numbers[-1] = 0
    return numbers[regions], kept


MAPS = {
    "two classes": grain_map(),
    "large and flat": grain_map(grains=12, sizes=(20, 45)),
    "noise": np.random.default_rng(3).random((90, 100), dtype=np.float32),
    "all object": np.ones((70, 80), np.float32),
    "nothing": np.zeros((70, 80), np.float32),
}
MAPS["three classes"] = three_classes(large(*first_pass_of(MAPS["two classes"], LIMITS))[0])
MAPS["wide boundaries"] = parted_map((120, 140), 120)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("unit_px", [32, 50])
def test_regions_do_not_depend_on_how_a_picture_is_cut(name, unit_px):
    values = MAPS[name]
    whole, regions = first_pass_of(values, LIMITS)
    parts, cut_regions = cut_first_pass(values, unit_px)
    expected, kept = large(whole, regions)
    got, also_kept = large(parts, cut_regions)
    np.testing.assert_array_equal(got, expected)
    for field in ("area", "core", "centroid", "extent", "first", "object", "background", "top"):
        np.testing.assert_array_equal(
            getattr(parts.regions, field)[also_kept], getattr(whole.regions, field)[kept], err_msg=field
        )


def test_two_rows_more_at_the_bottom_change_nothing_out_of_their_reach():
    values = MAPS["three classes"]
    higher = np.concatenate([values, np.tile([[[1.0]], [[0.0]], [[0.0]]], (1, 2, values.shape[2]))], axis=1)
    higher = higher.astype(np.float32)
    (joined, regions), (_, more) = first_pass_of(values, LIMITS), first_pass_of(higher, LIMITS)
    far = joined.regions.extent[:, 2] < values.shape[1] - LIMITS.halo_px
    assert far.sum() > 10
    for number in np.flatnonzero(far):
        same = more[: values.shape[1]][regions == number]
        assert len(np.unique(same)) == 1
        assert np.count_nonzero(more == same[0]) == np.count_nonzero(regions == number)


def test_areas_are_those_of_the_pixels_and_components_those_of_scipy():
    values = MAPS["two classes"]
    joined, regions = first_pass_of(values, LIMITS)
    np.testing.assert_array_equal(np.bincount(regions[regions >= 0]), joined.regions.area)
    parts, _ = ndimage.label(values >= 0.5)
    sizes = np.bincount(parts.ravel())[1:]
    assert sorted(joined.components.area) == sorted(sizes[sizes >= LIMITS.min_px])
    for number in range(len(joined.regions)):
        assert ndimage.label(regions == number)[1] == 1, "a region is one piece"


def test_heights_are_sums_of_squared_distances_up_to_the_reach():
    domain = MAPS["two classes"] >= 0.5
    squared = np.minimum(np.rint(ndimage.distance_transform_edt(domain) ** 2), 5**2)
    expected = np.where(domain, ndimage.convolve(squared, np.ones((5, 5)), mode="constant"), 0)
    np.testing.assert_array_equal(heights(domain, 5), expected)


def test_two_discs_that_touch_are_two_regions_and_two_that_are_one_stay_one():
    y, x = np.mgrid[:60, :100]
    apart = (np.hypot(y - 30, x - 32) < 16) | (np.hypot(y - 30, x - 62) < 16)
    close = (np.hypot(y - 30, x - 45) < 16) | (np.hypot(y - 30, x - 49) < 16)
    assert len(first_pass_of(apart.astype(np.float32), LIMITS)[0].regions) == 2
    assert len(first_pass_of(close.astype(np.float32), LIMITS)[0].regions) == 1


def grown_by_hand(values, limits):
    """Each pixel of boundary takes what the first of its neighbours has that was reached a step before."""
    evidence = Evidence.of(values)
    found = first_pass_of(values, replace(limits, grow_px=0))[1]
    domain = object_domain(evidence, limits)
    found[domain & (found < 0)] = -2  # components too small to be proposed are as near as others
    for _ in range(limits.grow_px):
        before = np.pad(found, 1, constant_values=-1)
        for near in (before[:-2, 1:-1], before[1:-1, :-2], before[1:-1, 2:], before[2:, 1:-1]):
            free = (found == -1) & ~domain & (evidence.boundary >= 0.5)
            found[free] = near[free]
    return np.maximum(found, -1)


@pytest.mark.parametrize("grow", [1, 2, 5])
@pytest.mark.parametrize("name", ["three classes", "wide boundaries"])
def test_objects_grow_into_boundaries_alone_at_most_so_far_and_the_nearest_wins(name, grow):
    values, limits = MAPS[name], replace(LIMITS, grow_px=grow)
    joined, regions = first_pass_of(values, limits)
    expected = grown_by_hand(values, limits)
    pairs = len(np.unique(np.stack([regions.ravel(), expected.ravel()]), axis=1).T)
    assert pairs == len(np.unique(regions)) == len(np.unique(expected)), "regions are the same sets of pixels"
    new = joined.regions.area - joined.regions.core
    assert new.sum() > 200
    assert np.count_nonzero(regions >= 0) == joined.regions.core.sum() + new.sum()
    for number in range(len(joined.regions)):
        assert ndimage.label(regions == number)[1] == 1, "a grown region is one piece"


def test_growing_joins_nothing_and_keeps_what_is_proposed():
    values = MAPS["wide boundaries"]
    plain, grown = (first_pass_of(values, replace(LIMITS, grow_px=grow))[0] for grow in (0, 3))
    for found in (plain, grown):
        assert (found.regions.area > found.regions.core).any() == (found is grown)
    for part in ("regions", "components"):
        np.testing.assert_array_equal(*(np.sort(getattr(one, part).core) for one in (plain, grown)))
    assert len(proposed(plain, LIMITS)) == len(proposed(grown, LIMITS)) > 20


def test_boxes_and_points_of_proposals_are_those_of_grown_objects():
    values = np.zeros((3, 40, 60), np.float32)
    values[0] = 1
    values[:, 10:30, 10:41] = np.array([0, 0, 1], np.float32)[:, None, None]
    values[:, 12:28, 12:38] = np.array([0, 1, 0], np.float32)[:, None, None]
    bare, whole = (propose(values, RULES.model_copy(update={"grow": grow})) for grow in (0, 3))
    assert {(one.box, one.area_px) for one in bare} == {(Box(12, 12, 28, 38), 16 * 26)}
    assert {(one.box, one.area_px) for one in whole} == {(Box(10, 10, 30, 41), 20 * 31 - 8)}, (
        "without corners that lie further away"
    )
    assert {one.point_yx[0] for one in whole} == {19.5}


def test_growth_is_stated_in_either_unit_or_follows_the_dataset_and_maps_of_two_classes_have_none():
    assert limits_of(ProposalRules(), None).grow_px == 2
    assert limits_of(ProposalRules(), None, boundary_px=5).grow_px == 5
    assert limits_of(ProposalRules(grow="12um"), 4.0, boundary_px=5).grow_px == 3
    assert limits_of(ProposalRules(grow=0), None, boundary_px=5).halo_px == limits_of(ProposalRules(), None).halo_px - 2
    regions = first_pass_of(MAPS["two classes"], LIMITS)[0].regions
    np.testing.assert_array_equal(regions.area, regions.core)


def test_specks_of_boundary_part_nothing_and_longer_ones_do():
    values = np.zeros((3, 60, 60), np.float32)
    values[0] = 1
    values[:, 10:50, 10:50] = np.array([0, 1, 0], np.float32)[:, None, None]
    speck = values.copy()
    speck[:, 20:24, 30:34] = np.array([0, 0, 1], np.float32)[:, None, None]
    parted = values.copy()
    parted[:, 10:50, 30:32] = np.array([0, 0, 1], np.float32)[:, None, None]
    assert len(first_pass_of(speck, LIMITS)[0].components) == 1
    assert first_pass_of(speck, LIMITS)[0].regions.area.sum() == 1600
    assert len(first_pass_of(parted, LIMITS)[0].components) == 2


def test_proposals_follow_the_two_rules_in_one_order():
    values = np.zeros((80, 120), np.float32)
    y, x = np.mgrid[:80, :120]
    values[np.hypot(y - 20, x - 20) < 9] = 1
    ring = np.hypot(y - 40, x - 80)
    values[(ring < 30) & (ring > 24)] = 1  # its centroid lies outside of it
    values[70:73, 5:8] = 1  # smaller than min_area
    found = propose(values, RULES)
    assert [one.rule for one in found if one.pixel == (20, 20)] == ["component", "region"]
    assert all(one.rule == "region" for one in found if one.box.x0 > 40)
    assert [one.pixel for one in found] == sorted(one.pixel for one in found)
    assert found == propose(values, RULES)
    disc = found[0]
    assert (disc.box, disc.area_px) == (Box(12, 12, 29, 29), int((np.hypot(y - 20, x - 20) < 9).sum()))


def test_centroids_closer_than_the_stated_distance_are_one_proposal_at_their_mean():
    values = np.zeros((40, 90), np.float32)
    for left in (5, 20, 60):
        values[10:20, left : left + 10] = 1
    near = [one for one in propose(values, ProposalRules(cluster=16)) if one.rule == "region"]
    assert [(one.point_yx, one.parts) for one in near] == [((14.5, 17.0), 2), ((14.5, 64.5), 1)]
    assert len([one for one in propose(values, ProposalRules(cluster=0)) if one.rule == "region"]) == 3


def test_facts_are_stored_to_the_byte_and_damaged_ones_are_named(tmp_path):
    _, facts, _ = next(facts_and_labels(MAPS["two classes"], 50))
    for name in ("a.npz", "b.npz"):
        facts.store(Location.parse(tmp_path) / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    np.testing.assert_array_equal(BasinFacts.read(Location.parse(tmp_path) / "a.npz").meetings, facts.meetings)
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:200])
    with pytest.raises(CorruptDataError, match="damaged"):
        BasinFacts.read(Location.parse(tmp_path) / "a.npz")


def test_a_unit_without_its_neighbours_is_refused():
    parts = [facts for _, facts, _ in facts_and_labels(MAPS["two classes"], 32)]
    with pytest.raises(DataError, match="missing"):
        join(parts[:3] + parts[4:], LIMITS.neck)

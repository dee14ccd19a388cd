"""Components and cleaning: whatever the unit, the result is that of the whole surface."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from inkbatch.data.labels.cleaning import CleaningRules, clean_unit, dilated, disc, threshold_ink
from inkbatch.data.labels.component_facts import UnitFacts, facts_of
from inkbatch.data.labels.components import border_pixels, unit_components
from inkbatch.data.labels.ignore import IgnoreRules, uncertain_pixels
from inkbatch.data.labels.seams import Merged, merge
from inkbatch.errors import CorruptDataError, DataError
from inkbatch.geometry import Box, cut

EIGHT = np.ones((3, 3), int)


def at_most_units(mask, unit_px, count=200) -> int:
    """Enlarge units of which a mask has too many for a test: single pixels are units of small masks only."""
    return max(unit_px, math.ceil((mask.size / count) ** 0.5))


def components_of(mask, unit_px, *, border=None, min_area_px=0, holes=True) -> list:
    border = border_pixels(Box(0, 0, *mask.shape), mask.shape) if border is None else border
    return [
        unit_components(
            mask[box.slices], box, mask.shape, border=border[box.slices], min_area_px=min_area_px, holes=holes
        )
        for box in cut(mask.shape, unit_px, unit_px)
    ]


def merged_of(mask, unit_px, **options) -> Merged:
    min_area_px = options.get("min_area_px", 0)
    facts = [facts_of(parts) for parts in components_of(mask, unit_px, **options)]
    return merge(facts, min_area_px=min_area_px)


def cleaned_by_units(mask, unit_px, *, border=None, min_area_px=0, fill_holes=True, max_hole_px=None):
    """Labels and ignored pixels, with the facts sent through JSON as the step does."""
    units = components_of(mask, unit_px, border=border, min_area_px=min_area_px, holes=fill_holes)
    facts = [UnitFacts.model_validate_json(facts_of(parts, listed=3).model_dump_json()) for parts in units]
    merged = merge(facts[::-1], min_area_px=min_area_px, fill_holes=fill_holes, max_hole_px=max_hole_px)
    ink, ignored = np.zeros(mask.shape, bool), np.zeros(mask.shape, bool)
    for parts in units:
        box = parts.box
        ink[box.slices], ignored[box.slices] = clean_unit(parts, merged.decisions[box.y0, box.x0], max_hole_px)
    return ink, ignored, merged


def cleaned_whole(mask, *, border=None, min_area_px=0, fill_holes=True, max_hole_px=None):
    """The definition, on the whole array with scipy."""
    border = border_pixels(Box(0, 0, *mask.shape), mask.shape) if border is None else border
    labels, count = ndimage.label(mask, EIGHT)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    kept = np.isin(labels, [n for n in range(1, count + 1) if areas[n] >= min_area_px])
    ignored = np.isin(labels, np.unique(labels[border & kept])) & kept
    ink, cut_off = kept.copy(), ignored.copy()
    if fill_holes:
        holes, count = ndimage.label(~kept)
        for number in range(1, count + 1):
            hole = holes == number
            at_edge = hole[0].any() or hole[-1].any() or hole[:, 0].any() or hole[:, -1].any()
            if at_edge or (max_hole_px is not None and hole.sum() > max_hole_px):
                continue
            ink |= hole
            if (ndimage.binary_dilation(hole) & cut_off).any():
                ignored |= hole
    return ink, ignored, areas


@st.composite
def frames(draw):
    """Rectangles within rectangles, ink and bare in turn: holes, islands in them, holes in those."""
    shape = draw(st.tuples(st.integers(6, 34), st.integers(6, 34)))
    mask = np.zeros(shape, bool)
    for _ in range(draw(st.integers(1, 3))):
        y0, x0 = draw(st.integers(0, shape[0] // 2)), draw(st.integers(0, shape[1] // 2))
        y1, x1 = draw(st.integers(y0, shape[0])), draw(st.integers(x0, shape[1]))
        while y0 < y1 and x0 < x1:
            mask[y0:y1, x0:x1] ^= True
            step = draw(st.integers(1, 3))
            y0, x0, y1, x1 = y0 + step, x0 + step, y1 - step, x1 - step
    if draw(st.booleans()):
        mask ^= True
    return mask


@st.composite
def noises(draw):
    shape = draw(st.tuples(st.integers(1, 34), st.integers(1, 34)))
    density = draw(st.sampled_from([0.3, 0.5, 0.6, 0.75, 0.9]))
    noise = np.random.default_rng(draw(st.integers(0, 2**32))).random(shape)
    blur = draw(st.sampled_from([0, 0, 1, 2]))
    if blur:
        noise = ndimage.uniform_filter(noise, 2 * blur + 1)
    return noise <= np.quantile(noise, density)


@settings(max_examples=300, deadline=None)
@given(
    mask=st.one_of(frames(), frames(), noises()),
    unit_px=st.integers(1, 40),
    min_area_px=st.one_of(st.integers(0, 30), st.integers(20, 300)),
    fill_holes=st.sampled_from([True, True, False]),
    max_hole_px=st.one_of(st.none(), st.integers(1, 20), st.integers(1, 400)),
    seed=st.one_of(st.none(), st.integers(0, 99)),
)
def test_cleaning_by_units_equals_cleaning_the_whole(mask, unit_px, min_area_px, fill_holes, max_hole_px, seed):
    border = None if seed is None else np.random.default_rng(seed).random(mask.shape) < 0.05
    options = {"border": border, "min_area_px": min_area_px, "fill_holes": fill_holes, "max_hole_px": max_hole_px}
    ink, ignored, merged = cleaned_by_units(mask, at_most_units(mask, unit_px), **options)
    expected, left_out, areas = cleaned_whole(mask, **options)
    np.testing.assert_array_equal(ink, expected)
    np.testing.assert_array_equal(ignored, left_out)
    large = areas[1:] >= min_area_px
    assert (merged.kept_count, merged.kept_px) == (large.sum(), areas[1:][large].sum())
    assert (merged.removed_count, merged.removed_px) == ((~large).sum(), areas[1:][~large].sum())
    assert sum(merged.histogram) == len(areas) - 1


@settings(max_examples=100, deadline=None)
@given(mask=st.one_of(frames(), noises()), unit_px=st.integers(1, 40))
def test_a_component_that_crosses_seams_is_counted_once(mask, unit_px):
    labels, count = ndimage.label(mask, EIGHT)
    merged = merged_of(mask, at_most_units(mask, unit_px), holes=False)
    expected = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        ys, xs = np.nonzero(labels == number)
        edge = {rows.start, columns.start} & {0} or rows.stop == mask.shape[0] or columns.stop == mask.shape[1]
        box = (rows.start, columns.start, rows.stop, columns.stop)
        expected.append((len(ys), box, (int(ys[0]), int(xs[0])), bool(edge)))
    found = [(c.area, c.box, c.seed, c.touches_border) for c in merged.components]
    assert len(found) == count
    assert sorted(found) == sorted(expected)
    assert [c.area for c in merged.components] == sorted((c.area for c in merged.components), reverse=True)


def test_components_that_meet_only_at_the_corner_of_four_units_are_one():
    mask = np.zeros((8, 8), bool)
    mask[3, 3] = mask[4, 4] = True
    assert merged_of(mask, 4).kept_count == 1
    assert merged_of(mask[:, ::-1], 4).kept_count == 1


def test_facts_grow_with_the_circumference_and_not_with_the_area():
    mask = np.random.default_rng(0).random((256, 256)) < 0.3
    (parts,) = (p for p in components_of(mask, 128, min_area_px=500) if p.box == Box(0, 0, 128, 128))
    facts = facts_of(parts, listed=10)
    assert facts.removed_count > 500
    assert len(facts.ink) + len(facts.bare) <= 2 * 128
    assert len(facts.kept) <= 10


def test_facts_of_a_missing_unit_are_missed():
    facts = [facts_of(parts) for parts in components_of(np.ones((8, 8), bool), 4)]
    with pytest.raises(DataError, match=r"unit at \(0, 4\)"):
        merge([facts[0], *facts[2:]], min_area_px=0)


def test_a_speck_in_a_hole_goes_and_the_hole_is_filled():
    mask = np.zeros((20, 20), bool)
    mask[2:18, 2:18] = True
    mask[5:15, 5:15] = False
    mask[9:11, 9:11] = True
    for unit_px in (20, 10, 7):
        ink, _, merged = cleaned_by_units(mask, unit_px, min_area_px=5)
        np.testing.assert_array_equal(ink, ndimage.binary_fill_holes(mask))
        assert merged.kept_count == merged.removed_count == 1


def crossed_frame(margin: int) -> np.ndarray:
    """A large frame; in it a small ring that crosses the seam at column 20, its hole on one side of the seam."""
    mask = np.zeros((40, 40), bool)
    mask[margin : 40 - margin, margin : 40 - margin] = True
    mask[margin + 2 : 38 - margin, margin + 2 : 38 - margin] = False
    mask[6:16, 6:24] = True
    mask[8:14, 8:14] = False
    return mask


@pytest.mark.parametrize(("max_hole_px", "filled"), [(1_155, False), (1_156, True)])
def test_a_hole_counts_what_was_taken_out_of_it_and_what_that_enclosed(max_hole_px, filled):
    mask = crossed_frame(margin=1)
    options = {"min_area_px": 200, "max_hole_px": max_hole_px}
    ink, _, merged = cleaned_by_units(mask, 20, **options)
    np.testing.assert_array_equal(ink, cleaned_whole(mask, **options)[0])
    assert ink[10, 10] == filled
    assert merged.removed_count == 1


def test_what_a_removed_ring_enclosed_is_ignored_with_the_hole_around_it():
    mask = crossed_frame(margin=0)
    ink, ignored, _ = cleaned_by_units(mask, 20, min_area_px=200)
    assert ink.all()
    assert ignored.all()  # the frame touches the border


def test_a_letter_inside_a_removed_ring_makes_the_hole_around_it_an_ignored_one():
    mask = np.zeros((40, 40), bool)
    mask[1:39, 1:39] = True
    mask[3:37, 3:37] = False
    mask[6:18, 6:18] = mask[10, 18:23] = True  # 44 + 5 px, across the seam
    mask[7:17, 7:17] = False
    mask[8:16, 8:16] = True  # 64 px
    border = np.zeros((40, 40), bool)
    border[12, 12] = True
    options = {"min_area_px": 60, "border": border}
    ink, ignored, _ = cleaned_by_units(mask, 20, **options)
    np.testing.assert_array_equal(ink, ndimage.binary_fill_holes(mask))
    np.testing.assert_array_equal(ignored, cleaned_whole(mask, **options)[1])
    assert ignored[30, 30]
    assert not ignored[1, 1]


def test_ink_at_the_border_of_the_papyrus_touches_a_border():
    papyrus = np.ones((10, 10), bool)
    papyrus[:, 7:] = False
    grown = np.pad(papyrus, 1)
    border = border_pixels(Box(0, 0, 10, 10), (10, 10), grown)
    mask = np.zeros((10, 10), bool)
    mask[2:4, 2:5] = mask[6:8, 4:7] = True
    _, ignored, _ = cleaned_by_units(mask, 4, border=border)
    expected = np.zeros((10, 10), bool)
    expected[6:8, 4:7] = True
    np.testing.assert_array_equal(ignored, expected)


@pytest.mark.parametrize("radius", [1, 2, 5])
def test_dilation_grows_by_a_disc_and_a_halo_of_its_radius_is_enough(radius):
    mask = np.random.default_rng(1).random((40, 50)) < 0.02
    whole = dilated(mask, radius)
    np.testing.assert_array_equal(whole, ndimage.binary_dilation(mask, disc(radius).astype(bool)))
    window = dilated(mask[10 - radius : 20 + radius, 30 - radius :], radius)
    np.testing.assert_array_equal(window[radius:-radius, radius:], whole[10:20, 30:])
    assert disc(1).sum() == 5


def test_the_threshold_is_inclusive_and_inversion_takes_the_rest():
    share = np.array([[0.0, 0.49, 0.5, 1.0]], np.float32)
    assert threshold_ink(share, CleaningRules()).tolist() == [[False, False, True, True]]
    assert threshold_ink(share, CleaningRules(invert=True)).tolist() == [[True, True, False, False]]


def test_uncertain_is_from_low_up_to_below_high():
    share = np.array([[0.2, 0.3, 0.69, 0.7]], np.float32)
    assert uncertain_pixels(share, IgnoreRules(uncertain=(0.3, 0.7))).tolist() == [[False, True, True, False]]
    assert not uncertain_pixels(share, IgnoreRules()).any()


@pytest.mark.parametrize("values", [{"uncertain": (0.7, 0.3)}, {"uncertain": (0.5, 1.5)}, {"border": "left"}])
def test_ignore_rules_that_mean_nothing_are_refused(values):
    with pytest.raises(ValueError, match=r"uncertain|border"):
        IgnoreRules(**values)


def test_holes_are_looked_for_unless_none_is_to_be_filled():
    assert [CleaningRules(max_hole_px=limit).fill_holes for limit in (0, 1, None)] == [False, True, True]


def test_damaged_facts_of_a_unit_are_refused_by_name():
    with pytest.raises(CorruptDataError, match=r"here: damaged facts of a unit: 'box', .* required and not given; run"):
        UnitFacts.stored({}, "here")
    with pytest.raises(CorruptDataError, match="here: damaged facts of a unit: all of it: expected keys with values"):
        UnitFacts.stored(None, "here")

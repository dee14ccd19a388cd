"""Grid, crops and boxes take what they promise, the same ones every time."""

from __future__ import annotations

import numpy as np
import pytest

from inkbatch.data.datasets.sampling import BoxSampling, CropSampling, GridSampling, WholeSampling
from inkbatch.errors import ConfigError, DataError
from inkbatch.testing.datasets import ArraySegment, inked


def test_a_grid_drops_tiles_with_too_little_papyrus_and_touches_the_border():
    papyrus = np.zeros((40, 50), bool)
    papyrus[:, :30] = True
    segment = ArraySegment(inked((40, 50)), papyrus)
    found = GridSampling(stride_px=8, min_papyrus=0.75).candidates(segment, "s", 16)
    expected = [(y, x) for y in (0, 8, 16, 24) for x in (0, 8, 16)]  # x 16:32 has 14 of 16 columns
    assert [tuple(box[:2]) for box in found.boxes.tolist()] == expected
    rows = {box[0] for box in GridSampling(stride_px=7).candidates(segment, "s", 16).boxes.tolist()}
    assert max(rows) == 24


def test_a_grid_without_stride_does_not_overlap():
    found = GridSampling().candidates(ArraySegment(inked((32, 48))), "s", 16)
    assert len(found.boxes) == 6


def test_without_moved_in_tiles_no_two_share_a_pixel():
    segment = ArraySegment(inked((40, 47)))
    found = GridSampling(border="left-out").candidates(segment, "s", 16)
    assert sorted({tuple(box[:2]) for box in found.boxes.tolist()}) == [(0, 0), (0, 16), (16, 0), (16, 16)]
    assert len(GridSampling().candidates(segment, "s", 16).boxes) == 9


def test_a_stride_beyond_the_tile_is_refused():
    with pytest.raises(ConfigError, match="pixels would be left out"):
        GridSampling(stride_px=17).candidates(ArraySegment(inked((32, 32))), "s", 16)


def crops(segment, sampling, seed=0, name="s"):
    found = sampling.candidates(segment, name, 16)
    return found.take(sampling.choose(found, name, seed, "train"))


def test_crops_with_ink_hold_the_share_and_bare_ones_hold_none():
    segment = ArraySegment(inked((100, 100), (20, 20, 45, 50)))
    found = crops(segment, CropSampling(kind="crops", per_segment=12, min_ink=0.3, bare_ratio=0.5, step_px=3))
    ink = found.ink_share
    assert (ink >= 0.3).sum() == 12
    assert (ink == 0).sum() == 6
    assert len(found.boxes) == 18
    assert (found.boxes % 3 == np.array([0, 0, 1, 1])).all()  # origins are multiples of the step, 16 more is 1


def test_chance_follows_seed_and_segment_alone():
    segment = ArraySegment(inked((100, 100), (20, 20, 45, 50)))
    sampling = CropSampling(kind="crops", per_segment=5)
    first = crops(segment, sampling).boxes.tolist()
    assert first == crops(segment, sampling).boxes.tolist()
    assert first != crops(segment, sampling, seed=1).boxes.tolist()
    assert first != crops(segment, sampling, name="other").boxes.tolist()


FROZEN = [[12, 16], [36, 28], [56, 36]]


def test_chance_is_the_same_for_ever():
    """Frozen: another library version or machine must not take other crops."""
    segment = ArraySegment(inked((100, 100), (20, 20, 45, 50)))
    sampling = CropSampling(kind="crops", per_segment=2, bare_ratio=0.5, step_px=4)
    assert crops(segment, sampling).boxes[:, :2].tolist() == FROZEN


def test_fewer_places_than_crops_are_refused_unless_allowed():
    segment = ArraySegment(inked((40, 40), (0, 0, 16, 16)))
    with pytest.raises(DataError, match="accept_fewer"):
        crops(segment, CropSampling(kind="crops", per_segment=10_000))
    found = crops(segment, CropSampling(kind="crops", per_segment=10_000, accept_fewer=True))
    assert 0 < len(found.boxes) < 1000


def test_a_segment_smaller_than_a_crop_is_refused():
    with pytest.raises(DataError, match="got 10 x 40 px"):
        CropSampling(kind="crops", per_segment=1).candidates(ArraySegment(inked((10, 40))), "s", 16)


def test_boxes_stay_as_they_are_or_are_centred_and_moved_in():
    segment = ArraySegment(inked((40, 40)))
    boxes = {"s": ((0, 0, 4, 6), (20, 20, 30, 24))}
    as_is = BoxSampling(kind="boxes", boxes=boxes).candidates(segment, "s", 16).boxes.tolist()
    assert as_is == [[0, 0, 4, 6], [20, 20, 30, 24]]
    centred = BoxSampling(kind="boxes", boxes=boxes, fit="centred").candidates(segment, "s", 16).boxes.tolist()
    assert centred == [[0, 0, 16, 16], [17, 14, 33, 30]]


@pytest.mark.parametrize(
    ("boxes", "words"), [([(0, 0, 41, 4)], "leaves"), ([(0, 0, 0, 4)], "empty"), ([(0, 0, 4, 4)] * 2, "twice")]
)
def test_bad_boxes_are_refused(boxes, words):
    with pytest.raises(ConfigError, match=words):
        BoxSampling(kind="boxes", boxes={"s": boxes}).candidates(ArraySegment(inked((40, 40))), "s", 16)


def test_a_whole_picture_is_filled_up_and_never_cut():
    whole = WholeSampling(kind="whole")
    assert whole.candidates(ArraySegment(inked((10, 12))), "s", 16).boxes.tolist() == [[0, 0, 16, 16]]
    with pytest.raises(DataError, match="sample a grid"):
        whole.candidates(ArraySegment(inked((17, 12))), "s", 16)

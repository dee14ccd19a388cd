"""Validation masks become a split with a moat; what would have leaked without it is counted exactly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from inkbatch.data.datasets import counting, held_out
from inkbatch.data.datasets.assembling import SamplePlan, assemble
from inkbatch.data.datasets.counting import BoxCounts, content_digest, count_marked
from inkbatch.data.datasets.held_out import MaskSplit, MaskZones, leak_without_moat, mask_zones
from inkbatch.data.datasets.index import DatasetSegment
from inkbatch.data.datasets.zones import HeldOut
from inkbatch.errors import ConfigError, DataError
from inkbatch.geometry import Box
from inkbatch.testing.datasets import ArraySegment, inked

SHAPE = (120, 160)
PX = 16


@pytest.fixture
def segment() -> ArraySegment:
    rng = np.random.default_rng(0)
    marked = np.zeros(SHAPE, bool)
    marked[30:70, 90:130] = True
    marked[100, 20] = True
    return ArraySegment(inked(SHAPE, (10, 10, 110, 150)), rng.random(SHAPE) > 0.1, marked)


def random_boxes(count: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    corners = rng.integers(-20, 150, (count, 2))
    return np.concatenate([corners, corners + rng.integers(1, 60, (count, 2))], axis=1).astype(np.int64)


@pytest.mark.parametrize("band_rows", [7, 512])
def test_marked_pixels_are_counted_in_boxes_at_any_places(segment, monkeypatch, band_rows):
    monkeypatch.setattr(counting, "BAND_ROWS", band_rows)
    boxes = random_boxes(50)
    found = count_marked(segment.read_held_out, SHAPE, boxes)
    assert found.tolist() == [int(segment.read_held_out(Box(*box)).sum()) for box in boxes.tolist()]


def test_a_box_validates_if_it_shows_a_held_out_pixel_and_trains_beyond_the_moat(segment):
    boxes = random_boxes(80)
    homes = MaskZones(segment, PX).home(boxes)
    for (y0, x0, y1, x1), home in zip(boxes.tolist(), homes, strict=True):
        shows = segment.read_held_out(Box(y0, x0, y1, x1)).any()
        near = segment.read_held_out(Box(y0 - PX, x0 - PX, y1 + PX, x1 + PX)).any()
        assert home == ("validation" if shows else None if near else "train")


@pytest.mark.parametrize("window", [32, 2048])
def test_the_leak_is_the_share_within_one_sample_of_what_trains(segment, monkeypatch, window):
    monkeypatch.setattr(held_out, "READ_PX", window)
    segment.papyrus[:, 95:] = segment.held_out[:, 95:]  # little trains beside the mask
    trains = segment.papyrus & ~segment.held_out
    near = ndimage.distance_transform_cdt(~trains, "chessboard") < PX
    scored = segment.held_out & segment.papyrus
    found = leak_without_moat(segment, PX)
    assert found == HeldOut(int(scored.sum()), int((scored & near).sum()))
    assert 0 < found.leak < 1


def split_by_masks(arrays, **changes):
    names = list(arrays)
    described = [
        DatasetSegment(id=name, surface=name, ink_labels=name, source_layers=(0, 1), shape_yx=SHAPE) for name in names
    ]
    values = {"sample_px": PX, "sampling": {"stride_px": 8, "min_papyrus": 0}, "splits": {"kind": "masks"}, **changes}
    plan = SamplePlan.checked(values, "test")
    return assemble(described, arrays, plan, {name: name for name in names})


def test_no_training_sample_comes_within_the_moat(segment):
    found = split_by_masks({"masked": segment, "plain": ArraySegment(inked(SHAPE, (0, 0, 50, 50)))}, context_px=3)
    moat = ndimage.maximum_filter(segment.held_out, 2 * (PX + 3) + 1)
    held = segment.held_out
    of_masked = [sample for sample in found.samples if sample.segment == "masked"]
    assert {sample.split for sample in of_masked} == {"train", "validation"}
    assert {sample.split for sample in found.samples if sample.segment == "plain"} == {"train"}
    for sample in of_masked:
        window = sample.area.slices
        assert not moat[window].any() if sample.split == "train" else held[window].any()
    assert found.held_out == {"masked": leak_without_moat(segment, PX)}
    assert found.left_out > 0


def test_ink_of_validation_samples_is_that_of_held_out_pixels(segment):
    places = BoxCounts(np.array([[20, 80, 52, 112]]), *(np.array([1024]) for _ in range(3)))
    inside = segment.held_out[20:52, 80:112] & segment.papyrus[20:52, 80:112]
    assert MaskZones(segment, PX).scored(places).ink.tolist() == [int(inside.sum())]


def test_what_is_held_out_belongs_to_the_content(segment):
    before = content_digest(segment)
    segment.held_out[0, 0] = True
    assert content_digest(segment) != before


def test_a_moat_below_one_sample_and_segments_without_masks_are_refused(segment):
    with pytest.raises(ConfigError, match=r"moat_px 18 is smaller than a sample with its context \(16 \+ 3 px\)"):
        mask_zones({"a": segment}, MaskSplit(kind="masks", moat_px=18), PX, 3)
    with pytest.raises(DataError, match="none has one; run inkbatch labels with --validation-mask"):
        mask_zones({"a": ArraySegment(inked(SHAPE))}, MaskSplit(kind="masks"), PX, 0)


def test_a_mask_whose_moat_leaves_nothing_to_train_on_is_refused(segment):
    segment.held_out[::20, ::20] = True
    with pytest.raises(DataError, match="no sample trains"):
        split_by_masks({"masked": segment})

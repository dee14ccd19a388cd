"""Counts from one pass equal counts of each box by itself."""

from __future__ import annotations

import numpy as np
import pytest

from inkbatch.data.datasets import counting
from inkbatch.data.datasets.counting import content_digest, count_boxes, count_grid
from inkbatch.geometry import Box
from inkbatch.testing.datasets import ArraySegment, inked


@pytest.fixture
def segment() -> ArraySegment:
    rng = np.random.default_rng(1)
    labels = rng.choice(np.array([0, 127, 128, 255], np.uint8), (70, 90))
    return ArraySegment(labels, rng.random((70, 90)) > 0.3)


@pytest.mark.parametrize("band_rows", [7, 512])
def test_one_pass_counts_as_each_box_by_itself(segment, monkeypatch, band_rows):
    monkeypatch.setattr(counting, "BAND_ROWS", band_rows)
    rows, columns = np.array([0, 5, 30, 60]), np.array([3, 44, 80])  # the last ones leave the segment
    found = count_grid(segment, rows, columns, (20, 16))
    boxes = [Box(y, x, y + 20, x + 16) for y in rows for x in columns]
    single = count_boxes(segment, boxes)
    np.testing.assert_array_equal(found.boxes, single.boxes)
    np.testing.assert_array_equal(found.papyrus, single.papyrus)
    np.testing.assert_array_equal(found.ink, single.ink)
    inside = segment.papyrus[5:25, 44:60]
    assert found.ink[4] == np.count_nonzero(inside & (segment.labels[5:25, 44:60] >= 128))
    assert found.papyrus[4] == np.count_nonzero(inside)


def test_shares_count_pixels_outside_the_segment_as_bare():
    found = count_grid(ArraySegment(inked((10, 10), (0, 0, 10, 10))), np.array([0]), np.array([0]), (20, 20))
    assert found.papyrus_share.tolist() == found.ink_share.tolist() == [0.25]


def test_the_content_digest_follows_labels_and_mask(segment):
    before = content_digest(segment)
    segment.papyrus[3, 3] ^= True
    after_mask = content_digest(segment)
    segment.labels[0, 0] ^= 1
    assert len({before, after_mask, content_digest(segment)}) == 3

"""Trained pixels: merged boxes cover the same pixels; a segment is known again by id, address or content."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkbatch.data.datasets.trained_pixels import (
    NOTHING,
    TrainedPixels,
    TrainedSegment,
    joined_records,
    merged,
    pixels_on,
)
from inkbatch.errors import DataError
from inkbatch.geometry import Box
from inkbatch.io.surface import SurfaceVolume
from inkbatch.testing.datasets import labelled_segment
from inkbatch.text import share_text

EDGE = 24
CORNER = st.integers(0, EDGE)
BOX = st.tuples(CORNER, CORNER, CORNER, CORNER).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)


def painted(boxes) -> np.ndarray:
    found = np.zeros((EDGE, EDGE), int)
    for box in boxes:
        found[Box(*box).slices] += 1
    return found


@given(st.lists(BOX, max_size=8))
def test_merged_boxes_cover_the_same_pixels_once(boxes):
    found = merged(boxes)
    np.testing.assert_array_equal(painted(found), painted(boxes) > 0)
    assert found == merged(list(reversed(found)))


def test_a_grid_of_overlapping_tiles_becomes_one_box():
    assert merged([(y, x, y + 32, x + 32) for y in range(0, 65, 16) for x in range(0, 65, 16)]) == [(0, 0, 96, 96)]


def test_pixels_that_validated_and_trained_are_trained():
    pixels = TrainedPixels.of({"train": [[0, 0, 4, 4]], "validation": [[2, 0, 6, 4]]})
    window = Box(1, 0, 6, 6)
    assert pixels.trained(window).sum() == 12
    assert pixels.validated(window).sum() == 8
    assert pixels.share([Box(0, 0, 4, 8)]) == 0.5
    assert NOTHING.share([window]) == 0
    assert NOTHING.document == {}


@pytest.fixture
def surface(tmp_path):
    def make(segment="s", **provenance) -> SurfaceVolume:
        layers = provenance.pop("layers", np.random.default_rng(5).integers(1, 255, (3, 96, 96), np.uint8))
        place = labelled_segment(tmp_path, segment, np.zeros(layers.shape[1:], np.uint8), layers=layers, **provenance)
        return SurfaceVolume.open(place)

    return make


def training(**changes) -> dict:
    values = {"segment": "s", "shape_yx": (96, 96), "voxel_size_um": 8.0, "train": [(0, 0, 48, 96)], **changes}
    return {"pixels": [TrainedSegment(**values).model_dump(mode="json", exclude_defaults=True)]}


def test_a_segment_is_known_by_its_id_its_address_and_its_pixels(surface):
    from inkbatch.data.datasets.trained_pixels import short_keys

    mine = surface()
    windows = sorted(short_keys(mine))
    copy = surface("copy", source="memory://elsewhere")
    other = surface("other", layers=np.random.default_rng(6).integers(1, 255, (3, 96, 96), np.uint8))
    whole = [Box(0, 0, 96, 96)]
    assert pixels_on(training(), mine, "b").share(whole) == 0.5
    assert pixels_on(training(segment="x", source="memory://s"), mine, "b").share(whole) == 0.5
    assert pixels_on(training(), copy, "b").share(whole) == 0
    assert pixels_on(training(windows=windows), copy, "b").share(whole) == 0.5
    assert pixels_on(training(windows=windows), other, "b").share(whole) == 0


def test_a_region_of_the_segment_is_moved_and_another_scale_is_trained_as_a_whole(surface):
    region = surface(layers=np.ones((3, 40, 40), np.uint8), box=(40, 0, 80, 40))
    assert pixels_on(training(), region, "b").document == {"train": [[0, 0, 8, 40]]}
    assert pixels_on(training(voxel_size_um=4.0), region, "b").document == {"train": [[0, 0, 40, 40]]}


def test_a_network_was_shown_what_it_and_the_one_that_it_started_from_were_shown():
    here = {"segment": "here", "shape_yx": [90, 90], "voxel_size_um": 7.91}
    own = [{**here, "train": [[0, 0, 20, 20]], "validation": [[60, 60, 80, 80]]}]
    start = [{**here, "train": [[0, 10, 20, 30]]}, {"segment": "there", "shape_yx": [9, 9], "train": [[0, 0, 5, 5]]}]
    found = joined_records(own, {"pixels": start}, "bundle")
    assert found == [
        {**here, "train": [[0, 0, 20, 30]], "validation": [[60, 60, 80, 80]]},
        {"segment": "there", "shape_yx": [9, 9], "train": [[0, 0, 5, 5]]},
    ]
    assert joined_records(own, {}, "bundle") == own  # a published bundle does not say


def test_a_record_that_is_none_is_refused(surface):
    with pytest.raises(DataError, match="bundle b: training.pixels cannot be read"):
        pixels_on({"pixels": [{"segment": 3}]}, surface(), "bundle b")


def test_shares_are_never_rounded_to_none_or_all():
    assert [share_text(value) for value in (0, 0.001, 0.43, 0.999, 1)] == [
        "0 %",
        "less than 1 %",
        "43 %",
        "99 %",
        "100 %",
    ]

"""Truth from a catalog's label volume counts inside the catalog's masks, and picks no version silently."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from inkbatch.data.maps.truth import Truth, TruthChoice
from inkbatch.errors import DataError
from inkbatch.geometry import Box
from inkbatch.testing.datasets import inked, labelled_segment
from inkbatch.testing.label_volumes import on_plane, write_label_volume

SHAPE = (40, 60)


@pytest.fixture
def choice(tmp_path) -> TruthChoice:
    folder = labelled_segment(tmp_path / "root", "a", inked(SHAPE))
    (folder / "ink_labels.zarr").delete_folder()
    pictures = {
        "ink_labels": inked(SHAPE, (5, 5, 20, 50)),
        "supervision_mask": inked(SHAPE, (0, 0, 40, 30)),
        "validation_mask": inked(SHAPE, (0, 40, 40, 60)),
    }
    entry = {
        key: str(write_label_volume(tmp_path / f"a_{key}.zarr", on_plane(picture, 5, 2)))
        for key, picture in pictures.items()
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"segments": {"a": entry}}))
    return TruthChoice(catalog=str(tmp_path / "c.yaml"))


def test_pixels_outside_the_catalogs_masks_count_in_no_score(tmp_path, choice):
    with Truth(str(tmp_path / "root"), "a", choice) as truth:
        ink, counted = truth.read(Box(0, 0, *SHAPE))
    np.testing.assert_array_equal(ink, inked(SHAPE, (5, 5, 20, 50)) > 0)
    expected = np.ones(SHAPE, bool)
    expected[:, 30:40] = False
    np.testing.assert_array_equal(counted, expected)


def test_a_version_beside_the_catalogs_labels_is_not_passed_over_silently(tmp_path, choice):
    write_label_volume(tmp_path / "a_ink_labels_v2.zarr", on_plane(inked(SHAPE, (0, 0, 9, 9)), 5, 2))
    with pytest.raises(DataError, match="got 1 .*, 2 .*; name the file of one"):
        Truth(str(tmp_path / "root"), "a", choice)

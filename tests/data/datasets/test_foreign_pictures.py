"""Pictures and annotations of other people's tools: nothing is lost, overwritten or drawn on a guessed ground."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import tifffile

from inkbatch.data.datasets.cvat import import_cvat
from inkbatch.data.datasets.picture_layers import decode_picture
from inkbatch.errors import EXIT_DATA, DataError
from inkbatch.io.store.location import Location

OUTLINE = [[1, 1, 5, 1, 5, 5, 1, 5]]


def export(folder, images, categories=((1, "ink"),)):
    document = {
        "images": [{"id": number, "file_name": name, "height": 12, "width": 16} for number, name in images],
        "categories": [{"id": number, "name": name} for number, name in categories],
        "annotations": [
            {"id": 1, "image_id": images[0][0], "category_id": 1, "bbox": [1, 1, 4, 4], "segmentation": OUTLINE}
        ],
    }
    folder.mkdir()
    (folder / "instances.json").write_text(json.dumps(document))
    return Location.parse(folder)


@pytest.mark.parametrize(
    ("images", "categories", "finding"),
    [
        (((1, "p/one.png"), (1, "q/two.png")), ((1, "ink"),), "image id 1 stands twice"),
        (((1, "one.png"), (2, "two.png")), ((1, "ink"), (1, "unsure")), "category id 1 stands twice"),
        (((1, "one.png"), (2, "two.png")), ((1, "ink"), (2, "ink")), "category 'ink' stands twice"),
        (((1, "one.png"), (2, "one.tif")), ((1, "ink"), (2, "unsure")), "two pictures named one"),
        (((1, "one.png"), (2, "one-ignore.png")), ((1, "ink"), (2, "unsure")), "would both write one-ignore.png"),
    ],
)
def test_what_would_be_lost_is_refused_before_anything_is_written(tmp_path, images, categories, finding):
    place = export(tmp_path / "export", images, categories)
    with pytest.raises(DataError, match=finding) as caught:
        import_cvat(place, Location.parse(tmp_path / "out"), ["ink"], ["unsure"])
    assert caught.value.exit_code == EXIT_DATA
    assert not (tmp_path / "out").exists()


def test_names_of_ignore_masks_are_free_where_none_is_written(tmp_path):
    place = export(tmp_path / "export", ((1, "one.png"), (2, "one-ignore.png")))
    assert import_cvat(place, Location.parse(tmp_path / "out"), ["ink"]) == ["one", "one-ignore"]


def written(path, picture):
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    return Location.parse(path)


@pytest.mark.parametrize("in_colour", [True, False])
def test_transparent_pictures_are_refused(tmp_path, in_colour):
    drawing = np.zeros((8, 9, 4), np.uint8)
    drawing[2:4, 2:5, 3] = 255
    with pytest.raises(DataError, match="transparent"):
        decode_picture(written(tmp_path / "a.png", drawing), in_colour=in_colour)


def test_an_alpha_channel_that_hides_nothing_is_left_out(tmp_path):
    picture = np.full((8, 9, 4), 255, np.uint8)
    picture[..., 1] = 7
    found = decode_picture(written(tmp_path / "a.png", picture), in_colour=True)
    assert found.shape == (3, 8, 9)
    assert (found[1] == 7).all()


def test_pages_of_a_tiff_are_not_dropped(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 8, 9), np.uint8), photometric="minisblack")
    with pytest.raises(DataError, match="2 pages"):
        decode_picture(Location.parse(tmp_path / "a.tif"), in_colour=False)

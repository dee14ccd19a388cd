"""CVAT exports: both formats, zipped or not, give the pixels that were drawn; what is not understood is refused."""

from __future__ import annotations

import json
import zipfile

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inkbatch.data.datasets.cvat import import_cvat, read_cvat
from inkbatch.data.datasets.polygons import filled_polygon, filled_runs
from inkbatch.errors import ConfigError, CorruptDataError, DataError
from inkbatch.io.store.location import Location

SHAPE = (12, 16)
LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nink:250,50,83::\nunsure:50,183,250::\n"


def square(y0, x0, y1, x1) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


INK, UNSURE = square(2, 3, 8, 9), square(9, 1, 11, 15)


def runs_of(mask: np.ndarray) -> dict:
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat])))
    return {"counts": np.diff(np.concatenate([[0], edges, [flat.size]])).tolist(), "size": list(mask.shape)}


def coco_document(**changes) -> dict:
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [3, 2, 6, 6], "segmentation": [[3, 2, 9, 2, 9, 8, 3, 8]]},
        {
            "id": 2,
            "image_id": 1,
            "category_id": 2,
            "bbox": [1, 9, 14, 2],
            "segmentation": runs_of(UNSURE),
            "iscrowd": 1,
        },
    ]
    document = {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "categories": [{"id": 1, "name": "ink"}, {"id": 2, "name": "unsure"}],
        "images": [{"id": 1, "width": 16, "height": 12, "file_name": "part/one.tif"}],
        "annotations": annotations,
    }
    return {**document, **changes}


def as_coco(folder, document=None):
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    (folder / "annotations/instances_default.json").write_text(json.dumps(document or coco_document()))
    return folder


def as_masks(folder, smudge=False):
    (folder / "SegmentationClass/part").mkdir(parents=True)
    (folder / "ImageSets/Segmentation").mkdir(parents=True)
    (folder / "ImageSets/Segmentation/default.txt").write_text("part/one\n")
    (folder / "labelmap.txt").write_text(LABELMAP)
    picture = np.zeros((*SHAPE, 3), np.uint8)
    picture[INK], picture[UNSURE] = (250, 50, 83), (50, 183, 250)
    if smudge:
        picture[5, 6] = (249, 50, 83)
    cv2.imwrite(str(folder / "SegmentationClass/part/one.png"), picture[..., ::-1])
    return folder


def zipped(folder):
    place = folder.with_suffix(".zip")
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return place


@pytest.mark.parametrize("form", [as_coco, as_masks])
@pytest.mark.parametrize("packed", [False, True])
def test_an_export_gives_the_pixels_that_were_drawn(tmp_path, form, packed):
    place = form(tmp_path / "export")
    export = Location.parse(zipped(place) if packed else place)
    (picture,) = read_cvat(export, ["ink"], ["unsure"])
    assert picture.name == "part/one"
    np.testing.assert_array_equal(picture.ink, INK)
    np.testing.assert_array_equal(picture.ignored, UNSURE)


def test_several_labels_can_mean_ink(tmp_path):
    (picture,) = read_cvat(Location.parse(as_masks(tmp_path / "export")), ["ink", "unsure"])
    np.testing.assert_array_equal(picture.ink, INK | UNSURE)
    assert not picture.ignored.any()


def test_pictures_are_written_for_the_labels_job(tmp_path):
    export = Location.parse(zipped(as_coco(tmp_path / "export")))
    assert import_cvat(export, Location.parse(tmp_path / "out"), ["ink"], ["unsure"]) == ["part/one"]
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "out/part/one.png"), cv2.IMREAD_UNCHANGED), INK * 255)
    ignored = cv2.imread(str(tmp_path / "out/part/one-ignore.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(ignored, UNSURE * 255)


def test_an_unknown_label_is_refused_with_near_matches(tmp_path):
    for name, form in (("coco", as_coco), ("masks", as_masks)):
        with pytest.raises(ConfigError, match=r"no label 'inc' in this export.*'ink'"):
            list(read_cvat(Location.parse(form(tmp_path / name)), ["inc"]))


def test_masks_saved_with_losses_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"\(249, 50, 83\) at y 5, x 6"):
        list(read_cvat(Location.parse(as_masks(tmp_path / "export", smudge=True)), ["ink"]))


def test_neither_or_both_formats_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="neither"):
        list(read_cvat(Location.parse(tmp_path / "empty")))
    as_masks(tmp_path / "both")
    as_coco(tmp_path / "both")
    with pytest.raises(DataError, match=r"labelmap\.txt, annotations"):
        list(read_cvat(Location.parse(tmp_path / "both")))


def test_damaged_files_are_named(tmp_path):
    place = zipped(as_masks(tmp_path / "export"))
    (tmp_path / "cut.zip").write_bytes(place.read_bytes()[:100])
    with pytest.raises(CorruptDataError, match=r"cut\.zip"):
        list(read_cvat(Location.parse(tmp_path / "cut.zip")))
    (tmp_path / "export/SegmentationClass/part/one.png").write_bytes(b"no picture")
    with pytest.raises(CorruptDataError, match=r"one\.png"):
        list(read_cvat(Location.parse(tmp_path / "export")))


def test_a_path_that_leads_out_of_the_target_is_refused(tmp_path):
    images = [{"id": 1, "width": 16, "height": 12, "file_name": "../../evil.png"}]
    export = as_coco(tmp_path / "export", coco_document(images=images))
    with pytest.raises(ConfigError, match="leave"):
        import_cvat(Location.parse(export), Location.parse(tmp_path / "deep/out"))
    assert not (tmp_path / "evil.png").exists()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([], "box alone"),
        ([[1, 2, 3, 4]], "three points"),
        ([[1, 2, 3, float("inf"), 5, 6]], "three points"),
        ({"counts": "12", "size": [12, 16]}, "do not fill"),
        ({"counts": "P6 ", "size": [12, 16]}, "unexpected character ' '"),
        ({"counts": "P6o", "size": [12, 16]}, "middle of a number"),
        ({"counts": "o" * 99, "size": [12, 16]}, "unexpected character"),
        ({"counts": [10, 10], "size": [12, 16]}, "do not fill"),
        ({"counts": [192], "size": [16, 12]}, r"got size \[16, 12\]"),
        ({"counts": [-1, 193], "size": [12, 16]}, "do not fill"),
    ],
)
def test_shapes_that_cannot_be_drawn_are_refused(tmp_path, shape, message):
    entry = {"id": 5, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "segmentation": shape}
    export = as_coco(tmp_path / "export", coco_document(annotations=[entry]))
    with pytest.raises(DataError, match=f"annotation 5.*{message}"):
        list(read_cvat(Location.parse(export)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 25), st.floats(-5, 20)), min_size=3, max_size=7))
def test_a_pixel_is_inside_where_a_ray_from_its_centre_crosses_oddly(points):
    canvas = np.zeros(SHAPE, bool)
    filled_polygon(canvas, [value for point in points for value in point], "here")
    expected = np.zeros(SHAPE, bool)
    for y in range(SHAPE[0]):
        for x in range(SHAPE[1]):
            for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
                if (y0 <= y + 0.5) != (y1 <= y + 0.5) and x0 + (y + 0.5 - y0) * ((x1 - x0) / (y1 - y0)) <= x + 0.5:
                    expected[y, x] ^= True
    assert np.count_nonzero(canvas != expected) <= 1  # a crossing may round onto a centre


@given(st.integers(0, 2**32))
def test_run_lengths_go_column_by_column(seed):
    mask = np.random.default_rng(seed).random(SHAPE) < 0.5
    np.testing.assert_array_equal(filled_runs(runs_of(mask), SHAPE, "here"), mask)


def steep() -> np.ndarray:
    mask = np.zeros((300, 4), bool)
    mask[40:250, 1] = mask[10:290, 2] = mask[100:120, 3] = True
    return mask


@pytest.mark.parametrize(
    ("text", "mask"),  # the texts were written by pycocotools 2.0.11
    [
        ("e02:00000000000000000000000003", UNSURE),
        ("01U15QO000000000b2", square(0, 0, 1, 1) | INK),
        ("d:b6l1V2b1lGV2", steep()),
        ("0P6", square(0, 0, 12, 16)),
        ("P6", square(0, 0, 0, 0)),
    ],
)
def test_compressed_run_lengths_are_those_of_the_reference_tool(text, mask):
    np.testing.assert_array_equal(filled_runs({"counts": text, "size": list(mask.shape)}, mask.shape, "here"), mask)

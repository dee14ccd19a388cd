"""Separate objects in the viewer: outlines, the object at a pixel, its row; of segments and of photographs."""

import csv
import io
import json

import cv2
import numpy as np
import pytest

from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.pictures.palettes import OBJECT, OUTLINE_COLOURS, PICKED, PICKED_INSIDE
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.steps.instances.job import run
from inkbatch.steps.instances.settings import InstancesConfig
from inkbatch.testing.instances import grain_map, write_maps
from inkbatch.testing.maps import store_map
from inkbatch.view.edit import Editor
from inkbatch.view.objects import read_labels
from inkbatch.view.render import UnknownNameError
from inkbatch.view.scene import Scene
from inkbatch.view.viewer import Viewer

SHAPE = (96, 128)


def found_in(root, subject, **values):
    asked = {"subject": subject, "root": str(root), "unit_px": 64, "selection": {"edge": 0}, **values}
    return run(InstancesConfig.checked(asked, "instances"), RunContext()).location


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A segment with one result, and two photographs with two."""
    folder = tmp_path_factory.mktemp("objects")
    store_map(folder / "root", "page", "net", grain_map(SHAPE, 20))
    found_in(folder / "root", "page")
    write_maps(folder, {"a": SHAPE, "b": (70, 60)})
    pictures = {"maps": str(folder / "maps"), "pictures": str(folder / "pictures")}
    found_in(folder / "root", "sections", **pictures, pixel_um=5.0)
    found_in(folder / "root", "sections", **pictures, result="bare", forms=["geojson"])
    return folder / "root"


@pytest.fixture
def viewer(root):
    return Viewer(Scene(["page"], str(root)))


@pytest.fixture
def photographs(root):
    return Viewer(Scene([str(root / "instances/sections/maps")], str(root)))


def asked(viewer, query, group=0):
    return json.loads(viewer.about("object", group, query).body)


def shown(viewer, query):
    body = viewer.tile(0, "outlines", 0, 0, 0, query).body
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)


def labels_of(root, place):
    array = Multiscale.open(Location.parse(str(root / "instances" / place / "labels.zarr"))).levels[0]
    return array.read(Box(0, 0, *array.layout.shape).slices)


def rows_of(root, result):
    text = (root / f"instances/{result}/instances.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


def test_a_segment_shows_its_results_and_says_how_many_objects_they_hold(viewer, root):
    (group,) = json.loads(viewer.scene().body)["groups"]
    (found,) = group["objects"]
    assert (found["name"], found["count"]) == ("net", len(rows_of(root, "page/net")))
    assert not group["photograph"]


def test_every_pixel_knows_its_object_and_the_row_is_that_of_the_table(viewer, root):
    labels, rows = labels_of(root, "page/net/labels/page"), rows_of(root, "page/net")
    for label in (1, len(rows) // 2, len(rows)):
        y, x = np.argwhere(labels == label)[0]
        found = asked(viewer, f"name=net&y={y}&x={x}")
        assert found["label"] == label
        assert found == asked(viewer, f"name=net&label={label}")
        row = rows[label - 1]
        assert found["row"]["area_px"] == int(row["area_px"]) == (labels == label).sum()
        assert found["row"]["area_mm2"] == float(row["area_mm2"])
        assert (found["row"]["source"], found["row"]["predicted_iou"]) == ("first-pass", None)
    y, x = np.argwhere(labels == 0)[0]
    assert asked(viewer, f"name=net&y={y}&x={x}") == {"name": "net", "label": None, "row": None}


def test_outlines_are_the_pixels_that_touch_another_object_and_the_picked_one_is_filled(viewer, root):
    labels = labels_of(root, "page/net/labels/page")
    inner = np.zeros(SHAPE, bool)
    same = (labels[1:-1, 1:-1] == labels[:-2, 1:-1]) & (labels[1:-1, 1:-1] == labels[2:, 1:-1])
    inner[1:-1, 1:-1] = same & (labels[1:-1, 1:-1] == labels[1:-1, :-2]) & (labels[1:-1, 1:-1] == labels[1:-1, 2:])
    inner[0], inner[-1], inner[:, 0], inner[:, -1] = True, True, True, True  # of the border nothing is said here
    seen = shown(viewer, "objects=net&picked=3")
    outside = (labels == 0) & inner
    assert (seen[outside] == 0).all()
    assert (seen[(labels > 0) & ~inner & (labels != 3)] == OUTLINE_COLOURS[OBJECT]).all()
    assert (seen[(labels == 3) & ~inner] == OUTLINE_COLOURS[PICKED]).all()
    assert (OUTLINE_COLOURS[PICKED_INSIDE] == seen[labels == 3]).all(axis=1).any()
    assert not (shown(viewer, "objects=net") == OUTLINE_COLOURS[PICKED_INSIDE]).all(axis=2).any()


def test_levels_beyond_the_pyramid_hold_numbers_of_the_picture_alone(root):
    pyramid = Multiscale.open(Location.parse(str(root / "instances/page/net/labels/page/labels.zarr")))
    labels, level = labels_of(root, "page/net/labels/page"), len(pyramid.levels) + 1
    step = 2**level
    found = read_labels(pyramid, SHAPE, level, Box(0, 0, -(-SHAPE[0] // step), -(-SHAPE[1] // step)))
    np.testing.assert_array_equal(found, labels[::step, ::step])


def test_photographs_lie_below_their_objects_with_all_results_that_hold_them(photographs, root):
    first, second = json.loads(photographs.scene().body)["groups"]
    assert [first["segment"], second["segment"]] == ["a", "b"]
    assert sorted(one["name"] for one in second["objects"]) == ["bare", "maps"]
    assert (first["photograph"], first["layers"], first["voxel_size_um"]) == (True, [], 5.0)
    body = photographs.tile(0, "papyrus", 0, 0, 0, "range=0,1").body
    picture = cv2.imread(str(root.parent / "pictures/a.png"))
    assert np.abs(cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR).astype(int) - picture).mean() < 3
    rows = [row for row in rows_of(root, "sections/maps") if row["picture"] == "b"]
    for row in rows:
        assert asked(photographs, f"name=maps&label={row['label']}", group=1)["row"]["area_px"] == int(row["area_px"])
    look = {"box": [0, 0, *SHAPE], "papyrus": {"range": [0, 1]}, "outlines": {"objects": "maps", "picked": 1}}
    buffer = io.BytesIO()
    photographs.about("picture", 0, "look=" + json.dumps(look)).write(buffer)
    saved = cv2.imdecode(np.frombuffer(buffer.getvalue(), np.uint8), cv2.IMREAD_UNCHANGED)
    amber = (saved == OUTLINE_COLOURS[OBJECT][2::-1]).all(axis=2)
    assert amber.any()
    np.testing.assert_array_equal(
        saved[labels_of(root, "sections/maps/labels/a") == 0], picture[labels_of(root, "sections/maps/labels/a") == 0]
    )


def test_a_result_without_a_table_still_tells_numbers(photographs):
    assert asked(photographs, "name=bare&label=1") == {"name": "bare", "label": 1, "row": None}


def test_what_is_not_there_is_refused(photographs, root, tmp_path):
    for query in ("name=other&label=1", "name=maps&label=100000", "name=maps&y=5000&x=0"):
        with pytest.raises(UnknownNameError):
            photographs.about("object", 0, query)
    with pytest.raises(ConfigError, match="label=expected a whole number"):
        photographs.about("object", 0, "name=maps&label=-1")
    with pytest.raises(ConfigError, match=r"a\.png takes 36\.0.KiB in memory, .* larger --memory"):
        Viewer(Scene([str(root / "instances/sections/maps")], str(root)), 4096).tile(0, "papyrus", 0, 0, 0, "range=0,1")
    with pytest.raises(DataError, match="expected a folder of pictures, got objects of the segment page; give its id"):
        Scene([str(root / "instances/page/net")], str(root))
    with pytest.raises(ConfigError, match="expected segments to paint on, got the picture a; leave --edit out"):
        Editor(photographs, str(tmp_path), "ada")


def test_a_photograph_of_another_size_is_refused(root, tmp_path):
    kept = (root.parent / "pictures/a.png").read_bytes()
    cv2.imwrite(str(root.parent / "pictures/a.png"), np.zeros((50, 50), np.uint8))
    try:
        viewer = Viewer(Scene([str(root / "instances/sections/maps")], str(root)))
        with pytest.raises(MismatchError, match=r"a\.png to be 128 × 96 px like its objects, got 50 × 50 px"):
            viewer.tile(0, "papyrus", 0, 0, 0, "range=0,1")
    finally:
        (root.parent / "pictures/a.png").write_bytes(kept)

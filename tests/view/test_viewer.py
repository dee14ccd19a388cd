import io
import json

import cv2
import numpy as np
import pytest

from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.halving import halve
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.testing.datasets import inked, labelled_segment
from inkbatch.view.render import UnknownNameError
from inkbatch.view.scene import Scene
from inkbatch.view.viewer import Viewer

SHAPE = (700, 1100)


def probability(seed: int, shape=SHAPE):
    return np.random.default_rng(seed).random(shape).astype(np.float16)


def write_map(root, name, values, segment="seg", unit_px=512, leave_out=()):
    """A prediction as infer leaves it; units in `leave_out` are not stored."""
    folder = Location.parse(root) / "predictions" / segment / name
    boxes = [
        Box(y, x, min(y + unit_px, values.shape[0]), min(x + unit_px, values.shape[1]))
        for y in range(0, values.shape[0], unit_px)
        for x in range(0, values.shape[1], unit_px)
    ]
    record = RunFolder(folder, RunManifest("infer", {"segment": segment, "name": name}, {}, len(boxes)))
    record.begin()
    made = Prediction.create(folder, values.shape, unit_px, 8.0, {"kind": "prediction"})
    for number, box in enumerate(boxes):
        if number not in leave_out:
            made.write(box, values[box.slices].astype(np.float32))
    if not leave_out:
        record.complete()
    return folder


@pytest.fixture
def layers():
    return np.random.default_rng(5).integers(1, 255, (5, *SHAPE), dtype=np.uint8)


@pytest.fixture
def root(tmp_path, layers):
    labels = inked(SHAPE, (100, 100, 300, 400))
    ignore = np.zeros(SHAPE, np.uint8)
    ignore[600:, 900:] = 1
    papyrus = np.ones(SHAPE, bool)
    papyrus[:, 1000:] = False
    labelled_segment(tmp_path, "seg", labels, layers=layers, ignore=ignore, papyrus=papyrus, shard_px=512)
    write_map(tmp_path, "one", probability(1))
    write_map(tmp_path, "two", probability(2))
    return tmp_path


@pytest.fixture
def viewer(root):
    return Viewer(Scene(["seg"], str(root)))


def png(body):
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)


def tile(viewer, kind, query, level=0, row=0, column=0):
    return viewer.tile(0, kind, level, row, column, query).body


def picture(viewer, **look):
    answer = viewer.about("picture", 0, "look=" + json.dumps(look))
    buffer = io.BytesIO()
    answer.write(buffer)
    return cv2.imdecode(np.frombuffer(buffer.getvalue(), np.uint8), cv2.IMREAD_UNCHANGED)


def grey(values):
    return np.rint(values.astype(np.float64) * 255).astype(np.uint8)


def test_the_scene_says_what_there_is_and_nothing_about_the_store(viewer, root):
    text = viewer.scene().body.decode()
    group = json.loads(text)["groups"][0]
    assert (group["height"], group["width"], group["voxel_size_um"]) == (*SHAPE, 8.0)
    assert group["layers"] == [0, 1, 2, 3, 4]
    assert [shown["name"] for shown in group["maps"]] == ["one", "two"]
    assert group["overlays"] == ["ignore_mask", "ink_labels"]
    assert str(root) not in text


def test_new_predictions_appear_when_the_page_is_loaded_again(viewer, root):
    write_map(root, "three", probability(3))
    names = [shown["name"] for shown in json.loads(viewer.scene().body)["groups"][0]["maps"]]
    assert names == ["one", "three", "two"]


@pytest.mark.parametrize("target", ["{root}/segments/seg", "{root}/segments/seg/surface.zarr"])
def test_a_segment_folder_is_as_good_as_its_id(root, target):
    assert Scene([target.format(root=root)], str(root)).groups[0].segment == "seg"


def test_a_prediction_by_its_address_joins_its_segment(root, tmp_path):
    place = write_map(tmp_path / "elsewhere", "three", probability(3))
    group = Scene([f"{place}/prediction.zarr"], str(root)).groups[0]
    assert group.surface is not None
    assert sorted(group.maps) == ["one", "three", "two"]
    alone = Scene([place.uri], str(tmp_path / "empty")).groups[0]
    assert (alone.surface, list(alone.maps), alone.shape_yx) == (None, ["three"], SHAPE)


def test_what_is_not_there_is_named_with_its_cure(root):
    with pytest.raises(DataError, match="run inkbatch prepare other"):
        Scene(["other"], str(root))
    with pytest.raises(DataError, match="no surface.zarr or prediction.zarr"):
        Scene([f"{root}/segments"], str(root))


def test_a_prediction_of_another_size_is_refused(root):
    write_map(root, "small", probability(3, (256, 256)))
    with pytest.raises(MismatchError, match="to be 1100 × 700 px .* got 256 × 256 px"):
        Scene(["seg"], str(root))


def test_papyrus_tiles_show_the_mean_of_the_range(viewer, layers):
    found = cv2.imdecode(np.frombuffer(tile(viewer, "papyrus", "range=1,4"), np.uint8), cv2.IMREAD_GRAYSCALE)
    wanted = layers[1:4, :512, :512].mean(axis=0)
    assert found.shape == (512, 512)
    assert np.abs(found - wanted).mean() < 6  # JPEG of noise
    exact = picture(viewer, box=[0, 0, *SHAPE], papyrus={"range": [1, 4]})
    assert np.abs(exact - layers[1:4].mean(axis=0)).max() <= 0.5


def test_grey_range_becomes_black_and_white(viewer, layers):
    found = picture(viewer, box=[0, 0, 64, 64], papyrus={"range": [2, 3], "low": 50, "high": 150})
    wanted = (layers[2, :64, :64].astype(float) - 50) * 255 / (150 - 50)
    np.testing.assert_array_equal(found, np.rint(np.clip(wanted, 0, 255)))


def test_a_map_tile_holds_every_stored_value(viewer):
    found = png(tile(viewer, "map", "maps=one&colours=grey&blend=cover", 0, 1, 2))
    np.testing.assert_array_equal(found[..., 0], grey(probability(1)[512:, 1024:]))
    assert (found[..., 3] == 255).all()


def test_no_ink_is_transparent_where_only_ink_is_shown(viewer):
    found = png(tile(viewer, "map", "maps=one&colours=inferno&blend=ink"))
    np.testing.assert_array_equal(found[..., 3], grey(probability(1)[:512, :512]))


@pytest.mark.parametrize("combine", ["mean", "max"])
def test_an_ensemble_is_made_on_the_fly(viewer, combine):
    both = np.stack([probability(1), probability(2)]).astype(np.float64)
    found = picture(
        viewer, box=[0, 0, *SHAPE], map={"maps": ["one", "two"], "combine": combine, "colours": "grey"}, opacity=1
    )
    # Ink only, over black: the value weighs its own colour.
    value = np.rint(getattr(both, combine)(axis=0) * 255)
    np.testing.assert_array_equal(found, np.rint(value * value / 255).astype(np.uint8))


def test_threshold_boost_and_invert_are_carried_out_in_this_order(viewer):
    plain = {"maps": ["one"], "colours": "grey", "blend": "cover"}
    box = [0, 0, 200, 300]
    p = probability(1)[:200, :300].astype(np.float64)
    boosted = picture(viewer, box=box, map={**plain, "boost": 3})
    np.testing.assert_array_equal(boosted, np.rint(np.minimum(p * 3, 1) * 255))
    kept = picture(viewer, box=box, map={**plain, "threshold": 0.4})
    np.testing.assert_array_equal(kept, np.rint(np.where(p >= 0.4, p, 0) * 255))
    solid = picture(viewer, box=box, map={**plain, "threshold": 0.4, "solid": True})
    np.testing.assert_array_equal(solid, np.where(p >= 0.4, 255, 0))
    inverted = picture(viewer, box=box, map={**plain, "invert": True})
    np.testing.assert_array_equal(inverted, np.rint((1 - p) * 255))


def test_what_is_no_papyrus_stays_dark_when_inverted(viewer):
    found = picture(
        viewer, box=[0, 0, *SHAPE], map={"maps": ["one"], "colours": "grey", "blend": "cover", "invert": True}
    )
    assert (found[:, 1000:] == 0).all()
    assert found[:, :1000].mean() > 100


def test_a_difference_tells_the_two_sides_apart(viewer):
    found = png(tile(viewer, "map", "maps=one&minus=two&blend=cover")).astype(int)
    difference = (probability(1).astype(float) - probability(2).astype(float))[:512, :512]
    warm = found[..., 0] - found[..., 2]
    assert (warm[difference > 0.1] > 0).all()
    assert (warm[difference < -0.1] < 0).all()
    same = png(tile(viewer, "map", "maps=one&minus=one&blend=ink"))
    assert (same[..., 3] == 0).all()


def test_coarse_levels_are_averages_also_beyond_the_pyramid(viewer):
    levels = json.loads(viewer.scene().body)["groups"][0]["levels"]
    assert levels == 3  # 1100 -> 550 -> 275 px; the pyramid has two
    found = png(tile(viewer, "map", "maps=one&colours=grey&blend=cover", 2))[..., 0].astype(int)
    wanted = halve(halve(probability(1).astype(np.float32), "mean"), "mean")
    assert found.shape == wanted.shape == (175, 275)
    assert np.abs(found - wanted * 255).max() <= 1.5


def test_outlines_follow_labels_and_ignore_mask(viewer):
    found = png(tile(viewer, "outlines", "ink_labels=true&ignore_mask=true"))
    drawn = found[..., 3] > 0
    assert drawn[100, 100:400].all()
    assert drawn[100:300, 399].all()
    assert not drawn[101:299, 101:399].any()
    assert drawn.sum() == 2 * 300 + 2 * 198
    border = png(tile(viewer, "outlines", "ignore_mask=true", 0, 1, 1))
    assert (border[600 - 512, 900 - 512 :, 3] > 0).all()
    assert border[-1, -1, 3] == 0  # the segment's own border is no edge


def test_what_is_not_computed_yet_is_hatched_and_not_shown_as_no_ink(root):
    write_map(root, "partial", probability(4), leave_out={1})
    viewer = Viewer(Scene(["seg"], str(root)))
    shown = {row["name"]: row for row in json.loads(viewer.scene().body)["groups"][0]["maps"]}["partial"]
    assert (shown["complete"], shown["done"], shown["units"]) == (False, 0, 6)
    there = png(tile(viewer, "map", "maps=partial&colours=grey&blend=cover"))
    np.testing.assert_array_equal(there[..., 0], grey(probability(4)[:512, :512]))
    hatched = png(tile(viewer, "outlines", "maps=partial", 0, 0, 1))
    assert 0.2 < (hatched[..., 3] > 0).mean() < 0.3
    value = json.loads(viewer.about("value", 0, "y=10&x=600&maps=partial,one").body)["maps"]
    assert value == {"partial": None, "one": float(probability(1)[10, 600])}


def test_a_damaged_prediction_is_no_gap(root):
    folder = write_map(root, "partial", probability(4), leave_out={1})
    shard = root / "predictions/seg/partial/prediction.zarr/0/c/0/0"
    shard.write_bytes(shard.read_bytes()[:-3])
    viewer = Viewer(Scene([folder.uri], str(root)))
    with pytest.raises(DataError, match="checksum"):
        tile(viewer, "map", "maps=partial")


def test_value_and_profile_are_the_stored_ones(viewer, layers):
    value = json.loads(viewer.about("value", 0, "y=640&x=1050&range=1,2&maps=one,two").body)
    assert value["papyrus"] == layers[1, 640, 1050]
    assert value["maps"] == {name: float(probability(seed)[640, 1050]) for name, seed in (("one", 1), ("two", 2))}
    found = json.loads(viewer.about("profile", 0, "y=0&x=1099").body)
    assert found["values"] == layers[:, 0, 1099].tolist()
    assert found["around"] == pytest.approx(layers[:, :5, 1095:].mean(axis=(1, 2)), abs=0.01)


def test_a_saved_picture_is_what_is_seen(viewer, layers):
    box = [500, 480, 640, 1060]
    look = {
        "papyrus": {"range": [2, 3]},
        "map": {"maps": ["one"], "blend": "cover", "colours": "grey"},
        "opacity": 0.25,
    }
    found = picture(viewer, box=box, flip=True, **look)
    p = grey(probability(1)).astype(float)
    wanted = np.rint(layers[2] * 0.75 + p * 0.25)[500:640, 480:1060][:, ::-1]
    assert found.ndim == 2
    assert np.abs(found - wanted).max() <= 1
    both = picture(
        viewer, box=box, **{**look, "papyrus": None, "opacity": 1, "beside": {**look["map"], "maps": ["two"]}}
    )
    np.testing.assert_array_equal(both[:, :580], p[500:640, 480:1060])
    np.testing.assert_array_equal(both[:, 588:], grey(probability(2))[500:640, 480:1060])
    assert (both[:, 580:588] == 0).all()


def test_outlines_make_a_picture_coloured(viewer):
    found = picture(viewer, box=[0, 0, 200, 200], papyrus={"range": [0, 1]}, outlines={"ink_labels": True})
    assert found.shape == (200, 200, 3)
    assert found[100, 150].tolist() == [255, 224, 64]  # blue, green, red


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("maps=one&colours=rainbow", "colours"),
        ("maps=one&threshold=2", "threshold"),
        ("maps=one&boost=nan", "boost"),
        ("maps=one&maps=two", "given 2 times"),
        ("maps=one&secret=1", "secret"),
    ],
)
def test_what_an_address_may_not_say_is_refused(viewer, query, says):
    with pytest.raises(ConfigError, match=says):
        tile(viewer, "map", query)


def test_unknown_names_and_places_are_refused(viewer):
    with pytest.raises(UnknownNameError, match="no prediction 'three'"):
        tile(viewer, "map", "maps=three")
    with pytest.raises(UnknownNameError, match="expected a segment from 0 to 0"):
        viewer.tile(7, "map", 0, 0, 0, "maps=one")
    for place in [(0, 9, 0), (0, 0, 3), (1, 1, 0)]:
        with pytest.raises(ConfigError, match="outside"):
            tile(viewer, "map", "maps=one", *place)
    with pytest.raises(ConfigError, match="lies outside"):
        viewer.about("value", 0, "y=700&x=0&maps=one")
    with pytest.raises(ConfigError, match="is empty or leaves the 700 × 1100 px"):
        picture(viewer, box=[0, 0, 701, 10])
    with pytest.raises(DataError, match="expected layers within 0:5, got 0:9"):
        tile(viewer, "papyrus", "range=0,9")

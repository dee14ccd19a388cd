from __future__ import annotations

import json
import os

import cv2
import numpy as np
import pytest
import tifffile

from inkbatch.errors import ConfigError, DataError
from inkbatch.geometry import TileGrid, cut
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.steps.export.picture import ExportConfig, picture_name, run

SEGMENT = "20230702185753"
SHAPE = (141, 1101)  # two levels
UNIT_PX = 64
FULL_NAME = "PHerc332-20230702185753-resnet3d-tile64-stride32"


@pytest.fixture(autouse=True)
def catalog(tmp_path, monkeypatch) -> None:
    """A catalog that knows the segment's sample; nothing of the user's own is looked at."""
    file = tmp_path / "catalog" / "segments.yaml"
    file.parent.mkdir()
    file.write_text(f'segments: {{"{SEGMENT}": {{sample: PHerc332}}}}\n', encoding="utf-8")
    monkeypatch.setattr("inkbatch.data.segments.catalog.shipped_catalog", lambda: file)
    monkeypatch.delenv("INKBATCH_CATALOG", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def root(tmp_path) -> Location:
    return Location.parse(tmp_path / "root")


@pytest.fixture
def probability() -> np.ndarray:
    return cv2.GaussianBlur(np.random.default_rng(1).random(SHAPE, dtype=np.float32), (0, 0), 2)


def predict(root: Location, probability: np.ndarray, name: str, complete: bool = True, **rules: object) -> Multiscale:
    """Store a prediction as `inkbatch infer` does."""
    folder = root / "predictions" / SEGMENT / name
    units = TileGrid(SHAPE, 64, 32).units(UNIT_PX)
    config = {"segment": SEGMENT, "contract": {"tile_px": 64, "stride_px": 32, **rules}}
    record = RunFolder(folder, RunManifest("infer", config, {"bundle": "resnet3d"}, len(units)))
    record.begin()
    prediction = Prediction.create(folder, SHAPE, UNIT_PX, 8.0, {"kind": "prediction"})
    for box in cut(SHAPE, UNIT_PX, UNIT_PX):
        prediction.write(box, probability[box.slices])
    record.mark(units[0], {})
    if complete:
        record.complete()
    return prediction.pyramid


@pytest.fixture
def pyramid(root, probability) -> Multiscale:
    return predict(root, probability, "resnet3d-tile64-stride32")


def level_values(pyramid: Multiscale, level: int) -> np.ndarray:
    array = pyramid.levels[level]
    return array.read([slice(0, size) for size in array.layout.shape]).astype(np.float64)


def export(root: Location, *sets: str, **options: object):
    return run(ExportConfig.load(None, sets, {"segment": SEGMENT, "root": root.uri, **options}))


def read(location: Location) -> np.ndarray:
    if location.name.endswith(".npy"):
        return np.load(location.path)
    return cv2.imread(location.path, cv2.IMREAD_UNCHANGED)


class TestWhatIsWritten:
    @pytest.mark.parametrize("to", ["a.png", "a.PNG", "a.tif", "a.tiff", "a.npy"])
    def test_the_ending_chooses_the_format(self, root, pyramid, to):
        report = export(root, to=to)
        found = read(Location.parse(to)) if not to.endswith(".tiff") else tifffile.imread(to)
        values = level_values(pyramid, 0)
        np.testing.assert_array_equal(found, values if to.endswith("npy") else np.rint(values * 255))
        assert report.location == Location.parse(to)
        assert report.bytes_written == os.path.getsize(to)
        assert "1101 × 141 px" in str(report)
        assert to in str(report)

    @pytest.mark.parametrize("to", ["a.jpg", "a.jpeg"])
    def test_jpg_is_close(self, root, pyramid, to):
        export(root, "quality=95", to=to)
        assert np.abs(read(Location.parse(to)) - level_values(pyramid, 0) * 255).mean() < 2

    def test_all_settings_meet_in_the_right_order(self, root, pyramid):
        """Level, then crop in full-resolution pixels (each touched pixel of the level), then flip, then values."""
        crop = (3, 11, 140, 1000)
        export(root, "level=1", f"crop={list(crop)}", "flip=xy", "boost=1.5", "bits=16", to="a.png")
        part = level_values(pyramid, 1)[1:70, 5:500][::-1, ::-1]
        expected = np.rint(np.minimum(part * 1.5, 1) * 65535)
        found = read(Location.parse("a.png"))
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, expected)

    def test_rounding_and_display_range_are_those_that_the_network_states(self, root, probability):
        rules = {"export_rounding": "truncate", "display_range": [0.25, 0.75]}
        values = level_values(predict(root, probability, "p", **rules), 0)
        for sets, expected in {
            (): np.floor(values * 255),
            ("rounding=nearest",): np.rint(values * 255),
            ("stretch=true",): np.floor(np.clip((values - 0.25) / 0.5, 0, 1) * 255),
        }.items():
            np.testing.assert_array_equal(read(export(root, *sets, to="a.png").location), expected)

    def test_a_map_without_a_display_range_cannot_be_stretched(self, root, pyramid):
        with pytest.raises(ConfigError, match="states no display range"):
            export(root, "stretch=true", to="a.png")

    @pytest.mark.parametrize("flip", ["x", "y"])
    def test_flip_is_taken_from_the_command_line_as_written(self, root, pyramid, flip):
        export(root, f"flip={flip}", to="a.npy")
        values = level_values(pyramid, 0)
        np.testing.assert_array_equal(read(Location.parse("a.npy")), values[::-1] if flip == "y" else values[:, ::-1])

    def test_crop_to_the_border_keeps_the_last_half_pixel_of_a_coarser_level(self, root, pyramid):
        export(root, "level=1", "crop=[100, 1000, 141, 1101]", to="a.npy")
        np.testing.assert_array_equal(read(Location.parse("a.npy")), level_values(pyramid, 1)[50:, 500:])

    @pytest.mark.parametrize("kind", ["png", "tif", "npy"])
    def test_threshold_gives_0_and_255(self, root, pyramid, kind):
        export(root, "threshold=0.5", to=f"a.{kind}")
        found = read(Location.parse(f"a.{kind}"))
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, np.where(level_values(pyramid, 0) >= 0.5, 255, 0))

    def test_a_tiff_says_what_it_shows(self, root, pyramid):
        export(root, "level=1", "bigtiff=true", to="a.tif")
        with tifffile.TiffFile("a.tif") as tiff:
            note = json.loads(tiff.pages[0].description)
            assert tiff.is_bigtiff
            assert tiff.pages[0].get_resolution("micrometer") == (1 / 16, 1 / 16)
        manifest = (root / "predictions" / SEGMENT / "resnet3d-tile64-stride32" / "manifest.json").read_json()
        expected = {"segment": SEGMENT, "prediction": "resnet3d-tile64-stride32", "digest": manifest["digest"]}
        named = {"model": "resnet3d", "tile": 64, "stride": 32}
        assert note.items() >= {**expected, **named, "level": 1, "pixel_um": 16}.items()


class TestNames:
    def test_the_usual_name_in_the_predictions_folder(self, root, pyramid):
        report = export(root)
        folder = root / "predictions" / SEGMENT / "resnet3d-tile64-stride32"
        assert report.location == folder / f"{FULL_NAME}.tif"
        assert report.location.exists()

    def test_what_differs_from_the_plain_picture_is_in_the_name(self, root, pyramid):
        report = export(root, "level=1", "crop=[0, 0, 20, 30]", "flip=x", "threshold=0.4", "format=png")
        assert report.location.name == f"{FULL_NAME}-level1-crop0_0_20_30-flipx-threshold0.4.png"

    @pytest.mark.parametrize("to", ["new/folder/", "there"])
    def test_a_folder_gets_the_usual_name(self, root, pyramid, tmp_path, to):
        (tmp_path / "there").mkdir()
        assert export(root, to=to).location == Location.parse(f"{to.rstrip('/')}/{FULL_NAME}.tif")

    def test_two_predictions_of_one_model_do_not_meet_in_a_folder(self, root, pyramid, probability):
        predict(root, probability, "other-layers")
        export(root, to="out/", name="other-layers")
        export(root, to="out/", name="resnet3d-tile64-stride32")
        assert sorted(os.listdir("out")) == [f"{FULL_NAME}-other-layers.tif", f"{FULL_NAME}.tif"]

    def test_nothing_unknown_is_named(self):
        assert picture_name({}, "s1", "ensemble") == "s1-ensemble"
        assert picture_name({"inputs": {"bundle": "b"}}, "s1", "mine") == "s1-b"
        inputs = {
            "inputs": {"bundle": "b", "sample": "PHerc 1", "volume": "v/2"},
            "config": {"contract": {"tile_px": 8}},
        }
        assert picture_name(inputs, "s1", "mine", "other") == "PHerc_1-s1-v_2-b-tile8"

    def test_a_segment_that_no_catalog_knows_has_no_sample(self, root, pyramid, tmp_path):
        (tmp_path / "catalog" / "segments.yaml").write_text("segments: {}\n", encoding="utf-8")
        assert export(root).location.name == f"{FULL_NAME.removeprefix('PHerc332-')}.tif"


class TestRefusals:
    @pytest.mark.parametrize(
        ("sets", "to", "words"),
        [
            (["level=2"], "a.png", "expected a level from 0 to 1, got 2"),
            (["crop=[0, 0, 142, 10]"], "a.png", "leaves the 141 × 1101 px"),
            (["crop=[10, 0, 10, 10]"], "a.png", "is empty or leaves"),
            (["crop=[-1, 0, 10, 10]"], "a.png", "is empty or leaves"),
            (["threshold=0.4", "boost=2"], "a.png", "threshold 0.2 does the same without boost"),
            (["threshold=0.4", "bits=16"], "a.png", "a threshold gives 8"),
            (["bits=16"], "a.jpg", "JPG has 8"),
            (["bits=8"], "a.npy", "NPY keeps the stored float16"),
            (["format=tif"], "a.png", "ends in .png, format is tif"),
            ([], "a.gif", "no known ending; end it in .tif"),
            ([], "nowhere", "or in / for a folder"),
            (["threshold=0"], "a.png", "threshold"),
            (["flip=z"], "a.png", "flip"),
            (["memory=100MiB"], "a.png", "memory is 100.0 MiB; allow more"),
        ],
    )
    def test_what_cannot_be_carried_out_is_refused_and_nothing_is_made(self, root, pyramid, tmp_path, sets, to, words):
        before = sorted(os.listdir(tmp_path))
        with pytest.raises(ConfigError, match=words):
            export(root, *sets, to=to)
        assert sorted(os.listdir(tmp_path)) == before

    def test_an_incomplete_prediction_is_refused_by_name(self, root, probability):
        predict(root, probability, "half", complete=False)
        with pytest.raises(DataError, match=rf"prediction {SEGMENT}/half: incomplete, 1 of 54 units"):
            export(root, to="a.png")
        assert not os.path.exists("a.png")

    def test_a_prediction_that_is_not_there_is_refused_by_name(self, root, pyramid):
        with pytest.raises(DataError, match=f"prediction {SEGMENT}/other: nothing at"):
            export(root, name="other")

    def test_no_prediction_at_all_is_refused(self, root):
        with pytest.raises(DataError, match="run inkbatch infer first"):
            export(root)

    def test_several_predictions_ask_for_a_name(self, root, pyramid, probability):
        predict(root, probability, "second")
        with pytest.raises(ConfigError, match="--name resnet3d-tile64-stride32 or --name second"):
            export(root)
        assert export(root, name="second").location.parent.name == "second"

    @pytest.mark.parametrize("name", ["../other", "a/b", ".."])
    def test_a_name_never_leaves_the_predictions(self, root, pyramid, name):
        with pytest.raises(ConfigError, match="name"):
            export(root, name=name)


@pytest.mark.parametrize(("ending", "sets"), [("png", ()), ("tif", ("bits=16",)), ("tif", ("threshold=0.5",))])
def test_a_scale_bar_is_as_long_as_it_says_and_hides_only_its_corner(root, pyramid, ending, sets):
    plain = read(export(root, *sets, to=f"plain.{ending}").location)
    barred = read(export(root, *sets, "scale_bar=1mm", to=f"bar.{ending}").location)
    white = np.iinfo(barred.dtype).max
    longest = max(max(map(len, "".join("x" if on else " " for on in row).split()), default=0)
                  for row in (barred == white)[-12:, :200])  # fmt: skip
    assert longest == 125  # 1,000 µm of 8 µm
    changed = np.argwhere(plain != barred)
    assert changed[:, 0].min() > SHAPE[0] // 2
    assert changed[:, 1].max() < 160


def test_a_bar_halves_with_each_level_and_has_to_fit(root, pyramid):
    half = read(export(root, "scale_bar=1mm", "level=1", to="half.png").location)
    assert max(np.count_nonzero(row == 255) for row in half[-10:, :90]) >= 62
    with pytest.raises(ConfigError, match=r"scale bar of 1cm takes .* choose 1mm"):
        export(root, "scale_bar=1cm", to="long.png")
    with pytest.raises(ConfigError, match="NPY holds values"):
        export(root, "scale_bar=1mm", to="values.npy")

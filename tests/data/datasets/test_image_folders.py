"""Folder layouts are imported as they are, or refused with what to do."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from inkbatch.data.datasets.image_folders import ImageFolders, import_folders
from inkbatch.data.datasets.picture_layers import decode_picture
from inkbatch.data.datasets.same_pixels import surfaces_of
from inkbatch.data.datasets.segment_arrays import open_segment
from inkbatch.errors import ConfigError, CorruptDataError, DataError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.clahe import equalise
from inkbatch.io.store.location import Location
from inkbatch.io.surface import ClaheSettings


def write(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


def layout(folder, pairs=(("train", "trainannot"), ("val", "valannot"), ("test", "testannot")), shape=(10, 14)):
    rng = np.random.default_rng(0)
    pictures = {}
    for images, masks in pairs:
        for stem in ("one", "two"):
            picture = rng.integers(0, 255, (*shape, 3), dtype=np.uint8)
            mask = rng.integers(0, 2, shape, dtype=np.uint8)
            write(folder / images / f"{stem}.png", picture)
            write(folder / masks / f"{stem}.png", mask)
            pictures[images, stem] = picture, mask
    return pictures


@pytest.fixture
def root(tmp_path) -> Location:
    return Location.parse(tmp_path / "root")


@pytest.mark.parametrize(
    ("pairs", "alias"),
    [
        ((("train", "trainannot"), ("val", "valannot"), ("test", "testannot")), "val"),
        ((("train", "train_masks"), ("validation", "validation_labels")), "validation"),
        ((("train/images", "train/masks"), ("valid/images", "valid/masks")), "valid"),
    ],
)
def test_the_usual_layouts_are_found(tmp_path, root, pairs, alias):
    pictures = layout(tmp_path / "data", pairs)
    found = import_folders(ImageFolders(folder=str(tmp_path / "data")), root)
    assert found.split_of["train-one"] == "train"
    assert found.split_of["validation-two"] == "validation"
    assert ("test-one" in found.split_of) == (len(pairs) == 3)
    held = next(s for s in found.segments if s.id == "validation-two")
    picture, mask = next(entry for (name, stem), entry in pictures.items() if name.startswith(alias) and stem == "two")
    arrays = open_segment(held, root)
    stored = arrays.read(Box(0, 0, 10, 14))
    np.testing.assert_array_equal(stored.layers, picture[..., ::-1].transpose(2, 0, 1))  # R, G, B
    np.testing.assert_array_equal(stored.labels, mask * 255)
    assert not stored.ignore.any()


def test_a_window_beyond_the_picture_is_ignored(tmp_path, root):
    layout(tmp_path / "data")
    found = import_folders(ImageFolders(folder=str(tmp_path / "data"), colour="grey"), root)
    stored = open_segment(found.segments[0], root).read(Box(0, 0, 16, 16))
    assert stored.layers.shape == (1, 16, 16)
    assert stored.ignore[:10, :14].sum() == 0
    assert stored.ignore.sum() == 16 * 16 - 10 * 14
    assert not stored.layers[0, 10:].any()


def test_an_annotation_saved_with_losses_counts_from_half_of_full_scale(tmp_path, root):
    drawn = np.zeros((64, 64), np.uint8)
    cv2.circle(drawn, (30, 30), 17, 255, -1)
    write(tmp_path / "data/train/a.png", np.zeros((64, 64, 3), np.uint8))
    write(tmp_path / "data/trainannot/a.jpg", drawn)
    found = import_folders(ImageFolders(folder=str(tmp_path / "data")), root)
    stored = open_segment(found.segments[0], root).read(Box(0, 0, 64, 64))
    assert (cv2.imread(str(tmp_path / "data/trainannot/a.jpg"), 0) > 0).sum() > (drawn > 0).sum()
    np.testing.assert_array_equal(stored.labels, drawn)


def test_soft_annotations_keep_their_grey_values(tmp_path, root):
    write(tmp_path / "data/train/a.png", np.zeros((4, 4, 3), np.uint8))
    write(tmp_path / "data/trainannot/a.png", np.full((4, 4), 51, np.uint8))
    found = import_folders(ImageFolders(folder=str(tmp_path / "data"), label_above=None), root)
    assert open_segment(found.segments[0], root).read(Box(0, 0, 4, 4)).ready().labels[0, 0] == pytest.approx(0.2)


def test_folders_of_other_names_are_named(tmp_path, root):
    layout(tmp_path / "data", (("pots", "drawings"),))
    with pytest.raises(DataError, match="name the folders"):
        import_folders(ImageFolders(folder=str(tmp_path / "data")), root)
    pair = {"images": "pots", "annotations": "drawings"}
    assert len(import_folders(ImageFolders(folder=str(tmp_path / "data"), train=pair), root).segments) == 2


def test_two_possible_annotation_folders_are_not_guessed(tmp_path, root):
    layout(tmp_path / "data", (("train", "trainannot"), ("train", "train_masks")))
    with pytest.raises(ConfigError, match="got 2 "):
        import_folders(ImageFolders(folder=str(tmp_path / "data")), root)


def test_pictures_without_annotation_are_refused(tmp_path, root):
    layout(tmp_path / "data")
    (tmp_path / "data/valannot/two.png").unlink()
    with pytest.raises(DataError, match="'two'"):
        import_folders(ImageFolders(folder=str(tmp_path / "data")), root)


def test_sizes_depths_and_damage_are_refused(tmp_path, root):
    layout(tmp_path / "data")
    write(tmp_path / "data/trainannot/one.png", np.zeros((10, 13), np.uint8))
    with pytest.raises(MismatchError, match="expected .* like its picture .*; give one of its size"):
        import_folders(ImageFolders(folder=str(tmp_path / "data")), root)
    write(tmp_path / "data/trainannot/one.png", np.zeros((10, 14), np.uint16))
    with pytest.raises(DataError, match="8 bits"):
        import_folders(ImageFolders(folder=str(tmp_path / "data")), root)
    (tmp_path / "data/train/one.png").write_bytes(b"nothing")
    with pytest.raises(CorruptDataError, match=r"one\.png"):
        import_folders(ImageFolders(folder=str(tmp_path / "data")), root)


def test_pictures_without_a_split_are_imported_and_equalised_channel_by_channel(tmp_path, root):
    layout(tmp_path / "data", [("images", "masks")], shape=(70, 90))
    settings = {"folder": str(tmp_path / "data"), "pictures": {"images": "images", "annotations": "masks"}}
    clahe = ClaheSettings(clip_limit=3, cell_px=32)
    found = import_folders(ImageFolders(**settings, clahe=clahe), root)
    assert [segment.id for segment in found.segments] == ["picture-one", "picture-two"]
    assert found.split_of == {}
    plain = decode_picture(Location.parse(tmp_path / "data/images/one.png"), in_colour=True)
    window, whole = Box(10, 20, 60, 95), Box(0, 0, 70, 90)
    layers = open_segment(found.segments[0], root).read(window).layers
    for layer, stored in zip(layers, plain, strict=True):
        expected = equalise(stored, whole, whole, clahe)[10:60, 20:]
        np.testing.assert_array_equal(layer[:, :70], expected)
        assert (expected != stored[10:60, 20:]).any()
    assert (layers[:, :, 70:] == 0).all()


def test_a_split_and_no_split_contradict_each_other_and_odd_cells_are_refused(tmp_path, root):
    pair = {"images": "images", "annotations": "masks"}
    with pytest.raises(ValueError, match="not both"):
        ImageFolders(folder="x", pictures=pair, train=pair)
    layout(tmp_path / "data", [("images", "masks")])
    odd = ImageFolders(folder=str(tmp_path / "data"), pictures=pair, clahe=ClaheSettings(clip_limit=2, cell_px=100))
    with pytest.raises(ConfigError, match="power of two"):
        import_folders(odd, root)


def test_a_picture_that_trains_under_one_name_and_validates_under_another_is_known_by_its_pixels(tmp_path, root):
    pictures = layout(tmp_path / "data")
    again, mask = pictures["train", "two"]
    write(tmp_path / "data/val/another.bmp", again)  # other name, other bytes, the same pixels
    write(tmp_path / "data/valannot/another.png", mask)
    found = import_folders(ImageFolders(folder=str(tmp_path / "data")), root)
    names = surfaces_of(found.segments, {}, found.pixels_of)
    assert names["validation-another"] == names["train-two"]
    assert len(set(names.values())) == len(names) - 1

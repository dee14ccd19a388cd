import cv2
import numpy as np
import pytest

from inkbatch.data.labels.painting import Marks
from inkbatch.data.labels.painting_session import PaintSession, Sent
from inkbatch.data.labels.painting_version import PaintedVersion, create_version, labels_folder
from inkbatch.errors import ConfigError, DataError
from inkbatch.geometry import Box
from inkbatch.io.layers import open_layer_source
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.steps.labels import painted
from inkbatch.steps.labels.job import LabelsConfig, run
from inkbatch.testing.datasets import inked, labelled_segment
from inkbatch.testing.faults import Notes

SHAPE = (300, 520)
INK, IGNORED, BARE = Box(10, 10, 40, 60), Box(200, 100, 240, 500), Box(30, 30, 290, 300)


@pytest.fixture
def root(tmp_path):
    labelled_segment(tmp_path / "root", "seg", inked(SHAPE, (0, 0, 9, 9)))
    return str(tmp_path / "root")


def paint(root, **boxes):
    """Make a version with one box per layer, in this order."""
    folder = create_version(labels_folder(root, "seg"), "seg", SHAPE, 8.0, author="ada", started_from="nothing")
    session = PaintSession(folder)
    for seq, (layer, box) in enumerate(boxes.items(), start=1):
        mask = np.ones(box.shape, bool)
        session.paint(Sent("tab", seq, "", seq, ""), lambda: [Marks(box, mask, layer)])  # noqa: B023
    session.close()
    return folder


def made(root, tmp_path, **settings):
    output = tmp_path / "made"
    config = LabelsConfig(segment="seg", root=root, output_root=str(output), unit_px=64, **settings)
    assert run(config, RunContext()).complete
    stored = {}
    for name in ("ink_labels", "ignore_mask"):
        place = output / f"segments/seg/{name}.zarr"
        if place.exists():
            stored[name] = Multiscale.open(Location.parse(place)).levels[0].read(Box(0, 0, *SHAPE).slices)
    return stored


def test_a_version_becomes_labels_as_it_was_painted(root, tmp_path):
    paint(root, ink=INK, ignore=IGNORED)
    found = made(root, tmp_path, painted="v001")
    np.testing.assert_array_equal(found["ink_labels"], inked(SHAPE, (10, 10, 40, 60)))  # small, and kept
    np.testing.assert_array_equal(found["ignore_mask"] > 0, inked(SHAPE, (200, 100, 240, 500)) > 0)


def test_what_is_neither_ink_nor_not_ink_counts_nowhere_once_not_ink_was_painted(root, tmp_path):
    paint(root, not_ink=BARE, ink=INK, ignore=IGNORED)
    found = made(root, tmp_path, painted="v001")
    counts = inked(SHAPE, (30, 30, 290, 300), (10, 10, 40, 60)) > 0
    counts[IGNORED.slices] = False
    np.testing.assert_array_equal(found["ignore_mask"] > 0, ~counts)


def test_a_version_is_pinned_by_its_strokes(root, tmp_path):
    folder = paint(root, ink=INK)
    made(root, tmp_path, painted="v001")
    assert made(root, tmp_path, painted=folder.uri)["ink_labels"].any()  # the same by its address: nothing to do
    session = PaintSession(folder)
    session.paint(Sent("tab", 2, "", 1, ""), lambda: [Marks(BARE, np.ones(BARE.shape, bool), "ink")])
    session.close()
    with pytest.raises(DataError):
        made(root, tmp_path, painted="v001")


def test_only_one_source_is_taken(root, tmp_path):
    paint(root, ink=INK)
    for other in ({"image": "a.png"}, {"prediction": "b"}, {"ignore": {"image": "a.png"}}, {"supervision_mask": "a"}):
        with pytest.raises(ConfigError, match="does not go with painted labels"):
            made(root, tmp_path, painted="v001", **other)
    with pytest.raises(DataError, match="v001"):
        made(root, tmp_path, painted="v002")


def test_labels_from_elsewhere_become_a_version_and_leave_as_pictures_and_volumes(root, tmp_path):
    ink, ignored = inked(SHAPE, (10, 10, 40, 60)), inked(SHAPE, (200, 100, 240, 500))
    cv2.imwrite(str(tmp_path / "ink.png"), ink)
    cv2.imwrite(str(tmp_path / "ignore.tif"), ignored)
    names = {"ink": str(tmp_path / "ink.png"), "ignore": str(tmp_path / "ignore.tif"), "author": "bob"}
    said = painted.import_labels(painted.ImportLabelsConfig(segment="seg", root=root, **names))
    assert "1,500 px of ink" in said
    version = PaintedVersion.open(labels_folder(root, "seg") / "v001")
    np.testing.assert_array_equal(version.tiles.read(Box(0, 0, *SHAPE)), ink // 255 + ignored // 255 * 4)
    assert version.facts["started_from"] == "ink: ink.png, ignore: ignore.tif"
    for name in ("out.png", "out.tif"):
        export = painted.ExportLabelsConfig(segment="seg", version="v001", to=str(tmp_path / name), root=root)
        painted.export_labels(export)
        np.testing.assert_array_equal(cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED), ink)
    volume = painted.ExportLabelsConfig(segment="seg", version="v001", to=str(tmp_path / "out.zarr"), root=root)
    assert "on plane 1" in painted.export_labels(volume)
    planes = open_layer_source(str(tmp_path / "out.zarr")).read(range(3), Box(0, 0, *SHAPE))
    np.testing.assert_array_equal(planes, np.stack([ink * 0, ink, ink * 0]))
    again = painted.ImportLabelsConfig(segment="seg", ink=str(tmp_path / "out.zarr"), root=root)
    painted.import_labels(again)
    listed = painted.list_versions(painted.VersionsConfig(segment="seg", root=root)).splitlines()
    assert [row[:4] for row in listed] == ["v001", "v002"]
    picture = tmp_path / "changes.png"
    asked = painted.VersionsConfig(segment="seg", one="v001", other="v002", root=root, picture=str(picture))
    table = painted.list_versions(asked)
    assert "ignore              0.0102      0.0000      0.0000      0.0102" in table
    assert table.endswith("2 tiles differ")
    assert cv2.imread(str(picture)).shape == (38, 65, 3)


def prepared(root, content, shape=SHAPE):
    """Prepare the segment, with a digest of its content as `inkbatch prepare` leaves it."""
    (Location.parse(root) / "segments/seg").delete_folder()
    place = labelled_segment(root, "seg", inked(shape, (0, 0, 9, 9))) / "prepare/complete.json"
    place.write_json({**place.read_mapping(), "content": content})


def test_labels_that_are_older_than_the_surface_are_named(root, tmp_path):
    prepared(root, "one")
    cv2.imwrite(str(tmp_path / "ink.png"), inked(SHAPE, (10, 10, 40, 60)))
    painted.import_labels(painted.ImportLabelsConfig(segment="seg", ink=str(tmp_path / "ink.png"), root=root))
    asked = painted.VersionsConfig(segment="seg", root=root)
    compared = asked.model_copy(update={"one": "v001", "other": "v001"})
    assert "prepared again" not in painted.list_versions(asked) + painted.list_versions(compared)
    prepared(root, "other")
    words = "labels v001 of segment seg were begun before the segment was prepared again"
    assert words in painted.list_versions(asked)
    assert words in painted.list_versions(compared)
    notes = Notes()
    run(LabelsConfig(segment="seg", root=root, unit_px=64, painted="v001", replace=True), RunContext(reporter=notes))
    assert any(words in line for line in notes.said)


def test_labels_of_a_surface_of_another_size_are_not_compared(root):
    paint(root, ink=INK)
    paint(root, ink=BARE)
    prepared(root, "other", (400, 520))
    with pytest.raises(DataError, match=r"v001: expected labels of \(400, 520\) px"):
        painted.list_versions(painted.VersionsConfig(segment="seg", one="v001", other="v002", root=root))


def test_strokes_that_a_killed_server_left_are_in_the_list(root):
    folder = paint(root, ink=INK)
    session = PaintSession(folder)
    session.flush = lambda: None
    session.paint(Sent("tab", 2, "", 1, ""), lambda: [Marks(BARE, np.ones(BARE.shape, bool), "ignore")])
    listed = painted.list_versions(painted.VersionsConfig(segment="seg", root=root))
    assert f"ignore {BARE.area * 64 / 1e8:.4f}" in listed
    session.close()


def test_labels_of_another_size_make_no_version(root, tmp_path):
    cv2.imwrite(str(tmp_path / "ink.png"), inked((99, 99), (1, 1, 9, 9)))
    config = painted.ImportLabelsConfig(segment="seg", ink=str(tmp_path / "ink.png"), root=root)
    with pytest.raises(DataError, match=r"\(99, 99\)"):
        painted.import_labels(config)
    assert not (labels_folder(root, "seg")).exists()
    with pytest.raises(ConfigError, match="got none"):
        painted.import_labels(painted.ImportLabelsConfig(segment="seg", root=root))
    with pytest.raises(ConfigError, match="name both"):
        painted.list_versions(painted.VersionsConfig(segment="seg", one="v001", root=root))


@pytest.mark.parametrize("author", ["two\nlines", "\x1b[31m", "a" * 81])
def test_an_author_is_one_line(root, tmp_path, author):
    with pytest.raises(ConfigError, match="author: expected one line of at most 80 characters"):
        create_version(labels_folder(root, "seg"), "seg", SHAPE, 8.0, author=author, started_from="nothing")
    assert not labels_folder(root, "seg").exists()

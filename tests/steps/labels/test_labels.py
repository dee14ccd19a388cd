"""labels: cleaned by units as if whole, resumable and shardable, refusals that name the cure."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from scipy import ndimage

from inkbatch.errors import ConfigError, DataError, MismatchError, Preempted
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.run.progress import QuietReporter
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.steps.labels import job as step
from inkbatch.steps.labels.job import LabelsConfig, run
from inkbatch.steps.prepare.job import run as prepare
from inkbatch.testing.faults import stored_bytes

SHAPE = (150, 210)


def blotches(shape=SHAPE, seed=0, share=0.4) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 3)
    return noise > np.quantile(noise, 1 - share)


@pytest.fixture
def picture(tmp_path):
    mask = blotches()
    cv2.imwrite(str(tmp_path / "labels.png"), mask.astype(np.uint8) * 255)
    return tmp_path / "labels.png", mask


@pytest.fixture
def configure(tiny_segment, picture):
    def make(**changes) -> LabelsConfig:
        clean = {"min_area_px": 120, "max_hole_px": None, **changes.pop("clean", {})}
        values = {"segment": "tiny", "root": str(tiny_segment.root), "unit_px": 64, "clean": clean}
        if "prediction" not in changes:
            values["image"] = str(picture[0])
        return LabelsConfig(**{**values, **changes})

    return make


def read(config, name="ink_labels") -> np.ndarray:
    pyramid = Multiscale.open(Location.parse(config.root) / f"segments/tiny/{name}.zarr")
    return pyramid.levels[0].read(Box(0, 0, *pyramid.shape).slices)


def cleaned(mask, min_area_px=120) -> np.ndarray:
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[0] = 0
    return ndimage.binary_fill_holes((areas >= min_area_px)[labels])


def test_a_mask_that_changes_between_two_units_stops_the_labels(configure, tmp_path, no_overlap):
    mask = tmp_path / "mask.png"
    cv2.imwrite(str(mask), np.full(SHAPE, 255, np.uint8))
    context = RunContext()
    context.reporter.unit = lambda name, facts: cv2.imwrite(str(mask), np.zeros(SHAPE, np.uint8))
    with pytest.raises(MismatchError, match=r"changed while they were read \(supervision_mask: 1 of 1 changed: mask"):
        run(configure(supervision_mask=str(mask)), context)


def test_labels_are_cleaned_as_if_the_surface_was_never_cut(configure, picture):
    config = configure()
    report = run(config, RunContext())
    assert report.complete
    assert report.units == 12
    expected = cleaned(picture[1])
    assert expected.any()
    assert (expected != picture[1]).any()
    np.testing.assert_array_equal(read(config), expected * 255)
    assert not (Location.parse(config.root) / "segments/tiny/ignore_mask.zarr").exists()


def test_dilation_reaches_across_seams(configure, picture):
    config = configure(clean={"dilation_px": 3})
    run(config, RunContext())
    yy, xx = np.mgrid[-3:4, -3:4]
    grown = ndimage.binary_dilation(picture[1], yy**2 + xx**2 <= 9)
    np.testing.assert_array_equal(read(config), cleaned(grown) * 255)


def test_statistics_and_preview_tell_what_was_done(configure, picture, tiny_segment):
    config = configure(ignore={"border": "surface"})
    run(config, RunContext())
    found = json.loads((tiny_segment.folder / "labels/components.json").read_text())
    labels, count = ndimage.label(picture[1], np.ones((3, 3)))
    areas = np.bincount(labels.ravel())[1:]
    assert found["components"] == np.count_nonzero(areas >= 120)
    assert found["removed_components"] == np.count_nonzero(areas < 120)
    assert sum(found["components_by_least_area_px"].values()) == count
    assert [entry["area"] for entry in found["largest"]] == sorted(areas[areas >= 120], reverse=True)
    assert found["ink_px"] == np.count_nonzero(read(config))
    preview = cv2.imread(str(tiny_segment.folder / "labels/preview.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(preview[:, : SHAPE[1]], picture[1] * 255)
    after = np.where(read(config, "ignore_mask") != 0, 128, read(config))
    np.testing.assert_array_equal(preview[:, -SHAPE[1] :], after)


def test_what_is_removed_for_its_size_is_said_aloud(configure, picture):
    labels, _ = ndimage.label(picture[1], np.ones((3, 3)))
    areas = np.bincount(labels.ravel())[1:]
    small = areas[areas < 120]
    notes = []
    reporter = QuietReporter()
    reporter.note = notes.append
    run(configure(), RunContext(reporter=reporter))
    (said,) = [note for note in notes if "became bare" in note]
    assert f"{len(small)} components of fewer than 120 px" in said
    assert f"{small.sum()} px or {small.sum() / areas.sum():.1%} of the ink" in said
    run(configure(replace=True, clean={"min_area_px": 0}), RunContext(reporter=reporter))
    assert sum("became bare" in note for note in notes) == 1


def test_a_prediction_gives_labels_and_an_uncertain_band_that_is_ignored(configure, tiny_segment):
    folder = Location.parse(tiny_segment.root) / "predictions/tiny/net"
    noise = ndimage.gaussian_filter(np.random.default_rng(3).random(SHAPE), 4)
    probability = ((noise - noise.min()) / np.ptp(noise)).astype(np.float16)
    record = RunFolder(folder, RunManifest("infer", {"segment": "tiny"}, {}, 1))
    record.begin()
    Prediction.create(folder, SHAPE, 256, 8.0, {}).write(Box(0, 0, *SHAPE), probability.astype(np.float32))
    config = configure(prediction="net", ignore={"uncertain": [0.4, 0.6]}, clean={"threshold": 0.55})
    with pytest.raises(DataError, match="incomplete"):
        run(config, RunContext())
    record.complete()
    run(config, RunContext())
    share = probability.astype(np.float32)
    np.testing.assert_array_equal(read(config), cleaned(share >= np.float32(0.55)) * 255)
    band = (share >= np.float32(0.4)) & (share < np.float32(0.6))
    np.testing.assert_array_equal(read(config, "ignore_mask"), band)
    uri = configure(prediction=folder.uri, replace=True, clean={"threshold": 0.5})
    run(uri, RunContext())
    np.testing.assert_array_equal(read(uri), cleaned(share >= 0.5) * 255)


def test_a_given_mask_and_components_at_the_border_are_ignored(configure, picture, tmp_path):
    given = blotches(seed=5, share=0.1)
    cv2.imwrite(str(tmp_path / "ignore.png"), given.astype(np.uint8))
    config = configure(ignore={"image": str(tmp_path / "ignore.png"), "border": "papyrus"}, clean={"max_hole_px": 0})
    run(config, RunContext())
    labels, _ = ndimage.label(picture[1], np.ones((3, 3)))
    kept = cleaned_without_filling(picture[1])
    papyrus = np.zeros(SHAPE, bool)
    papyrus[:, : SHAPE[1] - SHAPE[1] // 5] = True  # as random_papyrus makes it
    border = ~ndimage.binary_erosion(papyrus, np.ones((3, 3)))
    cut_off = np.isin(labels, np.unique(labels[border & kept])) & kept
    assert cut_off.any()
    assert (kept & ~cut_off).any()
    np.testing.assert_array_equal(read(config, "ignore_mask"), given | cut_off)


def cleaned_without_filling(mask) -> np.ndarray:
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    return (areas >= 120)[labels]


def test_the_last_shard_finishes_and_the_bytes_are_those_of_one_run(configure, tiny_segment):
    config = configure(ignore={"border": "surface"})
    run(config, RunContext())
    outputs = [tiny_segment.folder / name for name in ("ink_labels.zarr", "ignore_mask.zarr")]
    expected = [stored_bytes(place) for place in outputs]
    pictures = [(tiny_segment.folder / f"labels/{name}").read_bytes() for name in ("preview.png", "components.json")]
    for name in step.OUTPUTS:
        (Location.parse(tiny_segment.folder) / name).delete_folder()
    reports = [run(config, RunContext(shard=ShardSpec(index, 3))) for index in range(3)]
    assert [report.complete for report in reports] == [False, False, True]
    assert reports[2].stored == reports[2].units
    assert [stored_bytes(place) for place in outputs] == expected
    found = [(tiny_segment.folder / f"labels/{name}").read_bytes() for name in ("preview.png", "components.json")]
    assert found == pictures


@pytest.mark.parametrize("after", [2, 7, 14, 20])
def test_a_stopped_run_goes_on_where_it_ended(configure, picture, after, no_overlap):
    config, seen = configure(), []
    context = RunContext()
    original = context.stop.check

    def check() -> None:
        seen.append(1)
        if len(seen) > after:
            context.stop.set("a test")
        original()

    context.stop.check = check
    with pytest.raises(Preempted):
        run(config, context)
    report = run(config, RunContext())
    assert report.complete
    np.testing.assert_array_equal(read(config), cleaned(picture[1]) * 255)
    assert report.skipped == max(0, after - 12)


def test_a_complete_run_does_nothing(configure):
    run(configure(), RunContext())
    assert run(configure(), RunContext()).stored == 0


def test_other_settings_are_refused_until_replacing_is_asked_for(configure, picture):
    run(configure(), RunContext())
    other = configure(clean={"min_area_px": 300})
    with pytest.raises(MismatchError, match="min_area_px"):
        run(other, RunContext())
    with pytest.raises(ConfigError, match="shards"):
        run(other.model_copy(update={"replace": True}), RunContext(shard=ShardSpec(0, 2)))
    run(other.model_copy(update={"replace": True}), RunContext())
    np.testing.assert_array_equal(read(other), cleaned(picture[1], 300) * 255)


def test_labels_of_zeros_and_ones_need_their_white_to_be_stated(configure, tmp_path, picture):
    cv2.imwrite(str(tmp_path / "ones.png"), picture[1].astype(np.uint8))
    config = configure(image=str(tmp_path / "ones.png"))
    with pytest.raises(DataError, match=r"no ink is left.*0\.00392.*white"):
        run(config, RunContext())
    run(config.model_copy(update={"white": 1.0, "replace": True}), RunContext())
    np.testing.assert_array_equal(read(config), cleaned(picture[1]) * 255)


def test_values_beyond_white_are_refused_and_not_clamped(configure):
    with pytest.raises(DataError, match="got 0 to 255"):
        run(configure(white=1.0), RunContext())


def test_bare_papyrus_is_accepted_when_that_is_said(configure, tmp_path):
    cv2.imwrite(str(tmp_path / "bare.png"), np.zeros(SHAPE, np.uint8))
    config = configure(image=str(tmp_path / "bare.png"), allow_empty=True)
    assert run(config, RunContext()).complete
    assert not read(config).any()


def test_labels_of_another_size_are_refused(configure, tmp_path):
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((150, 209), np.uint8))
    with pytest.raises(DataError, match=r"\(150, 209\), that of the surface \(150, 210\)"):
        run(configure(image=str(tmp_path / "small.png")), RunContext())
    with pytest.raises(DataError, match="ignore mask"):
        run(configure(ignore={"image": str(tmp_path / "small.png")}), RunContext())


def test_contradictions_are_refused_before_anything_is_read(configure):
    with pytest.raises(ConfigError, match="choose one"):
        run(configure(image="a.png", prediction="b"), RunContext())
    with pytest.raises(ConfigError, match="ink_labels"):
        run(configure(image=None), RunContext())
    with pytest.raises(ConfigError, match="unit_px 100"):
        run(configure(unit_px=100), RunContext())


def test_a_shard_that_died_in_the_second_pass_leaves_nothing_to_its_successor(configure, tiny_segment, monkeypatch):
    config, clean = configure(), step.clean_labels
    run(config, RunContext(shard=ShardSpec(0, 2)))
    monkeypatch.setattr(step, "clean_labels", stopped)
    with pytest.raises(Preempted):
        run(config, RunContext(shard=ShardSpec(1, 2)))
    monkeypatch.setattr(step, "clean_labels", clean)
    assert run(config, RunContext(shard=ShardSpec(1, 2))).complete


def stopped(*_):
    raise Preempted("stopped by a test")


def test_labels_that_change_between_the_passes_are_noticed(configure, picture, monkeypatch):
    config = configure()
    clean = step.clean_labels
    monkeypatch.setattr(step, "clean_labels", stopped)
    with pytest.raises(Preempted):
        run(config, RunContext())
    monkeypatch.setattr(step, "clean_labels", clean)
    cv2.imwrite(str(picture[0]), np.zeros(SHAPE, np.uint8))
    with pytest.raises(DataError, match=r"changed since they were counted|settings or inputs"):
        run(config, RunContext())


def test_labels_on_an_object_store_are_the_same(configure, prepare_config, tiny_segment, picture, s3_root):
    prepare(prepare_config(tiny_segment.source, root=s3_root.uri), RunContext())
    config = configure(root=s3_root.uri, ignore={"border": "papyrus"})
    assert run(config, RunContext()).complete
    np.testing.assert_array_equal(read(config), cleaned(picture[1]) * 255)
    assert (s3_root / "segments/tiny/labels/preview.png").exists()
    assert run(config, RunContext()).stored == 0


def test_the_catalog_says_where_labels_are(configure, tmp_path, picture):
    (tmp_path / "segments.yaml").write_text("segments:\n  tiny:\n    ink_labels: labels.png\n")
    config = configure(image=None, catalog=str(tmp_path / "segments.yaml"))
    run(config, RunContext())
    np.testing.assert_array_equal(read(config), cleaned(picture[1]) * 255)

"""Labels of the field: volumes, supervision and validation masks, soft labels, versions; refusals name the cure."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest
import yaml

from inkbatch.data.labels.versions import chosen_version
from inkbatch.errors import DataError
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.steps.labels.job import LabelsConfig, describe, make_plan, run
from inkbatch.testing.label_volumes import on_plane, write_label_volume

SHAPE = (150, 210)
PLANES = 21
NO_CLEANING = {"min_area_px": 0, "max_hole_px": 0}


@pytest.fixture
def ink() -> np.ndarray:
    found = np.zeros(SHAPE, np.uint8)
    found[20:70, 30:180] = 255
    found[100:101, 5:9] = 255
    return found


@pytest.fixture
def configure(tiny_segment):
    def make(**changes) -> LabelsConfig:
        clean = {} if changes.get("soft") else {"clean": NO_CLEANING}
        return LabelsConfig(**{"segment": "tiny", "root": str(tiny_segment.root), "unit_px": 64, **clean, **changes})

    return make


@pytest.fixture
def volume(tmp_path, ink):
    return str(write_label_volume(tmp_path / "tiny_inklabels.zarr", on_plane(ink, PLANES, 10)))


def read(config, name="ink_labels") -> np.ndarray:
    pyramid = Multiscale.open(Location.parse(config.root) / f"segments/tiny/{name}.zarr")
    return pyramid.levels[0].read(Box(0, 0, *pyramid.shape).slices)


def facts(config) -> dict:
    return (Location.parse(config.root) / "segments/tiny/labels/complete.json").read_json()


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("plane", [None, "middle", "max", 10])
def test_the_labels_of_a_volume_are_those_of_its_one_plane(configure, tmp_path, ink, zarr_format, plane):
    place = write_label_volume(tmp_path / "v.zarr", on_plane(ink, PLANES, 10), zarr_format=zarr_format)
    config = configure(image=str(place), plane=plane)
    assert run(config, RunContext()).complete
    np.testing.assert_array_equal(read(config), ink)
    assert facts(config)["plane"] == ("max" if plane == "max" else 10)


def test_the_middle_plane_is_half_of_the_planes(configure, tmp_path, ink):
    for planes, middle in ((65, 32), (21, 10), (28, 14)):
        place = write_label_volume(tmp_path / f"v{planes}.zarr", on_plane(ink, planes, middle), levels=1)
        config = configure(image=str(place), plane="middle", replace=True)
        run(config, RunContext())
        np.testing.assert_array_equal(read(config), ink)


def test_ink_on_several_planes_is_refused_and_the_cure_works_at_once(configure, tmp_path, ink):
    both = on_plane(ink, PLANES, 10)
    both[3, 140:150, 200:210] = 255  # of another unit
    place = str(write_label_volume(tmp_path / "v.zarr", both))
    with pytest.raises(DataError, match=r"one of its 21 planes, got them on planes 3, 10; set plane to one of them"):
        run(configure(image=place), RunContext())
    folder = Location.parse(configure().root) / "segments/tiny"
    assert not (folder / "labels").names()
    assert not (folder / "ink_labels.zarr").exists()
    config = configure(image=place, plane="max")
    run(config, RunContext())
    np.testing.assert_array_equal(read(config), both.max(axis=0))


def test_shards_that_see_one_plane_each_refuse_them_together(configure, tmp_path, ink):
    both = on_plane(ink, PLANES, 10)
    both[3, 140:150, 200:210] = 255  # in the last unit of shard 1
    config = configure(image=str(write_label_volume(tmp_path / "v.zarr", both)))
    first = RunContext(shard=ShardSpec(0, 2))
    assert not run(config, first).complete
    with pytest.raises(DataError, match="planes 3, 10"):
        run(config, RunContext(shard=ShardSpec(1, 2)))


def test_a_plane_that_is_not_there_is_refused(configure, volume):
    with pytest.raises(DataError, match="expected a plane from 0 to 20, got plane 21"):
        run(configure(image=volume, plane=21), RunContext())


def test_a_volume_whose_writer_left_out_every_chunk_needs_allow_empty(configure, tmp_path, ink):
    place = write_label_volume(tmp_path / "v.zarr", on_plane(ink * 0, PLANES, 10))
    for level in ("0", "1"):
        for chunk in [path for path in (place / level).rglob("*") if path.is_file() and not path.name.startswith(".")]:
            chunk.unlink()
    with pytest.raises(DataError, match="chunks of .* is stored; .*set allow_empty if it marks nothing"):
        run(configure(image=str(place)), RunContext())
    config = configure(image=str(place), allow_empty=True)
    assert run(config, RunContext()).complete
    assert not read(config).any()


def test_a_volume_without_ink_is_refused(configure, tmp_path, ink):
    place = str(write_label_volume(tmp_path / "v.zarr", on_plane(ink * 0, PLANES, 10)))
    with pytest.raises(DataError, match=rf"no ink is left of {re.escape(place)}\S*: 0 components"):
        run(configure(image=place), RunContext())
    with pytest.raises(DataError, match="all values are 0"):
        run(configure(image=place, soft=True), RunContext())


def test_a_volume_of_another_size_is_refused_with_both_sizes_and_the_level_that_fits(configure, tmp_path, ink):
    small = str(write_label_volume(tmp_path / "small.zarr", on_plane(ink[:80, :120], PLANES, 10)))
    with pytest.raises(DataError, match=r"labels is \(80, 120\), that of the surface \(150, 210\).*this very surface"):
        run(configure(image=small), RunContext())
    large = str(write_label_volume(tmp_path / "large.zarr", on_plane(ink.repeat(2, 0).repeat(2, 1), PLANES, 10)))
    with pytest.raises(DataError, match=r"labels is \(300, 420\), that of the surface .*, or set level=1"):
        run(configure(image=large), RunContext())
    config = configure(image=large, level=1)
    run(config, RunContext())
    np.testing.assert_array_equal(read(config), ink)


def masks(tmp_path, supervised: Box, held_out: Box) -> dict[str, str]:
    found = {}
    for name, box in (("supervision_mask", supervised), ("validation_mask", held_out)):
        picture = np.zeros(SHAPE, np.uint8)
        picture[box.slices] = 255
        found[name] = str(write_label_volume(tmp_path / f"tiny_{name}.zarr", on_plane(picture, PLANES, 10)))
    return found


def test_outside_supervision_is_ignored_and_what_is_held_out_is_kept(configure, volume, tmp_path):
    given = masks(tmp_path, Box(0, 0, 150, 100), Box(40, 100, 90, 210))
    config = configure(image=volume, **given)
    run(config, RunContext())
    expected = np.ones(SHAPE, np.uint8)
    expected[:, :100] = 0
    expected[40:90, 100:] = 0
    np.testing.assert_array_equal(read(config, "ignore_mask"), expected)
    held_out = np.zeros(SHAPE, np.uint8)
    held_out[40:90, 100:] = 1
    np.testing.assert_array_equal(read(config, "validation_mask"), held_out)
    both = int((read(config) > 0)[expected > 0].sum())
    assert facts(config)["ignored_ink_px"] == both > 0
    assert "held out      pixels of" in describe(config)


def test_masks_that_mark_everything_or_nothing_are_refused_and_leave_nothing(configure, volume, tmp_path):
    whole, nothing = Box(0, 0, *SHAPE), Box(0, 0, 0, 0)
    cases = [
        (masks(tmp_path / "a", nothing, whole) | {"supervision_mask": None}, "it covers all .* px that count"),
        (masks(tmp_path / "b", Box(0, 0, 50, 50), Box(0, 0, 90, 90)), "it covers all .* px that count"),
        (masks(tmp_path / "c", whole, nothing), "expected some papyrus to hold out, got none"),
        (masks(tmp_path / "d", nothing, whole) | {"validation_mask": None}, "marks none; give another one"),
    ]
    for given, words in cases:
        with pytest.raises(DataError, match=words):
            run(configure(image=volume, **given), RunContext())
        assert not (Location.parse(configure().root) / "segments/tiny/labels").names()


@pytest.mark.parametrize("what", ["supervision_mask", "validation_mask"])
def test_a_mask_of_another_size_is_refused_with_both_sizes(configure, volume, tmp_path, what):
    cv2.imwrite(str(tmp_path / "m.png"), np.full((80, 120), 255, np.uint8))
    with pytest.raises(DataError, match=rf"{what.replace('_', ' ')} is \(80, 120\), that of the surface \(150, 210\)"):
        run(configure(image=volume, **{what: str(tmp_path / "m.png")}), RunContext())


def test_soft_labels_keep_their_values(configure, tmp_path):
    shown = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    config = configure(image=str(write_label_volume(tmp_path / "v.zarr", on_plane(shown, PLANES, 10))), soft=True)
    run(config, RunContext())
    np.testing.assert_array_equal(read(config), shown)
    pyramid = Multiscale.open(Location.parse(config.root) / "segments/tiny/ink_labels.zarr")
    assert pyramid.attributes["inkbatch"]["soft"] is True
    assert facts(config)["ink_px"] == (shown >= 128).sum()


def test_soft_labels_cannot_be_cleaned(configure, volume):
    with pytest.raises(ValueError, match="kept as they are; drop clean"):
        configure(image=volume, soft=True, clean={"threshold": 0.4})


@pytest.fixture
def versioned(tmp_path, ink):
    for number, name in ((1, "seg_inklabels.zarr"), (2, "seg_inklabels_v2.zarr"), (3, "seg_inklabels_v3.zarr")):
        picture = ink.copy()
        picture[:10, : 10 * number] = 255
        write_label_volume(tmp_path / name, on_plane(picture, PLANES, 10))
    return tmp_path / "seg_inklabels.zarr"


def test_several_versions_are_listed_and_none_is_picked_silently(configure, versioned):
    with pytest.raises(DataError, match=r"got 1 \(seg_inklabels.zarr\), 2 \(seg_inklabels_v2.zarr\), 3 \("):
        run(configure(image=str(versioned)), RunContext())
    with pytest.raises(DataError, match="expected version 4"):
        run(configure(image=str(versioned), version=4), RunContext())


def test_the_chosen_version_is_taken_and_pinned_by_its_content(configure, versioned, tmp_path):
    config = configure(image=str(versioned), version=2)
    run(config, RunContext())
    assert (read(config)[:10, :20] == 255).all()
    assert not read(config)[:10, 20:].any()
    source = json.loads((tmp_path / "root/segments/tiny/labels/manifest.json").read_text())["inputs"]["source"]
    assert source["version"] == 2
    assert "seg_inklabels_v2.zarr" in source["image"]
    assert len(source["fingerprint"]) == 64
    assert "versions      1, 2, 3; 2 is taken (seg_inklabels_v2.zarr)" in describe(config)
    named = configure(image=str(versioned).replace(".zarr", "_v2.zarr"))
    assert "already complete" in describe(named)
    write_label_volume(tmp_path / "other.zarr", on_plane(read(config), PLANES, 11))
    there, here = tmp_path / "other.zarr/0/2", tmp_path / "seg_inklabels_v2.zarr/0/2"
    pairs = [(chunk, here / chunk.relative_to(there)) for chunk in there.rglob("*/*")]
    chunk, target = next((a, b) for a, b in pairs if a.read_bytes() != b.read_bytes())
    target.write_bytes(chunk.read_bytes())
    with pytest.raises(DataError, match="fingerprint"):
        run(config, RunContext())


def test_a_mask_in_one_version_goes_with_any_version_of_the_labels(tmp_path):
    for name in ("a_validation_mask.zarr", "b_mask.png", "b_mask_v3.png"):
        (tmp_path / name).mkdir()
    assert chosen_version(str(tmp_path / "a_validation_mask.zarr"), 2, "m", follows=True).number == 1
    with pytest.raises(DataError, match="expected version 2"):
        chosen_version(str(tmp_path / "b_mask.png"), 2, "m", follows=True)


def test_the_catalog_names_labels_and_masks_together(configure, volume, tmp_path):
    given = masks(tmp_path, Box(0, 0, 150, 100), Box(40, 100, 90, 210))
    entry = {"ink_labels": volume, **{key: value.rsplit("/", 1)[-1] for key, value in given.items()}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"segments": {"tiny": entry}}))
    config = configure(catalog=str(tmp_path / "c.yaml"))
    run(config, RunContext())
    assert read(config, "ignore_mask").any()
    assert read(config, "validation_mask").any()
    plain = configure(catalog=str(tmp_path / "c.yaml"), supervision_mask="none", validation_mask="none", replace=True)
    run(plain, RunContext())
    assert not (Location.parse(plain.root) / "segments/tiny/validation_mask.zarr").exists()


def test_the_manifests_request_names_the_same_labels_and_masks(configure, versioned, tmp_path):
    given = masks(tmp_path / "m", Box(0, 0, 150, 100), Box(40, 100, 90, 210))
    entry = {"ink_labels": str(versioned), **given}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"segments": {"tiny": entry}}))
    plan = make_plan(configure(catalog=str(tmp_path / "c.yaml"), version=3, plane="middle"))
    again = make_plan(LabelsConfig(**plan.manifest.request, root=plan.config.root))
    assert again.manifest.digest == plan.manifest.digest
    assert again.manifest.inputs["validation_mask"]["uri"].startswith(given["validation_mask"])


def test_a_plane_belongs_to_a_volume(configure, tmp_path, ink):
    cv2.imwrite(str(tmp_path / "flat.png"), ink)
    with pytest.raises(DataError, match="got one 2-D picture; drop plane"):
        run(configure(image=str(tmp_path / "flat.png"), plane=3), RunContext())

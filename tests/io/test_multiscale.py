"""Pyramids: valid OME-Zarr 0.5, the same however units are cut."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from inkbatch.errors import DataError, MismatchError
from inkbatch.geometry import Box, cut
from inkbatch.io.halving import halve
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location

SHAPE = (3, 2100, 1300)


@pytest.fixture(scope="module")
def content():
    return np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)


def make(place, content, units, **changes):
    settings = {"dtype": "uint8", "chunk": (2, 64, 64), "shard_px": 512, "voxel_size_um": 8.0, "provenance": {"a": 1}}
    pyramid = Multiscale.create(Location.parse(place), content.shape, **{**settings, **changes})
    for box in units:
        pyramid.write(box, content[:, *box.slices])
    return pyramid


def test_levels_halve_and_equal_the_mean_of_the_level_above(tmp_path, content):
    pyramid = make(tmp_path / "p", content, cut(SHAPE[1:], 512, 512))
    above = content
    for level in pyramid.levels:
        stored = level.read([slice(0, size) for size in level.layout.shape])
        np.testing.assert_array_equal(stored, above)
        above = halve(above, "mean")
    assert len(pyramid.levels) == 3
    assert max(pyramid.levels[-1].layout.shape) <= 1024


def test_wide_units_store_the_same_bytes_as_single_shards(tmp_path, content):
    one = make(tmp_path / "one", content, cut(SHAPE[1:], 512, 512))
    wide = make(tmp_path / "wide", content, cut(SHAPE[1:], 512, 1024))
    for box in cut(SHAPE[1:], 512, 512):
        for place, other in zip(one.objects(box), wide.objects(box), strict=True):
            assert place.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
@pytest.mark.parametrize("shape", [(2100, 1300), (513, 1025), (70, 31)])
@pytest.mark.parametrize("where", ["local", "memory"])
def test_what_is_made_chunk_by_chunk_stores_the_bytes_of_a_whole_block(tmp_path, dtype, shape, where):
    random = np.random.default_rng(1)
    content = random.random(shape).astype(dtype) if dtype == "float16" else random.integers(0, 256, shape, np.uint8)
    settings = {"dtype": dtype, "chunk": (64, 64), "shard_px": 512, "voxel_size_um": 8.0, "provenance": {}}
    place = str(tmp_path) if where == "local" else f"memory://made/{tmp_path.name}"
    whole = Multiscale.create(Location.parse(f"{place}/whole"), shape, **settings)
    made = Multiscale.create(Location.parse(f"{place}/made"), shape, **settings)
    for box in cut(shape, 512, 1024):
        stored = whole.write(box, content[box.slices])
        seen = np.zeros(shape, np.uint8)

        def fill(part, out, seen=seen):
            seen[part.slices] += 1
            out[...] = content[part.slices]

        again, lower = made.write_made(box, fill)
        assert again == stored
        assert seen[box.slices].all()
        assert seen.max() == 1
        assert seen.sum() == box.area
        above = content[box.slices]
        for block in lower:
            above = halve(above, "mean")
            np.testing.assert_array_equal(block, above)
        for one, other in zip(whole.objects(box), made.objects(box), strict=True):
            assert one.read_bytes() == other.read_bytes()


def test_no_two_units_touch_one_object(tmp_path, content):
    pyramid = make(tmp_path / "p", content, [])
    places = [place.uri for box in cut(SHAPE[1:], 512, 512) for place in pyramid.objects(box)]
    assert len(places) == len(set(places))


def test_it_opens_in_an_independent_ome_zarr_reader(tmp_path, content):
    models = pytest.importorskip("ome_zarr_models.v05")
    make(tmp_path / "p.zarr", content, cut(SHAPE[1:], 512, 512))
    image = models.Image.from_zarr(zarr.open_group(str(tmp_path / "p.zarr"), mode="r"))
    scale = image.ome_attributes.multiscales[0]
    assert [axis.name for axis in scale.axes] == ["z", "y", "x"]
    assert scale.datasets[1].coordinateTransformations[0].scale == [8.0, 16.0, 16.0]


def test_other_settings_are_refused_where_a_pyramid_lies(tmp_path, content):
    make(tmp_path / "p", content, [])
    with pytest.raises(MismatchError, match="other inputs or settings"):
        make(tmp_path / "p", content, [], provenance={"a": 2})


def test_a_folder_without_a_pyramid_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.*run the job that makes it"):
        Multiscale.open(Location.parse(tmp_path / "nowhere"))


def test_boxes_and_levels_line_up():
    assert Box(512, 0, 1000, 300).downscale(2) == Box(256, 0, 500, 150)


def test_the_edge_of_a_pixel_doubles_from_level_to_level(tmp_path, content):
    pyramid = make(tmp_path / "p", content, [])
    assert [pyramid.pixel_um(level) for level in range(3)] == [8.0, 16.0, 32.0]
    assert Multiscale.open(pyramid.location).pixel_um() == 8.0

"""Zarr says what its dimensions mean, or the user does; damaged and empty objects are no data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from inkbatch.errors import ConfigError, CorruptDataError, DataError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.layers import open_layer_source

EVERYTHING = Box(0, 0, 61, 83)


def test_axes_that_nobody_states_are_refused_with_a_cure(store_locally) -> None:
    stored = store_locally("zarr3")
    with pytest.raises(ConfigError, match="axes=zyx"):
        open_layer_source(stored.uri)


def test_axes_that_contradict_the_metadata_are_refused(store_locally) -> None:
    stored = store_locally("ome-0.5")
    with pytest.raises(MismatchError, match=r"'yxz'.*'zyx'"):
        open_layer_source(stored.uri, axes="yxz")
    assert open_layer_source(stored.uri, axes="zyx").shape_zyx == stored.expected.shape


@pytest.mark.parametrize("axes", ["zy", "zyxc", "zcx", "tzy"])
def test_axes_that_do_not_fit_are_refused(store_locally, axes) -> None:
    with pytest.raises(ConfigError, match="fit"):
        open_layer_source(store_locally("zarr3").uri, axes=axes)


def test_names_of_xarray_count_as_stated(store_locally) -> None:
    stored = store_locally("zarr2-zstd")
    (Path(stored.uri) / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": ["z", "y", "x"]}))
    assert open_layer_source(stored.uri).shape_zyx == stored.expected.shape


def test_names_that_are_not_ours_do_not_count(tmp_path: Path, layout_names, make_grey) -> None:
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=(5, 6, 7),
        chunks=(5, 6, 7),
        dtype="uint8",
        dimension_names=["depth", "row", "column"],
    )
    array[...] = 1
    with pytest.raises(ConfigError, match="depth"):
        open_layer_source(str(tmp_path / "a.zarr"))
    assert open_layer_source(str(tmp_path / "a.zarr"), axes="zyx").shape_zyx == (5, 6, 7)


def test_a_plane_is_one_layer(tmp_path: Path, make_grey) -> None:
    mask = make_grey("uint8", (61, 83))
    zarr.create_array(
        tmp_path / "m.zarr", shape=mask.shape, chunks=(16, 16), dtype="uint8", dimension_names=["y", "x"]
    )[...] = mask
    with open_layer_source(str(tmp_path / "m.zarr")) as source:
        assert source.shape_zyx == (1, 61, 83)
        np.testing.assert_array_equal(source.read(range(1), EVERYTHING)[0], mask)


@pytest.mark.parametrize("version", ["ome-0.4", "ome-0.5"])
def test_a_level_is_chosen_with_its_voxel_size(store_locally, version) -> None:
    stored = store_locally(version)
    with open_layer_source(stored.uri) as full, open_layer_source(stored.uri, level=1) as half:
        assert full.voxel_size_um == pytest.approx(7.91)
        assert half.voxel_size_um == pytest.approx(15.82)
        assert half.shape_zyx == (5, 31, 42)
        np.testing.assert_array_equal(half.read(range(5), Box(0, 0, 31, 42)), stored.expected[:, ::2, ::2])


@pytest.mark.parametrize("level", [-1, 2])
def test_a_level_that_is_not_there_is_refused(store_locally, level) -> None:
    with pytest.raises(ConfigError, match="level from 0 to 1"):
        open_layer_source(store_locally("ome-0.5").uri, level=level)


def test_a_level_of_a_plain_array_is_refused(store_locally) -> None:
    with pytest.raises(ConfigError, match="one array"):
        open_layer_source(store_locally("zarr3").uri, axes="zyx", level=0)


def edited(stored, change) -> str:
    """Change the OME metadata of a stored 0.5 image."""
    path = Path(stored.uri) / "zarr.json"
    document = json.loads(path.read_text())
    change(document["attributes"]["ome"]["multiscales"][0])
    path.write_text(json.dumps(document))
    return stored.uri


def test_a_scale_without_a_unit_states_no_voxel_size(store_locally) -> None:
    uri = edited(store_locally("ome-0.5"), lambda image: [axis.pop("unit") for axis in image["axes"]])
    assert open_layer_source(uri).voxel_size_um is None


def test_units_are_turned_into_micrometres(store_locally) -> None:
    uri = edited(store_locally("ome-0.5"), lambda image: [axis.update(unit="nanometer") for axis in image["axes"]])
    assert open_layer_source(uri).voxel_size_um == pytest.approx(0.00791)


def test_a_scale_of_the_whole_image_counts_too(store_locally) -> None:
    scale = [{"type": "scale", "scale": [1.0, 2.0, 2.0]}]
    uri = edited(store_locally("ome-0.5"), lambda image: image.update(coordinateTransformations=scale))
    assert open_layer_source(uri).voxel_size_um == pytest.approx(15.82)


def test_voxels_that_are_not_square_state_no_size(store_locally) -> None:
    def stretch(image) -> None:
        image["datasets"][0]["coordinateTransformations"][0]["scale"][2] = 9.0

    assert open_layer_source(edited(store_locally("ome-0.5"), stretch)).voxel_size_um is None


def test_more_than_one_channel_is_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(2, 5, 6, 7), chunks=(1, 5, 6, 7), dtype="uint8")[...] = 1
    with pytest.raises(DataError, match="'c' has 2"):
        open_layer_source(str(tmp_path / "a.zarr"), axes="czyx")


def test_an_array_inside_a_plain_group_is_named_by_its_path(tmp_path: Path, make_grey) -> None:
    volume = make_grey("uint8")
    group = zarr.open_group(tmp_path / "g.zarr", mode="w")
    group.create_group("deep").create_array("volume", shape=volume.shape, chunks=(2, 16, 16), dtype="uint8")[...] = (
        volume
    )
    with pytest.raises(DataError, match=r"it holds: deep.*g\.zarr/NAME"):
        open_layer_source(str(tmp_path / "g.zarr"))
    with open_layer_source(str(tmp_path / "g.zarr"), array="deep/volume", axes="zyx") as source:
        np.testing.assert_array_equal(source.read(range(5), EVERYTHING), volume)
    with pytest.raises(DataError, match="'nobody'"):
        open_layer_source(str(tmp_path / "g.zarr"), array="nobody", axes="zyx")
    with pytest.raises(ConfigError, match="leave"):
        open_layer_source(str(tmp_path / "g.zarr"), array="../up")


def test_a_level_whose_array_is_gone_is_named(store_locally) -> None:
    uri = edited(store_locally("ome-0.5"), lambda image: image["datasets"][0].update(path="gone"))
    with pytest.raises(DataError, match="'gone'"):
        open_layer_source(uri)


@pytest.mark.parametrize("dtype", ["int16", "uint32", "float64", "bool"])
def test_other_types_are_refused(tmp_path: Path, dtype) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(5, 6, 7), chunks=(5, 6, 7), dtype=dtype)
    with pytest.raises(DataError, match=dtype):
        open_layer_source(str(tmp_path / "a.zarr"), axes="zyx")


def test_damaged_metadata_are_named(store_locally) -> None:
    stored = store_locally("zarr3")
    for text, words in (("{", "not JSON"), ("[]", "object"), ("{}", "neither"), ('{"node_type": "array"}', "shape")):
        (Path(stored.uri) / "zarr.json").write_text(text)
        with pytest.raises(DataError, match=words):
            open_layer_source(stored.uri, axes="zyx")


def test_an_unknown_codec_is_refused(store_locally) -> None:
    stored = store_locally("zarr2-zstd")
    document = json.loads((Path(stored.uri) / ".zarray").read_text())
    document["compressor"] = {"id": "jpeg2000-of-tomorrow"}
    (Path(stored.uri) / ".zarray").write_text(json.dumps(document))
    with pytest.raises(DataError, match="cannot be opened"):
        open_layer_source(stored.uri, axes="zyx")


DAMAGES = {
    "cut": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "replaced": lambda data: b"<html>" * 20,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name",
    [
        "zarr3",
        "zarr3-sharded",
        "zarr3-raw",
        "zarr3-gzip",
        "zarr3-blosc",
        "zarr2-blosc",
        "zarr2-big-endian",
        "zarr2-gzip",
        "zarr2-lz4",
        "zarr2-zstd",
        "zarr2-zlib",
    ],
)
@pytest.mark.parametrize("where", ["local", "memory"])
def test_damaged_objects_are_no_data(store_locally, memory_root, name, damage, where) -> None:
    stored = store_locally(name)
    chunk = next(place for name in ("c/0/0/0", "0.0.0") if (place := Path(stored.uri) / name).exists())
    chunk.write_bytes(DAMAGES[damage](chunk.read_bytes()))
    uri = stored.uri
    if where == "memory":
        for path in Path(stored.uri).rglob("*"):
            if path.is_file():
                (memory_root / str(path.relative_to(stored.uri))).write_bytes(path.read_bytes())
        uri = memory_root.uri
    source = open_layer_source(uri, **stored.options)
    with pytest.raises(CorruptDataError, match="copy"):
        source.read(range(5), EVERYTHING)


def test_chunks_that_are_not_stored_hold_the_fill_value(store_locally) -> None:
    stored = store_locally("zarr2-blosc")
    (Path(stored.uri) / "0.0.0").unlink()
    block = open_layer_source(stored.uri, axes="zyx").read(range(5), EVERYTHING)
    assert not block[:2, :16, :32].any()
    np.testing.assert_array_equal(block[2:], stored.expected[2:])


def test_chunks_that_do_not_fit_memory_are_refused(store_locally) -> None:
    stored = store_locally("zarr3")  # chunks of 2 x 16 x 32 uint16: 2048 bytes
    with pytest.raises(DataError, match="smaller chunks"):
        open_layer_source(stored.uri, axes="zyx", memory_bytes=4000)


def test_large_boxes_of_other_orders_are_copied_piecewise(store_locally, monkeypatch: pytest.MonkeyPatch) -> None:
    from inkbatch.io.layers import zarr_layers

    monkeypatch.setattr(zarr_layers, "COPY_BYTES", 1000)
    for name in ("zarr3-yxz", "zarr2-big-endian"):
        stored = store_locally(name)
        block = open_layer_source(stored.uri, **stored.options).read(range(5), Box(3, 4, 60, 80))
        np.testing.assert_array_equal(block, stored.expected[:, 3:60, 4:80])
        shutil.rmtree(stored.uri)


def test_chunks_that_hold_no_pixels_are_refused(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(2, 8, 8), chunks=(2, 8, 8), dtype="uint8", zarr_format=2)
    place = tmp_path / "a.zarr/.zarray"
    place.write_text(json.dumps({**json.loads(place.read_text()), "chunks": [0, 8, 8]}))
    with pytest.raises(DataError, match=r"a\.zarr: expected chunks that hold pixels, .* \(0, 8, 8\)"):
        open_layer_source(str(tmp_path / "a.zarr"), axes="zyx")

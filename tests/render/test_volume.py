"""Volumes of scrolls: every layout gives the same voxels, sizes must agree, wrong levels and axes are refused."""

from __future__ import annotations

import shutil

import numcodecs
import numpy as np
import pytest
import zarr

from inkbatch.errors import ConfigError, DataError, MismatchError, StorageError
from inkbatch.geometry import Box
from inkbatch.io.store import retrying
from inkbatch.io.store.location import Location
from inkbatch.render.geometry import Raster
from inkbatch.render.mesh import open_mesh
from inkbatch.render.surface import Layers, RenderedSurface
from inkbatch.render.volume import open_volume
from inkbatch.testing.scrolls import write_volume

BOX = Box(20, 30, 80, 120)


def surface_of(stored, uri: str) -> RenderedSurface:
    mesh = open_mesh(str(stored / "surfaces" / "sine"))
    return RenderedSurface(Raster(mesh), open_volume(uri), Layers(5))


def layers_of(stored, uri: str):
    return surface_of(stored, uri).read(range(5), BOX)


LAYOUTS = {
    "v2 blosc": {"compressors": numcodecs.Blosc(cname="zstd")},
    "v2 chunks of 48": {"chunk": 48},
    "v3": {"zarr_format": 3},
    "v3 zstd": {"zarr_format": 3, "compressors": zarr.codecs.ZstdCodec()},
    "v3 shards": {"zarr_format": 3, "shards": (64, 64, 64)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_layers(stored, volumes, tmp_path, layout):
    folder = write_volume(tmp_path / "v.zarr", volumes["u8"][:1], **LAYOUTS[layout])
    np.testing.assert_array_equal(layers_of(stored, str(folder)), layers_of(stored, str(stored / "u8.zarr")))


def test_a_volume_is_read_from_s3(stored, s3_root: Location):
    for file in (stored / "u8.zarr").rglob("*"):
        if file.is_file():
            (s3_root / "u8.zarr" / str(file.relative_to(stored / "u8.zarr"))).write_bytes(file.read_bytes())
    np.testing.assert_array_equal(
        layers_of(stored, str(s3_root / "u8.zarr")), layers_of(stored, str(stored / "u8.zarr"))
    )


def test_a_web_server_sends_each_chunk_once(stored, volumes, web):
    write_volume(web.folder / "v.zarr", volumes["u8"][:1])
    surface = surface_of(stored, f"{web.url}/v.zarr")
    web.reset()
    surface.read(range(5), BOX)
    asked = [path for _, path, _ in web.requests]
    assert len(asked) == len(set(asked)) == surface.chunks.chunks_read
    assert web.served_bytes == len(asked) * 32**3


def test_a_chunk_that_a_server_fails_to_send_is_an_error_and_no_hole(stored, volumes, web, monkeypatch):
    monkeypatch.setattr(retrying, "RETRY_DELAYS_S", ())
    write_volume(web.folder / "v.zarr", volumes["u8"][:1])
    surface = surface_of(stored, f"{web.url}/v.zarr")
    web.fail_next = [503]
    with pytest.raises(StorageError, match=r"v\.zarr"):
        surface.read(range(5), BOX)
    np.testing.assert_array_equal(surface.read(range(5), BOX), layers_of(stored, str(stored / "u8.zarr")))


def test_an_array_alone_is_a_volume_of_one_level(stored, volumes, tmp_path):
    zarr.create_array(
        tmp_path / "v", shape=volumes["u8"][0].shape, dtype="uint8", chunks=(32,) * 3, dimension_names=("z", "y", "x")
    )[...] = volumes["u8"][0]
    volume = open_volume(str(tmp_path / "v"))
    assert (volume.level_count, volume.base_um) == (1, None)
    np.testing.assert_array_equal(layers_of(stored, str(tmp_path / "v")), layers_of(stored, str(stored / "u8.zarr")))


def test_the_voxel_size_is_that_of_level_0(stored):
    assert open_volume(str(stored / "u8.zarr"), level=1).base_um == pytest.approx(7.91)


def test_meta_json_states_the_size_where_the_writer_knew_none(volumes, tmp_path):
    folder = write_volume(tmp_path / "v.zarr", volumes["u8"], um=None, unit="nanometer", meta={"voxelsize": 3.24})
    assert open_volume(str(folder)).base_um == pytest.approx(3.24)


def test_sizes_that_contradict_are_refused_with_the_factor(volumes, tmp_path):
    folder = write_volume(tmp_path / "v.zarr", volumes["u8"], meta={"voxelsize": 3.955})
    with pytest.raises(MismatchError, match=r"7\.91 µm, meta\.json: 3\.955 µm \(factor 2\)"):
        open_volume(str(folder))
    with pytest.raises(MismatchError, match=r"what you state: 9\.6 µm"):
        open_volume(str(write_volume(tmp_path / "w.zarr", volumes["u8"])), base_um=9.6)


@pytest.mark.parametrize("um", [0.0079, 791.0])
def test_an_implausible_size_is_refused(volumes, tmp_path, um):
    with pytest.raises(MismatchError, match=r"expected a voxel size of 0\.1 to 200 µm"):
        open_volume(str(write_volume(tmp_path / "v.zarr", volumes["u8"], um=um)))


def test_a_level_that_is_not_there_is_refused(stored):
    with pytest.raises(ConfigError, match=r"expected level 0 to 1, got 4"):
        open_volume(str(stored / "u8.zarr"), level=4)


def test_a_level_that_is_not_halved_is_refused(volumes, tmp_path):
    folder = write_volume(tmp_path / "v.zarr", [volumes["u8"][0], volumes["u8"][0][:, ::2, ::2]])
    with pytest.raises(MismatchError, match="expected level 1 to be level 0 halved 1 times"):
        open_volume(str(folder), level=1)


def test_other_axes_are_refused(volumes, tmp_path):
    folder = write_volume(tmp_path / "v.zarr", volumes["u8"], axes="xyz")
    with pytest.raises(DataError, match="expected axes zyx, got 'xyz'"):
        open_volume(str(folder))


def test_floats_are_refused(volumes, tmp_path):
    folder = write_volume(tmp_path / "v.zarr", [volumes["u8"][0].astype(np.float32)])
    with pytest.raises(DataError, match="expected uint8 or uint16, got float32"):
        open_volume(str(folder))


def test_a_place_without_a_volume_is_refused(tmp_path):
    with pytest.raises(DataError, match="expected an OME-Zarr or a zarr array, got neither"):
        open_volume(str(tmp_path))


def test_a_group_whose_array_is_gone_is_refused(volumes, tmp_path):
    folder = write_volume(tmp_path / "v.zarr", volumes["u8"])
    shutil.rmtree(folder / "1")
    with pytest.raises(DataError, match="level 1"):
        open_volume(str(folder), level=1)

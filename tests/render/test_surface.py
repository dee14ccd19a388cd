"""Rendering in parts: the same pixels however it is cut, each chunk read once, the cost known before."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from inkbatch.errors import ConfigError, CorruptDataError, DataError, MismatchError
from inkbatch.geometry import Box, cut
from inkbatch.render import tiles, touched
from inkbatch.render.geometry import Raster
from inkbatch.render.mesh import open_mesh
from inkbatch.render.opening import RenderSettings, demand_of, open_rendered, require_inside
from inkbatch.render.surface import Layers, RenderedSurface
from inkbatch.render.volume import open_volume
from inkbatch.testing.scrolls import flat_mesh, write_mesh, write_volume


def surface_of(stored, name: str = "sine", layers: Layers | None = None, **more) -> RenderedSurface:
    mesh = open_mesh(str(stored / "surfaces" / name))
    return RenderedSurface(Raster(mesh), open_volume(str(stored / "u8.zarr")), layers or Layers(9), **more)


def whole(surface: RenderedSurface) -> Box:
    return Box(0, 0, *surface.shape_zyx[1:])


@pytest.mark.parametrize("name", ["sine", "holes", "leaves"])
@pytest.mark.parametrize("size", [7, 32, 50])
def test_cutting_into_units_changes_no_pixel(stored, name, size):
    surface = surface_of(stored, name)
    box = whole(surface)
    expected = surface.read(range(9), box)
    for part in cut(box.shape, size, size + 3):
        np.testing.assert_array_equal(surface.read(range(9), part), expected[:, *part.slices])


def test_some_layers_are_those_of_all(stored):
    surface = surface_of(stored)
    expected = surface.read(range(9), whole(surface))
    np.testing.assert_array_equal(surface.read(range(2, 5), whole(surface)), expected[2:5])


def test_small_bricks_change_no_pixel(stored, monkeypatch):
    surface = surface_of(stored, "leaves", Layers(33, 2.0))
    expected = surface.read(range(33), whole(surface))
    monkeypatch.setattr(tiles, "BRICK_VOXELS", 20_000)
    np.testing.assert_array_equal(surface.read(range(33), whole(surface)), expected)


def test_points_are_sampled_as_scipy_does(stored, volumes):
    surface = surface_of(stored, "tilt")
    box = Box(20, 20, 60, 70)
    pixels = surface.raster.pixels(box)
    assert pixels.valid.all()
    points = pixels.points[:, None] + surface.offsets[:, None, None] * pixels.normals[:, None]
    expected = map_coordinates(volumes["u8"][0].astype(np.float64), points.reshape(3, -1), order=1)
    found = surface.read(range(9), box).ravel()
    assert np.abs(found - np.floor(expected)).max() <= 1
    assert (found != np.floor(expected)).mean() < 2e-4


def needed_chunks(surface: RenderedSurface, box: Box) -> set[tuple[int, ...]]:
    """Chunks of the voxels around every single point."""
    pixels = surface.raster.pixels(box)
    points = (pixels.points[:, None] + surface.offsets[:, None, None] * pixels.normals[:, None])[:, :, pixels.valid]
    voxels = np.floor(points).astype(int).reshape(3, -1)
    counts, found = surface.volume.chunk_counts, set()
    for corner in itertools.product((0, 1), repeat=3):
        cells = voxels + np.array(corner)[:, None]
        inside = ((voxels >= 0) & (cells < np.array(surface.volume.shape_zyx)[:, None])).all(axis=0)
        numbers = np.unique(np.ravel_multi_index(tuple(cells[:, inside] // 32), counts))
        found |= set(zip(*(axis.tolist() for axis in np.unravel_index(numbers, counts)), strict=True))
    return found


def test_each_chunk_is_read_once_and_hardly_any_in_vain(stored):
    surface = surface_of(stored, "tilt", Layers(17))
    surface.read(range(17), whole(surface))
    needed = needed_chunks(surface, whole(surface))
    assert len(needed) <= surface.chunks.chunks_read <= 1.2 * len(needed)
    assert len(surface.planned_chunks(whole(surface))) <= 1.3 * len(needed)


@pytest.mark.parametrize("name", ["plane", "sine", "holes", "leaves"])
@pytest.mark.parametrize("scale", [0.3, 1.0, 2.7])
def test_the_plan_from_the_mesh_holds_every_chunk_that_is_needed(stored, name, scale):
    mesh = open_mesh(str(stored / "surfaces" / name))
    surface = RenderedSurface(Raster(mesh, scale), open_volume(str(stored / "u8.zarr")), Layers(9, 5))
    for part in cut(surface.shape_zyx[1:], 64, 64):
        needed = needed_chunks(surface, part)
        assert needed <= surface.planned_chunks(part)
        assert needed <= {chunk for tile in surface.tiles(part, surface.offsets) for chunk in tile.chunks}


def test_a_cache_too_small_costs_reading_again_and_no_pixel(stored):
    expected = surface_of(stored, layers=Layers(65))
    small = surface_of(stored, layers=Layers(65), cache_bytes=8 * 32**3)
    box = whole(expected)
    np.testing.assert_array_equal(small.read(range(65), box), expected.read(range(65), box))
    assert 0 < len(small.chunks) <= 8


def test_a_missing_chunk_holds_the_fill_value(volumes, tmp_path):
    folder = write_volume(tmp_path / "v.zarr", volumes["u8"], fill_value=77)
    for file in (folder / "0" / "1").rglob("*"):
        if file.is_file():
            file.unlink()
    mesh = open_mesh(str(write_mesh(tmp_path / "mesh", flat_mesh(z=48.0))))
    surface = RenderedSurface(Raster(mesh), open_volume(str(folder)), Layers(1))
    assert (surface.read(range(1), Box(30, 30, 60, 60)) == 77).all()


def test_a_truncated_chunk_is_an_error_that_names_it(volumes, tmp_path):
    folder = write_volume(tmp_path / "v.zarr", volumes["u8"])
    damaged = folder / "0" / "1" / "1" / "1"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    mesh = open_mesh(str(write_mesh(tmp_path / "mesh", flat_mesh(z=48.0))))
    surface = RenderedSurface(Raster(mesh), open_volume(str(folder)), Layers(1))
    with pytest.raises(CorruptDataError, match=r"v\.zarr, level 0, chunk \(1, 1, 1\)"):
        surface.read(range(1), Box(30, 30, 60, 60))
    surface.read(range(1), Box(70, 100, 90, 140))  # other chunks are whole


def test_chunks_of_a_failed_read_are_asked_for_again(stored, monkeypatch):
    surface = surface_of(stored)
    read = surface.volume.array.read
    faults = iter([OSError("passing")])

    def fails_once(*args, **more):
        for fault in faults:
            raise fault
        return read(*args, **more)

    monkeypatch.setattr(surface.volume.array, "read", fails_once)
    with pytest.raises(OSError, match="passing"):
        surface.read(range(9), whole(surface))
    expected = surface_of(stored).read(range(9), whole(surface))
    np.testing.assert_array_equal(surface.read(range(9), whole(surface)), expected)


def test_coverage_leaves_out_holes_and_what_has_not_all_its_layers(stored):
    surface = surface_of(stored, "leaves")
    layers = surface.read(range(9), whole(surface))
    on_surface, complete = surface.coverage(whole(surface))
    assert (layers[:, complete] > 0).all()  # no voxel of the volume is 0
    assert not layers[:, ~on_surface].any()
    partly = on_surface & ~complete
    assert 0 < partly.sum() < on_surface.sum()
    assert (layers[:, partly] == 0).any(axis=0).mean() > 0.9  # the rest fades out between the last voxel and the border


def test_wide_cells_of_the_mesh_are_planned_in_parts(stored, tmp_path, monkeypatch):
    coarse = open_mesh(str(write_mesh(tmp_path / "mesh", flat_mesh(4, 4, step=50, tilt=0.6, z=5), (1 / 50, 1 / 50))))
    surface = RenderedSurface(Raster(coarse), open_volume(str(stored / "u8.zarr")), Layers(3))
    planned = surface.planned_chunks(whole(surface))
    assert needed_chunks(surface, whole(surface)) <= planned
    monkeypatch.setattr(touched, "CELL_PX", 1000)
    assert planned < surface.planned_chunks(whole(surface))


def test_demand_is_said_before_anything_is_read(stored):
    surface = surface_of(stored, "leaves")
    demand = demand_of(surface, cut(surface.shape_zyx[1:], 64, 64))
    assert surface.chunks.chunks_read == 0
    assert demand.bytes == demand.chunks * 32**3
    assert demand.cpu_s > 0
    assert demand.outside == pytest.approx(40 / 140)


@pytest.mark.parametrize(("spacing", "level", "shape"), [(None, 0, (120, 160)), (7.91, 0, (120, 160))])
def test_one_pixel_per_voxel_is_the_default(stored, spacing, level, shape):
    uris = str(stored / "surfaces" / "plane"), str(stored / "u8.zarr")
    surface = open_rendered(*uris, RenderSettings(9, spacing_um=spacing))
    assert surface.volume.level == level
    assert surface.shape_zyx[1:] == shape
    assert surface.voxel_size_um == pytest.approx(7.91)
    assert surface.z_spacing_um == pytest.approx(7.91)


@pytest.mark.parametrize(("spacing", "level"), [(9.6, 0), (15.82, 1), (20.0, 1), (40.0, 1)])
def test_the_level_follows_from_the_wished_spacing(stored, spacing, level):
    uris = str(stored / "surfaces" / "plane"), str(stored / "u8.zarr")
    surface = open_rendered(*uris, RenderSettings(9, spacing_um=spacing, step_um=4.0))
    assert surface.volume.level == level
    assert surface.voxel_size_um == pytest.approx(spacing)
    assert surface.z_spacing_um == pytest.approx(4.0)
    assert surface.shape_zyx[1] == math.floor(120 * 7.91 / spacing + 0.5)
    offsets_um = surface.offsets * 7.91 * 2**level
    np.testing.assert_allclose(np.diff(offsets_um), 4.0, rtol=1e-5)


def test_finer_than_the_scan_is_refused(stored):
    uris = str(stored / "surfaces" / "plane"), str(stored / "u8.zarr")
    with pytest.raises(ConfigError, match=r"at least 7.91 µm at level 0, got 2.4"):
        open_rendered(*uris, RenderSettings(9, spacing_um=2.4))
    with pytest.raises(ConfigError, match=r"at least 15.82 µm at level 1, got 7.91"):
        open_rendered(*uris, RenderSettings(9, spacing_um=7.91, level=1))


def test_a_mesh_partly_outside_is_refused_unless_allowed(stored):
    uris = str(stored / "surfaces" / "leaves"), str(stored / "u8.zarr")
    with pytest.raises(MismatchError, match=r"28\.6% of it lies outside .* --max-outside"):
        require_inside(open_rendered(*uris, RenderSettings(9)), 0.05)
    require_inside(open_rendered(*uris, RenderSettings(9)), 0.3)
    require_inside(open_rendered(*uris, RenderSettings(9)), 0.05, Box(40, 40, 80, 110))  # the part that is taken


def test_a_mesh_wholly_outside_is_refused_whatever_is_allowed(stored, tmp_path):
    mesh = write_mesh(tmp_path / "far", flat_mesh() + 1000)
    with pytest.raises(MismatchError, match=r"all of it lies outside \(vertices z 1048 to 1048"):
        require_inside(open_rendered(str(mesh), str(stored / "u8.zarr"), RenderSettings(9)), 1.0)


def test_a_single_level_of_a_larger_volume_is_recognised(stored, volumes, tmp_path):
    alone = write_volume(tmp_path / "alone.zarr", [volumes["u8"][1]])
    with pytest.raises(MismatchError, match=r"this may be level 1 or coarser of the volume alone"):
        require_inside(open_rendered(str(stored / "surfaces" / "plane"), str(alone), RenderSettings(9)), 0.05)


def test_a_mesh_without_any_normal_is_refused(stored, tmp_path):
    xyz = flat_mesh()
    xyz[:, ::2] = -1
    mesh = write_mesh(tmp_path / "stripes", xyz)
    with pytest.raises(DataError, match="expected vertices with a normal, got none"):
        require_inside(open_rendered(str(mesh), str(stored / "u8.zarr"), RenderSettings(9)), 0.05)


def test_layers_far_from_the_surface_are_refused(stored):
    with pytest.raises(ConfigError, match=r"within 500 voxels of the surface, got 65 of 20 voxels"):
        surface_of(stored, layers=Layers(65, 20))


def test_sizes_in_micrometres_want_a_voxel_size(stored, volumes, tmp_path):
    unknown = write_volume(tmp_path / "u.zarr", volumes["u8"], um=None, unit="nanometer")
    mesh = str(stored / "surfaces" / "plane")
    with pytest.raises(ConfigError, match=r"expected a voxel size.*--volume-um"):
        open_rendered(mesh, str(unknown), RenderSettings(9, spacing_um=9.6))
    assert open_rendered(mesh, str(unknown), RenderSettings(9)).voxel_size_um is None
    stated = open_rendered(mesh, str(unknown), RenderSettings(9, volume_um=7.91, spacing_um=9.6))
    assert stated.voxel_size_um == pytest.approx(9.6)

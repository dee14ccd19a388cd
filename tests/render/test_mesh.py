"""Meshes in tifxyz form: which vertices count, their normals, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from inkbatch.errors import CorruptDataError, DataError, MismatchError, NonFiniteError
from inkbatch.io.store.location import Location
from inkbatch.render.mesh import is_mesh, open_mesh
from inkbatch.testing.scrolls import flat_mesh, write_mesh


def test_axes_are_z_y_x_and_scale_is_rows_first(tmp_path):
    mesh = open_mesh(str(write_mesh(tmp_path / "m", flat_mesh(), (0.1, 0.05))))
    np.testing.assert_array_equal(mesh.points, flat_mesh()[::-1])
    assert mesh.scale_yx == (pytest.approx(0.05), pytest.approx(0.1))
    assert mesh.scale_yx[1] == float(np.float32(0.1))  # as the file's readers store it


def test_normals_point_to_larger_z_where_x_runs_along_columns(tmp_path):
    mesh = open_mesh(str(write_mesh(tmp_path / "m", flat_mesh(tilt=1.0))))
    inner = mesh.normals[:, 1:-1, 1:-1]
    np.testing.assert_allclose(inner[0], np.sqrt(0.5), rtol=1e-5)
    np.testing.assert_allclose(inner[2], -np.sqrt(0.5), rtol=1e-5)
    assert not mesh.has_normal[[0, -1]].any()
    assert not mesh.has_normal[:, [0, -1]].any()


@pytest.mark.parametrize(
    ("vertex", "there"),
    [((5, 5, 0), False), ((5, 5, -2), False), ((-1, 5, 9), False), ((5, -1, 9), True), ((-3, 5, 9), True)],
)
def test_a_vertex_is_missing_by_z_or_by_x_of_minus_one(tmp_path, vertex, there):
    xyz = flat_mesh()
    xyz[:, 4, 6] = vertex
    mesh = open_mesh(str(write_mesh(tmp_path / "m", xyz)))
    assert mesh.valid[4, 6] == there
    assert mesh.valid.sum() == mesh.valid.size - (not there)
    assert mesh.has_normal[4, 5] == there  # its neighbours lose their normals with it


@pytest.mark.parametrize("factor", [(1, 1), (3, 2)])
def test_one_pixel_below_255_in_a_block_of_the_mask_takes_the_vertex_out(tmp_path, factor):
    mask = np.full((12 * factor[0], 16 * factor[1]), 255, np.uint8)
    mask[5 * factor[0], 7 * factor[1] + factor[1] - 1] = 254
    mesh = open_mesh(str(write_mesh(tmp_path / "m", flat_mesh(), mask=mask)))
    assert np.argwhere(~mesh.valid).tolist() == [[5, 7]]


def test_the_fingerprint_tells_meshes_apart(tmp_path):
    one = open_mesh(str(write_mesh(tmp_path / "a", flat_mesh())))
    two = open_mesh(str(write_mesh(tmp_path / "b", flat_mesh(z=48.4))))
    assert one.fingerprint != two.fingerprint


def test_a_folder_is_a_mesh_by_its_files(tmp_path):
    assert is_mesh(Location(str(write_mesh(tmp_path / "m", flat_mesh()))))
    assert not is_mesh(Location(str(tmp_path)))


def test_files_of_different_sizes_are_refused_by_name(tmp_path):
    folder = write_mesh(tmp_path / "m", flat_mesh())
    tifffile.imwrite(folder / "y.tif", np.ones((12, 15), np.float32))
    with pytest.raises(MismatchError, match=r"x\.tif 12 x 16, y\.tif 12 x 15, z\.tif 12 x 16"):
        open_mesh(str(folder))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vertices_that_are_no_numbers_are_refused(tmp_path, bad):
    xyz = flat_mesh()
    xyz[1, 3, 3] = bad
    with pytest.raises(NonFiniteError, match=r"y\.tif: expected finite vertices"):
        open_mesh(str(write_mesh(tmp_path / "m", xyz)))


@pytest.mark.parametrize("scale", [[0, 0.05], [-0.1, 0.1], [0.1], "0.05", None, [float("nan"), 0.1], [0.1, 0.1, 0.1]])
def test_a_scale_that_is_no_pair_of_positive_numbers_is_refused(tmp_path, scale):
    folder = write_mesh(tmp_path / "m", flat_mesh())
    (folder / "meta.json").write_text(json.dumps({"format": "tifxyz", "scale": scale}))
    with pytest.raises(DataError, match="expected scale as two positive numbers"):
        open_mesh(str(folder))


def test_a_damaged_meta_file_is_refused(tmp_path):
    folder = write_mesh(tmp_path / "m", flat_mesh())
    (folder / "meta.json").write_text("{")
    with pytest.raises(CorruptDataError, match=r"meta\.json"):
        open_mesh(str(folder))


@pytest.mark.parametrize("name", ["x.tif", "z.tif", "meta.json"])
def test_a_missing_file_is_named(tmp_path, name):
    folder = write_mesh(tmp_path / "m", flat_mesh())
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"expected {name}"):
        open_mesh(str(folder))


def test_a_truncated_file_is_refused(tmp_path):
    folder = write_mesh(tmp_path / "m", flat_mesh(60, 60))
    (folder / "x.tif").write_bytes((folder / "x.tif").read_bytes()[:3000])
    with pytest.raises(CorruptDataError, match=r"x\.tif"):
        open_mesh(str(folder))


def test_whole_numbers_are_refused(tmp_path):
    folder = write_mesh(tmp_path / "m", flat_mesh())
    tifffile.imwrite(folder / "x.tif", np.ones((12, 16), np.uint16))
    with pytest.raises(DataError, match="expected float32 vertices, got uint16"):
        open_mesh(str(folder))


@pytest.mark.parametrize("shape", [(13, 16), (24, 17)])
def test_a_mask_that_fits_no_vertices_is_refused(tmp_path, shape):
    folder = write_mesh(tmp_path / "m", flat_mesh(), mask=np.full(shape, 255, np.uint8))
    with pytest.raises(MismatchError, match=r"mask\.tif: expected a whole multiple of the grid"):
        open_mesh(str(folder))


def test_a_mesh_without_vertices_is_refused(tmp_path):
    with pytest.raises(DataError, match="expected vertices, got none"):
        open_mesh(str(write_mesh(tmp_path / "m", np.full((3, 5, 5), -1.0))))


def test_a_grid_too_small_for_normals_is_refused(tmp_path):
    with pytest.raises(DataError, match="at least 3 x 3 vertices, got 2 x 16"):
        open_mesh(str(write_mesh(tmp_path / "m", flat_mesh(rows=2))))

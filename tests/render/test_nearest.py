"""Nearest points of a surface: against a dense sampling of it, at its ends, in its holes, and out of reach."""

from __future__ import annotations

import numpy as np
import pytest

from inkbatch.render.mesh import Mesh
from inkbatch.render.nearest import NearestPoints

RADIUS, SPACING = 60.0, 8.0


def bent(rows: int = 7, columns: int = 9) -> Mesh:
    """A part of a cylinder whose vertices are 8 voxels apart."""
    along, around = np.meshgrid(np.arange(rows) * SPACING, np.arange(columns) * SPACING / RADIUS, indexing="ij")
    points = np.stack([along + 5, RADIUS * np.cos(around) + 100, RADIUS * np.sin(around) + 100])
    return Mesh("bent", points.astype(np.float32), np.ones((rows, columns), bool), (1 / SPACING, 1 / SPACING))


def on_surface(mesh: Mesh, places: np.ndarray) -> np.ndarray:
    """Bilinear points (n, 3) at places (n, 2)."""
    cell = np.minimum(places.astype(int), np.array(mesh.shape_yx) - 2)
    (y, x), (down, across) = cell.T, (places - cell).T
    a, b, c, d = (mesh.points[:, y + dy, x + dx].astype(float) for dy in (0, 1) for dx in (0, 1))
    return ((a * (1 - across) + b * across) * (1 - down) + (c * (1 - across) + d * across) * down).T


def test_the_nearest_point_is_the_one_of_a_dense_sampling():
    mesh, rng = bent(), np.random.default_rng(0)
    dense = np.stack(np.meshgrid(np.linspace(0, 6, 241), np.linspace(0, 8, 321), indexing="ij"), -1).reshape(-1, 2)
    surface = on_surface(mesh, dense)
    inside = rng.uniform([0.5, 0.5], [5.5, 7.5], (40, 2))
    points = on_surface(mesh, inside) + rng.uniform(-1.5, 1.5, (40, 3))
    found = NearestPoints(mesh, 4.0).of(points)
    assert np.isfinite(found).all()
    nearest = np.linalg.norm(on_surface(mesh, found) - points, axis=1)
    sampled = np.linalg.norm(points[:, None] - surface[None], axis=2).min(axis=1)
    assert (nearest <= sampled + 1e-6).all()
    assert (sampled - nearest).max() < 0.15  # samples lie 0.2 voxels apart


def test_points_of_the_surface_are_found_where_they_are():
    mesh = bent()
    places = np.random.default_rng(1).uniform([0, 0], [6, 8], (50, 2))
    np.testing.assert_allclose(NearestPoints(mesh, 0.1).of(on_surface(mesh, places)), places, atol=1e-4)


@pytest.mark.parametrize("kind", ["far", "beyond the end", "hole"])
def test_where_there_is_no_surface_nothing_is_found(kind):
    mesh = bent()
    point = on_surface(mesh, np.array([[3.4, 4.4]]))
    if kind == "far":
        point += np.array([0.0, 5, 0])
    elif kind == "beyond the end":
        point = on_surface(mesh, np.array([[6.0, 4.0]])) + np.array([1.0, 0, 0])
    else:
        mesh.valid[3, 5] = False
    assert np.isnan(NearestPoints(mesh, 2.0).of(point)).all()
    assert NearestPoints(mesh, 2.0).of(np.zeros((0, 3))).shape == (0, 2)

"""Labels from a map of another surface: carried by nearest points between two meshes of different grids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from inkbatch.errors import DataError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.steps.labels.job import LabelsConfig, describe, make_plan, run
from inkbatch.steps.prepare.job import run as prepare
from inkbatch.testing.maps import store_map, store_picture
from inkbatch.testing.scrolls import flat_mesh, write_mesh, write_volume

SHAPE = (150, 210)  # of the segment, one pixel per voxel, a vertex every 10
MAP_SHAPE, MAP_STEP = (364, 434), 14  # two pixels per voxel, a vertex every 7, turned by 12 degrees
RADIUS, TURN, SHIFT = 250.0, np.deg2rad(12), (22.0, -15.0)
UNSEEN_ROWS = 3.0  # vertices at the beginning of the map's surface without papyrus


def on_map(a, b):
    """Grid place on the map's surface of a point of the papyrus, in voxels along and around."""
    along, around = a - SHIFT[0], b - SHIFT[1]
    return (np.cos(TURN) * along + np.sin(TURN) * around) / 7, (np.cos(TURN) * around - np.sin(TURN) * along) / 7


def on_papyrus(u, v):
    return (
        7 * (np.cos(TURN) * u - np.sin(TURN) * v) + SHIFT[0],
        7 * (np.sin(TURN) * u + np.cos(TURN) * v) + SHIFT[1],
    )


def truth(a, b):
    return 0.5 + 0.35 * np.sin(a / 9) * np.cos(b / 12)


def bent(a, b, away: float) -> np.ndarray:
    """(x, y, z) on a cylinder, `away` from the segment's surface."""
    return np.stack([300 + (RADIUS + away) * np.sin(b / RADIUS), 300 + (RADIUS + away) * np.cos(b / RADIUS), a + 50])


def places(count: int, size: int) -> np.ndarray:
    return np.clip(count / 2 + (np.arange(size) - (size - 1) / 2) * count / size, 0, count - 1)


@pytest.fixture
def meshes(tmp_path):
    def make(away: float = 1.5, hole: bool = False) -> dict[str, str]:
        folder = tmp_path / f"meshes-{away}-{hole}"
        a, b = np.meshgrid(np.arange(15) * 10.0, np.arange(21) * 10.0, indexing="ij")
        write_mesh(folder / "segment", bent(a, b, 0))
        xyz = bent(*on_papyrus(*np.meshgrid(np.arange(26.0), np.arange(31.0), indexing="ij")), away)
        if hole:
            xyz[:, 12, 15] = -1
        write_mesh(folder / "map", xyz, scale=(1 / 7, 1 / 7))
        return {"from_mesh": str(folder / "map"), "onto_mesh": str(folder / "segment")}

    return make


@pytest.fixture
def configure(tiny_segment):
    u, v = (places(count, size) for count, size in zip((26, 31), MAP_SHAPE, strict=True))
    values = truth(*on_papyrus(u[:, None], v[None])).astype(np.float16)
    store_map(tiny_segment.root, "turned", "net", values, voxel_size_um=4.0)
    store_picture(tiny_segment.root, "turned", "mask", np.repeat(u[:, None] >= UNSEEN_ROWS, MAP_SHAPE[1], axis=1))

    def make(**changes) -> LabelsConfig:
        given = {"segment": "tiny", "root": str(tiny_segment.root), "from_map": "turned/net", "reach_voxels": 4}
        return LabelsConfig.checked({**given, "band": 0, "unit_px": 64, **changes}, "labels")

    return make


def read(config, name="ink_labels") -> np.ndarray:
    pyramid = Multiscale.open(Location.parse(config.root) / f"segments/tiny/{name}.zarr")
    return pyramid.levels[0].read(Box(0, 0, *pyramid.shape).slices)


def expected() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The truth at each pixel of the segment, and its grid place on the map's surface."""
    a, b = places(15, SHAPE[0])[:, None] * 10, places(21, SHAPE[1])[None] * 10
    return truth(a, b), *on_map(a, b)


def test_each_pixel_takes_what_the_nearest_point_of_the_other_surface_says(configure, meshes):
    config = configure(**meshes())
    run(config, RunContext())
    value, u, v = expected()
    cell = 10 * np.sqrt(2) / 7  # of the segment's mesh, in the map's: a cell counts as a whole
    inner = (u > UNSEEN_ROWS + 1) & (u < 25 - cell) & (v > cell) & (v < 30 - cell)
    outer = (u > UNSEEN_ROWS - 1) & (u < 25.5) & (v > -0.5) & (v < 30.5)
    ignored = read(config, "ignore_mask") != 0
    assert not ignored[inner].any()
    assert ignored[~outer].all()
    assert inner.mean() > 0.4
    assert (~outer).mean() > 0.05
    assert np.abs(read(config) / 255 - value)[inner].max() < 0.012
    source = json.loads(Path(config.root, "segments/tiny/labels/manifest.json").read_text())["inputs"]["source"]
    assert (source["of_segment"], source["reach_voxels"]) == ("turned", 4)
    said = describe(config)
    assert "by nearest points within 4 voxels, found for 93% of the vertices; 1.994 of the map's pixels" in said


def test_pixels_over_a_hole_are_ignored(configure, meshes):
    config = configure(**meshes(hole=True))
    run(config, RunContext())
    _, u, v = expected()
    assert (read(config, "ignore_mask") != 0)[(np.abs(u - 12) < 0.9) & (np.abs(v - 15) < 0.9)].all()


@pytest.mark.parametrize(("away", "reach"), [(1.5, 1), (60, 8)])
def test_a_surface_that_is_nowhere_near_is_refused(configure, meshes, away, reach):
    with pytest.raises(MismatchError, match=f"map turned/net: expected surfaces within {reach} voxels of each other"):
        make_plan(configure(**meshes(away), reach_voxels=reach))


def test_a_segment_without_a_surface_is_refused_by_name(configure, meshes):
    with pytest.raises(DataError, match=r"expected the surface of tiny \(x.tif.*state onto_mesh"):
        make_plan(configure(from_mesh=meshes()["from_mesh"]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"from_map": None, "image": "a.png", "band": None}, "reach_voxels belongs to from_map"),
        ({"reach_voxels": None, "from_mesh": "m"}, "belong to reach_voxels"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(configure, changes, words):
    with pytest.raises(Exception, match=words):
        configure(**changes)


def test_segments_that_were_rendered_know_their_surfaces(tmp_path, prepare_config):
    level = np.random.default_rng(0).integers(1, 255, (24, 64, 64), dtype=np.uint8)
    write_volume(tmp_path / "volume.zarr", [level])
    for name, z in (("one", 11), ("two", 12)):
        write_mesh(tmp_path / name, flat_mesh(6, 6, z=z))
        given = {"volume": str(tmp_path / "volume.zarr"), "layers_count": 3, "voxel_size_um": None}
        prepare(prepare_config(tmp_path / name, segment=name, **given), RunContext())
    root = tmp_path / "root"
    mask = Multiscale.open(Location.parse(root) / "segments/two/mask.zarr")
    store_map(root, "two", "net", np.full(mask.shape, 0.75, np.float16), voxel_size_um=7.91)
    config = LabelsConfig(segment="one", root=str(root), from_map="two/net", reach_voxels=2, band=0)
    run(config, RunContext())
    labels = Multiscale.open(Location.parse(root) / "segments/one/ink_labels.zarr").levels[0]
    found = labels.read(Box(0, 0, *mask.shape).slices)
    assert (found[15:45, 15:45] == 191).all()

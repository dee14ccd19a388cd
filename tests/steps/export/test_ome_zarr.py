"""Maps and surfaces as OME-Zarr v2: other readers find the same values, the true scale, and a link."""

from __future__ import annotations

import json
from urllib.parse import unquote

import numpy as np
import pytest
import zarr

from inkbatch.data.maps.stored import open_map
from inkbatch.data.segments.prepared import open_prepared
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.steps.export.neuroglancer import ink_layer, neuroglancer_link, papyrus_layer
from inkbatch.steps.export.ome_zarr import OmeZarrConfig, run
from inkbatch.testing.reports import inferred


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    return folder, inferred(folder)


def find_root(map_folder):
    return map_folder.parent.parent.parent


def exported(root, tmp_path, **settings):
    _, map_folder = root
    settings = {"segment": map_folder.parent.name, "root": find_root(map_folder).uri, **settings}
    if settings.get("what") != "surface":
        settings["name"] = map_folder.name
    return run(OmeZarrConfig(to=str(tmp_path / "out.zarr"), **settings))


def test_a_map_is_read_back_with_equal_values_by_zarr_python(root, tmp_path):
    report = exported(root, tmp_path)
    group = zarr.open_group(report.location.uri, mode="r", zarr_format=2)
    _, map_folder = root
    found = open_map(find_root(map_folder).uri, map_folder.parent.name, map_folder.name)
    for number, level in enumerate(found.prediction.pyramid.levels):
        stored = level.read(Box(0, 0, *level.layout.shape).slices).astype(np.float64)
        array = group[str(number)]
        assert (array.dtype, array.metadata.dimension_separator) == (np.uint8, "/")
        np.testing.assert_array_equal(array[0], np.rint(stored * 255))


def test_its_metadata_satisfy_ome_zarr_0_4_and_state_the_true_scale(root, tmp_path):
    multiscales = pytest.importorskip("ome_zarr_models.v04.multiscales")
    report = exported(root, tmp_path)
    image = multiscales.Multiscale.model_validate((report.location / ".zattrs").read_json()["multiscales"][0])
    assert [axis.unit for axis in image.axes] == ["micrometer"] * 3
    _, map_folder = root
    pixel = open_map(find_root(map_folder).uri, map_folder.parent.name, map_folder.name).pixel_um
    assert image.datasets[0].coordinateTransformations[0].scale == [pixel] * 3


def test_a_surface_keeps_its_layers_and_dtype(root, tmp_path):
    report = exported(root, tmp_path, what="surface")
    _, map_folder = root
    volume, _ = open_prepared(find_root(map_folder).uri, map_folder.parent.name)
    array = zarr.open_group(report.location.uri, mode="r", zarr_format=2)["0"]
    whole = volume.read(range(volume.layer_count), Box(0, 0, *volume.shape_yx))
    np.testing.assert_array_equal(array[:], whole)
    assert array.dtype == whole.dtype


def test_a_threshold_gives_two_values(root, tmp_path):
    report = exported(root, tmp_path, threshold=0.5)
    assert set(np.unique(zarr.open_group(report.location.uri, mode="r", zarr_format=2)["0"][:])) <= {0, 255}


def test_an_interrupted_copy_is_no_group(root, tmp_path, monkeypatch):
    written = []
    write = Location.write_json

    def failing(self, value):
        written.append(self.name)
        if self.name == ".zattrs":
            raise OSError("disk full")
        return write(self, value)

    monkeypatch.setattr(Location, "write_json", failing)
    with pytest.raises(OSError, match="disk full"):
        exported(root, tmp_path)
    assert not (tmp_path / "out.zarr" / ".zgroup").exists()
    assert written[-1] == ".zattrs"


def test_a_link_holds_the_state_that_shows_ink_over_papyrus():
    link = neuroglancer_link([papyrus_layer("s3://b/surface"), ink_layer("s3://b/map")], (2000, 3000), 7.91)
    state = json.loads(unquote(link.split("#!", 1)[1]))
    assert [layer["source"]["url"] for layer in state["layers"]] == ["zarr2://s3://b/surface", "zarr2://s3://b/map"]
    assert state["position"][:2] == [1500, 1000]
    assert state["dimensions"]["x"] == [pytest.approx(7.91e-6), "m"]


def test_a_folder_that_no_browser_reaches_says_how_to_get_a_link(root, tmp_path):
    report = exported(root, tmp_path)
    assert report.link is None
    assert "serve the folder over http" in str(report)

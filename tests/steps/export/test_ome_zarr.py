"""Maps and surfaces as OME-Zarr v2: other readers find the same values, the true scale, and a link."""

from __future__ import annotations

import html
import json
import re
from urllib.parse import unquote

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from inkbatch.cli.app import app
from inkbatch.data.maps.stored import open_map
from inkbatch.data.segments.prepared import open_prepared
from inkbatch.errors import ConfigError
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.steps.export.neuroglancer import INK_SHADER, ink_layer, neuroglancer_link, papyrus_layer
from inkbatch.steps.export.ome_zarr import OmeZarrConfig, run
from inkbatch.steps.prepare.job import run as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.testing.maps import VOXEL_SIZE_UM, store_map
from inkbatch.testing.reports import faults_of_page, inferred
from inkbatch.testing.segments import random_papyrus, write_layers


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


def test_a_map_over_papyrus_opens_at_the_middle_layer_of_its_segment(root, tmp_path, monkeypatch):
    monkeypatch.setattr("inkbatch.steps.export.ome_zarr.REACHABLE", ("file",))
    link = exported(root, tmp_path, papyrus="https://host/surface").link
    state = json.loads(unquote(link.split("#!", 1)[1]))
    volume, _ = open_prepared(find_root(root[1]).uri, root[1].parent.name)
    assert volume.layer_count > 2
    assert state["position"][2] == volume.layer_count // 2
    assert [layer["source"]["url"].startswith("zarr://") for layer in state["layers"]] == [True, True]


def test_a_surface_of_16_bits_becomes_8_bits_and_says_so(tmp_path):
    layers = np.arange(8 * 64 * 64, dtype=np.uint16).reshape(8, 64, 64) * 2
    source = write_layers(tmp_path / "layers", layers)
    values = {"segment": "deep", "root": str(tmp_path), "depth_order": "forward", "voxel_size_um": 8, "shard_px": 64}
    prepare(PrepareConfig.model_validate({**values, "source": str(source), "intensity": "keep"}), RunContext())
    report = run(OmeZarrConfig(segment="deep", root=str(tmp_path), what="surface", to=str(tmp_path / "s.zarr")))
    array = zarr.open_group(report.location.uri, mode="r", zarr_format=2)["0"]
    assert array.dtype == np.uint8
    assert np.abs(array[:].astype(float) - layers / 257).max() < 0.5
    assert (report.location / ".zattrs").read_json()["inkbatch"]["grey_values"] == "uint16 / 257, rounded to nearest"


def test_a_surface_keeps_its_layers_and_8_bits(root, tmp_path):
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


@pytest.mark.parametrize("over_another", [False, True])
def test_an_interrupted_copy_is_no_group(root, tmp_path, monkeypatch, over_another):
    if over_another:
        exported(root, tmp_path)
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
    link = neuroglancer_link(
        [papyrus_layer("s3://b/surface"), ink_layer("s3://b/map", plane_px_um=7.91)], (5, 2000, 3000), (2.4, 7.91, 7.91)
    )
    state = json.loads(unquote(link.split("#!", 1)[1]))
    assert [layer["source"]["url"] for layer in state["layers"]] == ["zarr://s3://b/surface", "zarr://s3://b/map"]
    assert state["position"][:2] == [1500, 1000]
    assert state["dimensions"]["x"] == [pytest.approx(7.91e-6), "m"]
    assert (state["dimensions"]["z"][0], state["position"][2]) == (pytest.approx(2.4e-6), 2)
    assert [layer.get("localPosition") for layer in state["layers"]] == [None, [0]]


def test_a_folder_that_no_browser_reaches_says_how_to_get_a_link(root, tmp_path):
    report = exported(root, tmp_path)
    assert report.link is None
    assert "serve the folder over http" in str(report)


def test_the_spacing_of_layers_is_its_own(root, tmp_path, prepare_layers_apart):
    report = run(OmeZarrConfig(segment="apart", root=prepare_layers_apart, what="surface", to=str(tmp_path / "s.zarr")))
    image = (report.location / ".zattrs").read_json()["multiscales"][0]
    scales = [level["coordinateTransformations"][0]["scale"] for level in image["datasets"]]
    assert scales[0] == [2.0, 8.0, 8.0]
    assert all(scale == [2.0, 8.0 * 2**level, 8.0 * 2**level] for level, scale in enumerate(scales))


@pytest.fixture
def prepare_layers_apart(tmp_path):
    values = {"segment": "apart", "root": str(tmp_path / "apart"), "depth_order": "forward", "shard_px": 64}
    values |= {
        "source": str(write_layers(tmp_path / "layers", random_papyrus())),
        "voxel_size_um": 8,
        "z_spacing_um": 2,
    }
    prepare(PrepareConfig.model_validate(values), RunContext())
    return values["root"]


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory):
    """A map of three levels, exported; and its values at full resolution."""
    folder = tmp_path_factory.mktemp("pyramid")
    values = np.random.default_rng(0).random((1100, 1300)).astype(np.float16)
    store_map(folder, "large", "net", values, unit_px=256)
    return run(OmeZarrConfig(segment="large", root=str(folder), to=str(folder / "out.zarr"))), values


def test_tensorstore_reads_every_level_and_each_is_the_mean_of_the_one_before(pyramid):
    import tensorstore

    report, values = pyramid
    group = zarr.open_group(report.location.uri, mode="r", zarr_format=2)
    assert len(list(group.array_keys())) > 1
    for name, array in group.arrays():
        mean = area_mean(values, 2 ** int(name))
        assert np.abs(array[0].astype(int) - mean * 255).max() < 1
        place = {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{report.location.uri}/{name}"}}
        np.testing.assert_array_equal(tensorstore.open(place).result().read().result(), array[:])


def area_mean(values, factor):
    """Means of blocks; those at the border average what is there."""
    height, width = (-(-size // factor) for size in values.shape)
    padded = np.full((height * factor, width * factor), np.nan)
    padded[: values.shape[0], : values.shape[1]] = values
    return np.nanmean(padded.reshape(height, factor, width, factor), axis=(1, 3))


def test_the_formats_own_reader_finds_axes_units_levels_and_values(pyramid):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    report, _ = pyramid
    (image,) = Reader(parse_url(report.location.uri))()
    group = zarr.open_group(report.location.uri, mode="r", zarr_format=2)
    assert [(axis["name"], axis["unit"]) for axis in image.metadata["axes"]] == [(a, "micrometer") for a in "zyx"]
    assert len(image.data) == len(list(group.array_keys()))
    for number, level in enumerate(image.data):
        np.testing.assert_array_equal(level.compute(), group[str(number)][:])
    scales = [level[0]["scale"] for level in image.metadata["coordinateTransformations"]]
    assert scales == [[VOXEL_SIZE_UM, VOXEL_SIZE_UM * 2**n, VOXEL_SIZE_UM * 2**n] for n in range(len(scales))]


def test_the_values_of_shader_controls_are_json_as_the_viewer_reads_them():
    controls = re.findall(r"#uicontrol \w+ \w+ \w+\((.*)\)", INK_SHADER)
    values = [value for control in controls for value in re.findall(r"\w+=([^,]+)", control)]
    assert [json.loads(value) for value in values] == [0, 1, 0.3, "red"]


def test_the_command_writes_both_kinds_and_the_page_shows_the_link(root, monkeypatch):
    _, map_folder = root
    at = ["--root", find_root(map_folder).uri]
    monkeypatch.setattr("inkbatch.steps.export.ome_zarr.REACHABLE", ("file",))
    shown = CliRunner().invoke(app, ["export", "tiny", "--as", "ome-zarr-v2", *at])
    assert shown.exit_code == 0, shown.output
    link = next(line for line in shown.output.splitlines() if line.startswith("neuroglancer: ")).split(" ", 1)[1]
    assert html.escape(link) in (map_folder / "report.html").read_bytes().decode()
    assert faults_of_page((map_folder / "report.html").read_bytes()) == []
    assert zarr.open_group((map_folder / "ome-zarr-v2").uri, mode="r", zarr_format=2)["0"].dtype == np.uint8
    assert CliRunner().invoke(app, ["export", "tiny", "--as", "ome-zarr-v2", "--surface", *at]).exit_code == 0
    assert (find_root(map_folder) / "segments/tiny/ome-zarr-v2/.zgroup").exists()
    assert CliRunner().invoke(app, ["export", "tiny", "--as", "tiff", *at]).exit_code == 0
    assert [name for name in map_folder.names() if name.endswith("-tile16-stride5.tif")]


@pytest.mark.parametrize("words", [["--surface"], ["--as", "ome-zarr-v2", "--scale-bar", "1cm"]])
def test_options_of_the_other_kind_are_refused(root, words):
    found = CliRunner().invoke(app, ["export", "tiny", "--root", find_root(root[1]).uri, *words])
    assert isinstance(found.exception, ConfigError)

"""prepare renders: layers around a mesh from the scroll's volume, cut, resumed, recorded and refused as any others."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import yaml
import zarr
from typer.testing import CliRunner

from inkbatch.cli.app import app
from inkbatch.data.segments.prepared import open_prepared
from inkbatch.errors import ConfigError, InkbatchError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.layers.zarr_layers import ZarrLayers
from inkbatch.io.surface import SurfaceVolume
from inkbatch.render.geometry import Raster
from inkbatch.render.mesh import open_mesh
from inkbatch.render.surface import Layers, RenderedSurface
from inkbatch.render.volume import open_volume
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.steps.prepare.describe import describe as describe_prepare
from inkbatch.steps.prepare.job import run
from inkbatch.testing.faults import stored_bytes
from inkbatch.testing.scrolls import flat_mesh, write_mesh, write_volume
from inkbatch.testing.segments import identity_bundle

SHAPE = (40, 150, 180)
COUNT = 9


@pytest.fixture(scope="module")
def scroll(tmp_path_factory) -> Path:
    """A volume of noise without zeros and a tilted mesh with a hole in it."""
    root = tmp_path_factory.mktemp("scroll")
    level = np.random.default_rng(0).integers(1, 255, SHAPE, dtype=np.uint8)
    write_volume(root / "volume.zarr", [level, level[::2, ::2, ::2]])
    xyz = flat_mesh(15, 17, z=15, tilt=0.05)
    xyz[:, 5, 5] = -1
    write_mesh(root / "mesh", xyz)
    return root


@pytest.fixture
def config(scroll, prepare_config):
    def make(**changes):
        values = {"volume": str(scroll / "volume.zarr"), "layers_count": COUNT, "voxel_size_um": None, **changes}
        return prepare_config(values.pop("source", scroll / "mesh"), **values)

    return make


def rendered(scroll: Path, layers: Layers | None = None) -> RenderedSurface:
    picture = Raster(open_mesh(str(scroll / "mesh")))
    return RenderedSurface(picture, open_volume(str(scroll / "volume.zarr")), layers or Layers(COUNT))


def opened(config) -> SurfaceVolume:
    return open_prepared(config.root, config.segment)[0]


def whole(volume: SurfaceVolume) -> np.ndarray:
    return volume.read(range(volume.layer_count), Box(0, 0, *volume.shape_yx))


def test_the_surface_is_what_the_mesh_and_the_volume_give(scroll, config):
    assert run(config(), RunContext()).complete
    volume, expected = opened(config()), rendered(scroll)
    box = Box(0, 0, *expected.shape_zyx[1:])
    np.testing.assert_array_equal(whole(volume), expected.read(range(COUNT), box))
    surface, complete = expected.coverage(box)
    np.testing.assert_array_equal(volume.read_mask(box), complete)
    assert not surface[45:55, 45:55].any()  # the hole
    said = volume.provenance
    assert said.voxel_size_um == pytest.approx(7.91)
    assert said.z_spacing_um is None
    assert said.rendered is not None
    assert (said.rendered.level, said.rendered.layers_count, said.rendered.flip_normals) == (0, COUNT, False)
    assert said.rendered.volume == str(scroll / "volume.zarr")


def test_flipped_normals_turn_the_layers_round(config):
    run(config(), RunContext())
    other = config(root=f"{config().root}-flipped", flip_normals=True)
    run(other, RunContext())
    np.testing.assert_array_equal(whole(opened(other)), whole(opened(config()))[::-1])


def test_spacings_choose_the_level_and_are_stated_on_the_surface(config):
    wished = config(voxel_size_um=15.82, step_um=7.91)
    run(wished, RunContext())
    volume = opened(wished)
    assert volume.provenance.rendered.level == 1
    assert volume.shape_yx == (75, 85)
    assert (volume.provenance.voxel_size_um, volume.provenance.z_spacing_um) == (15.82, pytest.approx(7.91))
    scale = volume.volume.attributes["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale == pytest.approx([7.91, 15.82, 15.82])


@pytest.mark.parametrize("count", [1, 3])
def test_shards_and_units_change_no_byte(config, count):
    one = config(shard_px=32)
    run(one, RunContext())
    cut = config(shard_px=32, root=f"{one.root}-cut")
    for index in range(count):
        run(cut, RunContext(shard=ShardSpec(index, count)))
    for name in ("surface.zarr", "mask.zarr"):
        parts = [stored_bytes(Path(each.root) / "segments" / "tiny" / name) for each in (one, cut)]
        assert parts[0] == parts[1]


def test_what_is_done_is_not_rendered_again(config, monkeypatch):
    run(config(), RunContext())
    monkeypatch.setattr(ZarrLayers, "read", lambda *_: pytest.fail("a chunk was read"))
    assert run(config(), RunContext()).complete


def test_a_region_is_prepared_alone_and_inferred(config, tmp_path):
    run(config(), RunContext())
    region = config(box=(30, 20, 130, 140), root=str(tmp_path / "region"))
    run(region, RunContext())
    volume = opened(region)
    np.testing.assert_array_equal(whole(volume), whole(opened(config()))[:, 30:130, 20:140])
    assert volume.provenance.box == (30, 20, 130, 140)
    identity_bundle(tmp_path / "bundle", layers=3, voxel_size_um=7.91)
    arguments = ["infer", "tiny", "--bundle", tmp_path / "bundle", "--root", region.root]
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_stored_layers_take_a_region_as_well(prepare_config, tmp_path):
    layers = np.random.default_rng(1).integers(1, 255, (4, 120, 100), dtype=np.uint8)
    (tmp_path / "layers").mkdir()
    for number, layer in enumerate(layers):
        tifffile.imwrite(tmp_path / "layers" / f"{number:02d}.tif", layer)
    tifffile.imwrite(tmp_path / "mask.tif", (layers[0] > 100).astype(np.uint8))
    config = prepare_config(tmp_path / "layers", box=(10, 20, 90, 95), mask=str(tmp_path / "mask.tif"))
    run(config, RunContext())
    np.testing.assert_array_equal(whole(opened(config)), layers[:, 10:90, 20:95])
    np.testing.assert_array_equal(opened(config).read_mask(Box(0, 0, 80, 75)), layers[0, 10:90, 20:95] > 100)
    with pytest.raises(MismatchError, match=r"expected a box inside the layers of 120 x 100 pixels"):
        run(prepare_config(tmp_path / "layers", box=(10, 20, 90, 195)), RunContext())


def test_a_given_mask_takes_away_from_what_the_mesh_has(config, tmp_path):
    given = np.zeros((150, 170), np.uint8)
    given[40:90, 30:130] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), given)  # decoded whole, by other threads than those that render
    run(config(), RunContext())
    masked = config(mask=str(tmp_path / "mask.png"), root=str(tmp_path / "masked"), shard_px=32)
    run(masked, RunContext())
    box = Box(0, 0, 150, 170)
    np.testing.assert_array_equal(opened(masked).read_mask(box), opened(config()).read_mask(box) & given.astype(bool))
    np.testing.assert_array_equal(whole(opened(masked)), whole(opened(config())))


def test_the_catalog_states_a_rendering(scroll, config, tmp_path):
    run(config(flip_normals=True), RunContext())
    entry = {
        "source": str(scroll / "{segment}"),
        "volume": str(scroll / "volume.zarr"),
        "layers_count": COUNT,
        "flip_normals": True,
        "depth_order": "forward",
    }
    (tmp_path / "segments.yaml").write_text(yaml.safe_dump({"segments": {"mesh": entry}}))
    arguments = ["prepare", "mesh", "--catalog", tmp_path / "segments.yaml", "--root", tmp_path / "other"]
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    surface = open_prepared(str(tmp_path / "other"), "mesh")[0]
    np.testing.assert_array_equal(whole(surface), whole(opened(config())))


def test_the_plan_says_chunks_bytes_seconds_before_anything_is_read(config, monkeypatch):
    monkeypatch.setattr(ZarrLayers, "read", lambda *_: pytest.fail("a chunk was read"))
    said = describe_prepare(config())
    assert "chunks        at most " in said
    assert "CPU seconds" in said
    assert "of the surface leaves the volume" in said


def test_the_plan_says_when_a_mesh_is_wider_than_its_scale(scroll, config, tmp_path):
    assert "times as far apart" not in describe_prepare(config())
    write_mesh(tmp_path / "wide", flat_mesh(15, 17, z=15, tilt=0.05), (0.2, 0.2))
    assert "2 (rows) and 2 (columns) times as far apart" in describe_prepare(config(source=tmp_path / "wide"))


def test_a_plain_array_is_a_volume_once_its_axes_are_stated(scroll, config, tmp_path):
    level = zarr.open_group(str(scroll / "volume.zarr"), mode="r")["0"][...]
    zarr.create_array(tmp_path / "plain-7.91um.zarr", data=level, zarr_format=2)
    plain = config(volume=str(tmp_path / "plain-7.91um.zarr"), root=str(tmp_path / "plain"))
    with pytest.raises(ConfigError, match="give axes, for example axes=zyx"):
        run(plain, RunContext())
    stated = plain.model_copy(update={"axes": "zyx"})
    run(stated, RunContext())
    run(config(), RunContext())
    np.testing.assert_array_equal(whole(opened(stated)), whole(opened(config())))


def test_rerun_renders_the_same_bytes(config, tmp_path):
    run(config(), RunContext())
    manifest = Path(config().root) / "segments" / "tiny" / "prepare" / "manifest.json"
    request = json.loads(manifest.read_text())["request"]
    assert request["volume"] == config().volume
    assert request["layers_count"] == COUNT
    arguments = ["rerun", str(manifest), "--root", str(tmp_path / "again")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_what_leaves_the_volume_is_outside_the_mask_and_counted(scroll, config, tmp_path):
    write_mesh(tmp_path / "steep", flat_mesh(15, 17, z=1, tilt=0.24))
    steep = config(source=tmp_path / "steep", max_outside=0.5)
    run(steep, RunContext())
    volume = opened(steep)
    mask = volume.read_mask(Box(0, 0, *volume.shape_yx))
    assert (whole(volume)[:, mask] > 0).all()
    folder = Path(steep.root) / "segments" / "tiny"
    facts = json.loads((folder / "prepare" / "complete.json").read_text())
    assert facts["mask_pixels"] == mask.sum()
    assert facts["outside_pixels"] > 0
    assert 0.05 < volume.provenance.rendered.outside < 0.5
    page = next(folder.rglob("report.html")).read_text()
    assert "of the mesh has layers outside the volume" in page
    assert "outside the volume" in describe_prepare(steep) or "leaves the volume" in describe_prepare(steep)


def damaged_mesh(folder: Path, kind: str) -> Path:
    xyz = flat_mesh(15, 17, z=15, tilt=0.05)
    if kind == "NaN":
        xyz[0, 3, 3] = np.nan
    if kind == "infinite":
        xyz[2, 3, 3] = np.inf
    if kind == "outside":
        xyz += 1000
    if kind == "partly outside":
        xyz[2] += 18
    if kind == "other level":
        xyz /= 8
    scale = {"scale 0": (0, 0), "scale negative": (-0.1, 0.1), "scale elsewhere": (1, 1)}.get(kind, (0.1, 0.1))
    write_mesh(folder, xyz, scale)
    if kind == "format":
        (folder / "meta.json").write_text('{"format": "obj", "scale": [0.1, 0.1]}')
    if kind == "web page":
        (folder / "meta.json").write_text("<html>not found</html>")
    if kind == "sizes":
        tifffile.imwrite(folder / "z.tif", np.ones((15, 16), np.float32))
    return folder


REFUSED_MESHES = {
    "sizes": "expected one grid of vertices, got x.tif 15 x 17",
    "NaN": "expected finite vertices, got NaN or infinity",
    "infinite": "expected finite vertices, got NaN or infinity",
    "scale 0": "expected scale as two positive numbers",
    "scale negative": "expected scale as two positive numbers",
    "scale elsewhere": "expected vertices about 1 voxels apart along y, as scale in meta.json says, got 10 (factor 10)",
    "other level": "got 1.25 (factor 8); correct the scale, or export the mesh in voxels of level 0",
    "format": "expected format tifxyz, got 'obj'",
    "web page": "got a web page",
    "outside": "got all of it lies outside",
    "partly outside": "allow more with --max-outside",
}


@pytest.mark.parametrize("kind", REFUSED_MESHES)
def test_bad_meshes_end_with_65_and_leave_nothing(scroll, tmp_path, kind):
    mesh = damaged_mesh(tmp_path / "mesh", kind)
    refused(tmp_path, mesh, scroll / "volume.zarr", REFUSED_MESHES[kind])


def damaged_volume(folder: Path, kind: str) -> Path:
    level = np.random.default_rng(0).integers(1, 255, SHAPE, dtype=np.uint8)
    axes = "xyz" if kind == "axes" else "zyx"
    write_volume(folder, [level[::4, ::4, ::4] if kind == "level" else level], axes=axes)
    if kind == "truncated":
        for chunk in (folder / "0" / "0").rglob("*"):
            if chunk.is_file():
                chunk.write_bytes(chunk.read_bytes()[:100])
    return folder


REFUSED_VOLUMES = {
    "level": "this may be level 2 or coarser of the volume alone",
    "axes": "expected axes zyx, got 'xyz'",
    "truncated": "level 0, chunk (0, 0, 0)",
}


@pytest.mark.parametrize("kind", REFUSED_VOLUMES)
def test_bad_volumes_end_with_65_and_leave_nothing(scroll, tmp_path, kind):
    volume = damaged_volume(tmp_path / "volume.zarr", kind)
    refused(tmp_path, scroll / "mesh", volume, REFUSED_VOLUMES[kind])


def refused(tmp_path: Path, mesh: Path, volume: Path, message: str) -> None:
    arguments = ["prepare", "tiny", "--source", mesh, "--volume", volume, "--layers-count", 9]
    arguments += ["--depth-order", "forward", "--root", tmp_path / "root"]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code != 0
    error = result.exception
    assert isinstance(error, InkbatchError)
    assert error.exit_code == 65
    assert message in str(error)
    assert not [file for file in (tmp_path / "root").rglob("*") if file.is_file()]


def test_a_mesh_without_a_volume_is_refused_with_the_cure(scroll, prepare_config):
    with pytest.raises(ConfigError, match="is a surface mesh.*--volume"):
        run(prepare_config(scroll / "mesh"), RunContext())


def test_a_rendering_wants_the_number_of_layers(config):
    with pytest.raises(ConfigError, match="give --layers-count 65"):
        run(config(layers_count=None), RunContext())


def test_settings_of_a_rendering_want_a_volume(config):
    with pytest.raises(ConfigError, match="layers_count is for layers that are rendered"):
        run(config(volume=None), RunContext())


@pytest.mark.parametrize("text", ["1:2", "3:2,0:5", "a:b,0:1", "0:5,0:5,0:5"])
def test_a_box_that_cannot_be_read_is_refused(text):
    result = CliRunner().invoke(app, ["prepare", "tiny", "--box", text])
    assert isinstance(result.exception, ConfigError)
    assert "expected Y0:Y1,X0:X1" in str(result.exception)

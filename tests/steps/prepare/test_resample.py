"""prepare --resample: the nearest finer level, the same bytes for every cut, recorded, refused where finer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from inkbatch.cli.app import app
from inkbatch.data.segments.catalog import Catalog
from inkbatch.errors import ConfigError, DataError, InkbatchError
from inkbatch.geometry import Box
from inkbatch.io.layers import open_layer_source
from inkbatch.io.layers.resampled import ResampledSource, pooling_named, resampling_to
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.steps.prepare.describe import describe
from inkbatch.steps.prepare.job import make_plan, run
from inkbatch.testing.faults import stored_bytes
from inkbatch.testing.segments import random_papyrus

POOLING = "level2-zmean4-21slice-v1"


def write_rendering(folder: Path, um: float, shape: tuple[int, int, int], levels: int = 3) -> Path:
    """Layers as the field renders them: levels halve the plane, layers stay."""
    group = zarr.open_group(folder, mode="w", zarr_format=2)
    values = random_papyrus(shape)
    datasets = []
    for level in range(levels):
        group.create_array(str(level), data=values[:, :: 2**level, :: 2**level], chunks=(shape[0], 32, 32))
        sizes = [um, um * 2**level, um * 2**level]
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": sizes}]})
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    return folder


@pytest.fixture(scope="module")
def rendering(tmp_path_factory) -> Path:
    return write_rendering(tmp_path_factory.mktemp("r") / "s.zarr", 2.4, (13, 500, 620))


@pytest.fixture
def config(rendering, prepare_config):
    def make(source: Path | None = None, **changes: Any):
        return prepare_config(source or rendering, **{"voxel_size_um": None, "resample": "9.6", **changes})

    return make


def stored(config) -> SurfaceVolume:
    return SurfaceVolume.open(Location.parse(config.root) / "segments" / config.segment)


def whole(volume: SurfaceVolume) -> np.ndarray:
    return volume.read(range(volume.layer_count), Box(0, 0, *volume.shape_yx))


def definition(source: Path, level: int, target: float, spacing: tuple[float, float, float], **how) -> np.ndarray:
    """The resampled layers of a level, without units or shards."""
    layers = open_layer_source(str(source), level=level)
    way = resampling_to(layers.shape_zyx, spacing, (target,) * 3, **how)
    resampled = ResampledSource(layers, range(layers.shape_zyx[0]), way)
    return resampled.read(range(resampled.shape_zyx[0]), Box(0, 0, *resampled.shape_zyx[1:]))


def test_the_nearest_finer_level_is_pooled_to_one_spacing(config, rendering) -> None:
    run(config(), RunContext())
    volume = stored(config())
    np.testing.assert_array_equal(whole(volume), definition(rendering, 2, 9.6, (2.4, 9.6, 9.6)))
    said = volume.provenance
    assert (said.voxel_size_um, said.layer_um, said.source_layers) == (9.6, 9.6, (0, 4))
    assert said.resampled.uri.endswith("s.zarr/2")
    assert (said.resampled.layers, said.resampled.spacing_zyx_um) == ((0, 13), (2.4, 9.6, 9.6))


def test_a_source_between_two_levels_is_averaged_from_the_finer_one(config, rendering) -> None:
    settings = config(resample="5.5")
    run(settings, RunContext())
    np.testing.assert_array_equal(whole(stored(settings)), definition(rendering, 1, 5.5, (2.4, 4.8, 4.8)))


@pytest.mark.parametrize("count", [1, 3])
def test_shards_and_budgets_change_no_byte(tmp_path, config, count) -> None:
    kinds = {"resample": "5.5", "shard_px": 32, "root": str(tmp_path / "cut")}
    for index in range(count):
        run(config(**kinds), RunContext(shard=ShardSpec(index, count)))
    again = config(**kinds | {"root": str(tmp_path / "whole"), "memory": "900MiB"})
    run(again, RunContext())
    for name in ("surface.zarr", "mask.zarr"):
        places = [Path(config(**kinds).root), Path(again.root)]
        one, other = (stored_bytes(str(place / "segments/tiny" / name)) for place in places)
        assert one == other


def test_the_fields_pooling_by_name(tmp_path, prepare_config) -> None:
    source = write_rendering(tmp_path / "s.zarr", 2.4, (87, 64, 64))
    settings = prepare_config(source, voxel_size_um=None, resample=POOLING)
    run(settings, RunContext())
    volume = stored(settings)
    layers = open_layer_source(str(source), level=2)
    pooled = ResampledSource(layers, range(87), pooling_named(POOLING, layers.shape_zyx))
    np.testing.assert_array_equal(whole(volume), pooled.read(range(21), Box(0, 0, 16, 16)))
    assert (volume.layer_count, volume.provenance.layer_um, volume.provenance.voxel_size_um) == (21, 9.6, 9.6)
    first = layers.read(range(2, 6), Box(0, 0, 16, 16)).astype(float).mean(axis=0)  # ceil((87 - 84) / 2) = 2
    np.testing.assert_array_equal(whole(volume)[0], np.rint(first))


def test_coarse_volumes_reach_networks_of_9_6_um(tmp_path, prepare_config) -> None:
    source = write_rendering(tmp_path / "s.zarr", 8.64, (10, 60, 60), levels=1)
    settings = prepare_config(source, voxel_size_um=None, resample="9.6")
    run(settings, RunContext())
    np.testing.assert_array_equal(whole(stored(settings)), definition(source, 0, 9.6, (8.64,) * 3))
    assert stored(settings).provenance.layer_um == 9.6


def test_unequal_pixels_become_square(tmp_path, prepare_config) -> None:
    source = write_rendering(tmp_path / "s.zarr", 4.0, (4, 40, 60), levels=1)
    attributes = json.loads((source / ".zattrs").read_text())
    attributes["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] = [4.0, 8.0, 4.0]
    (source / ".zattrs").write_text(json.dumps(attributes))
    settings = prepare_config(source, voxel_size_um=None, resample="4,8,8")
    run(settings, RunContext())
    assert stored(settings).volume.shape == (4, 40, 30)


def test_a_mask_of_the_read_level_comes_along(tmp_path, config) -> None:
    mask = np.zeros((250, 310), np.uint8)
    mask[:120, :150] = 1
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    settings = config(resample="9.6", level=1, mask=str(tmp_path / "mask.png"))
    run(settings, RunContext())
    found = stored(settings).read_mask(Box(0, 0, 125, 155))
    assert found[:60, :75].all()
    assert found.sum() == 60 * 75


def test_the_plan_the_page_and_a_rerun_tell_of_it(tmp_path, config) -> None:
    plan = describe(config())
    assert "resamples" in plan
    assert "s.zarr/2 (2.4 and 9.6 µm): 9.6x9.6x9.6 um, area in the plane, mean between layers" in plan
    run(config(), RunContext())
    folder = Path(config().root) / "segments/tiny"
    assert "9.6x9.6x9.6 um, area in the plane" in (folder / "report.html").read_text()
    record = json.loads((folder / "prepare/manifest.json").read_text())
    again = type(config()).checked({**record["request"], "root": str(tmp_path / "again")}, "rerun")
    with (repeated := make_plan(again)).source:
        assert repeated.manifest.digest == record["digest"]


def test_linear_depth_and_finer_targets_are_asked_for(config, rendering) -> None:
    settings = config(resample_depth="linear", segment="linear")
    run(settings, RunContext())
    expected = definition(rendering, 2, 9.6, (2.4, 9.6, 9.6), depth_rule="linear")
    np.testing.assert_array_equal(whole(stored(settings)), expected)
    with pytest.raises(ConfigError, match=r"at least the source's 2\.4 µm along z, got 2 µm"):
        make_plan(config(resample="2"))
    with (plan := make_plan(config(resample="2", resample_finer=True))).source:
        assert plan.source.shape_zyx == (16, 600, 744)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"resample": "nonsense"}, f"spacing in µm.*{POOLING}, got 'nonsense'"),
        ({"resample": "9.6,9.6"}, "three of them"),
        ({"resample": "9.6,9.6,4.8"}, "same spacing along y and x"),
        ({"resample": "9600"}, "0.1 to 200 µm, got 9600"),
        ({"resample": POOLING}, "at least 84 layers, got 13"),
        ({"resample": POOLING, "level": 0}, "4 times as far apart.*--set level=2"),
        ({"box": (0, 0, 64, 64)}, "box counts pixels of one level.*level=2"),
        ({"mask": "MASK"}, r"mask.*\(125, 155\), or of the surface \(125, 155\), got \(9, 9\)"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(tmp_path, config, settings, words) -> None:
    cv2.imwrite(str(tmp_path / "mask.png"), np.full((9, 9), 255, np.uint8))
    if "mask" in settings:
        settings = {"mask": str(tmp_path / "mask.png")}
    with pytest.raises(InkbatchError, match=words) as caught:
        make_plan(config(**settings))
    assert isinstance(caught.value, (ConfigError, DataError))


def test_the_command_line_and_the_catalog_take_it(tmp_path, rendering, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("segments.yaml").write_text(
        f"segments:\n  a: {{source: {rendering}, depth_order: forward, resample: 9.6}}\n"
        f"  b: {{source: {rendering}, depth_order: forward, resample: [4.8, 9.6, 9.6]}}\n"
    )
    assert Catalog.load().entry("b").resample == "4.8,9.6,9.6"
    assert CliRunner().invoke(app, ["prepare", "a", "--root", "root"]).exit_code == 0
    stated = ["--resample", "4.8,9.6,9.6", "--depth-order", "forward", "--source", str(rendering)]
    assert CliRunner().invoke(app, ["prepare", "c", "--root", "root", *stated]).exit_code == 0
    spacings = [SurfaceVolume.open(Location.parse(f"root/segments/{name}")).provenance.layer_um for name in "ac"]
    assert spacings == [9.6, 4.8]

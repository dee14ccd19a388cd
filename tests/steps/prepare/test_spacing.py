"""prepare knows the scale of all three axes: read, stated, or refused by name; a bundle refuses the wrong one."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
import zarr

from inkbatch.errors import ConfigError, DataError, InkbatchError
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceProvenance, SurfaceVolume
from inkbatch.models.contract import Contract, LayerRule
from inkbatch.run.job import RunContext
from inkbatch.run.record import RunFolder
from inkbatch.steps.prepare.job import make_plan, run
from inkbatch.testing.segments import random_papyrus

MARKS = {"source_zarr": "scan.zarr", "source_group": 0, "slice_step": 1.0, "canvas_size": [9, 9], "num_slices": 5}
UNIT = "micrometer"


def write_group(folder: Path, scale: list[float], unit: str = UNIT, levels: int = 1, **attributes: Any) -> Path:
    """An OME-Zarr 0.4 of small levels, each half of the one before in the plane; `scale` is that of level 0."""
    group = zarr.open_group(folder, mode="w", zarr_format=2)
    values = random_papyrus((5, 64, 96))
    datasets = []
    for level in range(levels):
        group.create_array(str(level), data=values[:, :: 2**level, :: 2**level], chunks=(5, 32, 32))
        sizes = [scale[0], scale[1] * 2**level, scale[2] * 2**level]
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": sizes}]})
    axes = [{"name": axis, "type": "space", "unit": unit} for axis in "zyx"]
    group.attrs.update({"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}], **attributes})
    return folder


@pytest.fixture
def scale_of(prepare_config):
    def make(source: Path, **settings: Any) -> SurfaceProvenance:
        with (plan := make_plan(prepare_config(source, **{"voxel_size_um": None, **settings}))).source:
            return plan.provenance

    return make


def sizes(found: SurfaceProvenance) -> tuple[float, float]:
    return round(found.voxel_size_um, 6), round(found.layer_um, 6)


def test_level_two_of_a_fine_rendering_is_not_isotropic(tmp_path, scale_of) -> None:
    found = scale_of(write_group(tmp_path / "s.zarr", [2.399] * 3, levels=3), level=2)
    assert sizes(found) == (9.596, 2.399)
    assert found.scale_reading is None


def test_a_bundle_of_equal_axes_refuses_it_and_says_how_to_pool(tmp_path, scale_of) -> None:
    found = scale_of(write_group(tmp_path / "s.zarr", [2.399] * 3, levels=3), level=2)
    contract = Contract(layers=LayerRule(count=5), voxel_size_um=9.6, tile_px=32, stride_px=16)
    (refusal,) = contract.mismatches(found, "uint8")
    assert "expects 9.6 µm between layers" in refusal
    assert "surface has 2.399 (and 9.596 in the plane)" in refusal
    assert "prepare --resample 9.6" in refusal
    flat = contract.model_copy(update={"z_spacing_um": 2.4})
    assert flat.mismatches(found, "uint8") == []
    even = found.model_copy(update={"z_spacing_um": None})
    assert contract.mismatches(even, "uint8") == []
    assert "resample 2.4,9.6,9.6" in flat.mismatches(even, "uint8")[0]


def test_documents_without_a_spacing_of_layers_are_as_before() -> None:
    contract = Contract(layers=LayerRule(count=5), voxel_size_um=9.6, tile_px=32, stride_px=16)
    assert "z_spacing_um" not in contract.model_dump()
    assert contract.model_copy(update={"z_spacing_um": 2.4}).model_dump()["z_spacing_um"] == 2.4


def test_the_page_and_the_stored_group_name_both(tmp_path, prepare_config) -> None:
    source = write_group(tmp_path / "s.zarr", [2.4] * 3, "nanometer", levels=3, **MARKS)
    config = prepare_config(source, level=2, voxel_size_um=None)
    run(config, RunContext())
    folder = Path(config.root) / "segments/tiny"
    volume = SurfaceVolume.open(Location.parse(folder))
    stored = json.loads((folder / "surface.zarr/zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]
    assert stored["datasets"][0]["coordinateTransformations"][0]["scale"] == pytest.approx([2.4, 9.6, 9.6])
    page = html.unescape((folder / "report.html").read_text())
    assert str(volume.provenance.scale_reading) in page
    assert "labelled nanometer" in page
    assert "2.4 µm between layers" in page


@pytest.mark.parametrize("marks", [{}, MARKS])
def test_scale_one_in_nanometres_counts_as_unstated(tmp_path, scale_of, marks) -> None:
    source = write_group(tmp_path / "nm.zarr", [1, 1, 1], "nanometer", levels=3, **marks)
    with pytest.raises(ConfigError, match=r"voxel size is unknown.*unstated.*--voxel-size-um"):
        scale_of(source)
    assert sizes(scale_of(source, voxel_size_um=7.91)) == (7.91, 7.91)
    assert sizes(scale_of(source, voxel_size_um=9.596, level=2)) == (9.596, 2.399)
    assert "follows from its level" in str(scale_of(source, voxel_size_um=9.596, level=2).scale_reading)


def test_a_stated_size_wins_over_the_renderers_and_says_why(tmp_path, scale_of) -> None:
    source = write_group(tmp_path / "s.zarr", [2.4] * 3, "nanometer", **MARKS)
    found = scale_of(source, voxel_size_um=9.6)
    assert found.voxel_size_um == 9.6
    assert "wins over 2.4" in str(found.scale_reading)


@pytest.mark.parametrize(
    ("scale", "unit", "settings", "words"),
    [
        ([7.91] * 3, UNIT, {"voxel_size_um": 3.24}, r"got voxel_size_um 3\.24.*states 7\.91 µm.*factor 2\.441.*leave"),
        ([7.91, 7.91, 3.24], UNIT, {}, r"7\.91 µm along y and 3\.24 µm along x \(factor 2\.441\).*--resample 7\.91"),
        ([7.91] * 3, UNIT, {"z_spacing_um": 3.24}, r"got z_spacing_um 3\.24.*states 7\.91 between layers.*leave"),
        ([7910.0] * 3, UNIT, {}, r"voxel size is unknown.*7910 µm.*no scan has.*--voxel-size-um"),
        ([0.0] * 3, UNIT, {}, r"voxel size is unknown.*nothing states it.*--voxel-size-um"),
        ([7.91] * 3, UNIT, {"voxel_size_um": 7910}, r"expected 0\.1 to 200 µm, got 7910; .*perhaps 7\.91"),
        ([7.91] * 3, UNIT, {"z_spacing_um": 0.00791}, r"z_spacing_um: expected 0\.1 to 200 µm.*perhaps 7\.91"),
    ],
)  # fmt: skip
def test_contradictions_and_impossible_sizes_are_refused(tmp_path, scale_of, scale, unit, settings, words) -> None:
    with pytest.raises(InkbatchError, match=words) as caught:
        scale_of(write_group(tmp_path / "s.zarr", scale, unit), **settings)
    assert caught.value.exit_code in (64, 65)


def test_the_cure_for_an_impossible_size_works(tmp_path, scale_of) -> None:
    source = write_group(tmp_path / "s.zarr", [7910.0] * 3)
    found = scale_of(source, voxel_size_um=7.91)
    assert sizes(found) == (7.91, 7.91)
    assert "against 7910 µm in its OME metadata" in str(found.scale_reading)


def test_a_bare_one_along_z_gives_way_to_a_statement(tmp_path, scale_of) -> None:
    source = write_group(tmp_path / "s.zarr", [1, 7.91, 7.91])
    assert sizes(scale_of(source)) == (7.91, 1.0)
    assert sizes(scale_of(source, z_spacing_um=7.91)) == (7.91, 7.91)


def test_files_and_names_state_a_size_where_metadata_do_not(tmp_path, scale_of) -> None:
    source = write_group(tmp_path / "2.399um-0.2m-78keV-volume-1.zarr", [1, 1, 1], "nanometer", levels=3)
    assert sizes(scale_of(source, level=2)) == (9.596, 2.399)
    assert "from its name 2.399um" in str(scale_of(source).scale_reading)
    (tmp_path / "volume_source.txt").write_text("2.4um-0.2m-78keV-volume-1.zarr")
    (source / "meta.json").write_text('{"voxelsize": 2.4}')
    assert sizes(scale_of(source)) == (2.4, 2.4)


def test_files_that_contradict_are_refused_and_the_cure_works(tmp_path, scale_of) -> None:
    source = write_group(tmp_path / "s.zarr", [7.91] * 3)
    (source / "meta.json").write_text('{"voxelsize": 3.24}')
    with pytest.raises(
        DataError, match=r"7\.91 µm in its OME metadata, 3\.24 µm in meta\.json \(factor 2\.441\)"
    ) as no:
        scale_of(source)
    stated = float(re.search(r"--voxel-size-um ([\d.]+)", str(no.value))[1])
    found = scale_of(source, voxel_size_um=stated)
    assert sizes(found) == (7.91, 7.91)
    assert "against 3.24 µm in meta.json" in str(found.scale_reading)


def test_what_was_read_is_read_again_by_a_rerun(tmp_path, prepare_config) -> None:
    source = write_group(tmp_path / "s.zarr", [2.4] * 3, "nanometer", levels=2, **MARKS)
    config = prepare_config(source, level=1, voxel_size_um=None)
    run(config, RunContext())
    record = json.loads((Path(config.root) / "segments/tiny/prepare/manifest.json").read_text())
    again = type(config).checked({**record["request"], "root": str(tmp_path / "again")}, "rerun")
    with (plan := make_plan(again)).source:
        assert plan.manifest.digest == record["digest"]
        assert not RunFolder(plan.folder / "prepare", plan.manifest).is_begun()

"""Catalogs written from what lies in a folder or bucket: the field's layouts, and what is said of what is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from inkbatch.cli.app import app
from inkbatch.data.segments.catalog import Catalog
from inkbatch.data.segments.catalog_writing import CatalogRequest, list_segments, write_catalog_from
from inkbatch.errors import ConfigError, DataError
from inkbatch.testing.s3 import S3Server
from inkbatch.testing.scrolls import flat_mesh, write_mesh, write_open_data, write_volume
from inkbatch.testing.segments import identity_bundle, random_papyrus, write_layers

FINE, COARSE = "20250108000000-w001_2.399um", "20250108000000-w001_9.362um"


@pytest.fixture(scope="module")
def open_data(tmp_path_factory):
    return write_open_data(tmp_path_factory.mktemp("open") / "bucket")


def listed(place: str | Path, tmp_path: Path, **wishes) -> dict[str, object]:
    return {row.name: row for row in list_segments(CatalogRequest(str(place), tmp_path / "segments.yaml", **wishes))}


def command(*words: object) -> object:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_open_data_gives_layers_at_each_spacing_and_meshes_with_their_volumes(open_data, tmp_path):
    rows = listed(open_data, tmp_path)
    assert set(rows) == {FINE, COARSE, "w002", "20250108000002-w003"}
    fine, coarse = rows[FINE].entry, rows[COARSE].entry
    assert fine.source.endswith("surface-volumes/2.399um-0.22m-78keV-volume-20260102150214.zarr")
    assert (fine.sample, fine.energy_kev, coarse.energy_kev) == ("PHerc0009", 78, 113)
    assert fine.ink_labels.endswith("20260918/inklabels.zarr/0")  # the latest release, of its own volume
    assert fine.supervision_mask.endswith("20260918/supervision.zarr/0")
    assert coarse.ink_labels is coarse.supervision_mask is None
    for name in ("w002", "20250108000002-w003"):
        assert rows[name].entry.volume.endswith("volumes/20250728140407-9.362um-1.2m-113keV-masked.zarr")
        assert rows[name].entry.layers_count == 65


def test_what_is_missing_is_said_per_segment(open_data, tmp_path):
    rows = listed(open_data, tmp_path)
    assert rows[FINE].missing == ("depth order (depth_order)",)
    assert rows[COARSE].missing == ("ink labels", "depth order (depth_order)")
    assert "labels of another surface volume" in str(rows[COARSE])
    assert "supervision mask" in str(rows[FINE])
    assert listed(open_data, tmp_path, depth_order="forward")[FINE].missing == ()


@pytest.mark.parametrize("part", ["PHerc0009", "PHerc0009/segments", "PHerc0009/segments/w002"])
def test_a_part_of_the_layout_is_understood(open_data, tmp_path, part):
    rows = listed(open_data / part, tmp_path)
    assert "w002" in rows
    if part == "PHerc0009":
        assert rows["w002"].entry.volume
    else:  # the volumes lie elsewhere
        assert rows["w002"].entry is None
        assert "--volume" in str(rows["w002"]) or "is not there" in str(rows["w002"])
        assert listed(open_data / part, tmp_path, volume="/v.zarr")["w002"].entry.volume == "/v.zarr"


def test_a_folder_of_segments_gives_zarr_tifs_and_meshes_with_labels_and_versions(tmp_path):
    scan = random_papyrus((5, 60, 70))
    write_volume(tmp_path / "volumes" / "scan.zarr", [scan])
    for name in ("a1.zarr", "a1_v2.zarr"):
        write_volume(tmp_path / "segs" / "a1" / name, [scan])
    for name in ("a1_inklabels.zarr", "a1_inklabels_v3.zarr", "a1_supervision_mask.zarr", "a1_validation_mask_v2.zarr"):
        write_volume(tmp_path / "segs" / "a1" / name, [scan])
    write_volume(tmp_path / "segs" / "a1" / "a1_pred.zarr", [scan])
    write_layers(tmp_path / "segs" / "b2" / "b2.tifs", scan)
    (tmp_path / "segs" / "b2" / "volume_source.txt").write_text("s3://x/9.362um-1.2m-113keV.zarr")
    cv2.imwrite(str(tmp_path / "segs" / "b2" / "b2_inklabels.png"), scan[0])
    cv2.imwrite(str(tmp_path / "segs" / "b2" / "b2_mask.png"), scan[0])
    write_mesh(tmp_path / "segs" / "c3", flat_mesh(), mask=np.full((12, 16), 255, np.uint8))
    (tmp_path / "segs" / "c3" / "volume_source.txt").write_text("../../volumes/scan.zarr\n")
    write_mesh(tmp_path / "segs" / "d4", flat_mesh())
    (tmp_path / "segs" / "d4" / "volume_source.txt").write_text("../gone.zarr")
    (tmp_path / "segs" / "e5").mkdir()
    (tmp_path / "segs" / "e5" / "notes.txt").write_text("")
    rows = listed(tmp_path / "segs", tmp_path)
    one, two, three = (rows[name].entry for name in ("a1", "b2", "c3"))
    assert (one.source, one.ink_labels) == ("segs/a1/a1_v2.zarr", "segs/a1/a1_inklabels_v3.zarr")
    assert one.supervision_mask == "segs/a1/a1_supervision_mask.zarr"
    assert one.supervision_mask == "segs/a1/a1_supervision_mask.zarr"
    assert one.validation_mask == "segs/a1/a1_validation_mask_v2.zarr"
    assert rows["a1"].remarks == ("not known: a1_pred.zarr",)
    assert (two.source, two.mask) == ("segs/b2/b2.tifs", "segs/b2/b2_mask.png")
    assert (three.source, three.volume, three.mask) == ("segs/c3", "volumes/scan.zarr", None)
    assert rows["d4"].entry is None
    assert "names '../gone.zarr', which is not there" in str(rows["d4"])
    assert set(rows) == {"a1", "b2", "c3", "d4"}


def test_known_reversed_segments_are_written_as_such(tmp_path):
    name = "20260220214732-auto_grown_20260220144552896"
    write_volume(tmp_path / "segs" / name / f"{name}.zarr", [random_papyrus((5, 60, 70))])
    row = listed(tmp_path / "segs", tmp_path, depth_order="forward")[name]
    assert row.entry.depth_order == "reversed"
    assert "reversed, says issues 1648 and 1867" in str(row)


def test_a_catalog_is_never_overwritten_by_itself(open_data, tmp_path):
    file = tmp_path / "segments.yaml"
    file.write_text("segments: {}\n# mine\n")
    with pytest.raises(ConfigError, match="there is one already.*--replace"):
        write_catalog_from(CatalogRequest(str(open_data), file))
    assert "mine" in file.read_text()
    write_catalog_from(CatalogRequest(str(open_data), file, replace=True))
    assert "mine" not in file.read_text()


@pytest.mark.parametrize(("content", "words"), [((), "nothing that can be listed"), (("notes/a.txt",), "got none")])
def test_a_place_without_segments_is_refused_and_nothing_is_written(tmp_path, content, words):
    (tmp_path / "place").mkdir()
    for name in content:
        (tmp_path / "place" / name).parent.mkdir()
        (tmp_path / "place" / name).write_text("")
    with pytest.raises(DataError, match=words):
        write_catalog_from(CatalogRequest(str(tmp_path / "place"), tmp_path / "segments.yaml"))
    assert not (tmp_path / "segments.yaml").exists()


def test_options_that_only_serve_to_write_are_refused_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "--volume is for --from" in str(command("segments", "--volume", "x").exception)


@pytest.fixture
def bundle(tmp_path):
    identity_bundle(tmp_path / "bundle", layers=3, voxel_size_um=9.362)
    return tmp_path / "bundle"


def test_what_is_written_is_prepared_and_inferred(open_data, tmp_path, monkeypatch, bundle):
    monkeypatch.chdir(tmp_path)
    found = command("segments", "--from", open_data, "--depth-order", "forward", "--layers-count", 9)
    assert found.exit_code == 0, found.output
    assert "catalog: 4 segments" in found.output
    assert command("prepare", FINE).exit_code == 0
    labelled = command("labels", FINE, "--set", "clean.min_area_px=0")
    assert labelled.exit_code == 0, (labelled.output, labelled.exception)
    for name in (COARSE, "w002"):
        assert command("prepare", name).exit_code == 0
        done = command("infer", name, "--bundle", bundle)
        assert done.exit_code == 0, done.output
    surface = json.loads((tmp_path / "root/segments/w002/surface.zarr/zarr.json").read_text())["attributes"]
    assert surface["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"][1] == 9.362


@pytest.fixture
def public_server(tmp_path, monkeypatch):
    """A server that takes unsigned requests, and a machine without credentials."""
    with S3Server(tmp_path / "s3", public=True) as server:
        for name, value in server.environment.items():
            if "KEY" not in name:
                monkeypatch.setenv(name, value)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_NO_SIGN_REQUEST"):
            monkeypatch.delenv(name, raising=False)
        yield server


def test_a_public_bucket_is_read_without_credentials(public_server, open_data, tmp_path, monkeypatch):
    public_server.make_bucket("open-data")
    shutil.copytree(open_data, public_server.folder / "open-data", dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    found = command("segments", "--from", "s3://open-data", "--depth-order", "forward", "--layers-count", 9)
    assert found.exit_code == 0, (found.output, found.exception)
    entries = yaml.safe_load((tmp_path / "segments.yaml").read_text())["segments"]
    assert entries["w002"]["volume"].startswith("s3://open-data/PHerc0009/volumes/20250728140407")
    assert entries[FINE]["ink_labels"].startswith("s3://open-data/PHerc0009/segments/")
    assert command("prepare", "w002").exit_code == 0


def test_a_web_server_that_lists_nothing_is_read_by_its_index(web, tmp_path):
    """The public bucket answers https, too: no listing, but an index of samples, segments and volumes."""
    write_open_data(web.folder)
    web.lists_folders = False
    first, coarse = "PHerc0009/segments/20250108000000-w001", "20250728140407"
    volume = f"PHerc0009/volumes/{coarse}-9.362um-1.2m-113keV-masked.zarr"

    def data(kind: str, path: str) -> dict[str, object]:
        return {"type": kind, "origins": [{"path": path, "access_roots": [{"url": "s3://open-data/"}]}]}

    segment = [
        data("layers-zarr", f"{first}/surface-volumes/9.362um-1.2m-113keV-volume-{coarse}.zarr/"),
        data("ink-detection", f"{first}/ink-detection/map.tif"),
    ]
    mesh = data("tifxyz-transformed", f"PHerc0009/segments/w002/mesh/w002-on-{coarse}-9.362um.tifxyz/")
    sample = {
        "volumes": {coarse: {"data": [data("ome-zarr", volume)]}},
        "segments": {"20250108000000": {"data": segment}, "20250108000001": {"data": [mesh]}},
    }
    (web.folder / "metadata.json").write_text(json.dumps({"samples": {"PHerc0009": sample}}))
    rows = listed(web.url, tmp_path, depth_order="forward")
    assert rows["20250108000000-w001"].entry.source.startswith(f"{web.url}/PHerc0009/segments")
    assert rows["w002"].entry.volume == f"{web.url}/{volume}"
    assert rows["w002"].missing == ("ink labels",)


def test_the_written_catalog_is_read_back(open_data, tmp_path):
    write_catalog_from(CatalogRequest(str(open_data), tmp_path / "segments.yaml", depth_order="forward"))
    catalog = Catalog.load(str(tmp_path / "segments.yaml"))
    assert catalog.own == sorted([FINE, COARSE, "w002", "20250108000002-w003"])
    assert catalog.entry("w002").depth_order == "forward"

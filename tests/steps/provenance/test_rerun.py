"""A finished run can be repeated from its manifest: equal bytes on a CPU, refused by name where something changed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml

from inkbatch.cli.app import main
from inkbatch.errors import ConfigError, DataError, MismatchError
from inkbatch.run.finished import open_run
from inkbatch.run.job import RunContext
from inkbatch.steps.infer import job as infer
from inkbatch.steps.provenance.rerun import request_yaml, rerun
from inkbatch.testing.faults import stored_bytes
from inkbatch.testing.segments import network_bundle


@pytest.fixture
def inferred(tiny_segment, tmp_path) -> Path:
    """A finished prediction by a small real network."""
    network_bundle(tmp_path / "bundle")
    config = infer.InferConfig(
        segment="tiny",
        root=str(tiny_segment.root),
        bundle=str(tmp_path / "bundle"),
        device="cpu",
        unit_px=64,
        name="first",
        stride_px=16,
        layers=(1, 4),
    )
    return Path(infer.run(config, RunContext()).location.path)


def test_a_repeated_infer_stores_the_same_bytes(inferred, tmp_path):
    found = rerun(str(inferred / "manifest.json"), str(tmp_path / "again"), RunContext())
    again = tmp_path / "again/predictions/tiny/first"
    assert found.unequal == ()
    assert found.objects > 15
    assert stored_bytes(again) == stored_bytes(inferred)  # the manifest, too: it does not say where results lie
    found.require_equal()


def test_a_repeated_prepare_stores_the_same_bytes(tiny_segment, tmp_path):
    found = rerun(str(tiny_segment.folder), str(tmp_path / "again"), RunContext())
    assert found.unequal == ()
    assert stored_bytes(tmp_path / "again/segments/tiny") == stored_bytes(tiny_segment.folder)


def test_a_run_of_an_older_version_is_equal_though_its_markers_say_less(inferred, tmp_path):
    for place in (*sorted((inferred / "done").iterdir()), inferred / "complete.json"):
        said = json.loads(place.read_text())
        older = {key: value for key, value in said.items() if key not in ("read", "objects", "content", "files")}
        place.write_text(json.dumps(older))
    assert rerun(str(inferred), str(tmp_path / "again"), RunContext()).unequal == ()


def test_a_single_changed_byte_is_found(inferred, tmp_path):
    shard = next(path for path in sorted(inferred.rglob("prediction.zarr/0/c/*/*")) if path.stat().st_size > 100)
    data = bytearray(shard.read_bytes())
    data[50] ^= 1
    shard.write_bytes(data)
    found = rerun(str(inferred), str(tmp_path / "again"), RunContext())
    assert found.unequal == (f"first/{shard.relative_to(inferred)}",)
    with pytest.raises(MismatchError, match=r"1 of \d+ stored objects differ"):
        found.require_equal()


def test_a_changed_bundle_is_refused_by_name_and_can_be_tried_anyway(inferred, tmp_path):
    network_bundle(tmp_path / "bundle", divisor=128.0)
    with pytest.raises(MismatchError, match=r"config\.contract\.divisor: then 255\.0, now 128\.0"):
        rerun(str(inferred), str(tmp_path / "again"), RunContext())
    assert not (tmp_path / "again").exists()
    assert rerun(str(inferred), str(tmp_path / "again"), RunContext(), anyway=True).unequal


def test_a_changed_source_is_refused_by_name(tiny_segment, tmp_path):
    tifffile.imwrite(tiny_segment.source / "02.tif", np.ones((150, 210), np.uint8), compression="zlib")
    with pytest.raises(MismatchError, match=r"inputs\.source_fingerprint"):
        rerun(str(tiny_segment.folder), str(tmp_path / "again"), RunContext())


def test_a_bundle_that_moved_is_named(inferred, tmp_path):
    (tmp_path / "bundle").rename(tmp_path / "moved")
    with pytest.raises(DataError):
        rerun(str(inferred), str(tmp_path / "again"), RunContext())
    moved = [f"bundle={tmp_path / 'moved'}"]
    assert rerun(str(inferred), str(tmp_path / "again"), RunContext(), sets=moved).unequal == ()


def test_the_same_root_a_partial_run_and_an_unknown_job_are_refused(inferred, tiny_segment, tmp_path):
    with pytest.raises(ConfigError, match="is the run itself"):
        rerun(str(inferred), str(tiny_segment.root), RunContext())
    (inferred / "complete.json").unlink()
    with pytest.raises(DataError, match="incomplete"):
        rerun(str(inferred), str(tmp_path / "again"), RunContext())
    with pytest.raises(DataError, match=r"expected a run's manifest\.json, got none"):
        open_run(str(tmp_path))


def test_what_was_asked_for_is_shown_as_a_configuration(inferred, tmp_path, capsys):
    settings = yaml.safe_load(request_yaml(str(inferred)))
    assert settings["bundle"] == str(tmp_path / "bundle")
    assert settings["layers"] == [1, 4]
    assert "root" not in settings
    infer.InferConfig.checked(settings, "settings")
    with pytest.raises(SystemExit) as stopped:
        main(["rerun", str(inferred)])
    assert stopped.value.code == 64
    assert "--root" in capsys.readouterr().err


def test_the_command_line_says_that_bytes_are_equal(inferred, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["rerun", str(inferred / "manifest.json"), "--root", str(tmp_path / "again"), "--log", "plain"])
    assert stopped.value.code == 0
    assert "equal to the byte" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["diff", str(inferred), str(tmp_path / "again/predictions/tiny/first"), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert all(rows == [] for rows in document["differences"].values())
    assert document["maps"]["maximum"] == 0

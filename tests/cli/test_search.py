"""`inkbatch preflight` and `inkbatch sweep` on the command line, with the settings that are shipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inkbatch.testing.segments import identity_bundle, random_papyrus, write_layers

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def root(inkbatch, tmp_path) -> Path:
    source = write_layers(tmp_path / "layers", random_papyrus((5, 96, 128)))
    stated = ("--source", source, "--depth-order", "forward", "--voxel-size-um", "8", "--set", "shard_px=64")
    inkbatch("prepare", "tiny", "--root", "root", *stated, cwd=tmp_path)
    return tmp_path


def test_preflight_with_the_shipped_settings_says_the_share_of_each_verdict(inkbatch, root):
    said = inkbatch("preflight", "tiny", "--root", "root", "--config", REPOSITORY / "jobs/preflight.yaml", cwd=root)
    assert "preflight: complete" in said.stdout
    found = next((root / "root").rglob("preflight.json"))
    assert json.loads(found.read_text())


def test_a_sweep_with_the_shipped_settings_ends_with_a_sentence_on_its_null(inkbatch, root):
    identity_bundle(root / "bundle", 3)
    settings = ("--config", REPOSITORY / "jobs/sweep.yaml", "--depths=-1:2", "--set", "unit_px=128")
    said = inkbatch("sweep", "tiny", "--bundle", "bundle", "--root", "root", *settings, cwd=root)
    assert "sweep: complete" in said.stdout
    assert json.loads(next((root / "root").rglob("sweep.json")).read_text())["evidence"]

"""`inkbatch probe` and `infer --layers auto` on the command line: settings, words, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def root(inkbatch, tmp_path) -> Path:
    inkbatch("prepare", "demo", "--root", "root", cwd=tmp_path)
    return tmp_path


def test_the_shipped_settings_run_and_the_verdict_is_said(inkbatch, root):
    settings = ["--config", REPOSITORY / "jobs/probe.yaml", "--set", "at=[[0,0],[0,128]]", "--set", "window_px=128"]
    said = inkbatch("probe", "demo", "--bundle", "demo", "--root", "root", *settings, cwd=root).stdout
    for words in ("probe: complete", "verdict: clear", "forward order, layers 0:13", "null input", "probe.png"):
        assert words in said
    found = json.loads((root / "root/probes/demo/demo/verdict.json").read_text())
    assert (found["usable"], found["depth_order"], found["layers"]) == (True, "forward", [0, 13])


def test_a_dry_run_names_windows_and_readings_and_writes_nothing(inkbatch, root):
    options = ["--bundle", "demo", "--root", "root", "--set", "at=[[0,0],[0,128]]", "--set", "window_px=128"]
    said = inkbatch("probe", "demo", *options, "--dry-run", cwd=root).stdout
    assert "windows       2 of 128 × 128 px (height × width), 0 already done" in said
    assert "from 1 first layer (0 to 0); usual: forward from 0" in said
    assert not (root / "root/probes").exists()


def test_refusals_have_a_code_and_say_what_to_do(inkbatch, root):
    dry = inkbatch(
        "infer", "demo", "--bundle", "demo", "--root", "root", "--layers", "auto", "--dry-run", cwd=root, code=65
    )
    assert "run inkbatch probe demo --bundle demo first" in dry.stderr
    none = inkbatch("probe", "demo", "--bundle", "demo", "--root", "root", "--set", "amplitude=0", cwd=root, code=64)
    assert "plants no ink" in none.stderr
    prepare = inkbatch("prepare", "demo", "--root", "root", "--layers", "auto", cwd=root, code=64)
    assert "expected START:STOP" in prepare.stderr

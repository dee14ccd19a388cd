"""Credentials stay in the environment: nothing of a run on S3 holds them, and nothing is written outside ROOT."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from inkbatch.testing.s3 import ACCESS_KEY, SECRET_KEY
from inkbatch.testing.segments import identity_bundle, random_papyrus, write_layers


def files_below(*folders: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def test_a_run_on_s3_leaves_no_credential_and_writes_below_its_root_alone(s3_server, s3_root, tmp_path):
    layers = write_layers(tmp_path / "layers", random_papyrus((5, 70, 90)))
    identity_bundle(tmp_path / "bundle")
    before = set(files_below(s3_server.folder))
    words = ["launch", "prepare,infer", "tiny", "--root", s3_root.uri, "--source", str(layers), "--bundle", "bundle"]
    words += ["--set", "prepare:depth_order=forward", "--set", "prepare:voxel_size_um=8", "--set", "unit_px=64"]
    words += ["--shards", "2", "--option", "workers=2"]
    said = ""
    for arguments in (words, ["status", "tiny", "--root", s3_root.uri], ["pull", "tiny", "--root", s3_root.uri]):
        ended = subprocess.run(
            [sys.executable, "-m", "inkbatch", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert ended.returncode == 0, ended.stderr
        said += ended.stdout + ended.stderr

    written = set(files_below(s3_server.folder)) - before
    root = s3_server.folder / s3_root.uri.removeprefix("s3://")
    assert {path.name for path in written} >= {"manifest.json", "complete.json", "preview.png"}
    assert {path for path in written if root not in path.parents} == set()

    everything = {**files_below(tmp_path), **{path: path.read_bytes() for path in written}}
    assert any(path.suffix == ".log" for path in everything)
    for secret in (ACCESS_KEY, SECRET_KEY):
        assert secret not in said
        assert [path for path, content in everything.items() if secret.encode() in content] == []

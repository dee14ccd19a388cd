"""inkbatch run: a chain on this machine is its commands one after another; engines and shards are a launch."""

from __future__ import annotations

import shutil

import pytest
import yaml

from inkbatch.cli.app import app
from inkbatch.cli.outcome import run_command
from inkbatch.errors import EXIT_CONFIG, EXIT_DATA, EXIT_DONE
from inkbatch.testing.s3 import S3Server
from inkbatch.testing.segments import identity_bundle, random_papyrus, write_layers

STATED = ["--set", "prepare:depth_order=forward", "--set", "prepare:voxel_size_um=8"]


@pytest.fixture
def inkbatch(tmp_path, monkeypatch, capsys):
    """Run a command in `tmp_path`; returns what it printed."""
    monkeypatch.chdir(tmp_path)
    for name in ("INKBATCH_ROOT", "INKBATCH_CATALOG"):
        monkeypatch.delenv(name, raising=False)
    write_layers(tmp_path / "layers", random_papyrus((5, 90, 120)))
    identity_bundle(tmp_path / "bundle")

    def run(*words: str, code: int = EXIT_DONE) -> str:
        assert run_command(lambda: app(args=list(words), standalone_mode=False)) == code
        said = capsys.readouterr()
        return str(said.err if code else said.out)

    return run


def test_a_chain_runs_here_and_equals_the_commands_one_by_one(inkbatch, tmp_path):
    words = ["--root", "chain", "--source", "layers", "--bundle", "bundle", *STATED, "--args", "--tta 'flip-y'"]
    identity_bundle(tmp_path / "bundle", tta_axes=("flip-y",))
    said = inkbatch("run", "prepare,infer", "tiny", *words, "--name", "a-b")
    assert "prepare: complete" in said
    assert "infer: complete" in said
    given = ["--set", "depth_order=forward", "--set", "voxel_size_um=8"]
    inkbatch("prepare", "tiny", "--root", "single", "--source", "layers", *given)
    inkbatch("infer", "tiny", "--root", "single", "--bundle", "bundle", "--name", "a-b", "--tta", "flip-y")
    for place in ("segments/tiny/prepare/manifest.json", "predictions/tiny/a-b/manifest.json"):
        assert (tmp_path / "chain" / place).read_bytes() == (tmp_path / "single" / place).read_bytes()
    assert not (tmp_path / ".inkbatch").exists()


@pytest.mark.parametrize("stated", ["set", "file"])
def test_a_root_that_settings_state_is_that_of_all_jobs(inkbatch, tmp_path, monkeypatch, stated):
    monkeypatch.setenv("INKBATCH_ROOT", "assumed")
    (tmp_path / "mine.yaml").write_text("root: mine\n")
    how = {"set": ["--set", "root=mine"], "file": ["--config", "mine.yaml"]}[stated]
    words = ["prepare,infer", "tiny", "--source", "layers", "--bundle", "bundle", *STATED, *how]
    rendered = inkbatch("launch", *words, "--dry-run")
    assert f"--root {tmp_path}/mine" in rendered
    assert "root=" not in rendered
    assert "assumed" not in rendered
    inkbatch("run", *words)
    assert (tmp_path / "mine/segments/tiny").is_dir()
    assert (tmp_path / "mine/predictions/tiny").is_dir()
    assert not (tmp_path / "assumed").exists()
    assert f"--root {tmp_path}/given" in inkbatch("launch", *words, "--root", "given", "--dry-run")


def test_two_roots_in_one_chain_are_refused(inkbatch):
    words = ["prepare,infer", "tiny", "--set", "prepare:root=a", "--set", "root=b", "--bundle", "bundle", "--dry-run"]
    said = inkbatch("run", *words, code=EXIT_CONFIG)
    assert "ROOT: expected one for all jobs, got a for prepare, b for infer; state it once, with --root" in said


@pytest.mark.parametrize("in_catalog", [False, True])
def test_a_prepared_segment_needs_its_source_no_more(inkbatch, tmp_path, in_catalog):
    chain = ["run", "prepare,infer", "tiny", "--bundle", "bundle"]
    assert "not in the catalog" in inkbatch(*chain, code=EXIT_CONFIG)
    inkbatch("run", "prepare", "tiny", "--source", "layers", "--prepare-args", "--depth-order forward", *STATED[2:])
    if in_catalog:
        entry = {"source": "layers", "depth_order": "forward", "voxel_size_um": 8.0}
        (tmp_path / "segments.yaml").write_text(yaml.safe_dump({"segments": {"tiny": entry}}))
        assert "prepare: left out" not in inkbatch(*chain, "--dry-run")
    shutil.rmtree(tmp_path / "layers")
    said = inkbatch(*chain)
    assert "infer: complete" in said
    assert "prepare: left out; the segment is prepared" in said
    assert " prepare tiny" not in inkbatch("launch", "prepare,infer", "tiny", "--bundle", "bundle", "--dry-run")
    refused = inkbatch(*chain, "--set", "prepare:depth_order=reversed", code=EXIT_DATA if in_catalog else EXIT_CONFIG)
    assert "infer: complete" not in refused


def test_a_root_on_s3_is_planned_and_read_from_another_machine_at_another_address(
    inkbatch, tmp_path, s3_root, s3_server, monkeypatch
):
    inkbatch("run", "prepare", "tiny", "--root", s3_root.uri, "--source", "layers", *STATED)
    shutil.copytree(s3_server.folder / "bucket" / s3_root.name, tmp_path / "there/copied/moved")
    shutil.rmtree(tmp_path / "layers")
    (tmp_path / "desk").mkdir()
    monkeypatch.chdir(tmp_path / "desk")  # no catalog, no source
    with S3Server(tmp_path / "there") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        chain = ["run", "prepare,infer", "tiny", "--root", "s3://copied/moved", "--bundle", "../bundle"]
        for words in (["--dry-run"], []):
            said = inkbatch(*chain, *words)
            assert "prepare: left out; the segment is prepared, and its source is not available here" in said
            assert ("infer tiny with tiny-identity" if words else "infer: complete") in said
        assert "infer: complete · 0 units stored" in inkbatch(*chain)
        inkbatch("verify", "s3://copied/moved")


def test_a_dry_run_answers_before_the_segment_is_prepared(inkbatch, tmp_path):
    entry = {"source": "layers", "depth_order": "forward", "voxel_size_um": 8.0}
    (tmp_path / "segments.yaml").write_text(yaml.safe_dump({"segments": {"tiny": entry}}))
    said = inkbatch("run", "prepare,infer,report", "tiny", "--bundle", "bundle", "--dry-run")
    assert "0:5 of 5, 90 x 120 px" in said
    assert "not prepared yet" in said
    assert "inkbatch report tiny --root root" in said
    assert not (tmp_path / "root").exists()
    inkbatch("run", "prepare", "tiny")
    assert "not prepared yet" not in inkbatch("run", "prepare,infer", "tiny", "--bundle", "bundle", "--dry-run")


@pytest.mark.parametrize("job", ["sweep", "preflight"])
def test_a_plan_that_needs_a_prepared_segment_says_so_behind_prepare_and_is_refused_alone(inkbatch, tmp_path, job):
    entry = {"source": "layers", "depth_order": "forward", "voxel_size_um": 8.0}
    (tmp_path / "segments.yaml").write_text(yaml.safe_dump({"segments": {"tiny": entry}}))
    said = inkbatch("run", f"prepare,{job}", "tiny", "--bundle", "bundle", "--dry-run")
    assert "0:5 of 5, 90 x 120 px" in said
    assert f"{job}: no plan before the jobs ahead of it are done (segment tiny: nothing at " in said
    alone = inkbatch("run", job, "tiny", "--bundle", "bundle", "--dry-run", code=65)
    assert "run inkbatch prepare tiny first" in alone


def test_a_wrong_setting_of_a_later_job_is_refused_before_the_first_begins(inkbatch, tmp_path):
    words = ["--source", "layers", "--bundle", "bundle", *STATED, "--set", "strid_px=3"]
    said = inkbatch("run", "prepare,infer", "tiny", *words, code=EXIT_CONFIG)
    assert "infer: configuration: unknown key 'strid_px'; did you mean" in said
    assert not (tmp_path / "root").exists()


def test_a_shard_is_a_part_of_the_last_job_alone(inkbatch, tmp_path):
    chain = ["prepare,infer", "tiny", "--source", "layers", "--bundle", "bundle", *STATED]
    inkbatch("run", *chain, "--set", "unit_px=64", "--shard", "0/2", code=65)  # nothing is prepared
    inkbatch("run", "prepare", "tiny", "--source", "layers", *STATED)
    for shard in ("0/2", "1/2"):
        said = inkbatch("run", *chain, "--set", "unit_px=64", "--shard", shard)
    assert "infer: complete" in said


def test_shards_and_engines_are_a_launch(inkbatch):
    said = inkbatch("run", "infer", "demo", "--bundle", "demo", "--engine", "slurm", "--shards", "4", "--dry-run")
    assert "#SBATCH --array=0-3" in said
    assert "# ----" in inkbatch("run", "doctor", "--engine", "slurm", "--dry-run")


def test_a_job_file_names_the_dataset_of_a_launch(inkbatch, tmp_path):
    (tmp_path / "letters.yaml").write_text("name: letters\nsegments: [{id: tiny}]\n")
    words = ["build-dataset", "--config", "letters.yaml", "--engine", "slurm", "--dry-run"]
    assert "build-dataset letters" in inkbatch("run", *words)
    assert "expected the name of a segment" in inkbatch("run", "infer", "--engine", "slurm", code=EXIT_CONFIG)


def test_a_quote_without_its_partner_is_a_configuration_error(inkbatch):
    said = inkbatch("run", "infer", "tiny", "--bundle", "bundle", "--args", "--name 'a", code=EXIT_CONFIG)
    assert "--args" in said
    assert "No closing quotation" in said

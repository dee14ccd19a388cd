"""Launching, asking and fetching from the command line and through make."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from inkbatch.cli.app import app
from inkbatch.cli.outcome import run_command
from inkbatch.errors import EXIT_CONFIG, EXIT_DATA, EXIT_TRY_AGAIN
from inkbatch.testing.segments import identity_bundle, random_papyrus, write_layers

INFER = ("launch", "infer", "demo", "--bundle", "demo")
REPOSITORY = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_the_whole_way_of_a_launch(inkbatch, tmp_path):
    write_layers(tmp_path / "layers", random_papyrus((5, 150, 210)))
    identity_bundle(tmp_path / "bundle")
    settings = ["--set", "prepare:depth_order=forward", "--set", "prepare:voxel_size_um=8", "--set", "unit_px=64"]
    words = ["--source", "layers", "--bundle", "bundle", "--shards", "prepare=1,infer=2", *settings]
    done = inkbatch("launch", "prepare,infer", "tiny", *words, "--option", "workers=2", cwd=tmp_path)
    assert "infer 1: done" in done.stderr
    assert "picture:" in done.stdout
    status = inkbatch("status", "tiny", cwd=tmp_path).stdout
    assert "prepare: complete" in status
    assert "infer: 2 done" in status
    assert "infer" in inkbatch("status", cwd=tmp_path).stdout
    assert '"job": "infer"' in inkbatch("logs", "tiny", "--shard", "1", cwd=tmp_path).stdout
    assert "ended already" in inkbatch("cancel", "tiny", cwd=tmp_path).stdout
    assert "finished" in inkbatch("pull", "tiny", cwd=tmp_path).stdout
    inkbatch("export", "tiny", "--root", "pulled", "--to", "map.png", cwd=tmp_path)


def test_a_chain_ends_with_its_report(inkbatch, tmp_path):
    write_layers(tmp_path / "layers", random_papyrus((5, 90, 120)))
    identity_bundle(tmp_path / "bundle")
    words = ["--source", "layers", "--bundle", "bundle", "--name", "map"]
    words += ["--set", "prepare:depth_order=forward", "--set", "prepare:voxel_size_um=8"]
    words += ["--config", REPOSITORY / "jobs/report.yaml"]
    done = inkbatch("launch", "prepare,infer,report", "tiny", *words, cwd=tmp_path)
    page = tmp_path / "root/predictions/tiny/map/report.html"
    assert "report 0: done" in done.stderr
    assert f"report: {page}" in inkbatch("logs", "tiny", cwd=tmp_path).stdout
    assert page.read_bytes().startswith(b"<!doctype html>")
    inkbatch("pull", "tiny", cwd=tmp_path)
    assert (tmp_path / "pulled/predictions/tiny/map/report.html").read_bytes() == page.read_bytes()


@pytest.mark.slow
def test_several_bundles_and_their_ensemble_are_one_launch(inkbatch, tmp_path):
    """Really run by the local engine, then scored and cleaned through the same front door."""
    write_layers(tmp_path / "layers", random_papyrus((5, 150, 210)))
    identity_bundle(tmp_path / "runs/centre/bundle")
    identity_bundle(tmp_path / "second", layer=2)
    words = ["--source", "layers", "--bundle", "runs/centre/bundle", "--bundle", "upper=second", "--shards", "infer=2"]
    words += ["--set", "prepare:depth_order=forward", "--set", "prepare:voxel_size_um=8", "--set", "infer:unit_px=64"]
    words += ["--set", "ensemble:unit_px=64", "--name", "both", "--option", "workers=2"]
    inkbatch("launch", "prepare,infer,ensemble", "tiny", *words, cwd=tmp_path)
    manifest = json.loads((tmp_path / "root/predictions/tiny/both/manifest.json").read_text())
    assert [member["name"] for member in manifest["inputs"]["predictions"]] == ["centre", "upper"]
    status = inkbatch("status", "tiny", cwd=tmp_path).stdout
    for line in ("prediction both: complete", "infer.centre: 2 done", "infer.upper: 2 done", "ensemble: 1 done"):
        assert line in status
    assert "tiny" in inkbatch("logs", "tiny", "--job", "infer.upper", "--shard", "1", cwd=tmp_path).stdout
    ink = np.zeros((150, 210), np.uint8)
    ink[20:60, 30:90] = 255
    cv2.imwrite(str(tmp_path / "labels.png"), ink)
    for job, name in (("evaluate", "both"), ("clean", "both")):  # as jobs/evaluate.yaml and jobs/clean.yaml say
        extra = ["--args", f"--labels {tmp_path}/labels.png"] if job == "evaluate" else []
        inkbatch("launch", job, "tiny", "--name", name, *extra, cwd=tmp_path)
    assert (tmp_path / "root/predictions/tiny/both/evaluation/evaluation.json").exists()
    assert (tmp_path / "root/predictions/tiny/both-clean/complete.json").exists()


def test_a_dry_run_prints_and_writes_nothing(inkbatch, tmp_path):
    words = ["launch", "train", "letters", "--engine", "slurm", "--root", "s3://bucket/ink", "--dry-run"]
    words += ["--set", "dataset=letters"]
    words += ["--config", REPOSITORY / "jobs/train.yaml"]
    assert "--gres=gpu:1" in inkbatch(*words, cwd=tmp_path).stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["launch", "infer", "demo"], EXIT_CONFIG, "BUNDLE"),
        (["launch", "infre", "demo", "--bundle", "demo"], EXIT_CONFIG, "did you mean 'infer'"),
        (["launch", "infer", "demo", "--bundle", "demo", "--engine", "slrum"], EXIT_CONFIG, "did you mean 'slurm'"),
        (["launch", "infer", "demo", "--bundle", "demo", "--engine", "aws-batch"], EXIT_CONFIG, "s3://"),
        (["launch", "infer", "demo", "--bundle", "demo", "--shards", "four"], EXIT_CONFIG, "--shards"),
        (["launch", "prepare", "nowhere"], EXIT_CONFIG, "not in the catalog"),
        (["launch", ",", "demo"], EXIT_CONFIG, "expected names of jobs"),
        (["status", "nobody"], EXIT_CONFIG, "nobody"),
        (["cancel", "nobody"], EXIT_CONFIG, "inkbatch status"),
        (["logs", "nobody"], EXIT_CONFIG, "inkbatch status"),
        (["pull", "nobody"], EXIT_DATA, "run inkbatch infer first"),
    ],
)
def test_refusals_have_a_code_and_say_what_to_do(inkbatch, tmp_path, arguments, code, words):
    result = inkbatch(*arguments, code=code, cwd=tmp_path)
    assert words in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*INFER, "--set", "strid_px=3"], "infer: configuration: unknown key 'strid_px'; did you mean"),
        ([*INFER, "--set", "stride_px=few"], "a whole number, got 'few'"),
        ([*INFER, "--args", "--strid 3"], "No such option: --strid"),
        ([*INFER, "--args", "--help"], "without doing its job"),
        ([*INFER, "--config", "none.yaml"], "none.yaml"),
        ([*INFER, "--bundle", "demo"], "--bundle NAME=PLACE"),
        ([*INFER, "--bundle", "other=demo", "--name", "map"], "2 bundles make 2 predictions"),
        (["launch", "infer", "demo", "--bundle", "no/such"], "there is no bundle.json"),
        (["launch", "prepare", "demo", "--set", "depth_order=up"], "'forward' or 'reversed'"),
        (["launch", "infer,prepare", "demo", "--bundle", "demo"], "write prepare,infer"),
        (["launch", "prepare,train", "demo"], "do not belong together"),
        (["launch", "prepare,prepare", "demo"], "stands there twice"),
        (["launch", "ensemble", "demo"], "'predictions' (--prediction) is required"),
        (["launch", "ensemble", "demo", "--prediction", "a"], "expected at least two predictions"),
        (["launch", "infer,ensemble", "demo", "--bundle", "demo"], "expected at least two predictions"),
        (["launch", "train", "letters"], "'dataset' (--dataset)"),
        (
            ["launch", "train", "letters", "--set", "dataset=d", "--set", "epochs=few"],
            "a whole number, got 'few'",
        ),
    ],
)
def test_what_tasks_would_refuse_is_refused_before_anything_is_submitted(
    tmp_path, monkeypatch, capsys, arguments, words
):
    monkeypatch.chdir(tmp_path)
    assert run_command(lambda: app(args=[*map(str, arguments)], standalone_mode=False)) == EXIT_CONFIG
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_launching_starts_without_torch():
    script = "import sys\nfrom inkbatch.cli.app import app\nfrom inkbatch.cli.outcome import run_command\n"
    script += "code = run_command(lambda: app(args=sys.argv[1:], standalone_mode=False))\n"
    script += "heavy = {'torch', 'transformers', 'boto3'} & set(sys.modules)\nsys.exit(str(heavy) if heavy else code)"
    words = ["launch", "infer", "demo", "--bundle", "demo", "--engine", "slurm", "--dry-run"]
    subprocess.run([sys.executable, "-c", script, *words], check=True, capture_output=True)


def test_a_stop_while_python_still_imports_is_75():
    """Not 143: schedulers would not try that again."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "inkbatch", "infer", "demo"], stderr=subprocess.PIPE
    )
    for line in process.stderr:
        if b"typer" in line:  # the command line is being imported: the first handlers stand
            break
    process.send_signal(signal.SIGTERM)
    process.stderr.read()
    assert process.wait(timeout=60) == EXIT_TRY_AGAIN
    process.stderr.close()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("target", "words"),
    [
        (
            ["infer", "SEGMENT=demo"],
            ["inkbatch run prepare,infer 'demo' --bundle 'demo' --engine 'local' --root 'root'"],
        ),
        (
            ["infer", "SEGMENT=demo", "ENGINE=slurm", "SHARDS=8", "OPTIONS=partition=gpu"],
            ["run prepare,infer 'demo'", "--engine 'slurm' --shards '8'", "--option 'partition=gpu'", "program=["],
        ),
        (["infer", "SEGMENT=demo", "SHARD=0/4", "ROOT=s3://b/x"], ["--shard '0/4'", "--root 's3://b/x'"]),
        (["plan", "SEGMENT=demo"], ["inkbatch run prepare,infer 'demo' --bundle 'demo' --dry-run --root 'root'"]),
        (
            ["prepare", "SEGMENT=a", "ENGINE=docker", "SOURCE=/l"],
            ["run prepare 'a' --engine 'docker'", "--source '/l'"],
        ),
        (["train", "NAME=r", "CONFIG=c.yaml"], ["run train 'r' --engine 'local'", "--config 'c.yaml'"]),
        (["build-dataset", "CONFIG=d.yaml", "SHARDS=3"], ["run build-dataset --engine 'local' --shards '3'"]),
        (["ensemble", "SEGMENT=a", "NAME=mean"], ["run ensemble 'a'", "--name 'mean'", '--args="$ARGS"']),
        (["evaluate", "SEGMENT=a", "ENGINE=aws-batch"], ["run evaluate 'a' --engine 'aws-batch'"]),
        (["doctor", "ENGINE=slurm"], ["run doctor --engine 'slurm'"]),
        (["pull", "SEGMENT=a", "ROOT=s3://b/x"], ["inkbatch pull 'a' --root 's3://b/x' --to 'pulled'"]),
        (["status"], ["inkbatch status --root 'root'"]),
        (["cancel", "SEGMENT=a"], ["inkbatch cancel 'a'"]),
        (["logs", "SEGMENT=a"], ["inkbatch logs 'a'"]),
    ],
    ids=lambda value: value[0] if value[0].isalpha() else "",
)
def test_make_says_the_same_in_fewer_words(target, words):
    done = subprocess.run(["make", "-n", *target], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    text = " ".join(done.stdout.replace("\\\n", " ").split())
    assert all(word in text for word in words), text


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_quotes_in_the_arguments_of_make_reach_the_job(tmp_path):
    tools = tmp_path / "venv" / "bin"
    tools.mkdir(parents=True)
    (tools / "inkbatch").write_text(f'#!/bin/sh\nexec {sys.executable} -m inkbatch "$@" --dry-run\n')
    (tools / "inkbatch").chmod(0o755)
    for made in (tools / "uv", tools.parent / ".runtime"):
        made.touch()
    words = ["infer", "SEGMENT=demo", "ENGINE=slurm", "PREPARE_ARGS=--set 'mask=my mask.png'"]
    words += [f"VENV={tools.parent}", f"ROOT={tmp_path}/root", """ARGS=--override "note=it's here" --tta 'flip-y'"""]
    done = subprocess.run(["make", "-s", *words], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "--set 'mask=my mask.png'" in done.stdout
    assert """--override 'note=it'"'"'s here' --tta flip-y""" in done.stdout

"""`make demo-train`: its settings fit each other, and the whole way runs with the commands that a user has."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from inkbatch.data.synthetic.phantom_series import PhantomSeriesConfig
from inkbatch.steps.dataset.job import BuildDatasetConfig
from inkbatch.steps.train.job import TrainConfig

REPOSITORY = Path(__file__).parent.parent
JOBS = REPOSITORY / "jobs" / "demo"


def ids_of(part: str) -> list[str]:
    series = PhantomSeriesConfig.load(str(JOBS / f"phantoms-{part}.yaml"))
    return [series.segment_id(number) for number in range(series.count)]


def test_the_dataset_holds_the_planted_segments_and_the_run_takes_the_dataset():
    dataset = BuildDatasetConfig.load(str(JOBS / "dataset.yaml"))
    run = TrainConfig.load(str(JOBS / "train.yaml"))
    assert [segment.id for segment in dataset.segments] == ids_of("train") + ids_of("validation")
    assert (list(dataset.splits.train), list(dataset.splits.validation)) == (ids_of("train"), ids_of("validation"))
    assert run.dataset == dataset.name
    assert run.tile_px < dataset.sample_px


@pytest.mark.slow
def test_the_whole_way_runs_says_what_it_does_and_judges_the_result(tmp_path):
    command = [sys.executable, str(REPOSITORY / "scripts" / "demo_train.py"), "--root", str(tmp_path / "root")]
    for setting in ("epochs=1", "sampler.samples_per_epoch=32", "batch=8"):
        command += ["--set", setting]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 1, done.stderr
    assert "F0.5 of at least 0.85 was expected" in done.stderr
    jobs = re.findall(r"^\$ inkbatch (\S+)", done.stdout, re.MULTILINE)
    assert list(dict.fromkeys(jobs)) == ["phantoms", "prepare", "build-dataset", "train", "infer"]
    table = {
        row[:13].strip(): row.split()[-2:]
        for row in done.stdout.splitlines()
        if row.startswith(("trained", "shipped "))
    }
    assert float(table["shipped"][0]) > 0.85
    assert float(table["trained now"][0]) < float(table["shipped"][0])
    report = Path(re.search(r"^report: (.*)$", done.stdout, re.MULTILINE)[1])
    assert "F0.5" in report.read_text(encoding="utf-8")
    document = json.loads((report.parent / "bundle" / "bundle.json").read_text())
    assert document["training"]["steps"] == 4
    assert (report.parent / "bundle" / "weights.safetensors").stat().st_size < 6e6
    settings = yaml.safe_load((JOBS / "train.yaml").read_text())
    assert document["contract"]["tile_px"] == settings["tile_px"]

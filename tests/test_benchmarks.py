"""The benchmarks run and print each figure beside its floor. What they measure is no matter for a test."""

from __future__ import annotations

import importlib
import json
import re

import pytest

from benchmarks import run
from benchmarks.common import Report, Sample, best, cpu, median, options, real_layers

ROW = re.compile(r"^   .+: [\d.,e+-]+ \S+ \| floor [\d.,e+-]+ \S+ \(.+\) \| ratio [\d.,a-z]+", re.MULTILINE)

NAMES = [
    "null",
    pytest.param("overhead", marks=pytest.mark.slow),
    "prepare",
    "durable",
    pytest.param("render", marks=pytest.mark.slow),
    pytest.param("memory", marks=pytest.mark.slow),
    "zarr",
    "view",
    "edit",
    pytest.param("train", marks=pytest.mark.slow),  # two networks train side by side: minutes on two busy cores
    "maps",
    pytest.param("tta", marks=pytest.mark.slow),
    pytest.param("sweep", marks=pytest.mark.slow),
    "instances",
    "prompts",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_quick_run_prints_and_writes_every_figure_beside_its_floor(tmp_path, capsys, name):
    bench = importlib.import_module(f"benchmarks.bench_{name}")
    (tmp_path / "work").mkdir()
    assert bench.main(["--quick", "--json", str(tmp_path / "figures"), "--scratch", str(tmp_path / "work")]) == 0
    document = json.loads((tmp_path / "figures" / f"{name}.json").read_text(encoding="utf-8"))
    rows = ROW.findall(capsys.readouterr().out)
    assert len(rows) == len(document["rows"]) > 0
    assert document["machine"]["cores"] >= 1
    for row in document["rows"]:
        assert row["figure"] > 0
        assert row["floor"] > 0
        assert row["ratio"] == pytest.approx(row["figure"] / row["floor"])
        assert row["met"] is None
    assert not list((tmp_path / "work").iterdir())


def test_targets_are_judged_by_their_ratio(tmp_path, capsys):
    report = Report("sample", options(None, ["--json", str(tmp_path)]))
    report.row("rate", 90, "tiles/s", 100, "gathering", at_least=0.6)
    report.row("time", 2.0, "s", 1.0, "copying", at_most=1.0)
    report.row("size", 2.0, "s", 1.0, "copying")
    report.keep({"time": [Sample(3.0, 1.0, 0.5), Sample(2.0, 4.0, 0.5), Sample(9.0, 2.0, 0.5)]})
    assert report.finish() == 0
    out = capsys.readouterr().out
    assert "ratio 0.90  (target at least 0.6: met)" in out
    assert "ratio 2.00  (target at most 1: MISSED)" in out
    document = json.loads((tmp_path / "sample.json").read_text(encoding="utf-8"))
    assert [row["met"] for row in document["rows"]] == [True, False, None]
    samples = [Sample(**sample) for sample in document["samples"]["time"]]
    assert (best(samples), median(samples), cpu(samples)) == (2.0, 3.0, 1.0)


def test_layers_are_real_and_mirrored_up_to_the_size():
    layers = real_layers(15, (700, 1100))
    assert layers.shape == (15, 700, 1100)
    assert layers.std(axis=(1, 2)).min() > 10
    assert (layers[:, 640:] == layers[:, 580:640][:, ::-1]).all()
    assert (layers[13] == layers[0]).all()


def test_a_folder_without_layers_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="no layers"):
        real_layers(2, (10, 10), tmp_path)


@pytest.mark.parametrize("failing", [(), ("zarr",)])
def test_all_are_run_even_where_one_fails(monkeypatch, tmp_path, failing):
    seen = []

    class Ended:
        def __init__(self, line):
            self.returncode = int(any(line[2].endswith(name) for name in failing))

    def start(line, **_):
        seen.append(line)
        return Ended(line)

    monkeypatch.setattr(run.subprocess, "run", start)
    assert run.main(["--quick", "--json", str(tmp_path), "--rounds", "2"]) == int(bool(failing))
    assert [line[2].removeprefix("benchmarks.bench_") for line in seen] == list(run.BENCHMARKS)
    assert all("--quick" in line for line in seen)
    assert seen[0][-2:] == ["--rounds", "2"]
    assert seen[-1][-1] == str(tmp_path / "models.json")


def test_an_unknown_benchmark_is_refused(capsys):
    with pytest.raises(SystemExit):
        run.main(["nul"])
    assert "there are null, overhead" in capsys.readouterr().err

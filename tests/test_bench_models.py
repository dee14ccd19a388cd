"""The model benchmark runs, and its figures hang together."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "bench_models.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_models", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_a_quick_run_writes_consistent_figures(bench, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(bench.MATMUL_EDGE, "cpu", 256)
    arguments = ["--quick", "--device", "cpu", "--models", "i3d", "--memory-format", "both", "--precision", "fp32"]
    assert bench.main([*arguments, "--json", str(tmp_path / "new" / "results.json")]) == 0
    document = json.loads((tmp_path / "new" / "results.json").read_text(encoding="utf-8"))
    ceiling, *rows = document["rows"]
    assert (document["clock"], document["machine"]["device"]) == ("wall", "cpu")
    assert [(row["model"], row["precision"], row["channels_last"]) for row in rows] == [
        ("i3d", "fp32", False),
        ("i3d", "fp32", True),
    ]
    for row in rows:
        assert row["tiles_per_s"] > 0
        share = row["tiles_per_s"] * row["flops_per_tile"] / ceiling["flop_per_s"]
        assert row["share_of_matmul"] == pytest.approx(share)
    assert capsys.readouterr().out.count("tiles/s") == 2


def test_the_published_networks_are_all_measured(bench):
    from inkbatch.models import known_architectures

    assert {case.architecture for case in bench.cases().values()} == set(known_architectures()) - {"identity"}


@pytest.mark.parametrize("arguments", [["--models", "no-such-model"], ["--cpu-time", "--device", "cuda"]])
def test_wrong_arguments_are_refused(bench, arguments):
    with pytest.raises(SystemExit):
        bench.parsed(arguments)

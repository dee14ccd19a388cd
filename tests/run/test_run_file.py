"""run.json says what a job took, on what, and what that costs; what a stopped process cost is not forgotten."""

from __future__ import annotations

import json

import pytest

from inkbatch.errors import ConfigError, Preempted
from inkbatch.geometry import Box, Unit
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext, run_job
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.prices import MACHINE_VARIABLE, PRICES_VARIABLE, RATE_VARIABLE
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.run.run_file import run_rows
from inkbatch.testing.faults import preempted_context

TABLE = """
machines:
  box: {gpu: "1 x T", bf16_tflops: 100, on_demand: 3600.0, spot: [360.0, 720.0], as_of: "2026-11", source: "a test"}
"""
UNITS = [Unit(i, Box(0, i * 4, 4, i * 4 + 4), Box(0, 0, 4, 40)) for i in range(3)]


@pytest.fixture
def job(tmp_path):
    """Run a job of three units that reads 100 bytes per unit."""
    (tmp_path / "source").write_bytes(bytes(100))
    folder = RunFolder(Location.parse(tmp_path / "run"), RunManifest("infer", {}, {}, 3))
    source = Location.parse(tmp_path / "source")
    work = UnitWork(
        load=lambda unit: source.read_bytes(),
        compute=lambda unit, data: data,
        store=lambda unit, data: (folder.location / unit.name).write_bytes(data) or {"tiles": 5},
        mark=folder.mark,
        device=lambda: {"device": "cuda", "device_name": "T"},
    )

    def run(context=None):
        report = run_job(folder, UNITS, lambda: work, context or RunContext())
        return report, json.loads((tmp_path / "run/run.json").read_text())

    run.folder = folder
    return run


def test_a_job_writes_stages_bytes_tiles_device_memory_and_waiting(job):
    _, row = job()
    assert (row["tiles"], row["units_stored"]) == (15, 3)
    manifest = (job.folder.location / "manifest.json").size()
    looks = (len(UNITS) + 1) * manifest  # every unit looks at it before it is stored, and the job before it ends
    assert 300 <= row["bytes_read"] - looks < 2000  # and the markers' few bytes
    assert 300 <= row["bytes_written"] < 3000
    assert (row["device"], row["device_name"], row["ended"]) == ("cuda", "T", "done")
    assert row["peak_memory_bytes"] > 10 << 20
    assert {"load_s", "compute_s", "store_s", "waited_s", "setup_s", "loop_s"} <= row.keys()
    assert 0 <= row["waited_share"] <= 1
    assert row["loop_s"] <= row["seconds"]
    assert len(row["code_sha256"]) == 64
    assert "usd_on_demand" not in row  # nobody stated the machine: money is never guessed


def test_money_follows_from_seconds_and_the_named_machine(job, tmp_path, monkeypatch):
    (tmp_path / "prices.yaml").write_text(TABLE)
    monkeypatch.setenv(PRICES_VARIABLE, str(tmp_path / "prices.yaml"))
    monkeypatch.setenv(MACHINE_VARIABLE, "box")
    monkeypatch.setenv(RATE_VARIABLE, "36")
    _, row = job()
    assert row["usd_on_demand"] == pytest.approx(row["seconds"], abs=2e-3)  # 1 USD per second
    assert row["usd_spot"] == pytest.approx([row["seconds"] / 10, row["seconds"] / 5], abs=2e-3)
    assert row["usd_stated"] == pytest.approx(row["seconds"] / 100, abs=2e-3)
    assert (row["machine"], row["prices_as_of"]) == ("box", "2026-11")


def test_an_unknown_machine_is_refused_before_anything_is_written(job, tmp_path, monkeypatch):
    monkeypatch.setenv(MACHINE_VARIABLE, "g6.xlarg")
    with pytest.raises(ConfigError, match=r"g6\.xlarge"):
        job()
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_keeps_what_its_stopped_processes_took(job):
    with pytest.raises(Preempted):
        job(preempted_context(1))
    report, row = job()
    assert report.complete
    (before,) = row["earlier"]
    assert before["ended"] != "done"
    assert before["units_stored"] + row["units_stored"] == 3
    assert row["all_processes"]["processes"] == 2
    assert row["all_processes"]["tiles"] == 15
    assert row["all_processes"]["seconds"] == pytest.approx(before["seconds"] + row["seconds"], abs=1e-3)
    assert [found["units_stored"] for found in run_rows(job.folder.location, row["digest"])] == [
        before["units_stored"],
        row["units_stored"],
    ]


def test_a_row_of_another_run_is_not_counted(job, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text(json.dumps({"digest": "another", "seconds": 1e9}))
    _, row = job()
    assert "earlier" not in row

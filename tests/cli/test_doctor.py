"""`inkbatch doctor` from the command line."""

from __future__ import annotations

import json

import pytest
import torch

from inkbatch.cli.app import app
from inkbatch.cli.outcome import run_command
from inkbatch.errors import EXIT_CONFIG, EXIT_DATA, EXIT_DONE


def doctor(*arguments):
    return run_command(lambda: app(args=["doctor", *map(str, arguments)], standalone_mode=False))


def test_a_healthy_machine_passes_and_the_report_stays_under_root(tmp_path, capsys):
    assert doctor("--root", tmp_path, "--config", "jobs/doctor.yaml") == EXIT_DONE
    lines = capsys.readouterr().out.splitlines()
    for what in ("version", "identity", "driver", "device", "memory", "/dev/shm", "disk", "ROOT"):
        assert any(line[4:].strip().startswith(what) for line in lines), what
    assert json.loads((tmp_path / "doctor" / "check-0-of-1.json").read_text())["checks"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_asked_for_is_never_a_silent_cpu(tmp_path, capsys):
    assert doctor("--root", tmp_path, "--device", "cuda") == EXIT_DATA
    captured = capsys.readouterr()
    assert "FAIL" in captured.out
    assert "expected cuda, this machine has no usable cuda device" in captured.out
    # The other checks were made all the same.
    assert "written, listed and read" in captured.out


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_an_engine_that_was_asked_for_a_gpu_asks_for_it_here_too(tmp_path, monkeypatch):
    monkeypatch.setenv("INKBATCH_REQUIRE_GPU", "1")
    assert doctor("first-try", "--root", tmp_path) == EXIT_DATA
    assert (tmp_path / "doctor" / "first-try-0-of-1.json").is_file()


def test_the_gravest_failure_decides_the_exit_code(tmp_path):
    assert doctor("--root", tmp_path, "--set", "memory=900TiB") == EXIT_CONFIG
    assert doctor("--root", tmp_path, "--set", "memory=900TiB", "--gpus", 99) == EXIT_DATA


def test_json_is_one_object_that_programs_read(tmp_path, capsys):
    assert doctor("--root", tmp_path, "--log", "json") == EXIT_DONE
    rows = json.loads(capsys.readouterr().out)["checks"]
    assert {"check", "state", "finding"} == set(rows[0])
    assert {row["state"] for row in rows} <= {"good", "note"}


def test_a_size_that_is_none_is_a_bad_configuration(tmp_path, capsys):
    assert doctor("--root", tmp_path, "--set", "shm=much") == EXIT_CONFIG
    assert "not understood" in capsys.readouterr().err

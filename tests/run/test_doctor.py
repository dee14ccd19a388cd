"""The check-up tells what a machine offers, and fails on what was asked for and is not available."""

from __future__ import annotations

import pytest

from inkbatch.errors import ConfigError, DataError, InkbatchError
from inkbatch.io.store.location import Location
from inkbatch.run import doctor as checkup
from inkbatch.run.identity import ShardSpec, TaskIdentity

TASK = TaskIdentity("inkbatch", ShardSpec(2, 5))
REPORT = {"checks": [{"check": "disk", "state": "good", "finding": "a lot"}]}


@pytest.mark.parametrize("store", ["tmp_path", "memory_root", "s3_root"])
def test_root_is_written_listed_and_read_and_the_report_stays(store, request):
    root = Location.parse(str(request.getfixturevalue(store)))
    finding = checkup.check_root(str(root), "try", TASK, REPORT)
    assert finding.state == "good", finding.detail
    assert (root / "doctor" / "try-2-of-5.json").read_json() == REPORT


def test_a_root_without_permission_fails_and_names_it(s3_root, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-wrong-wrong-wrong-wrong-wrong-wron")
    finding = checkup.check_root(str(s3_root), "try", TASK, REPORT)
    assert isinstance(finding.error, ConfigError)
    assert str(s3_root) in finding.detail
    assert "wrong-wrong" not in finding.detail


def test_a_store_that_returns_something_else_fails(memory_root, monkeypatch):
    monkeypatch.setattr(Location, "read_json", lambda self: {"checks": []})
    finding = checkup.check_root(str(memory_root), "try", TASK, REPORT)
    assert isinstance(finding.error, DataError)
    assert "differs from the one written" in finding.detail


@pytest.mark.parametrize(
    ("driver", "cuda", "word"),
    [
        ("580.65.06", "13.2", None),
        ("595.10", "13.2", None),
        ("580.65.06", "12.6", None),
        ("525.60.13", "12.6", None),
        ("525.60.11", "12.6", "525.60.13"),
        ("575.57.08", "13.0", "needs 580"),
        (None, "13.2", "no NVIDIA driver"),
        ("580.65.06", None, "without CUDA"),
    ],
)
def test_a_driver_that_is_too_old_is_told_with_the_one_that_is_needed(driver, cuda, word):
    shortage = checkup.driver_shortage(driver, cuda)
    assert (shortage is None) if word is None else (word in shortage)


@pytest.mark.parametrize(
    "line",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:09:33 UTC 2025",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)",
    ],
)
def test_the_driver_states_its_version(line, tmp_path):
    file = tmp_path / "version"
    file.write_text(line + "\nGCC version: gcc version 12.2.0\n")
    assert checkup.driver_version(file) == "580.65.06"


def test_an_unusable_gpu_fails_only_where_one_was_asked_for(monkeypatch):
    monkeypatch.setattr(checkup, "driver_version", lambda: "470.1")
    assert isinstance(checkup.check_driver(True, "13.2").error, DataError)
    assert checkup.check_driver(False, "13.2").state == "note"


def test_the_container_limit_counts_as_memory(tmp_path):
    limit = tmp_path / "memory.max"
    limit.write_text("1073741824\n")
    assert checkup.memory_bytes((limit,)) == 1 << 30
    limit.write_text("max\n")
    assert checkup.memory_bytes((limit, tmp_path / "missing")) > 1 << 30


@pytest.mark.parametrize(
    "check",
    [
        lambda: checkup.check_memory(1 << 60),
        lambda: checkup.check_shared_memory(1 << 60),
        lambda: checkup.check_disk(1 << 60, "/"),
    ],
)
def test_too_little_room_is_a_bad_configuration_with_a_cure(check):
    finding = check()
    assert isinstance(finding.error, ConfigError)
    assert ": expected " in finding.detail


def test_identity_names_the_variables_but_not_the_values_of_others():
    environment = {"AWS_BATCH_JOB_ID": "abc:3", "AWS_BATCH_JOB_ARRAY_INDEX": "3", "AWS_BATCH_JOB_ARRAY_SIZE": "8"}
    finding = checkup.check_identity({**environment, "AWS_SECRET_ACCESS_KEY": "hidden"})
    assert "aws-batch: shard 3/8, attempt 1, job abc:3" in finding.detail
    assert "AWS_BATCH_JOB_ARRAY_SIZE" in finding.detail
    assert "hidden" not in finding.detail
    assert "SECRET" not in finding.detail


def test_an_identity_that_contradicts_itself_fails():
    finding = checkup.check_identity({"AWS_BATCH_JOB_ARRAY_INDEX": "3"})
    assert isinstance(finding.error, InkbatchError)

"""Closed, full and broken standard streams change neither a result nor its exit code."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SEGMENTS = f"exec {sys.executable} -m inkbatch segments"


def run(command: str, tmp_path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["bash", "-c", command], capture_output=True, cwd=tmp_path, timeout=60)


@pytest.mark.parametrize("streams", [">&-", "<&- >&- 2>&-", ">/dev/full", ">/dev/full 2>/dev/full"])
def test_streams_that_cannot_be_written_do_not_change_the_code(streams, tmp_path):
    if "/dev/full" in streams and not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    ended = run(f"{SEGMENTS} {streams}", tmp_path)
    assert ended.returncode == 0, ended.stderr


def test_a_reader_that_hangs_up_does_not_change_the_code(tmp_path):
    command = f"(sleep 0.2; {sys.executable} -m inkbatch segments; echo $? >code) | true"
    ended = run(f"{command}; while [ ! -s code ]; do sleep 0.1; done; cat code", tmp_path)
    assert ended.stdout.decode().strip() == "0", ended.stderr


def test_a_refusal_keeps_its_code_with_all_streams_closed(tmp_path):
    ended = run(f"{SEGMENTS} --catalog nowhere.yaml >&- 2>&-", tmp_path)
    assert ended.returncode == 64

"""Shared by the tests of launchers: a program that plays inkbatch, and golden files."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from inkbatch.launch.plan import ArraySpec, Chain

pytest.register_assert_rewrite("inkbatch.testing.launchers")


@pytest.fixture(autouse=True)
def nothing_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, scheduler or settings of the machine that tests."""
    for name in list(os.environ):
        if name.startswith(("INKBATCH_", "SLURM_", "AWS_BATCH_")) and name != "SLURM_CONF":
            monkeypatch.delenv(name)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def script(tmp_path: Path):
    """A chain of one job whose program is a short Python text, run in `tmp_path`."""

    def make(text: str, shards: int = 1, attempts: int = 3, job: str = "infer") -> tuple[Chain, tuple[str, ...]]:
        path = tmp_path / "program.py"
        path.write_text(
            f"import os, sys, time, signal\nfrom pathlib import Path\nos.chdir({str(tmp_path)!r})\n{text}\n"
        )
        spec = replace(ArraySpec(job, "demo", (job, "demo")), shards=shards, attempts=attempts)
        return Chain("infer-demo-20261121-120000-abcd", str(tmp_path / "root"), (spec,)), (sys.executable, str(path))

    return make

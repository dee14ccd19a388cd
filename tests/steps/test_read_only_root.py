"""A complete run on a ROOT that cannot be written is already complete."""

from __future__ import annotations

import errno

import pytest

from inkbatch.io.store import local_files
from inkbatch.run.job import RunContext
from inkbatch.steps.infer import job as infer
from inkbatch.steps.infer.settings import InferConfig
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.testing.segments import identity_bundle, random_papyrus, write_layers


@pytest.fixture
def jobs(tmp_path):
    layers = write_layers(tmp_path / "layers", random_papyrus((5, 70, 90)))
    identity_bundle(tmp_path / "bundle")
    root = {"segment": "a", "root": str(tmp_path / "root")}
    source = {"source": str(layers), "depth_order": "forward", "voxel_size_um": 8.0}
    return (
        lambda: prepare.run(PrepareConfig.load(None, (), {**root, **source}), RunContext()),
        lambda: infer.run(InferConfig.load(None, (), {**root, "bundle": str(tmp_path / "bundle")}), RunContext()),
    )


def test_a_complete_run_on_a_read_only_root_is_already_complete(jobs, monkeypatch):
    for job in jobs:
        assert job().complete

    def refuse(_self: object, path: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system", path)

    monkeypatch.setattr(local_files.NewFile, "__init__", refuse)
    for job in jobs:
        again = job()
        assert (again.complete, again.stored) == (True, 0)

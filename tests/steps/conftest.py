"""A tiny prepared segment and a tiny bundle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from inkbatch.run import job
from inkbatch.run.job import RunContext
from inkbatch.run.pipeline import Overlap
from inkbatch.steps.infer.settings import InferConfig
from inkbatch.steps.prepare.job import run as run_prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.testing.segments import identity_bundle, random_papyrus, write_layers


@dataclass(frozen=True)
class TinySegment:
    root: Path
    segment: str
    layers: np.ndarray
    source: Path

    @property
    def folder(self) -> Path:
        return self.root / "segments" / self.segment


@pytest.fixture
def prepare_config(tmp_path):
    """Make a prepare configuration for a source, with everything that must be stated."""

    def make(source, **changes) -> PrepareConfig:
        values = {"segment": "tiny", "root": str(tmp_path / "root"), "source": str(source), "shard_px": 64}
        return PrepareConfig(**{**values, "depth_order": "forward", "voxel_size_um": 8.0, **changes})

    return make


@pytest.fixture
def tiny_segment(tmp_path, prepare_config) -> TinySegment:
    layers = random_papyrus()
    source = write_layers(tmp_path / "layers", layers)
    run_prepare(prepare_config(source), RunContext())
    return TinySegment(tmp_path / "root", "tiny", layers, source)


@pytest.fixture
def bundle_folder(tmp_path) -> Path:
    identity_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def no_overlap(monkeypatch) -> None:
    """Jobs load, compute and store one unit after the other, so that a scripted stop comes between the same two."""
    run_units = job.run_units

    def one_by_one(units, work, **how):
        return run_units(units, replace(work, overlap=Overlap(0, 0)), **how)

    monkeypatch.setattr(job, "run_units", one_by_one)


@pytest.fixture
def source(tmp_path) -> Path:
    """A folder of layers."""
    return write_layers(tmp_path / "layers", random_papyrus())


@pytest.fixture
def infer_config(tmp_path):
    """Make an infer configuration for the segment that `prepare_config` prepares."""
    identity_bundle(tmp_path / "bundle")

    def make(**changes) -> InferConfig:
        values = {
            "segment": "tiny",
            "root": str(tmp_path / "root"),
            "bundle": str(tmp_path / "bundle"),
            "device": "cpu",
        }
        return InferConfig(**{**values, "unit_px": 64, "name": "map", **changes})

    return make

"""`inkbatch preflight` as a job: places of tiles, resume, shards, bundle, and what infer makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from inkbatch.errors import ConfigError, DataError, MismatchError, Preempted
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.steps.infer.job import InferConfig
from inkbatch.steps.infer.job import run as run_infer
from inkbatch.steps.preflight.job import PreflightConfig, describe, result_lines, run
from inkbatch.steps.prepare.job import run as run_prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.testing.faults import preempted_context, stored_bytes
from inkbatch.testing.papyrus import bare_demo_stack
from inkbatch.testing.segments import identity_bundle, write_layers

EXPECTED = [["fine", "outside", "fine"], ["blank", "fine", "fine"]]


def prepared(root: Path, stack: np.ndarray, *, replace: bool = False) -> None:
    source = write_layers(root.parent / "layers", stack)
    values = {"segment": "s", "root": str(root), "source": str(source), "shard_px": 256}
    values |= {"depth_order": "forward", "voxel_size_um": 7.91, "mask": None}
    run_prepare(PrepareConfig.model_validate(values), RunContext(replace=replace))


@pytest.fixture(scope="module")
def stack() -> np.ndarray:
    """Three layers of real papyrus, 512 x 640 px: one tile is outside, one is blank."""
    found = bare_demo_stack()[5:8, :512, 128:768].copy()
    found[:, :256, 256:512] = 0
    found[:, 256:, :256] = 90
    return found


@pytest.fixture
def root(tmp_path, stack) -> Path:
    prepared(tmp_path / "root", stack)
    return tmp_path / "root"


def config(root: Path, **values: object) -> PreflightConfig:
    return PreflightConfig.model_validate({"segment": "s", "root": str(root), "unit_px": 256, **values})


def words(folder: Location) -> list[list[str]]:
    found = (folder / "preflight.json").read_mapping()
    return [[found["words"][code] for code in row] for row in found["codes"]]


def test_each_tile_has_its_verdict_at_its_place(root):
    report = run(config(root), RunContext())
    assert words(report.location) == EXPECTED
    stored = Multiscale.open(report.location / "preflight.zarr")
    found = (report.location / "preflight.json").read_mapping()
    assert stored.levels[0].read([slice(0, 2), slice(0, 3)]).tolist() == found["codes"]
    assert stored.pixel_um() == pytest.approx(7.91 * 256)
    assert found["not_judged"] == ["no sheet", "two sheets", "off-centre", "scale"]
    assert result_lines(report.location)[0] == "  fine         4 of 6 tiles"
    assert "4 units, " not in describe(config(root))


def test_units_shards_and_kills_change_no_verdict(root, tmp_path):
    whole = run(config(root, unit_px=1024, output_root=str(tmp_path / "whole")), RunContext()).location
    asked = config(root, output_root=str(tmp_path / "cut"))
    with pytest.raises(Preempted):
        run(asked, preempted_context(2))
    for index in (1, 0):
        cut = run(asked, RunContext(ShardSpec(index, 2)))
    assert cut.complete
    for name in ("codes", "numbers", "tiles"):
        assert (cut.location / "preflight.json").read_mapping()[name] == (whole / "preflight.json").read_mapping()[name]
    before = stored_bytes(Path(cut.location.path))
    assert run(asked, RunContext()).stored == 0
    assert stored_bytes(Path(cut.location.path)) == before


def test_a_bundle_says_which_scale_counts(root, tmp_path):
    identity_bundle(tmp_path / "bundle", voxel_size_um=7.91)
    found = run(config(root, bundle=str(tmp_path / "bundle")), RunContext()).location
    assert found.name == "tiny-identity"
    assert "scale" not in (found / "preflight.json").read_mapping()["not_judged"]
    assert words(found) == EXPECTED
    coarse = run(config(root, scale_um=7.91 * 2.5, name="coarse"), RunContext()).location
    assert words(coarse)[1][1] == "scale"
    with pytest.raises(ConfigError, match="give one of them"):
        run(config(root, scale_um=8.0, bundle=str(tmp_path / "bundle")), RunContext())


class TestInfer:
    def inferred(self, root: Path, preflight: str | None, **values: object) -> np.ndarray:
        asked = {"segment": "s", "root": str(root), "bundle": str(root.parent / "bundle"), "device": "cpu"}
        asked |= {"unit_px": 256, "preflight": preflight, "stride_px": 16, **values}
        report = run_infer(InferConfig.model_validate(asked), RunContext())
        self.place = report.location
        return Prediction.open(report.location).pyramid.levels[0].read([slice(0, 512), slice(0, 640)])

    def test_a_mask_leaves_out_what_cannot_be_read_and_a_warning_nothing(self, root):
        identity_bundle(root.parent / "bundle", voxel_size_um=7.91)
        plain = self.inferred(root, None)
        with pytest.raises(DataError, match="run inkbatch preflight s first"):
            self.inferred(root, "mask")
        run(config(root), RunContext())
        masked = self.inferred(root, "mask")
        assert self.place.name.endswith("-preflight")
        expected = plain.copy()
        expected[256:, :256] = 0
        np.testing.assert_array_equal(masked, expected)
        assert plain[256:, :256].min() > 0
        manifest = json.loads((Path(self.place.path) / "manifest.json").read_text())
        assert manifest["config"]["preflight"]["name"] == "layers"
        np.testing.assert_array_equal(self.inferred(root, "warn", name="warned"), plain)

    def test_verdicts_on_another_surface_are_refused(self, root, stack):
        identity_bundle(root.parent / "bundle", voxel_size_um=7.91)
        run(config(root), RunContext())
        prepared(root, np.flip(stack, 1).copy(), replace=True)
        with pytest.raises(MismatchError, match="made from another surface"):
            self.inferred(root, "mask")

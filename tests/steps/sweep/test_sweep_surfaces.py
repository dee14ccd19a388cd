"""A sweep over surfaces of other scales, and one that a preflight leaves parts out of."""

from __future__ import annotations

import numpy as np
import pytest

from inkbatch.data.maps.sweep import (
    BEST_DEPTH,
    MEAN,
)
from inkbatch.errors import DataError, MismatchError
from inkbatch.geometry import Box
from inkbatch.io.surface import SurfaceVolume
from inkbatch.run.job import RunContext
from inkbatch.steps.stored_preflight import StoredPreflight
from inkbatch.steps.sweep.control import LEFT_OUT, rules_of
from inkbatch.steps.sweep.describe import describe
from inkbatch.steps.sweep.job import run
from inkbatch.steps.sweep.plan import make_plan
from inkbatch.steps.sweep.settings import SweepConfig
from inkbatch.testing.segments import identity_bundle, random_papyrus
from inkbatch.testing.swept import (
    COUNT,
    SHAPE,
    assert_equal_maps,
    config_for,
    opened,
    prepared,
    read,
)


@pytest.fixture(scope="module")
def finer(swept) -> str:
    """The same sheet at half the voxel size, each voxel as eight."""
    layers = swept.layers.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    prepared(swept.folder, "finer", layers, voxel_size_um=4.0)
    identity_bundle(swept.folder / "fine", COUNT, voxel_size_um=4.0)
    return "finer"


def both_scales(swept, finer, **changes) -> SweepConfig:
    bundles = [str(swept.folder / "identity"), {"bundle": str(swept.folder / "fine"), "name": "fine", "segment": finer}]
    return config_for(swept.folder, bundles=bundles, nulls=["shuffled"], **{"control_windows": 0, **changes})


def test_a_bundle_of_another_scale_reads_its_own_surface_and_is_brought_here(swept, finer, monkeypatch):
    boxes, read_layers = [], SurfaceVolume.read

    def counted(self, layers, box):
        boxes.append((self.provenance.segment, box))
        return read_layers(self, layers, box)

    monkeypatch.setattr(SurfaceVolume, "read", counted)
    run(both_scales(swept, finer, name="scales"), RunContext())
    assert len([box for _, box in boxes if box.area]) == len({box for box in boxes if box[1].area})
    assert {segment for segment, _ in boxes} == {"page", "finer"}
    found = opened(swept.folder, "scales")
    for series in ("forward", "reversed"):
        here, there = (read(found.bundle_map(name, series, MEAN)) for name in ("tiny-identity", "fine"))
        np.testing.assert_allclose(there.astype(np.float32), here.astype(np.float32), atol=2e-3)
        best = [read(found.bundle_map(name, series, BEST_DEPTH)) for name in ("tiny-identity", "fine")]
        assert (best[0] != best[1]).mean() < 0.02  # values that differ by rounding alone
    run(both_scales(swept, finer, name="scales-cut", unit_px=128), RunContext())
    assert_equal_maps(found, opened(swept.folder, "scales-cut"))
    assert "of segment finer" in describe(both_scales(swept, finer))


def test_a_surface_of_another_sheet_is_refused(swept, finer):
    prepared(swept.folder, "other", random_papyrus((7, 60, 90)), voxel_size_um=4.0)
    with pytest.raises(MismatchError, match=r"expected the sheet of page at 4 µm, 140 × 200 px .* got 60 × 90 px"):
        make_plan(both_scales(swept, "other"))


def test_a_preflight_leaves_out_what_cannot_be_read_and_warns_of_the_rest(swept, monkeypatch, tmp_path):
    words = ("fine", "outside", "blank", "no sheet")
    document = {"tiles": {**dict.fromkeys(words, 0), "blank": 1}}
    found = StoredPreflight(words, np.array([[2]], np.uint8), document, {"name": "p"})
    monkeypatch.setattr("inkbatch.steps.sweep.plan.stored_preflight", lambda *_: found)
    masked = config_for(swept.folder, preflight="mask", output_root=str(tmp_path))
    assert "preflight     of 1 tiles 1 blank" in describe(masked)
    assert make_plan(masked).manifest.config["preflight"] == {"name": "p"}
    papyrus = int(make_plan(masked).volume.read_mask(Box(0, 0, *SHAPE[1:])).sum())
    assert rules_of(make_plan(masked)).left_out == {LEFT_OUT: papyrus}
    with pytest.raises(DataError, match="no tile holds papyrus; check its mask, and what its preflight left out"):
        run(masked, RunContext())
    warned = make_plan(config_for(swept.folder, preflight="warn", name="warned"))
    assert warned.read_mask(Box(0, 0, 10, 10)).all()
    assert "preflight" not in warned.manifest.config


def test_a_bundle_of_another_scale_without_its_surface_is_refused_with_the_cure(swept, finer):
    with pytest.raises(MismatchError, match=r"bundle expects 4.* In a sweep: .*fine, override.*segment: …"):
        make_plan(config_for(swept.folder, bundles=[str(swept.folder / "fine")]))

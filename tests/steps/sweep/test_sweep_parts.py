"""A sweep has the same bytes however it is cut, stopped or killed; each layer is read once."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import pytest

from inkbatch.data.maps.sweep import BLOCK_PX
from inkbatch.errors import Preempted
from inkbatch.geometry import Box
from inkbatch.io.surface import SurfaceVolume
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import RunContext
from inkbatch.steps.sweep import together
from inkbatch.steps.sweep.describe import describe
from inkbatch.steps.sweep.job import run
from inkbatch.steps.sweep.plan import make_plan
from inkbatch.steps.sweep.rough_layers import SAMPLED, layer_contrast
from inkbatch.testing.faults import preempted_context, stored_bytes
from inkbatch.testing.swept import (
    SHAPE,
    UNIT_PX,
    assert_equal_maps,
    config_for,
    opened,
)


def test_cutting_into_units_changes_nothing(swept):
    run(config_for(swept.folder, unit_px=128, name="one-unit"), RunContext())
    cut = opened(swept.folder, "one-unit")
    for key in ("bundles", "agreement"):
        assert cut.document[key] == swept.sweep.document[key]
    assert_equal_maps(swept.sweep, cut)


def test_shards_in_any_order_store_the_bytes_of_a_whole_run(swept):
    asked = config_for(swept.folder, phases=2, name="whole")
    whole = stored_bytes(run(asked, RunContext()).location.path)
    sharded = config_for(swept.folder, phases=2, name="whole", output_root=str(swept.folder / "sharded"))
    reports = [run(sharded, RunContext(ShardSpec(index, 4))) for index in (2, 0, 3, 1)]
    assert [report.complete for report in reports] == [False, False, False, True]
    assert stored_bytes(reports[-1].location.path) == whole


@pytest.mark.parametrize("after", [1, 3, 6])
def test_a_stopped_sweep_goes_on_and_gives_the_same_bytes(swept, after, tmp_path, no_overlap):
    asked = config_for(swept.folder, keep_depths=True, output_root=str(tmp_path))
    with pytest.raises(Preempted):
        run(asked, preempted_context(after))
    report = run(asked, RunContext())
    assert report.complete
    assert stored_bytes(report.location.path) == stored_bytes(swept.report.location.path)


# A command line of inkbatch that kills itself right before one of its writes.
KILLED_AT_A_WRITE = """
import sys
from inkbatch.testing.killing import Blow, Writes
writes = Writes({root!r}, Blow({kind!r}, {number}))
from inkbatch.cli.app import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_process_killed_in_either_stage_goes_on_and_gives_the_same_bytes(swept, tmp_path):
    shutil.copytree(swept.folder / "root/segments", tmp_path / "segments")
    arguments = ["sweep", "page", "--root", str(tmp_path), "--depths=-1:2", "--keep-depths", "--device", "cpu"]
    arguments += ["--set", f"unit_px={UNIT_PX}"]
    arguments += [word for name in ("identity", "network") for word in ("--bundle", str(swept.folder / name))]
    folder = tmp_path / "sweeps/page/sweep"
    blows = {
        "link sweeps/page/sweep/maps/tiny-smp/reversed/deviation.zarr/#/c/#/#": 3,
        "link sweeps/page/sweep/reversed/z.zarr/#/c/#/#": 2,
        "link sweeps/page/sweep/sweep.json": 1,
    }
    finished = []
    for kind, number in blows.items():
        program = KILLED_AT_A_WRITE.format(root=str(tmp_path), kind=kind, number=number)
        killed = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        finished.append([len(list(folder.glob(f"{stage}done/*.json"))) for stage in ("maps/", "")])
    assert finished[0][0] < 4 == finished[1][0]  # units of the first stage: killed in it, and after it
    assert finished == sorted(finished)
    assert finished[-1] == [4, 4]
    assert not (folder / "complete.json").exists()
    again = subprocess.run([sys.executable, "-m", "inkbatch", *arguments], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert stored_bytes(folder) == stored_bytes(swept.report.location.path)


def test_maps_that_vanished_are_made_again_and_the_rest_is_kept(swept, tmp_path):
    asked = config_for(swept.folder, keep_depths=True, output_root=str(tmp_path))
    folder = tmp_path / "sweeps/page/sweep"
    shutil.copytree(swept.report.location.path, folder)
    lost = folder / "maps/tiny-smp/reversed/mean.zarr/0/c/1/1"
    before = lost.stat().st_mtime_ns
    lost.unlink()
    assert run(asked, RunContext()).complete
    assert lost.stat().st_mtime_ns != before
    assert stored_bytes(folder) == stored_bytes(swept.report.location.path)


def test_layers_of_a_unit_are_read_once_for_everything(swept, monkeypatch, tmp_path):
    boxes, read_layers, at_the_end = [], SurfaceVolume.read, []

    def counted(self, layers, box):
        boxes.append((layers, box))
        return read_layers(self, layers, box)

    def contrast(plan):
        before = len(boxes)
        found = layer_contrast(plan)
        at_the_end.extend(box for _, box in boxes[before:])
        del boxes[before:]
        return found

    monkeypatch.setattr(SurfaceVolume, "read", counted)
    monkeypatch.setattr(together, "layer_contrast", contrast)
    asked = config_for(swept.folder, phases=2, output_root=str(tmp_path))
    run(asked, RunContext())
    plan = make_plan(asked)
    (surface,) = plan.surfaces
    assert surface.layers == range(1, 6)
    wanted = [surface.read_box(unit.write_box) for unit in plan.units]
    papyrus = swept.layers.any(axis=0)
    wanted = [box for box in wanted if papyrus[box.intersect(Box(0, 0, *SHAPE[1:])).slices].any()]
    of_units = [(layers, box) for layers, box in boxes if box.area and len(layers) > 1]  # the page shows one layer
    assert sorted(box for _, box in of_units) == sorted(wanted)
    assert {layers for layers, _ in of_units} == {surface.layers}
    assert len(set(at_the_end)) == len(at_the_end) <= SAMPLED  # blocks whose contrast is measured
    assert {box.shape for box in at_the_end} <= {(BLOCK_PX, BLOCK_PX)}


def test_the_plan_counts_what_the_sweep_does(swept):
    asked = config_for(swept.folder, phases=2, name="counted")
    text = describe(asked)
    report = run(asked, RunContext())
    plan = make_plan(asked)
    passes = sum(plan.maps_record.marker(unit)["tile_passes"] for unit in plan.units)
    assert f"{passes:,} passes of a tile to do" in text
    assert "60 readings" in text  # two bundles, three depths, five series, two phases
    assert report.complete
    assert "nothing left to do" in describe(asked)

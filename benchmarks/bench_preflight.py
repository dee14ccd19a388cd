"""`preflight`: voxels per second of a core, from a prepared surface of 65 layers on a local disk.

The target is 1.6 gigapixels of 65 layers in ten minutes on eight cores. The floor beside it is decoding the same
layers, unit by unit, and doing nothing with them; both are counted in CPU seconds, since both use all cores. The whole
job includes verdicts, map, picture and page.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.common import Report, Sample, best, cpu, in_turn, options, real_layers, scratch, timed, write_stack
from inkbatch.data.segments.prepared import open_prepared
from inkbatch.run.job import RunContext
from inkbatch.steps.preflight import job as preflight
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.prepare.settings import PrepareConfig

TARGET_VOXELS, TARGET_S = 1.6e9 * 65, 600 * 8


def decoding(root: Path) -> Callable[[], Sample]:
    """Read all layers as the job does; nothing is done with them."""

    def run() -> None:
        volume, _ = open_prepared(str(root), "s")
        plan = preflight.make_plan(preflight.PreflightConfig(segment="s", root=str(root)))
        for unit in plan.units:
            volume.read(range(volume.layer_count), unit.read_box)

    return lambda: timed(run)


def whole(root: Path) -> Callable[[], Sample]:
    """Run the whole job, its former result removed."""

    def once() -> Sample:
        shutil.rmtree(root / "preflights", ignore_errors=True)
        config = preflight.PreflightConfig(segment="s", root=str(root))
        return timed(lambda: preflight.run(config, RunContext()))

    return once


def main(arguments: Sequence[str] | None = None) -> int:
    found = options(__doc__, arguments, rounds=5)
    layers, edge = (17, 512) if found.quick else (65, 4096)
    report = Report("preflight", found, {"layers": layers, "edge_px": edge})
    with scratch(found) as folder:
        root = folder / "root"
        source = write_stack(folder / "raw", real_layers(layers, (edge, edge), found.layers))
        stated = {"source": str(source), "depth_order": "forward", "voxel_size_um": 7.91}
        prepare.run(PrepareConfig.model_validate({"segment": "s", "root": str(root), **stated}), RunContext())
        shutil.rmtree(source)
        samples = in_turn({"decoding": decoding(root), "preflight": whole(root)}, found.rounds)
    report.keep(samples)
    megavoxels = layers * edge * edge / 1e6
    rates = {name: megavoxels / cpu(runs) for name, runs in samples.items()}
    aim = TARGET_VOXELS / TARGET_S / 1e6
    report.row(
        "preflight, whole job", rates["preflight"], "Mvoxel/CPU-s", aim, "1.6 Gpx x 65 in ten minutes", at_least=1.0
    )
    report.row("preflight, whole job", rates["preflight"], "Mvoxel/CPU-s", rates["decoding"], "decoding the layers")
    seconds = {name: best(runs) for name, runs in samples.items()}
    report.row(
        "preflight, wall clock",
        megavoxels / seconds["preflight"],
        "Mvoxel/s",
        megavoxels / seconds["decoding"],
        "decoding the layers",
    )
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())

"""Cost of having a unit's files on the disk before its marker: `prepare` with and without its calls of fsync.

32 layers of 4096 x 4096, 8 bits, in units of 1024 px (16 units of 32 MiB, and their pyramid). The floor is the same job
with these calls taken out, in turn on one disk, which is synced before each run. Stated are seconds until the job is
done, until a `sync` after it is done (all bytes must reach the disk at some time), and milliseconds per marker.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.common import (
    Report,
    Sample,
    best,
    cpu,
    in_turn,
    median,
    options,
    real_layers,
    scratch,
    timed,
    write_stack,
)
from inkbatch.io.store.ledger import Noted
from inkbatch.run import job as frame
from inkbatch.run import pipeline
from inkbatch.run.job import RunContext
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.prepare.settings import PrepareConfig

SHARD_PX = 1024


def never(ledger: Mapping[str, Noted]) -> None:
    """Leave the files of a unit where the system has them."""


class Runs:
    """Preparations of one source, with and without fsync.

    Attributes:
        synced: Seconds with a sync at the end, by kind.
        units: Markers of a run.
    """

    def __init__(self, folder: Path, source: Path) -> None:
        self.folder, self.source = folder, source
        self.synced: dict[str, list[float]] = {}
        self.units = 0

    def once(self, kind: str) -> Sample:
        """Prepare once; ``durable`` as it is, anything else without fsync."""
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        os.sync()
        durable = pipeline.make_durable
        if kind != "durable":
            pipeline.make_durable = frame.make_durable = never
        try:
            start = time.perf_counter()
            sample = timed(self.prepare)
            os.sync()
            self.synced.setdefault(kind, []).append(time.perf_counter() - start)
        finally:
            pipeline.make_durable = frame.make_durable = durable
        return sample

    def prepare(self) -> None:
        """Run the job."""
        stated = {"source": str(self.source), "depth_order": "forward", "voxel_size_um": 8.0, "shard_px": SHARD_PX}
        config = PrepareConfig.checked({"segment": "stack", "root": str(self.folder / "out"), **stated}, "benchmark")
        self.units = prepare.run(config, RunContext()).units


def main(arguments: Sequence[str] | None = None) -> int:
    found = options(__doc__, arguments, rounds=9)
    layers, edge = (3, 256) if found.quick else (32, 4096)
    report = Report("durable", found, {"layers": layers, "edge_px": edge, "shard_px": SHARD_PX})
    with scratch(found) as folder:
        runs = Runs(folder, write_stack(folder / "raw", real_layers(layers, (edge, edge), found.layers)))
        runs.prepare()  # imports and caches
        samples = in_turn(
            {kind: lambda kind=kind: runs.once(kind) for kind in ("durable", "as it comes")}, found.rounds
        )
        report.keep(samples)
        with_fsync, without = samples["durable"], samples["as it comes"]
        floor = "without fsync"
        report.row("prepare, best", best(with_fsync), "s", best(without), floor)
        report.row("prepare, median", median(with_fsync), "s", median(without), floor)
        report.row("prepare, CPU seconds", cpu(with_fsync), "s", cpu(without), floor)
        both = {kind: sorted(seconds)[len(seconds) // 2] for kind, seconds in runs.synced.items()}
        report.row("prepare and sync, median", both["durable"], "s", both["as it comes"], floor)
        each = (median(with_fsync) - median(without)) / runs.units * 1000
        report.note(f"{runs.units} markers: {each:.1f} ms of the job for each")
        shutil.rmtree(folder / "out", ignore_errors=True)
        shutil.rmtree(folder / "raw")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())

"""`prepare` against `cp -r`: 64 layers of 4000 x 4000, uint16, striped (2 GB), made 8 bits, sharded, with a pyramid.

Grey values are real layers times 256, plus noise in the low byte: a compressor finds nothing to squeeze, as in a raw
scan. Job and copy run in turn on one disk, outputs are removed and the disk is synced before each run. Stated are
seconds until the command is done, and until a `sync` after it is done; with the source in the page cache, and (cold)
after the kernel was asked to forget it. LZW stands beside it. Memory is that of the command itself, in a process of its
own with ``--memory 2GiB``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.common import (
    Report,
    Sample,
    Usage,
    best,
    cpu,
    in_turn,
    median,
    options,
    real_layers,
    run_process,
    scratch,
    timed,
)
from inkbatch.run.job import RunContext
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.prepare.settings import PrepareConfig

MEMORY = "2GiB"
ROWS_PER_STRIP = 16
SHARED_LZW_LAYERS = 8  # LZW files are made slowly: so many differ, the others are links to them


def write_source(folder: Path, layers: int, edge: int, shipped: Path | None, *, lzw: bool) -> Path:
    """Write layers of 16 bits, ``00.tif`` and on."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    real = real_layers(min(layers, 13), (edge, edge), shipped)
    for number in range(layers):
        place = folder / f"{number:02d}.tif"
        if lzw and number >= SHARED_LZW_LAYERS:
            os.link(folder / f"{number % SHARED_LZW_LAYERS:02d}.tif", place)
            continue
        low = noise.integers(0, 256, (edge, edge), dtype=np.uint16)
        values = real[number % len(real)].astype(np.uint16) * 256 + low
        tifffile.imwrite(place, values, rowsperstrip=ROWS_PER_STRIP, compression="lzw" if lzw else None)
    return folder


def forget(folder: Path) -> None:
    """Ask the kernel to drop the pages of these files."""
    for name in folder.iterdir():
        handle = os.open(name, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


class Runs:
    """Copies and preparations of one source; each run knows the seconds with and without a final sync."""

    def __init__(self, folder: Path, source: Path, rounds: int) -> None:
        self.folder, self.source, self.rounds = folder, source, rounds
        self.synced: dict[str, list[float]] = {}

    def config(self) -> PrepareConfig:
        return PrepareConfig(
            segment="stack",
            root=str(self.folder / "out"),
            source=str(self.source),
            depth_order="forward",
            voxel_size_um=8.0,
            memory=MEMORY,
        )

    def copy(self) -> None:
        subprocess.run(["cp", "-r", str(self.source), str(self.folder / "out")], check=True)

    def prepare(self) -> None:
        prepare.run(self.config(), RunContext())

    def _once(self, name: str, action: Callable[[], None], *, cold: bool) -> Sample:
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        if cold:
            forget(self.source)
        os.sync()
        start = time.perf_counter()
        sample = timed(action)
        os.sync()
        self.synced.setdefault(name, []).append(time.perf_counter() - start)
        return sample

    def in_turn(self, *, cold: bool = False) -> dict[str, list[Sample]]:
        self.synced = {}
        actions = {"cp -r": self.copy, "prepare": self.prepare}
        found = in_turn(
            {
                name: lambda name=name, action=action: self._once(name, action, cold=cold)
                for name, action in actions.items()
            },
            self.rounds,
        )
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        return found

    def command(self) -> Usage:
        """Run the command line tool in a process of its own."""
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        config = self.config()
        arguments = ["--root", config.root, "--source", str(self.source), "--depth-order", "forward"]
        return run_process(
            ["-m", "inkbatch", "prepare", "stack", *arguments, "--voxel-size-um", "8", "--memory", MEMORY]
        )


def compare(report: Report, runs: Runs, what: str, *, cold: bool = False, target: float | None = None) -> None:
    samples = runs.in_turn(cold=cold)
    report.keep({f"{what}, {name}": found for name, found in samples.items()})
    job, copy = samples["prepare"], samples["cp -r"]
    report.row(f"{what}, best", best(job), "s", best(copy), "cp -r", at_most=target)
    report.row(f"{what}, median", median(job), "s", median(copy), "cp -r", at_most=target)
    report.row(f"{what}, CPU seconds", cpu(job), "s", cpu(copy), "cp -r, one thread in the kernel")
    synced = {name: (min(found), sorted(found)[len(found) // 2]) for name, found in runs.synced.items()}
    for position, kind in enumerate(("best", "median")):
        figure, floor = synced["prepare"][position], synced["cp -r"][position]
        report.row(f"{what} and sync, {kind}", figure, "s", floor, "cp -r and sync", at_most=target)


def main(arguments: Sequence[str] | None = None) -> int:
    found = options(__doc__, arguments, rounds=7)
    layers, edge = (4, 300) if found.quick else (64, 4000)
    report = Report("prepare", found, {"layers": layers, "edge_px": edge, "dtype": "uint16", "memory": MEMORY})
    with scratch(found) as folder:
        source = write_source(folder / "raw", layers, edge, found.layers, lzw=False)
        raw = Runs(folder, source, found.rounds)
        raw.prepare()  # imports and caches
        compare(report, raw, "striped, uncompressed", target=1.0)
        compare(report, raw, "striped, uncompressed, cold source", cold=True)
        memory(report, raw, "striped, uncompressed")
        shutil.rmtree(source)
        source = write_source(folder / "lzw", layers, edge, found.layers, lzw=True)
        lzw = Runs(folder, source, min(2, found.rounds))
        compare(report, lzw, "striped, LZW")
        memory(report, lzw, "striped, LZW")
    return report.finish()


def memory(report: Report, runs: Runs, what: str) -> None:
    usage = runs.command()
    budget = 2.0
    allowed = f"--memory {MEMORY}"
    own, resident = usage.peak_anon_bytes / 2**30, usage.peak_rss_bytes / 2**30
    report.row(f"{what}, own memory (RssAnon)", own, "GiB", budget, allowed, at_most=1.0)
    report.row(f"{what}, resident with mapped files", resident, "GiB", budget, allowed)
    report.note(f"the whole command, interpreter and imports included: {usage.wall_s:.2f} s, {usage.cpu_s:.2f} CPU s")


if __name__ == "__main__":
    sys.exit(main())

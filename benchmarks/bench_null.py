"""The null model: what `infer` costs when the network costs nothing.

The identity model on 64-pixel tiles, stride 16, 13 real layers of 2000 x 2000 from a prepared local store: the whole
step, from opening the store to ``complete.json``, in this process. The floor is the rate at which this machine can
merely gather the same tiles as float32, three ways, each in the same run:

- *materialised*: every tile into one fresh array of 3.2 GB, a row of tiles per copy (torch, all cores);
- *materialised again*: the same into memory that was touched before;
- *in the cache*: our own strided copy through a buffer of 8 tiles per core. Nothing that stores its tiles anywhere can
  be faster; a batch that a network reads must be written at least like this.
"""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import (
    Report,
    Sample,
    best,
    free_bytes,
    in_turn,
    median,
    options,
    real_layers,
    scratch,
    timed,
    write_stack,
)
from inkbatch.geometry import TileGrid
from inkbatch.predict.tiles import TileRun, gather
from inkbatch.run.job import RunContext
from inkbatch.steps.infer import job as infer
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.testing.segments import identity_bundle

TILE_PX, STRIDE_PX, LAYERS = 64, 16, 13
UNITS_PX = (1024, 2048)
BUFFER_TILES = 8
MEMORY_SHARE = 0.4  # of what is free, for the materialised tiles


class Gatherer:
    """Gathers all tiles of layers that lie in memory as float32."""

    def __init__(self, layers: NDArray[np.uint8], cores: int) -> None:
        self.layers = torch.from_numpy(layers).float()
        self.grid = TileGrid(layers.shape[1:], TILE_PX, STRIDE_PX)
        self.cores = cores
        tile_bytes = len(layers) * TILE_PX**2 * 4
        free = int(MEMORY_SHARE * free_bytes())
        self.rows = max(1, min(self.grid.rows.count, free // (tile_bytes * self.grid.columns.count)))
        self.kept: torch.Tensor | None = None

    def materialise(self, *, fresh: bool) -> float:
        """Measure tiles per second into one large array."""
        columns, depth = self.grid.columns.regular_count, len(self.layers)
        width = self.layers.shape[2]
        shape = (columns, depth, TILE_PX, TILE_PX)
        strides = (STRIDE_PX, self.layers.stride(0), width, 1)
        if fresh:
            self.kept = None

        def run() -> None:
            if self.kept is None:
                self.kept = torch.empty((self.rows, *shape))
            for row in range(self.rows):
                offset = self.grid.rows.origin(row) * width
                self.kept[row].copy_(torch.as_strided(self.layers, shape, strides, offset))

        return self.rows * columns / timed(run).wall_s

    def through_the_cache(self, cores: int) -> float:
        """Measure tiles per second through a small buffer per core."""
        columns = self.grid.columns.regular_count

        def rows_of(core: int) -> None:
            buffer = torch.empty((BUFFER_TILES, len(self.layers), TILE_PX, TILE_PX))
            for row in range(core, self.grid.rows.count, cores):
                y0 = self.grid.rows.origin(row)
                for first in range(0, columns, BUFFER_TILES):
                    count = min(BUFFER_TILES, columns - first)
                    run = TileRun(row, first, count, y0, first * STRIDE_PX, STRIDE_PX)
                    gather(run, self.layers, (0, 0), TILE_PX, buffer[:count])

        def run() -> None:
            threads = [threading.Thread(target=rows_of, args=(core,)) for core in range(cores)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        return self.grid.rows.count * columns / timed(run).wall_s


def job(folder: Path, unit_px: int) -> Callable[[], Sample]:
    """Run the whole step, once."""
    config = infer.InferConfig(
        segment="null", root=str(folder / "root"), bundle=str(folder / "bundle"), device="cpu", unit_px=unit_px
    )

    def run() -> Sample:
        shutil.rmtree(folder / "root" / "predictions", ignore_errors=True)
        return timed(lambda: infer.run(config, RunContext()))

    return run


def main(arguments: Sequence[str] | None = None) -> int:
    found = options(__doc__, arguments, rounds=7)
    edge = 200 if found.quick else 2000
    report = Report("null", found, {"layers": LAYERS, "edge_px": edge, "tile_px": TILE_PX, "stride_px": STRIDE_PX})
    layers = real_layers(LAYERS, (edge, edge), found.layers)
    cores = torch.get_num_threads()
    with scratch(found) as folder:
        write_stack(folder / "layers", layers)
        values = {"segment": "null", "root": str(folder / "root"), "source": str(folder / "layers")}
        prepare.run(PrepareConfig(**values, depth_order="forward", voxel_size_um=8.0), RunContext())
        identity_bundle(folder / "bundle", LAYERS, LAYERS // 2, tile_px=TILE_PX, stride_px=STRIDE_PX)
        gatherer = Gatherer(layers, cores)
        floors: dict[str, list[float]] = {"materialised": [], "again": [], "cache": [], "cache, one core": []}
        samples: dict[str, list[Sample]] = {str(unit_px): [] for unit_px in UNITS_PX}
        for _ in range(found.rounds):
            floors["materialised"].append(gatherer.materialise(fresh=True))
            floors["again"].append(gatherer.materialise(fresh=False))
            gatherer.kept = None
            floors["cache"].append(gatherer.through_the_cache(cores))
            floors["cache, one core"].append(gatherer.through_the_cache(1))
            for name, runs in in_turn({str(unit): job(folder, unit) for unit in UNITS_PX}, 1).items():
                samples[name] += runs
    report.keep({f"unit {name}": runs for name, runs in samples.items()})
    report.facts["floors_tiles_per_s"] = floors
    tiles = gatherer.grid.rows.count * gatherer.grid.columns.count
    report.note(f"{tiles:,} tiles, those that two units compute counted once; best of {found.rounds} each")
    named = {
        "materialised": f"materialised in fresh memory, {gatherer.rows} of {gatherer.grid.rows.count} rows",
        "again": "materialised in memory touched before",
        "cache": f"through a cached buffer per core, {cores} core(s)",
        "cache, one core": "through a cached buffer, one core",
    }
    for name, runs in samples.items():
        for floor, what in named.items():
            target = 0.6 if floor == "materialised" else None
            rate = tiles / best(runs)
            report.row(f"whole job, unit {name}", rate, "tiles/s", max(floors[floor]), what, at_least=target)
        report.note(f"unit {name}: median {tiles / median(runs):,.0f} tiles/s")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())

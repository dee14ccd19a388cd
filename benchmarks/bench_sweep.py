"""Cost of a sweep beside its network: D depths in one job, against D jobs of `infer`, and against the passes alone.

The D jobs store the maps that a sweep keeps statistics of; it is checked first that means and best values of both are
the same bytes (on a CPU). The floor makes as many forward passes of the same batches, which lie in memory already. All
run in turn.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import Report, Sample, best, in_turn, scratch, timed
from benchmarks.network_jobs import (
    Floor,
    batch_tiles,
    network_parser,
    prepare_layers,
    rows_beside_passes,
    shapes_of_passes,
)
from benchmarks.networks import bundle_of
from inkbatch.data.maps.sweep import BEST, MEAN, StoredSweep
from inkbatch.geometry import Box
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.predict.device import choose_device
from inkbatch.run.job import RunContext
from inkbatch.steps.infer import job as infer
from inkbatch.steps.sweep import job as sweep
from inkbatch.steps.sweep.settings import SweepConfig

EDGE_PX = {"unet-resnet34": {"cpu": 900, "cuda": 6000}, "demo": {"cpu": 1500, "cuda": 6000}}
TARGET = 1.05


def configs(folder: Path, bundle: Any, depths: int, device: torch.device, batch: int) -> tuple[Any, list[Any]]:
    """Return the configuration of a sweep, and those of one `infer` job for each of its depths."""
    count = bundle.contract.layers.count
    common = {"segment": "real", "root": str(folder / "root"), "device": device.type, "batch_tiles": batch}
    place = str(bundle.location)
    half = (depths - 1) // 2  # the bundle itself takes the lower of two middle windows
    asked = {**common, "bundles": [place], "depths": [-half, depths - half], "directions": "forward", "nulls": []}
    asked |= {"control_windows": 0}  # jobs of `infer` plant nothing
    singles = [
        infer.InferConfig(**common, bundle=place, layers=(depth, depth + count), name=f"depth{depth}")
        for depth in range(depths)
    ]
    return SweepConfig.checked(asked, "benchmark"), singles


def fresh(root: str, action: Callable[[], object]) -> Callable[[], Sample]:
    """Time an action that finds no results of earlier ones."""

    def run() -> Sample:
        for room in ("predictions", "sweeps"):
            shutil.rmtree(Path(root) / room, ignore_errors=True)
        return timed(action)

    return run


def require_same(root: str, shape: tuple[int, int]) -> None:
    """Compare means and best values with those of the single maps.

    Raises:
        ValueError: They differ.
    """
    whole = Box(0, 0, *shape)
    folders = sorted((Path(root) / "predictions/real").iterdir(), key=lambda one: int(one.name.removeprefix("depth")))
    maps = [Prediction.open(Location.parse(one)).read(whole).astype(np.float32) for one in folders]
    steps = np.zeros(shape, np.float32)
    for one in maps[1:]:
        steps += one - maps[0]
    stored = StoredSweep.open(root, "real", "sweep")
    wanted: dict[str, NDArray[np.float32]] = {MEAN: maps[0] + steps / np.float32(len(maps)), BEST: np.max(maps, axis=0)}
    for name, values in wanted.items():
        found = stored.bundle_map(stored.bundles[0], "forward", name).levels[0].read(whole.slices)
        if not np.array_equal(found, values.astype(np.float16)):
            raise ValueError(f"{name}: the sweep's differ from those of single maps")


def measure(report: Report, name: str, found: Any, device: torch.device) -> None:
    """Measure one network."""
    edge = 96 if found.quick else EDGE_PX[name][device.type]
    with scratch(found) as folder:
        bundle = bundle_of(name, folder, quick=found.quick)
        layers = bundle.contract.layers.count + found.depths - 1
        root = prepare_layers(folder, layers, edge, found.layers)
        swept, singles = configs(folder, bundle, found.depths, device, batch_tiles(name, device))
        shapes: list[tuple[int, ...]] = []
        with shapes_of_passes(shapes):
            one = sweep.run(swept, RunContext())
        for config in singles:
            infer.run(config, RunContext())
        if device.type == "cpu":
            require_same(root, (edge, edge))
        floor = Floor.of(bundle, shapes, device)
        actions = {
            "sweep": fresh(root, lambda: sweep.run(swept, RunContext())),
            "jobs": fresh(root, lambda: [infer.run(config, RunContext()) for config in singles]),
            "passes": lambda: timed(lambda: floor.side_by_side(len(shapes))),
        }
        samples = in_turn(actions, found.rounds)
    report.keep({f"{name} {key}": taken for key, taken in samples.items()})
    report.facts[name] = {"edge_px": edge, "depths": found.depths, "passes": len(shapes), "batch": shapes[-1]}
    report.note(f"{name}: {found.depths} depths, {len(shapes)} passes of {shapes[-1]}; {one.units} unit(s)")
    jobs, passes = f"{found.depths} infer jobs, the same bytes", f"the same {len(shapes)} passes on tensors in memory"
    target = None if name == "demo" else TARGET  # what is no network weighs more beside so small a one
    report.row(f"{name}, sweep, best", best(samples["sweep"]), "s", best(samples["jobs"]), jobs, at_most=1)
    rows_beside_passes(report, f"{name}, sweep", samples["sweep"], samples["passes"], passes, target)


def main(arguments: Sequence[str] | None = None) -> int:
    known = network_parser(__doc__, EDGE_PX)
    known.add_argument("--depths", type=int, default=5, help="depths of the sweep")
    found = known.parse_args(arguments)
    found.rounds = found.rounds or (1 if found.quick else 3)
    device = choose_device(found.device)
    report = Report("sweep", found, {"device": device.type})
    for name in ["demo"] if found.quick else found.networks:
        measure(report, name, found, device)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())

"""Cost of tiles for instances: the whole job beside the same steps on arrays in memory, in one piece.

The job reads a map and its picture from a local disk, cuts them into units with halos, joins basins over seams and
writes labels, tables and outlines. The floor finds, joins, measures and outlines the same objects with the whole map in
memory. It is checked first that both find the same ones.
"""

from __future__ import annotations

import csv
import io
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.common import Report, best, cpu, in_turn, options, scratch, timed
from inkbatch.data.instances.outlines import outline, rings_of
from inkbatch.data.instances.proposals import first_pass_of, limits_of
from inkbatch.data.instances.settings import ProposalRules
from inkbatch.data.instances.tables import Cutout, properties
from inkbatch.geometry import Box
from inkbatch.io.half_floats import opencv_threads
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext
from inkbatch.steps.instances.job import run
from inkbatch.steps.instances.settings import InstancesConfig
from inkbatch.testing.instances import grain_map

MADE_PX = 2048  # edge of the made map, which is repeated
UNIT_PX = 2048


def write_inputs(folder: Path, edge: int, grains_per_px: float) -> np.ndarray:
    """Store a map and its picture; returns the map."""
    made = min(edge, MADE_PX)
    part = grain_map((made, made), int(made * made * grains_per_px), 1, (8, 22))
    times = -(-edge // made)
    values = np.ascontiguousarray(np.tile(part, (times, times))[:edge, :edge])
    for name in ("maps", "pictures"):
        (folder / name).mkdir(parents=True)
    np.save(folder / "maps/a.npy", values)
    cv2.imwrite(str(folder / "pictures/a.png"), np.rint(values * 200).astype(np.uint8))
    return values


def in_memory(values: np.ndarray, grey: np.ndarray) -> int:
    """Find, measure and outline the objects of an array; returns how many there are."""
    limits = limits_of(ProposalRules(), None)
    joined, regions = first_pass_of(values, limits)
    chosen = np.flatnonzero(joined.regions.core >= limits.min_px)
    for number in chosen:
        box = Box(*joined.regions.extent[number].tolist())
        mask = regions[box.slices] == number
        properties(Cutout(box, mask, values[box.slices], grey[box.slices]), None)
        rings_of(outline(mask, box))
    return len(chosen)


def main(arguments: Sequence[str] | None = None) -> int:
    found = options(__doc__, arguments, rounds=2)
    edge = 300 if found.quick else 3072
    report = Report("instances", found, {"edge_px": edge, "unit_px": UNIT_PX})
    with scratch(found) as folder, opencv_threads(1):
        values = write_inputs(folder, edge, 1 / 6000)
        grey = cv2.imread(str(folder / "pictures/a.png"), cv2.IMREAD_GRAYSCALE)
        asked = {"subject": "made", "root": str(folder / "root"), "maps": str(folder / "maps"), "unit_px": UNIT_PX}
        asked |= {"pictures": str(folder / "pictures"), "selection": {"edge": 0}, "forms": ["csv", "geojson"]}
        config = InstancesConfig.checked(asked, "benchmark")
        place = run(config, RunContext()).location
        rows = list(csv.DictReader(io.StringIO((Location.parse(place.uri) / "instances.csv").read_bytes().decode())))
        count = in_memory(values, grey)
        if len(rows) != count:
            raise ValueError(f"expected {count} objects, as in memory, got {len(rows)}")

        def fresh() -> None:
            shutil.rmtree(folder / "root")
            run(config, RunContext())

        actions = {"memory": lambda: timed(lambda: in_memory(values, grey)), "job": lambda: timed(fresh)}
        samples = in_turn(actions, found.rounds)
    report.keep(samples)
    rates = {name: edge * edge / 1e6 / best(runs) for name, runs in samples.items()}
    report.row("instances", rates["job"], "Mpx/s", rates["memory"], "the same steps in memory", at_least=1 / 1.1)
    report.note(f"{count:,} objects; CPU {cpu(samples['job']):.2f} s, in memory {cpu(samples['memory']):.2f} s")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())

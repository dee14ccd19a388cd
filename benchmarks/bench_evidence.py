"""Evidence of a sweep: how fast windows, agreement and q-values stream, beside merely reading the same maps.

Two bundles, one direction and one null, 16,384 px square: four maps of a blurred layer of real papyrus, float16, on the
local disk (one is stored, the others are links to its files: each is read and decoded). The floor is reading and
decoding these maps part by part on all cores, and doing nothing with them. Evidence is all that `sweep.json` holds of
it: moments, windows, depths, rhythm, ranks, q-values.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.common import Report, best, cpu, in_turn, options, real_layers, scratch, timed
from inkbatch.data.maps.depth_agreement import COMMON_PIXELS, common_product_name, common_sum_name, no_agreement
from inkbatch.data.maps.sweep import (
    BLOCK_PX,
    CODES,
    COUNT_NAME,
    COUNTS_NAME,
    MAPS_NAME,
    MEAN,
    StoredSweep,
    block_pixels_name,
    block_sum_name,
    counts_bytes,
    histogram_name,
)
from inkbatch.data.maps.sweep_evidence import EvidenceRules, evidence, read_means
from inkbatch.geometry import Box, cut
from inkbatch.io.half_floats import opencv_threads
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location

BUNDLES, SERIES, DEPTHS = ("a", "b"), ("forward", "forward-shuffled"), (-1, 0, 1)
UNIT_PX, VOXEL_UM = 2048, 7.91


def make_sweep(folder: Path, edge: int, layers: Path | None) -> StoredSweep:
    """Store one map, link it as the others, and leave counts as a sweep does."""
    layer = real_layers(1, (min(edge, UNIT_PX),) * 2, layers)[0]
    blurred = cv2.GaussianBlur(layer.astype(np.float32), (0, 0), 4)
    values = (1 / (1 + np.exp(-(blurred - blurred.mean()) / blurred.std() * 2))).astype(np.float32)
    unit_px = min(UNIT_PX, 1 << (edge - 1).bit_length())
    first = folder / MAPS_NAME / BUNDLES[0] / SERIES[0]
    stored = Prediction.create(Location.parse(first), (edge, edge), unit_px, VOXEL_UM, {"kind": "sweep"}, MEAN)
    for box in cut((edge, edge), unit_px, unit_px):
        stored.write(box, np.ascontiguousarray(values[: box.height, : box.width]))
        (Location.parse(folder) / MAPS_NAME / COUNTS_NAME / f"y{box.y0:05d}-x{box.x0:05d}.npz").write_bytes(
            counts_bytes(_counts(box))
        )
    for bundle in BUNDLES:
        counted = Multiscale.create_mask(
            Location.parse(folder) / MAPS_NAME / bundle / COUNT_NAME,
            (edge, edge),
            shard_px=unit_px,
            voxel_size_um=VOXEL_UM,
            provenance={"kind": "sweep"},
        )
        for box in cut((edge, edge), unit_px, unit_px):
            counted.write(box, np.full(box.shape, len(DEPTHS), np.uint8))
        for series in SERIES:
            place = folder / MAPS_NAME / bundle / series
            if place != first:
                shutil.copytree(first, place, copy_function=os.link)
    stretch = {"mean": float(values.mean()), "deviation": float(values.std()), "values": edge * edge}
    document = {
        "segment": "s",
        "shape_yx": [edge, edge],
        "unit_px": unit_px,
        "voxel_size_um": VOXEL_UM,
        "depths": list(DEPTHS),
        "series": [
            {"name": name, "direction": "forward", "null": null}
            for name, null in zip(SERIES, (None, "shuffled"), strict=True)
        ],
        "bundles": [{"name": name, "stretch": stretch} for name in BUNDLES],
    }
    return StoredSweep(Location.parse(folder), document)


def _counts(box: Box) -> dict[str, np.ndarray]:
    blocks = -(-box.height // BLOCK_PX), -(-box.width // BLOCK_PX)
    found = {}
    for b in range(len(BUNDLES)):
        found[block_pixels_name(b)] = np.full(blocks, BLOCK_PX**2, np.int32)
        for s in range(len(SERIES)):
            found[histogram_name(b, s)] = np.zeros(CODES, np.int64)
            found[block_sum_name(b, s)] = np.full((len(DEPTHS), *blocks), 1 << 34, np.int64)
    nothing = no_agreement(len(BUNDLES), len(DEPTHS), blocks)
    found[COMMON_PIXELS] = np.full(blocks, BLOCK_PX**2, np.int64)
    for s in range(len(SERIES)):
        found[common_sum_name(s)], found[common_product_name(s)] = nothing.sums, nothing.products
    return found


def read_all(sweep: StoredSweep) -> None:
    """Read all maps as evidence does, and drop them."""
    for series in SERIES:
        read_means(sweep, series, lambda box, means, filled: None)


def main(arguments: Sequence[str] | None = None) -> int:
    found = options(__doc__, arguments, rounds=3)
    edge = 600 if found.quick else 16384
    report = Report("evidence", found, {"edge_px": edge, "bundles": len(BUNDLES), "series": len(SERIES)})
    with scratch(found) as folder, opencv_threads(1):
        sweep = make_sweep(folder, edge, found.layers)
        actions = {
            "reading": lambda: timed(lambda: read_all(sweep)),
            "evidence": lambda: timed(lambda: evidence(sweep, EvidenceRules())),
        }
        samples = in_turn(actions, found.rounds)
    report.keep(samples)
    megapixels = edge * edge * len(BUNDLES) * len(SERIES) / 1e6
    rates = {name: megapixels / best(runs) for name, runs in samples.items()}
    report.row("evidence", rates["evidence"], "Mpx/s", rates["reading"], "reading the same maps", at_least=0.5)
    report.note(f"CPU {cpu(samples['evidence']):.2f} s, reading alone {cpu(samples['reading']):.2f} s")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())

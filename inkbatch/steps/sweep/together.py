"""Second stage of a sweep: z values by each bundle's stretch, and the bundles put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.maps.depth_agreement import AGREEMENT_STEPS
from inkbatch.data.maps.sweep import (
    BEST,
    BEST_DEPTH,
    COUNT_NAME,
    DOCUMENT_NAME,
    GRID,
    MAPS_NAME,
    MAXIMUM,
    MEAN,
    StoredSweep,
    Stretch,
    Z,
    block_pixels_name,
    block_sum_name,
    correlations,
    histogram_name,
    read_counts,
    stretch_of,
)
from inkbatch.data.maps.sweep_evidence import EvidenceRules, PlantedWindow, evidence
from inkbatch.geometry import Box, Unit
from inkbatch.io.half_floats import to_half
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.pictures.z_maps import write_z_preview
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.run.pipeline import Overlap, UnitWork
from inkbatch.steps.sweep.plan import SweepPlan
from inkbatch.steps.sweep.rough_layers import layer_contrast

FORMAT = 1
AGREEMENT_NAME = "agreement"


@dataclass(frozen=True)
class Together:
    """Maps of all bundles in one unit and series.

    Attributes:
        z: Mean z value of the bundles, float32; 0 where none has a value.
        mean: Mean of their means, float32.
        maximum: Largest value of all bundles and depths, float16.
        best_depth: Depth of the largest z value, as stored.
    """

    z: NDArray[np.float32]
    mean: NDArray[np.float32]
    maximum: NDArray[np.float16]
    best_depth: NDArray[np.uint8]


@dataclass(frozen=True)
class BundleMaps:
    """Stored maps of one bundle in one unit and series; `has_value` is where it has one."""

    mean: NDArray[np.float16]
    best: NDArray[np.float16]
    best_depth: NDArray[np.uint8]
    has_value: NDArray[np.bool_]


def put_together(bundles: list[BundleMaps], stretches: list[Stretch]) -> Together:
    """Put the maps of all bundles together, bundle by bundle in their order.

    A pixel's z value is the mean over bundles that have a value there of ``(mean - stretch.mean) / stretch.deviation``:
    the mean over depths and bundles of the z values of single maps.
    """
    shape = bundles[0].mean.shape
    z, mean, number = (np.zeros(shape, np.float32) for _ in range(3))
    maximum, best_depth = np.zeros(shape, np.float16), np.zeros(shape, np.uint8)
    loudest = np.full(shape, -np.inf, np.float32)
    for one, stretch in zip(bundles, stretches, strict=True):
        has = one.has_value
        number += has
        z += np.where(has, stretch.applied(one.mean), np.float32(0))
        mean += np.where(has, one.mean.astype(np.float32), np.float32(0))
        np.maximum(maximum, one.best, out=maximum)
        loud = np.where(has, stretch.applied(one.best), -np.inf).astype(np.float32)
        best_depth = np.where(loud > loudest, one.best_depth, best_depth)
        np.maximum(loudest, loud, out=loudest)
    divisor: NDArray[np.float32] = np.maximum(number, np.float32(1))
    return Together(z / divisor, mean / divisor, maximum, best_depth)


def sums_of(bundles: list[BundleMaps]) -> dict[str, Any]:
    """Count pixels at which every bundle has a value; sum their means, and products of each two, as whole numbers."""
    common = np.logical_and.reduce([one.has_value for one in bundles])
    means = np.stack([one.mean[common] for one in bundles]).astype(np.float32)
    steps = np.rint(means * AGREEMENT_STEPS).astype(np.int64)
    return {"pixels": steps.shape[1], "sums": steps.sum(axis=1).tolist(), "products": (steps @ steps.T).tolist()}


@dataclass(frozen=True)
class Summary:
    """Sums over all units of the first stage."""

    plan: SweepPlan

    @cached_property
    def _sums(self) -> tuple[dict[tuple[int, int], NDArray[np.int64]], dict[tuple[int, int], NDArray[np.int64]], Any]:
        """Histograms and sums at each depth by bundle and series, and pixels that have a value by bundle."""
        histograms: dict[tuple[int, int], NDArray[np.int64]] = {}
        depths: dict[tuple[int, int], NDArray[np.int64]] = {}
        pixels = [0] * len(self.plan.members)
        for unit in self.plan.units:
            counts = read_counts(self.plan.counts_place(unit))
            for b in range(len(pixels)):
                pixels[b] += int(counts[block_pixels_name(b)].sum(dtype=np.int64))
            for b, s in self._pairs():
                found, at_depth = counts[histogram_name(b, s)], counts[block_sum_name(b, s)].sum((1, 2))
                histograms[b, s] = histograms[b, s] + found if (b, s) in histograms else found
                depths[b, s] = depths[b, s] + at_depth if (b, s) in depths else at_depth
        return histograms, depths, pixels

    def _pairs(self) -> Iterator[tuple[int, int]]:
        for b in range(len(self.plan.members)):
            for s in range(len(self.plan.series)):
                yield b, s

    @cached_property
    def stretches(self) -> list[Stretch]:
        """Stretch of each bundle: of all values of its real series."""
        histograms, _, _ = self._sums
        real = [place for place, series in enumerate(self.plan.series) if series.null is None]
        sums = (sum(histograms[b, s] for s in real) for b in range(len(self.plan.members)))
        return [stretch_of(np.asarray(found, np.int64)) for found in sums]

    @property
    def pixels(self) -> int:
        """Most pixels that any bundle has a value at."""
        return max(int(number) for number in self._sums[2])

    def document(self) -> dict[str, Any]:
        """Make ``sweep.json``."""
        plan, config = self.plan, self.plan.config
        provenance = plan.volume.provenance
        return {
            "format": FORMAT,
            "segment": config.segment,
            "shape_yx": list(plan.volume.shape_yx),
            "voxel_size_um": provenance.voxel_size_um,
            "layer_um": provenance.layer_um,
            "depths": list(plan.depths),
            "phases": config.phases,
            "directions": [one.direction for one in plan.series if one.null is None],
            "nulls": list(dict.fromkeys(config.nulls)),
            "seed": config.seed,
            "unit_px": plan.unit_px,
            "series": [{"name": one.name, "direction": one.direction, "null": one.null} for one in plan.series],
            "bundles": [self._bundle(b) for b in range(len(plan.members))],
        }

    def agreement(self) -> dict[str, list[list[float | None]]]:
        """Compute how the bundles' means correlate, by series; needs what the units of the second stage left."""
        found = [agreement_place(self.plan, unit).read_mapping() for unit in self.plan.units]
        rows = {}
        for series in self.plan.series:
            parts = [unit[series.name] for unit in found]
            sums, products = (np.sum([part[key] for part in parts], axis=0) for key in ("sums", "products"))
            rows[series.name] = correlations(sum(part["pixels"] for part in parts), sums, products)
        return rows

    def _bundle(self, b: int) -> dict[str, Any]:
        histograms, depths, pixels = self._sums
        member, rows = self.plan.members[b], {}
        for s, series in enumerate(self.plan.series):
            found = stretch_of(histograms[b, s])
            profile = [float(total) / GRID / max(pixels[b], 1) for total in depths[b, s]]
            rows[series.name] = {"mean": found.mean, "deviation": found.deviation, "profile": profile}
        return {
            "name": member.name,
            "segment": member.segment,
            "layers": [member.layers.start, member.layers.stop],
            "weights_sha256": member.bundle.document.weights_sha256,
            "pixels": pixels[b],
            "stretch": self.stretches[b].document(),
            "series": rows,
        }


def together_work(plan: SweepPlan, summary: Summary) -> UnitWork[Any, Any]:
    """Build the functions of the second stage."""
    stretches = summary.stretches
    shape, um = plan.volume.shape_yx, plan.volume.provenance.voxel_size_um
    made_by = {"kind": "sweep", "digest": plan.manifest.digest}
    place = (shape, plan.unit_px, um, made_by)
    names = [series.name for series in plan.series]
    floats = {(name, kind): Prediction.create(plan.folder / name, *place, kind) for name in names for kind in FLOATS}
    depths = {
        name: Multiscale.create_mask(
            plan.folder / name / BEST_DEPTH, shape, shard_px=plan.unit_px, voxel_size_um=um, provenance=made_by
        )
        for name in names
    }
    sources = {name: _sources(plan, name) for name in names}

    def store(unit: Unit, _: None) -> Mapping[str, Any]:
        stored, box = 0, unit.write_box
        agreement = {}
        for name in names:
            bundles = [source.read(box) for source in sources[name]]
            agreement[name] = sums_of(bundles)
            found = put_together(bundles, stretches)
            stored += floats[name, Z].write(box, to_half(found.z))
            stored += floats[name, MEAN].write(box, to_half(found.mean))
            stored += floats[name, MAXIMUM].write(box, found.maximum)
            stored += depths[name].write(box, found.best_depth)
        agreement_place(plan, unit).write_json(agreement)
        return {"bytes_written": stored}

    return UnitWork(lambda unit: None, None, store, plan.record.mark, overlap=Overlap(0, 2))


FLOATS = (Z, MEAN, MAXIMUM)


def agreement_place(plan: SweepPlan, unit: Unit) -> Location:
    """Return the place of a unit's sums for the bundles' agreement."""
    return plan.folder / AGREEMENT_NAME / f"{unit.name}.json"


@dataclass(frozen=True)
class _Source:
    """Opened maps of one bundle and series."""

    mean: Multiscale
    best: Multiscale
    best_depth: Multiscale
    count: Multiscale

    def read(self, box: Box) -> BundleMaps:
        """Read a window."""
        mean, best, best_depth, count = (
            one.levels[0].read(box.slices) for one in (self.mean, self.best, self.best_depth, self.count)
        )
        return BundleMaps(mean, best, best_depth, count > 0)


def _sources(plan: SweepPlan, series: str) -> list[_Source]:
    found = []
    for member in plan.members:
        base = plan.folder / MAPS_NAME / member.name
        mean, best, best_depth = (Multiscale.open(base / series / name) for name in (MEAN, BEST, BEST_DEPTH))
        found.append(_Source(mean, best, best_depth, Multiscale.open(base / COUNT_NAME)))
    return found


def finish(
    plan: SweepPlan, summary: Summary, rules: EvidenceRules, planted: Sequence[PlantedWindow]
) -> Mapping[str, Any]:
    """Write ``sweep.json`` and the previews; the same for every process that does it."""
    for series in plan.series:
        folder: Location = plan.folder / series.name
        write_z_preview(Multiscale.open(folder / Z), folder / "z.png")
    document = {**summary.document(), "agreement": summary.agreement(), "layer_contrast": layer_contrast(plan)}
    found = evidence(StoredSweep(plan.folder, document), rules, planted)
    (plan.folder / DOCUMENT_NAME).write_json({**document, "evidence": found})
    tiles = sum(plan.maps_record.marker(unit)["tiles"] for unit in plan.units)
    return {"tiles": tiles, "pixels": summary.pixels}

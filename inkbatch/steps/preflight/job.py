"""`inkbatch preflight`: one verdict with a number for each tile of 256 px, from the layers alone, before any network.

Each unit's layers are read once; what was measured is stored in ``measures/{unit}.json``, so a stopped job goes on from
there. Verdicts, map and picture are made from all of them at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.segments.prepared import open_prepared, surface_now, surface_state
from inkbatch.errors import ConfigError
from inkbatch.geometry import Box, Unit, cells, cut
from inkbatch.io.half_floats import opencv_threads
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.io.threads import CORES, WorkerPool
from inkbatch.reports.leave import leave_report
from inkbatch.run.job import JobReport, RunContext, run_job
from inkbatch.run.malloc import keep_freed_memory
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.steps.preflight.measure import Slab, measure
from inkbatch.steps.preflight.page import page as report_page
from inkbatch.steps.preflight.picture import draw_tiles, write_map
from inkbatch.steps.preflight.settings import PreflightConfig as PreflightConfig
from inkbatch.steps.preflight.verdict import UNIT_OF, WORDS, Expectation, judge, profile_is_judged
from inkbatch.steps.stored_preflight import PICTURE_NAME, TILE_PX, VERDICTS_NAME, WITHOUT_BUNDLE, preflight_folder
from inkbatch.text import bytes_text

if TYPE_CHECKING:
    from inkbatch.models.bundle import Bundle

MEASURES_NAME = "measures"
UNITS_IN_FLIGHT = 3
BASE_BYTES = 150 << 20

tile_pool = WorkerPool("preflight", CORES)
"""Measures tiles side by side."""


@dataclass(frozen=True)
class PreflightPlan:
    """Everything that is known before a layer is read.

    Attributes:
        volume: The surface.
        expected: What the network expects of a tile, or anybody where none is named.
        units: All units, row-major.
        folder: ``ROOT/preflights/{segment}/{name}``.
        manifest: The run's manifest.
    """

    volume: SurfaceVolume
    expected: Expectation
    units: list[Unit]
    folder: Location
    manifest: RunManifest

    @property
    def tiles_yx(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        height, width = self.volume.shape_yx
        return -(-height // TILE_PX), -(-width // TILE_PX)

    @property
    def peak_bytes(self) -> int:
        """Memory that the job takes, about."""
        largest = max(unit.read_box.area for unit in self.units)
        return BASE_BYTES + UNITS_IN_FLIGHT * largest * self.volume.layer_count * self.volume.dtype.itemsize


def make_plan(config: PreflightConfig) -> PreflightPlan:
    """Open the surface, and the bundle where one is named, and cut the surface into units.

    Raises:
        ConfigError: A bundle and a scale are both stated.
        DataError: The surface is not complete, or has fewer layers than the bundle takes.
    """
    if config.bundle is not None and config.scale_um is not None:
        raise ConfigError("preflight: bundle and scale_um both say what a network was trained on; give one of them")
    volume, surface_digest = open_prepared(config.root, config.segment)
    bundle = _bundle_of(config)
    expected = _expectation(config, volume, bundle)
    boxes = cut(volume.shape_yx, config.unit_px, config.unit_px)
    units = [Unit(index, box, box) for index, box in enumerate(boxes)]
    settings = {
        "segment": config.segment,
        "unit_px": config.unit_px,
        "tile_px": TILE_PX,
        "layers": [expected.first, expected.stop],
        "off_centre_layers": config.off_centre_layers,
        "pixel_um": expected.pixel_um,
        "override": dict(config.override),
    }
    inputs: dict[str, Any] = {"surface": surface_digest}
    if bundle is not None:
        inputs |= {"bundle": bundle.document.name, "weights_sha256": bundle.document.weights_sha256}
        inputs |= bundle.document.noted
    request = config.request(**({} if config.bundle is None else {"bundle": _address(config.bundle)}))
    state = surface_state(config.root, config.segment)
    now = partial(surface_now, config.root, config.segment)
    manifest = RunManifest("preflight", settings, inputs, len(units), request, state, now)
    name = config.name or (WITHOUT_BUNDLE if bundle is None else bundle.document.name)
    folder = preflight_folder(config.output_root or config.root, config.segment, name)
    return PreflightPlan(volume, expected, units, folder, manifest)


def run(config: PreflightConfig, context: RunContext) -> JobReport:
    """Give every tile of a segment its verdict, or do this shard's part of it.

    Raises:
        InkbatchError: See `make_plan`; damaged surface; storage that gave up; a stop signal.
    """
    plan = make_plan(config)
    record = RunFolder(plan.folder, plan.manifest)
    keep_freed_memory()
    with opencv_threads(1):
        return run_job(
            record,
            plan.units,
            lambda: _work(plan, record),
            context,
            lambda _: _finish(plan),
            lambda folder, note: leave_report(folder, note, report_page, Location.parse(config.root)),
        )


def describe(config: PreflightConfig) -> str:
    """Describe the plan, as lines of text. Only metadata are read, nothing is written."""
    plan = make_plan(config)
    record = RunFolder(plan.folder, plan.manifest)
    height, width = plan.volume.shape_yx
    rows, columns = plan.tiles_yx
    size = height * width * plan.volume.layer_count * plan.volume.dtype.itemsize
    lines = [
        f"preflight {config.segment}: {rows * columns:,} tiles of {TILE_PX} px",
        f"  surface       {plan.volume.layer_count} layers, {height} × {width} px (height × width)",
        f"  layers        a sheet is expected in {plan.expected.first}:{plan.expected.stop} (depth order)",
        f"  units         {len(plan.units)}, {record.state}",
        f"  reads         {bytes_text(size)} of grey values (before compression)",
        f"  result        {plan.folder}",
        f"  peak memory   about {bytes_text(plan.peak_bytes)}",
    ]
    return "\n".join(lines)


def result_lines(folder: Location) -> list[str]:
    """Describe stored verdicts, for a terminal."""
    found = (folder / VERDICTS_NAME).read_mapping()
    total = sum(found["tiles"].values())
    counts = [(word, found["tiles"][word]) for word in found["words"]]
    lines = [f"  {word:<12} {count:,} of {total:,} tiles" for word, count in counts if count]
    return [*lines, f"  picture: {folder / PICTURE_NAME}"]


def _bundle_of(config: PreflightConfig) -> Bundle | None:
    if config.bundle is None:
        return None
    from inkbatch.models.bundle import Bundle, bundle_location

    return Bundle.open(bundle_location(config.bundle), config.override)


def _address(bundle: str) -> str:
    from inkbatch.models.bundle import bundle_address

    return bundle_address(bundle)


def _expectation(config: PreflightConfig, volume: SurfaceVolume, bundle: Bundle | None) -> Expectation:
    """Say which layers count: those that the bundle reads, else the middle half of deep stacks, else all."""
    said, depth = volume.provenance, volume.layer_count
    trained_um = config.scale_um
    quarter = depth // 4 if profile_is_judged(depth, said.layer_um) else 0
    first, stop = quarter, depth - quarter
    if bundle is not None:
        layers = bundle.contract.layer_indices(volume)
        first, stop = layers.start, layers.stop
        trained_um = bundle.contract.voxel_size_um
    return Expectation(said.layer_um, first, stop, config.off_centre_layers, trained_um)


def _work(plan: PreflightPlan, record: RunFolder) -> UnitWork[Any, Any]:
    def load(unit: Unit) -> Slab:
        return plan.volume.read(range(plan.volume.layer_count), unit.read_box)

    def compute(unit: Unit, layers: Slab) -> list[dict[str, Any]]:
        boxes = list(cells(unit.write_box, TILE_PX, TILE_PX))
        return tile_pool.map(
            lambda box: _measured(box, layers[(slice(None), *box.within(unit.write_box))], plan), boxes
        )

    def store(unit: Unit, measured: list[dict[str, Any]]) -> Mapping[str, Any]:
        (plan.folder / MEASURES_NAME / f"{unit.name}.json").write_json({"tiles": measured})
        return {"tiles": len(measured)}

    return UnitWork(load=load, compute=compute, store=store, mark=record.mark)


def _measured(box: Box, layers: Slab, plan: PreflightPlan) -> dict[str, Any]:
    found = measure(layers)
    verdict = judge(found, plan.expected)
    return {
        "at": [box.y0, box.x0],
        "verdict": verdict.word,
        "number": round(verdict.number, 3),
        "inside": round(found.inside, 4),
        "missing": round(found.missing, 4),
        "structure": round(found.structure, 2),
        "grain_px": None if np.isnan(found.grain_px) else round(found.grain_px, 2),
        "seam": round(found.seam, 3),
        "blocks": round(found.blocks, 4),
        "blocks_sure": round(found.blocks_sure, 2),
        "profile": np.round(found.profile.astype(float), 1).tolist(),
    }


def _finish(plan: PreflightPlan) -> Mapping[str, Any]:
    """Bring the tiles of all units together; write verdicts, map and picture."""
    codes = np.zeros(plan.tiles_yx, np.uint8)
    numbers = np.zeros(plan.tiles_yx)
    for unit in plan.units:
        for tile in (plan.folder / MEASURES_NAME / f"{unit.name}.json").read_mapping()["tiles"]:
            place = tile["at"][0] // TILE_PX, tile["at"][1] // TILE_PX
            codes[place], numbers[place] = WORDS.index(tile["verdict"]), tile["number"]
    counts: dict[str, int] = {str(word): int((codes == code).sum()) for code, word in enumerate(WORDS)}
    (plan.folder / VERDICTS_NAME).write_json(_document(plan, codes, numbers, counts))
    provenance = {"kind": "preflight", "digest": plan.manifest.digest, "words": list(WORDS)}
    write_map(plan.folder, codes, plan.volume.provenance.voxel_size_um * TILE_PX, provenance)
    (plan.folder / PICTURE_NAME).write_bytes(draw_tiles(codes))
    return {"tiles": counts}


def _document(
    plan: PreflightPlan, codes: NDArray[np.uint8], numbers: NDArray[np.float64], counts: dict[str, int]
) -> dict[str, Any]:
    said = plan.volume.provenance
    judged = profile_is_judged(plan.volume.layer_count, said.layer_um)
    return {
        "digest": plan.manifest.digest,
        "segment": said.segment,
        "tile_px": TILE_PX,
        "words": list(WORDS),
        "numbers_are": UNIT_OF,
        "tiles": counts,
        "not_judged": [
            *([] if judged else ["no sheet", "two sheets", "off-centre"]),
            *([] if plan.expected.pixel_um else ["scale"]),
        ],
        "layers": [plan.expected.first, plan.expected.stop],
        "codes": codes.tolist(),
        "numbers": numbers.tolist(),
    }

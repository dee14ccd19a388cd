"""`inkbatch probe`: depth order and layers at which a bundle sees ink on a segment, and if its answer can be trusted.

Each window is a unit: its answers are stored in ``measures/{unit}.json``, so a stopped probe goes on from there. The
verdict, ``verdict.json`` with ``probe.png`` beside it, is made from all of them at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.trained_pixels import pixels_on
from inkbatch.data.segments.prepared import open_prepared, surface_now, surface_state
from inkbatch.geometry import Unit
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.models.bundle import Bundle, bundle_address, bundle_location
from inkbatch.predict.device import choose_device, choose_precision, device_facts
from inkbatch.predict.predictor import Predictor
from inkbatch.predict.reference import check_reference
from inkbatch.predict.segment_statistics import stored_statistics
from inkbatch.reports.leave import leave_report
from inkbatch.run.job import JobReport, RunContext, run_job
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.steps.probe.evidence import Scene
from inkbatch.steps.probe.inputs import Slab, choose_windows, given_windows
from inkbatch.steps.probe.measure import Asked, ProbeInk, measure
from inkbatch.steps.probe.page import page as report_page
from inkbatch.steps.probe.picture import draw_probe
from inkbatch.steps.probe.settings import ProbeConfig as ProbeConfig
from inkbatch.steps.probe.verdict import Verdict, judge
from inkbatch.steps.stored_probe import PICTURE_NAME, VERDICT_NAME, has_reading, probe_folder, read_verdict
from inkbatch.text import count_text, share_text

SMALLEST_WINDOW_PX = 256
MEASURES_NAME = "measures"


@dataclass(frozen=True)
class ProbePlan:
    """Everything that is known before a model is built.

    Attributes:
        volume: The surface.
        bundle: The bundle with all overrides.
        asked: Readings and planted ink of each window.
        units: The windows.
        folder: The probe's folder.
        manifest: The run's manifest.
    """

    volume: SurfaceVolume
    bundle: Bundle
    asked: Asked
    units: list[Unit]
    folder: Location
    manifest: RunManifest

    @property
    def scene(self) -> Scene:
        """Setting of the verdict."""
        ink = self.asked.ink
        return Scene(
            self.asked.depth, (self.asked.usual_order, self.asked.usual_start), ink.amplitude, ink.width_layers
        )


def make_plan(config: ProbeConfig) -> ProbePlan:
    """Open surface and bundle, compare them, and choose the windows; no model is built.

    Raises:
        ConfigError: A value that cannot be carried out.
        DataError: The surface is not complete, does not match the bundle, or holds no papyrus.
    """
    volume, surface_digest = open_prepared(config.root, config.segment)
    bundle = Bundle.open(bundle_location(config.bundle), config.override)
    bundle.require_matches(volume)
    contract = bundle.contract
    usual = contract.layer_indices(volume)
    window_px = max(config.window_px or max(SMALLEST_WINDOW_PX, 2 * contract.tile_px), contract.tile_px)
    boxes = (
        given_windows(volume, config.at, window_px) if config.at else choose_windows(volume, config.windows, window_px)
    )
    last = volume.layer_count - len(usual)
    starts = sorted({*range(usual.start % config.step, last + 1, config.step), usual.start})
    ink = ProbeInk(config.amplitude, config.width_layers, config.stroke_px, config.edge_px, config.seed)
    asked = Asked(len(usual), tuple(starts), usual.start, contract.depth_order, ink)
    settings = config.model_dump(
        mode="json",
        include={"segment", "step", "amplitude", "width_layers", "stroke_px", "edge_px", "seed", "precision"},
    )
    settings |= {
        "windows": [[box.y0, box.x0, box.y1, box.x1] for box in boxes],
        "override": dict(config.override),
        "contract": contract.model_dump(mode="json"),
    }
    inputs: dict[str, Any] = {
        "surface": surface_digest,
        "bundle": bundle.document.name,
        "weights_sha256": bundle.document.weights_sha256,
        **bundle.document.noted,
    }
    trained = pixels_on(bundle.document.training, volume, str(bundle.location)).share(boxes)
    if trained:
        inputs["trained_share"] = trained
    request = config.request(bundle=bundle_address(config.bundle))
    state = surface_state(config.root, config.segment)
    now = partial(surface_now, config.root, config.segment)
    manifest = RunManifest("probe", settings, inputs, len(boxes), request, state, now)
    units = [Unit(index, box, box) for index, box in enumerate(boxes)]
    folder = probe_folder(config.output_root or config.root, config.segment, config.name or bundle.document.name)
    return ProbePlan(volume, bundle, asked, units, folder, manifest)


def run(config: ProbeConfig, context: RunContext) -> JobReport:
    """Probe a segment, or this shard's windows of it.

    Raises:
        InkbatchError: See `make_plan`; damaged surface; a model that returns NaN; storage that gave up; a stop signal.
    """
    plan = make_plan(config)
    for text in plan.bundle.notes:
        context.reporter.note(text)
    record = RunFolder(plan.folder, plan.manifest)
    return run_job(
        record,
        plan.units,
        lambda: _work(config, plan, record, context),
        context,
        lambda folder: _finish(plan, config.seed),
        lambda folder, note: leave_report(folder, note, report_page),
    )


def describe(config: ProbeConfig) -> str:
    """Describe the plan, as lines of text. Nothing is written; papyrus is read to choose windows, no model is built."""
    plan = make_plan(config)
    asked, record = plan.asked, RunFolder(plan.folder, plan.manifest)
    starts = asked.starts
    box = plan.units[0].write_box
    return "\n".join(
        [
            f"probe {config.segment}: bundle {plan.bundle.document.name}, {asked.depth} layers at a time",
            f"  readings      both depth orders from {count_text(len(starts), 'first layer')} ({starts[0]} to "
            f"{starts[-1]}); usual: {asked.usual_order} from {asked.usual_start}",
            f"  windows       {len(plan.units)} of {box.height} × {box.width} px (height × width), {record.state}",
            f"  result        {plan.folder}",
        ]
    )


def verdict_lines(folder: Location) -> list[str]:
    """Describe a stored verdict, for a terminal."""
    found = read_verdict(folder)
    numbers = found["numbers"]
    start, stop = found["layers"]
    reading = f" · {found['depth_order']} order, layers {start}:{stop} · confidence {found['confidence']:.2f}"
    lines = [
        f"verdict: {found['verdict']}{reading if has_reading(found) else ''}",
        f"  because     {found['reason']}",
        "  planted ink " + ", ".join(f"{order} lift {max(curve):.2f}" for order, curve in numbers["lift"].items()),
    ]
    for face in ("front", "back"):
        row = numbers["faces"][face]
        lifts = f"lifts the map by {row['forward']:.2f} forward, {row['reversed']:.2f} reversed"
        lines.append(f"  {face + ' face':<11} layer {row['layer']:g} of the surface: ink there {lifts}")
    for name, null in numbers["nulls"].items():
        lines.append(f"  null input  {name}: answered with {null['answer']:.2f} (ink in it lifts {null['lift']:.2f})")
    if share := found.get("trained_share", 0):
        lines.append(f"  careful     {share_text(share)} of these windows trained this network")
    cure = "infer --layers auto takes it" if found["usable"] else "infer --layers auto refuses it"
    return [*lines, f"  {cure} · picture: {folder / PICTURE_NAME}"]


def _work(config: ProbeConfig, plan: ProbePlan, record: RunFolder, context: RunContext) -> UnitWork[Any, Any]:
    device = choose_device(config.device)
    predictor = Predictor(
        plan.bundle.build(device),
        plan.bundle.contract,
        device,
        choose_precision(config.precision, device),
        config.batch_tiles,
        context.stop,
    )
    check_reference(predictor.model, plan.bundle, device, predictor.dtype)
    volume = plan.volume
    predictor.statistics = stored_statistics(plan.bundle.contract, volume, plan.folder, device, context.stop.check)

    def load(unit: Unit) -> tuple[Slab, NDArray[np.bool_]]:
        return volume.read(range(volume.layer_count), unit.read_box), volume.read_mask(unit.read_box)

    def compute(unit: Unit, loaded: tuple[Slab, NDArray[np.bool_]]) -> dict[str, Any]:
        return measure(predictor, *loaded, unit.write_box, plan.asked)

    def store(unit: Unit, measured: dict[str, Any]) -> Mapping[str, Any]:
        (plan.folder / MEASURES_NAME / f"{unit.name}.json").write_json(measured)
        return {"readings": 2 * len(plan.asked.starts), "tiles": measured["tiles"]}

    return UnitWork(
        load=load,
        compute=compute,
        store=store,
        mark=record.mark,
        device=lambda: device_facts(device, predictor.dtype),
    )


def _finish(plan: ProbePlan, seed: int) -> Mapping[str, Any]:
    measures = [(plan.folder / MEASURES_NAME / f"{unit.name}.json").read_mapping() for unit in plan.units]
    verdict = judge(measures, plan.scene, seed)
    (plan.folder / PICTURE_NAME).write_bytes(draw_probe(verdict, plan.scene))
    document = _document(plan, verdict)
    (plan.folder / VERDICT_NAME).write_json(document)
    return {key: document[key] for key in ("verdict", "depth_order", "layers", "confidence")}


def _document(plan: ProbePlan, verdict: Verdict) -> dict[str, Any]:
    def numbers(start: int) -> list[int]:
        return list(plan.volume.provenance.numbers_of(range(start, start + plan.asked.depth)))

    return {
        "digest": plan.manifest.digest,
        "segment": plan.volume.provenance.segment,
        "bundle": plan.bundle.document.name,
        "verdict": verdict.words,
        "usable": verdict.usable,
        "reason": verdict.reason,
        "depth_order": verdict.order,
        "layers": numbers(verdict.start),
        "start": verdict.start,
        "displaced_by": verdict.displaced_by,
        "confidence": verdict.confidence,
        "trained_share": plan.manifest.inputs.get("trained_share", 0.0),
        "usual": {"depth_order": plan.asked.usual_order, "layers": numbers(plan.asked.usual_start)},
        "numbers": verdict.numbers,
    }

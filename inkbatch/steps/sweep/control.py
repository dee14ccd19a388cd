"""Positive control of a sweep: ink of falling contrast, planted into sampled windows and searched like all others.

Planted strokes are those of the depth probe, at the middle of the layers that the first bundle takes by itself. A
window's scores go into ``control/{window}.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inkbatch.data.maps.evidence import WindowGrid
from inkbatch.data.maps.sweep_evidence import EvidenceRules, PlantedWindow
from inkbatch.data.synthetic.phantom import InkConfig, ink_plane
from inkbatch.data.synthetic.strokes import strokes, with_ink
from inkbatch.geometry import Box, Unit
from inkbatch.predict.device import choose_device, choose_precision, device_facts
from inkbatch.run.job import RunContext
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.steps.sweep.maps import Loaded, load_unit, predictor_of, unit_maps
from inkbatch.steps.sweep.plan import SweepPlan
from inkbatch.steps.sweep.surfaces import SweepSurface
from inkbatch.steps.sweep.together import Summary

CONTROL_NAME, PROFILES_NAME = "control", "profiles"
STROKE_UM, WIDTH_UM, EDGE_PX = 190.0, 12.0, 1.5  # 24 px wide and 1.5 layers deep at 7.91 µm, as the probe's
LEFT_OUT = "was left out by the preflight"
WHOLE = 0.9  # share of a window that must be papyrus


def grid_of(plan: SweepPlan) -> WindowGrid:
    """Lay the windows of evidence over a sweep."""
    return WindowGrid.of(plan.volume.shape_yx, plan.config.window_mm, plan.volume.provenance.voxel_size_um)


def rules_of(plan: SweepPlan) -> EvidenceRules:
    """Return the rules of evidence of a sweep."""
    config = plan.config
    tiles = (one.contract.tile_px / plan.surface_of(one).frame.ratio for one in plan.members)
    readable, left_out = _papyrus(plan)
    return EvidenceRules(
        config.window_mm, round(max(tiles)), config.blank, config.blank_side, {LEFT_OUT: left_out}, readable
    )


def _papyrus(plan: SweepPlan) -> tuple[int, int]:
    """Count pixels of papyrus that are swept, and those that a preflight leaves out."""
    boxes = [unit.write_box for unit in plan.units]
    whole = sum(int(np.count_nonzero(plan.volume.read_mask(box))) for box in boxes)
    if plan.judged is None or plan.config.preflight != "mask":
        return whole, 0
    readable = sum(int(np.count_nonzero(plan.read_mask(box))) for box in boxes)
    return readable, whole - readable


def control_units(plan: SweepPlan) -> list[Unit]:
    """Choose the windows that get planted ink: whole papyrus, spread evenly, half of it at most.

    Ink in all windows is never called: it cannot be told from papyrus that is rough at one depth.
    """
    if not plan.config.control_windows:
        return []
    whole = [box for box in grid_of(plan).boxes if plan.read_mask(box).mean() >= WHOLE]
    count = min(plan.config.control_windows, -(-len(whole) // 2))
    chosen = [whole[round(place)] for place in np.linspace(0, len(whole) - 1, count)] if count else []
    return [Unit(index, box, box) for index, box in enumerate(chosen)]


def control_record(plan: SweepPlan, units: Sequence[Unit]) -> RunFolder:
    """Return the run of the control."""
    found = plan.manifest
    windows = {"control": [[unit.write_box.y0, unit.write_box.x0] for unit in units], "stored": PROFILES_NAME}
    manifest = RunManifest("sweep-control", {**found.config, **windows}, found.inputs, len(units), state=found.state)
    return RunFolder(plan.folder / CONTROL_NAME, manifest)


def control_work(
    plan: SweepPlan, summary: Summary, record: RunFolder, context: RunContext
) -> UnitWork[Loaded, Mapping[str, Any]]:
    """Build the functions of the control; the networks are built here."""
    device = choose_device(plan.config.device)
    dtype = choose_precision(plan.config.precision, device)
    real = replace(plan, series=tuple(one for one in plan.series if one.null is None))
    predictors = [predictor_of(plan, member, device, dtype, context) for member in plan.members]
    deviations = [one.deviation for one in summary.stretches]

    def profiles(unit: Unit, loaded: Loaded, contrast: float) -> dict[str, list[float]]:
        planted = [
            planted_layers(plan, place, unit.write_box, slab, contrast) for place, slab in enumerate(loaded.layers)
        ]
        layers = [torch.from_numpy(slab).to(device) for slab in planted]
        found = unit_maps(real, predictors, unit, loaded, layers)
        return {
            series.name: one.whole().covariances(deviations).tolist()
            for series, one in zip(real.series, found.agreement, strict=True)
        }

    def compute(unit: Unit, loaded: Loaded) -> dict[str, Any]:
        found = {f"{contrast:g}": profiles(unit, loaded, contrast) for contrast in plan.config.control}
        return {"at": [unit.write_box.y0, unit.write_box.x0], "profiles": found, "tiles": loaded.tile_count}

    def store(unit: Unit, found: Mapping[str, Any]) -> Mapping[str, Any]:
        (record.location / PROFILES_NAME / f"{unit.name}.json").write_json(dict(found))
        return {"tiles": found["tiles"]}

    return UnitWork(
        load=lambda unit: load_unit(plan, unit),
        compute=compute,
        store=store,
        mark=record.mark,
        device=lambda: device_facts(device, predictors[0].dtype),
    )


def stored_control(plan: SweepPlan, units: Sequence[Unit]) -> list[PlantedWindow]:
    """Read what the control found."""
    found = []
    for unit in units:
        row = (plan.folder / CONTROL_NAME / PROFILES_NAME / f"{unit.name}.json").read_mapping()
        profiles = {float(contrast): series for contrast, series in row["profiles"].items()}
        found.append(PlantedWindow((row["at"][0], row["at"][1]), profiles))
    return found


def planted_layers(plan: SweepPlan, place: int, write_box: Box, slab: NDArray[Any], contrast: float) -> NDArray[Any]:
    """Plant strokes into the layers of one surface, over all that is read for a window.

    Surfaces of one sheet get the same strokes, each at its own scale: noise and width are drawn in micrometres, and the
    layer lies as far from the surface's middle as in the surface of the first bundle.
    """
    if not slab.size:
        return slab
    surface, first = plan.surfaces[place], plan.members[0]
    box, said = surface.read_box(write_box), surface.volume.provenance
    off = (first.layers.start + first.layers.stop - 1) / 2 - _middle(plan.surface_of(first))
    ink = InkConfig(
        amplitude=contrast,
        depth_layer=_middle(surface)
        + off * plan.surface_of(first).volume.provenance.layer_um / said.layer_um
        - surface.layers.start,
        width_layers=max(0.5, WIDTH_UM / said.layer_um),
        edge_px=EDGE_PX,
        seed=plan.config.seed,
    )
    mask = strokes(box, max(2.0, STROKE_UM / said.voxel_size_um), EDGE_PX, plan.config.seed)
    return with_ink(slab, ink_plane(mask, None, ink, box), ink)


def _middle(surface: SweepSurface) -> float:
    """Return the middle layer of a surface, in depth order."""
    return (surface.volume.layer_count - 1) / 2

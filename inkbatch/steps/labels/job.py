"""`inkbatch labels`: a prediction or a hand-made picture becomes ``ink_labels.zarr`` and ``ignore_mask.zarr``.

Two passes over the same units. The first one writes facts on the components that seams cut; the second one joins all
facts, and cleans unit by unit. Each unit decides what lies wholly inside it, so that facts stay small.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.labels.cleaning import clean_unit, dilated, threshold_ink
from inkbatch.data.labels.component_facts import facts_of
from inkbatch.data.labels.components import Bools, UnitComponents, border_pixels, unit_components
from inkbatch.data.labels.ignore import IGNORED, uncertain_pixels
from inkbatch.data.labels.ink import INK_LABEL, LABEL_MAX
from inkbatch.data.labels.seams import Merged
from inkbatch.data.segments.prepared import surface_content
from inkbatch.errors import DataError
from inkbatch.geometry import Box, Unit
from inkbatch.io.halving import Pooling
from inkbatch.io.layers.single import read_mask
from inkbatch.io.multiscale import Multiscale
from inkbatch.run.job import JobReport, RunContext, begin, run_job
from inkbatch.run.passes import all_whole, run_first, run_rest
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import BESIDE
from inkbatch.steps.labels.count import LISTED
from inkbatch.steps.labels.describe import describe
from inkbatch.steps.labels.plan import LabelsPlan, make_plan
from inkbatch.steps.labels.report import write_before_and_after, write_statistics
from inkbatch.steps.labels.settings import LabelsConfig
from inkbatch.text import count_text

OUTPUTS = (*BESIDE["labels"], "labels")


def run(config: LabelsConfig, context: RunContext) -> JobReport:
    """Clean a segment's labels, or do this shard's part of it.

    The second pass needs the facts of every unit. A shard that finds some missing (another shard has them in hand)
    ends after its first pass with units left. The one that finds all of them does its own units of the second pass, and
    then those that are still missing: when the last shard has ended, the labels are whole.

    Raises:
        InkbatchError: See `make_plan`; no ink is left; damaged data; storage that gave up; a stop signal.
    """
    plan = make_plan(config)
    for line in plan.inputs.notes(surface_content(config.root, config.segment)):
        context.reporter.note(f"labels: {line}")
    with contextlib.ExitStack() as opened:
        opened.callback(plan.inputs.close)
        return _run(plan, context)


def _run(plan: LabelsPlan, context: RunContext) -> JobReport:
    context = replace(context, replace=context.replace or plan.config.replace)
    is_new = begin(plan.record, context)  # refuses a result of other settings or inputs before any work is done
    try:
        return _in_two_passes(plan, context)
    except DataError:
        if is_new and context.shard.count == 1 and not plan.record.done():
            (plan.folder / "labels").delete_folder()  # nothing is left that other settings would have to replace
        raise


def _in_two_passes(plan: LabelsPlan, context: RunContext) -> JobReport:
    if not all_whole([(record, plan.units) for record in (plan.facts_record, plan.record)], context):
        words = {"job": "labels", "doing": "counted", "result": "labels"}
        first = run_first(plan.facts_record, plan.units, lambda: _facts_work(plan), context, **words)
        if not first.complete:
            return first
    return run_rest(lambda shard: clean_labels(plan, shard), context)


def clean_labels(plan: LabelsPlan, context: RunContext) -> JobReport:
    """Clean the labels: the second pass, or this shard's part of it."""
    return run_job(plan.record, plan.units, lambda: _cleaning_work(plan), context, lambda _: _finish(plan, context))


@dataclass(frozen=True)
class _Loaded:
    """One unit: shares over the read box, papyrus over the write box grown by one pixel, and masks over the write box.

    `ignored` is what a picture leaves out and what no mask marks; `held_out` what the validation mask marks; `counts`
    the pixels on papyrus that are held out, that are neither held out nor ignored, and that supervision marks.
    """

    share: NDArray[np.float32]
    papyrus: Bools | None
    ignored: Bools | None
    held_out: Bools | None
    counts: dict[str, int]


def _load(plan: LabelsPlan, unit: Unit) -> _Loaded:
    box = unit.write_box
    papyrus = None
    if plan.config.ignore.border == "papyrus":
        papyrus = plan.surface.read_mask(Box(box.y0 - 1, box.x0 - 1, box.y1 + 1, box.x1 + 1))
    inputs, ignored = plan.inputs, None
    if inputs.ignore_image is not None:
        ignored = read_mask(inputs.ignore_image, box)
    held_out = inputs.validation.read(box) if inputs.validation is not None else None
    counts: dict[str, int] = {}
    if inputs.supervision is not None:
        supervised = inputs.supervision.read(box)
        counts["supervised_px"] = int(np.count_nonzero(supervised))
        outside = ~supervised if held_out is None else ~(supervised | held_out)
        ignored = outside if ignored is None else ignored | outside
    if held_out is not None:
        on_papyrus = plan.surface.read_mask(box)
        counts["held_out_px"] = int(np.count_nonzero(held_out & on_papyrus))
        free = on_papyrus & ~held_out
        counts["free_px"] = int(np.count_nonzero(free if ignored is None else free & ~ignored))
    return _Loaded(plan.source.read(unit.read_box), papyrus, ignored, held_out, counts)


def _components(plan: LabelsPlan, unit: Unit, loaded: _Loaded) -> UnitComponents:
    rules, box = plan.config.clean, unit.write_box
    ink = dilated(threshold_ink(loaded.share, rules), rules.dilation_px)[box.within(unit.read_box)]
    shape = plan.surface.shape_yx
    return unit_components(
        ink,
        box,
        shape,
        border=border_pixels(box, shape, loaded.papyrus),
        min_area_px=rules.min_area_px,
        holes=rules.fill_holes,
    )


def _facts_work(plan: LabelsPlan) -> UnitWork[Any, Any]:
    def compute(unit: Unit, loaded: _Loaded) -> dict[str, Any]:
        found: dict[str, Any] = {"highest": float(loaded.share.max()), **loaded.counts}
        if (volume := plan.source.volume) is not None:
            found["planes"] = sorted(volume.found)  # of this unit, and of those that were read before
        if not plan.config.soft:
            found["facts"] = facts_of(_components(plan, unit, loaded), LISTED).model_dump(mode="json")
        return found

    def store(unit: Unit, document: dict[str, Any]) -> Mapping[str, Any]:
        plan.facts_place(unit).write_json(document)
        return {}

    return UnitWork(load=lambda unit: _load(plan, unit), compute=compute, store=store, mark=plan.facts_record.mark)


def _cleaning_work(plan: LabelsPlan) -> UnitWork[Any, Any]:
    config, merged = plan.config, plan.counted.merged
    labels, ignore_mask, validation_mask = (
        _create_labels(plan),
        _create_ignore_mask(plan),
        _create_validation_mask(plan),
    )

    def compute(unit: Unit, loaded: _Loaded) -> _Stored:
        inside = unit.write_box.within(unit.read_box)
        ignored = uncertain_pixels(loaded.share, config.ignore)[inside]
        if merged is None:
            stored = np.rint(loaded.share[inside] * np.float32(LABEL_MAX)).astype(np.uint8)
        else:
            ink, at_border = _cleaned(plan, unit, loaded, merged)
            stored = ink.astype(np.uint8) * np.uint8(LABEL_MAX)
            if config.ignore.border != "none":
                ignored = ignored | at_border
        return _Stored(stored, ignored if loaded.ignored is None else ignored | loaded.ignored, loaded.held_out)

    def store(unit: Unit, found: _Stored) -> Mapping[str, Any]:
        written = labels.write(unit.write_box, found.labels)
        if ignore_mask is not None:
            written += ignore_mask.write(unit.write_box, found.ignored.astype(np.uint8) * np.uint8(IGNORED))
        if validation_mask is not None and found.held_out is not None:
            written += validation_mask.write(unit.write_box, found.held_out.astype(np.uint8))
        ink = found.labels >= INK_LABEL
        return {
            "bytes_written": written,
            "ink_px": int(np.count_nonzero(ink)),
            "ignored_px": int(np.count_nonzero(found.ignored)),
            "ignored_ink_px": int(np.count_nonzero(ink & found.ignored)),
        }

    return UnitWork(load=lambda unit: _load(plan, unit), compute=compute, store=store, mark=plan.record.mark)


class _Stored(NamedTuple):
    """Labels (0 to 255), what is ignored, and what is held out, of one write box."""

    labels: NDArray[np.uint8]
    ignored: Bools
    held_out: Bools | None


def _cleaned(plan: LabelsPlan, unit: Unit, loaded: _Loaded, merged: Merged) -> tuple[Bools, Bools]:
    """Clean one unit: (ink, components at a border)."""
    parts = _components(plan, unit, loaded)
    decision = merged.decisions[unit.write_box.y0, unit.write_box.x0]
    if len(decision.ink_kept) != np.count_nonzero(parts.ink_open):
        raise DataError(
            f"segment {plan.config.segment}, unit {unit.name}: the labels changed since they were counted; give them "
            "another place, or remove the segment's labels folder and run again"
        )
    return clean_unit(parts, decision, plan.config.clean.max_hole_px)


def _create_labels(plan: LabelsPlan) -> Multiscale:
    """Create ``ink_labels.zarr``: 0 or 255, soft ones 0 to 255; coarser levels hold the share of ink."""
    return _create(plan, "ink_labels", "mean")


def _create_ignore_mask(plan: LabelsPlan) -> Multiscale | None:
    """Create ``ignore_mask.zarr``: 0 or 1; None if no rule fills it."""
    return _create(plan, "ignore_mask", "max") if plan.has_ignored else None


def _create_validation_mask(plan: LabelsPlan) -> Multiscale | None:
    """Create ``validation_mask.zarr``: 0 or 1; None if nothing is held out."""
    return _create(plan, "validation_mask", "max") if plan.inputs.validation is not None else None


def _create(plan: LabelsPlan, name: str, pooling: Pooling) -> Multiscale:
    provenance: dict[str, Any] = {"kind": name, "segment": plan.config.segment, "digest": plan.manifest.digest}
    if plan.config.soft and name == "ink_labels":
        provenance |= {"soft": True}
    return Multiscale.create_mask(
        plan.folder / f"{name}.zarr",
        plan.surface.shape_yx,
        shard_px=plan.config.unit_px,
        voxel_size_um=plan.surface.provenance.voxel_size_um,
        provenance=provenance,
        pooling=pooling,
    )


def _finish(plan: LabelsPlan, context: RunContext) -> Mapping[str, Any]:
    markers = [plan.record.marker(unit) for unit in plan.units]
    pyramids = _create_labels(plan), _create_ignore_mask(plan)
    folder = plan.folder / "labels"
    found = plan.counted
    facts = {**write_statistics(folder, found.merged, markers, plan.surface.shape_yx), **found.facts}
    write_before_and_after(folder, plan.source, *pyramids, plan.config.unit_px)
    if removed := facts.get("removed_px"):
        context.reporter.note(
            f"labels: {count_text(facts['removed_components'], 'component')} of fewer than "
            f"{plan.config.clean.min_area_px:,} px became bare, {removed:,} px or "
            f"{removed / (removed + facts['component_px']):.1%} of the ink; if letters were among them "
            f"({folder / 'preview.png'} shows both), set clean.min_area_px lower"
        )
    if both := facts["ignored_ink_px"]:
        context.reporter.note(
            f"labels: {both:,} px of ink ({both / facts['ink_px']:.1%}) are ignored as well, and so count nowhere"
        )
    return facts


__all__ = ["OUTPUTS", "LabelsConfig", "LabelsPlan", "describe", "make_plan", "run"]

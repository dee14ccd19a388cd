"""`inkbatch labels`: a prediction or a hand-made picture becomes ``ink_labels.zarr`` and ``ignore_mask.zarr``.

Two passes over the same units. The first one writes facts on the components that seams cut; the second one joins all
facts, and cleans unit by unit. Each unit decides what lies wholly inside it, so that facts stay small.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.labels.cleaning import clean_unit, dilated, threshold_ink
from inkbatch.data.labels.component_facts import facts_of
from inkbatch.data.labels.components import Bools, UnitComponents, border_pixels, unit_components
from inkbatch.data.labels.ignore import IGNORED, uncertain_pixels
from inkbatch.data.labels.ink import LABEL_MAX
from inkbatch.errors import DataError
from inkbatch.geometry import Box, Unit
from inkbatch.io.layers.single import read_mask
from inkbatch.io.multiscale import Multiscale, Pooling
from inkbatch.run.job import JobReport, RunContext, begin, is_whole, run_job, run_rest
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import BESIDE
from inkbatch.steps.labels.plan import LISTED, LabelsConfig, LabelsPlan, describe, make_plan
from inkbatch.steps.labels.report import write_before_and_after, write_statistics
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
    with contextlib.ExitStack() as opened:
        for source in (plan.source, plan.ignore_image):
            if source is not None:
                opened.callback(source.close)
        return _run(plan, context)


def _run(plan: LabelsPlan, context: RunContext) -> JobReport:
    context = replace(context, replace=context.replace or plan.config.replace)
    begin(plan.record, context)  # refuses a result of other settings or inputs before any work is done
    if not is_whole(plan.record, plan.units, context):
        first = run_job(plan.facts_record, plan.units, lambda: _facts_work(plan), context)
        if not first.complete:
            context.reporter.note(
                f"labels: {first.left} of {count_text(first.units, 'unit')} to be counted by other shards; the "
                "last one of them finishes the labels"
            )
            return first
    return run_rest(lambda shard: clean_labels(plan, shard), context)


def clean_labels(plan: LabelsPlan, context: RunContext) -> JobReport:
    """Clean the labels: the second pass, or this shard's part of it."""
    return run_job(plan.record, plan.units, lambda: _cleaning_work(plan), context, lambda _: _finish(plan, context))


@dataclass(frozen=True)
class _Loaded:
    """One unit: shares over the read box, papyrus over the write box grown by one pixel, the given ignore mask."""

    share: NDArray[np.float32]
    papyrus: Bools | None
    ignored: Bools | None


def _load(plan: LabelsPlan, unit: Unit) -> _Loaded:
    box = unit.write_box
    papyrus = None
    if plan.config.ignore.border == "papyrus":
        papyrus = plan.surface.read_mask(Box(box.y0 - 1, box.x0 - 1, box.y1 + 1, box.x1 + 1))
    ignored = None
    if plan.ignore_image is not None:
        ignored = read_mask(plan.ignore_image, box)
    return _Loaded(plan.source.read(unit.read_box), papyrus, ignored)


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
        facts = facts_of(_components(plan, unit, loaded), LISTED)
        return {"facts": facts.model_dump(mode="json"), "highest": float(loaded.share.max())}

    def store(unit: Unit, document: dict[str, Any]) -> Mapping[str, Any]:
        plan.facts_place(unit).write_json(document)
        return {}

    return UnitWork(load=lambda unit: _load(plan, unit), compute=compute, store=store, mark=plan.facts_record.mark)


def _cleaning_work(plan: LabelsPlan) -> UnitWork[Any, Any]:
    config, merged = plan.config, plan.merged
    labels, ignore_mask = _create_labels(plan), _create_ignore_mask(plan)

    def compute(unit: Unit, loaded: _Loaded) -> tuple[Bools, Bools]:
        parts = _components(plan, unit, loaded)
        decision = merged.decisions[unit.write_box.y0, unit.write_box.x0]
        if len(decision.ink_kept) != np.count_nonzero(parts.ink_open):
            raise DataError(
                f"segment {config.segment}, unit {unit.name}: the labels changed since they were counted; give them "
                "another place, or remove the segment's labels folder and run again"
            )
        ink, at_border = clean_unit(parts, decision, config.clean.max_hole_px)
        ignored = uncertain_pixels(loaded.share, config.ignore)[unit.write_box.within(unit.read_box)]
        if config.ignore.border != "none":
            ignored = ignored | at_border
        if loaded.ignored is not None:
            ignored = ignored | loaded.ignored
        return ink, ignored

    def store(unit: Unit, computed: tuple[Bools, Bools]) -> Mapping[str, Any]:
        ink, ignored = computed
        stored = labels.write(unit.write_box, ink.astype(np.uint8) * np.uint8(LABEL_MAX))
        if ignore_mask is not None:
            stored += ignore_mask.write(unit.write_box, ignored.astype(np.uint8) * np.uint8(IGNORED))
        return {
            "bytes_written": stored,
            "ink_px": int(np.count_nonzero(ink)),
            "ignored_px": int(np.count_nonzero(ignored)),
        }

    return UnitWork(load=lambda unit: _load(plan, unit), compute=compute, store=store, mark=plan.record.mark)


def _create_labels(plan: LabelsPlan) -> Multiscale:
    """Create ``ink_labels.zarr``: 0 or 255; coarser levels hold the share of ink."""
    return _create(plan, "ink_labels", "mean")


def _create_ignore_mask(plan: LabelsPlan) -> Multiscale | None:
    """Create ``ignore_mask.zarr``: 0 or 1; None if no rule fills it."""
    return _create(plan, "ignore_mask", "max") if plan.config.ignore.any else None


def _create(plan: LabelsPlan, name: str, pooling: Pooling) -> Multiscale:
    return Multiscale.create_mask(
        plan.folder / f"{name}.zarr",
        plan.surface.shape_yx,
        shard_px=plan.config.unit_px,
        voxel_size_um=plan.surface.provenance.voxel_size_um,
        provenance={"kind": name, "segment": plan.config.segment, "digest": plan.manifest.digest},
        pooling=pooling,
    )


def _finish(plan: LabelsPlan, context: RunContext) -> Mapping[str, Any]:
    markers = [plan.record.marker(unit) for unit in plan.units]
    pyramids = _create_labels(plan), _create_ignore_mask(plan)
    folder = plan.folder / "labels"
    facts = write_statistics(folder, plan.merged, markers, plan.surface.shape_yx)
    write_before_and_after(folder, plan.source, *pyramids, plan.config.unit_px)
    if removed := facts["removed_px"]:
        context.reporter.note(
            f"labels: {facts['removed_components']:,} components of fewer than {plan.config.clean.min_area_px:,} px "
            f"became bare, {removed:,} px or {removed / (removed + facts['component_px']):.1%} of the ink; if letters "
            f"were among them ({folder / 'preview.png'} shows both), set clean.min_area_px lower"
        )
    return facts


__all__ = ["OUTPUTS", "LabelsConfig", "LabelsPlan", "describe", "make_plan", "run"]

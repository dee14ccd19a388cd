"""The passes of `inkbatch instances` without a network: basins, regions, labels, rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.instances.ascent import Evidence, Ints, first_pass
from inkbatch.data.instances.objects import Objects
from inkbatch.data.instances.outlines import coco_annotation, feature_text, outline, rings_of, runs_text
from inkbatch.data.instances.runs import LabelRuns
from inkbatch.data.instances.tables import Cutout, in_columns, properties
from inkbatch.data.instances.unit_facts import BasinFacts, facts_of
from inkbatch.geometry import Box, Unit
from inkbatch.io.multiscale import Multiscale
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import RunFolder
from inkbatch.steps.instances.plan import FirstPass, InstancesPlan, Part, require_proposals

Labels = NDArray[np.uint32]


def facts_work(plan: InstancesPlan) -> UnitWork[Any, Any]:
    """Make the first pass: find the basins of each unit and note what its neighbours need."""

    def load(unit: Unit) -> Evidence:
        part = plan.parts[unit.index]
        return Evidence.of(part.source.map(part.read_box))

    def compute(unit: Unit, evidence: Evidence) -> tuple[BasinFacts, LabelRuns]:
        part = plan.parts[unit.index]
        inner = part.write_box.within(part.read_box)
        boundary = None if evidence.boundary is None else evidence.boundary[inner]
        own = Evidence(evidence.object[inner], boundary, evidence.background[inner])
        at = part.write_box.y0, part.write_box.x0
        found = first_pass(evidence, at, inner, part.sides, plan.limits)
        return facts_of(found, part.write_box, own), LabelRuns.of(found.labels)

    def store(unit: Unit, found: tuple[BasinFacts, LabelRuns]) -> Mapping[str, Any]:
        facts, basins = found
        return {"bytes_written": basins.store(plan.basins_place(unit)) + facts.store(plan.facts_place(unit))}

    return UnitWork(load=load, compute=compute, store=store, mark=plan.facts_record.mark)


def labels_work(plan: InstancesPlan) -> UnitWork[Any, Any]:
    """Give every pixel the label of its instance, where regions are the instances."""
    outputs = [plan.create(plan.labels_place(source), source) for source in plan.sources.pictures]
    return _numbered(plan, plan.labels_record, outputs, lambda found: found.fates.number)


def regions_work(plan: InstancesPlan) -> UnitWork[Any, Any]:
    """Give every pixel the number of its region from 1 on, for the network's tiles."""
    outputs = [plan.create(plan.regions_place(source), source) for source in plan.sources.pictures]
    return _numbered(plan, plan.regions_record, outputs, lambda found: np.arange(1, len(found.joined.regions) + 1))


def _numbered(
    plan: InstancesPlan, record: RunFolder, outputs: Sequence[Multiscale], number: Callable[[FirstPass], Ints]
) -> UnitWork[Any, Any]:
    """Write a number for every region, and look up the regions at the points of proposals."""
    require_proposals(plan)

    def compute(unit: Unit, basins: LabelRuns) -> tuple[Labels, list[tuple[int, int, int]]]:
        part = plan.parts[unit.index]
        found = plan.first_pass(part.number)
        box = part.write_box
        region_of = found.joined.region_of[box.y0, box.x0]
        numbers = np.concatenate([number(found), [0]]).astype(np.uint32)
        pixels = sorted({one.pixel for one in found.proposals})
        inside = [(y, x) for y, x in pixels if box.y0 <= y < box.y1 and box.x0 <= x < box.x1]
        labels = basins.at([(y - box.y0, x - box.x0) for y, x in inside])
        points = [(y, x, int(region)) for (y, x), region in zip(inside, region_of[labels], strict=True)]
        return basins.mapped(numbers[region_of]), points

    def store(unit: Unit, computed: tuple[Labels, list[tuple[int, int, int]]]) -> Mapping[str, Any]:
        labels, points = computed
        part = plan.parts[unit.index]
        plan.points_place(unit).write_json(points)
        return {"bytes_written": outputs[part.number].write(part.write_box, labels)}

    return UnitWork(
        load=lambda unit: LabelRuns.read(plan.basins_place(unit)), compute=compute, store=store, mark=record.mark
    )


def paint_work(plan: InstancesPlan) -> UnitWork[Any, Any]:
    """Give every pixel the label of its instance, where a network outlined them."""
    outputs = [plan.create(plan.labels_place(source), source) for source in plan.sources.pictures]

    def compute(unit: Unit, part: Part) -> Labels:
        return plan.objects(part.number).paint(part.write_box)

    def store(unit: Unit, labels: Labels) -> Mapping[str, Any]:
        part = plan.parts[unit.index]
        return {"bytes_written": outputs[part.number].write(part.write_box, labels)}

    return UnitWork(
        load=lambda unit: plan.parts[unit.index], compute=compute, store=store, mark=plan.labels_record.mark
    )


@dataclass(frozen=True)
class Owned:
    """The instances that begin in a unit, with the pixels of all of them.

    Attributes:
        numbers: Their labels.
        boxes: Their boxes in the picture.
        cuts: Each cut out.
    """

    numbers: list[int]
    boxes: list[Box]
    cuts: list[Cutout]


def rows_work(plan: InstancesPlan) -> UnitWork[Any, Any]:
    """Make the last pass: measure and outline the instances that begin in each unit."""
    pictures = [Multiscale.open(plan.labels_place(source) / "labels.zarr") for source in plan.sources.pictures]

    def load(unit: Unit) -> Owned:
        part = plan.parts[unit.index]
        return _owned(part, plan.objects(part.number), pictures[part.number])

    def compute(unit: Unit, owned: Owned) -> list[dict[str, Any]]:
        part = plan.parts[unit.index]
        objects = plan.objects(part.number)
        return [_entry(plan, part, objects, number, cut) for number, cut in zip(owned.numbers, owned.cuts, strict=True)]

    def store(unit: Unit, entries: list[dict[str, Any]]) -> Mapping[str, Any]:
        data = json.dumps(entries).encode()
        plan.rows_place(unit).write_bytes(data)
        return {"bytes_written": len(data), "instances": len(entries)}

    return UnitWork(load=load, compute=compute, store=store, mark=plan.record.mark)


def _owned(part: Part, objects: Objects, labels: Multiscale) -> Owned:
    """Cut out the instances that begin in a unit; what lies around it is read once, larger ones by themselves."""
    box = part.write_box
    y, x = objects.first.T
    mine = np.flatnonzero((y >= box.y0) & (y < box.y1) & (x >= box.x0) & (x < box.x1))
    boxes = [objects.box(number) for number in mine.tolist()]
    window = box.grow(box.width // 4).intersect(Box(0, 0, *part.source.shape_yx))
    near = [one for one in boxes if window.contains(one)]
    cuts = []
    if near:
        hull = near[0]
        for one in near:
            hull = hull.union(one)
        whole = _pixels(part, labels, hull)
    for number, one in zip(mine.tolist(), boxes, strict=True):
        shown = (hull, whole) if window.contains(one) else (one, _pixels(part, labels, one))
        cuts.append(_cut(one, number + 1, *shown))
    return Owned([number + 1 for number in mine.tolist()], boxes, cuts)


def _pixels(part: Part, labels: Multiscale, box: Box) -> tuple[Labels, NDArray[np.float32], NDArray[Any] | None]:
    probability = Evidence.of(part.source.map(box)).object
    return labels.levels[0].read(box.slices), probability, part.source.grey(box)


def _cut(box: Box, label: int, hull: Box, pixels: tuple[Labels, NDArray[np.float32], NDArray[Any] | None]) -> Cutout:
    labels, probability, grey = pixels
    inside = box.within(hull)
    return Cutout(box, labels[inside] == label, probability[inside], None if grey is None else grey[inside])


def _entry(plan: InstancesPlan, part: Part, objects: Objects, label: int, cut: Cutout) -> dict[str, Any]:
    """Measure one instance: its row, and as text its feature and annotations."""
    score, source = float(objects.scores[label - 1]), objects.source(label - 1)
    larger = max(cut.box.shape) > plan.config.unit_px if plan.network is None else label - 1 in objects.larger
    row = in_columns(
        {
            **properties(cut, plan.sources.pixel_um),
            "picture": part.source.name,
            "label": label,
            "predicted_iou": score,
            "source": source,
            "larger_than_tile": larger,
        }
    )
    entry: dict[str, Any] = {"picture": part.number, "row": row}
    rings = rings_of(outline(cut.mask, cut.box)) if {"geojson", "coco", "svg"} & set(plan.forms) else []
    if "svg" in plan.forms:
        entry["rings"] = rings
    if "geojson" in plan.forms:
        entry["feature"] = feature_text(rings, row)
    if "coco" in plan.forms:
        flat = [[value for point in ring for value in point] for polygon in rings for ring in polygon[:1]]
        shape = part.source.shape_yx
        runs = {"size": list(shape), "counts": runs_text(cut.mask, cut.box, shape)}
        image = part.number + 1
        entry["polygon"] = coco_annotation(image, row, flat)
        entry["runs"] = coco_annotation(image, row, runs, crowd=True)
    return entry

"""The pass of `inkbatch instances` that asks a network for the proposals of each unit; torch comes late."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.instances.answers import store_answers
from inkbatch.data.instances.ascent import Bools, Evidence
from inkbatch.data.instances.proposals import Proposal, inside_own_component
from inkbatch.data.instances.selection import Answer, FirstPassTile, Instance, Rejection
from inkbatch.geometry import Box, Unit
from inkbatch.io.multiscale import Multiscale
from inkbatch.run.pipeline import UnitWork
from inkbatch.steps.instances.plan import InstancesPlan


@dataclass(frozen=True, eq=False)
class Asked:
    """The proposals of one unit, with what their tiles show.

    Attributes:
        numbers: Places of all proposals of the unit in the picture's list.
        proposals: Those proposals.
        valid: The ones to ask for; a component's centroid may lie outside of it.
        pixels: (height, width, 3) of the box of `first_pass`, RGB.
        first_pass: The first pass around the unit.
    """

    numbers: list[int]
    proposals: list[Proposal]
    valid: list[Proposal]
    pixels: NDArray[np.uint8]
    first_pass: FirstPassTile


def refine_work(plan: InstancesPlan) -> UnitWork[Any, Any]:
    """Ask the network for the proposals whose points lie in each unit."""
    from inkbatch.predict.device import choose_device, device_facts
    from inkbatch.predict.refining import refine

    assert plan.network is not None
    device = choose_device(plan.config.device)
    segmenter = plan.network.build(device)
    pictures = [Multiscale.open(plan.regions_place(source) / "labels.zarr") for source in plan.sources.pictures]
    rules = plan.config.refinement

    def load(unit: Unit) -> Asked:
        return _asked(plan, unit, pictures[plan.parts[unit.index].number])

    def compute(unit: Unit, asked: Asked) -> list[Answer]:
        found = refine(segmenter, asked.pixels, asked.first_pass, asked.valid, plan.choice, rules)
        by_proposal = {one.proposal: one for one in found}
        return [by_proposal.get(one, Rejection(one, "outside")) for one in asked.proposals]

    def store(unit: Unit, computed: tuple[Asked, list[Answer]]) -> Mapping[str, Any]:
        asked, answers = computed
        shown = [_shown(plan, asked, one) for one in answers if isinstance(one, Instance)]
        written = store_answers(plan.answers_place(unit), asked.numbers, answers, shown)
        return {"bytes_written": written, "prompts": len(asked.valid)}

    return UnitWork(
        load=load,
        compute=lambda unit, asked: (asked, compute(unit, asked)),
        store=store,
        mark=plan.answers_record.mark,
        device=lambda: device_facts(device),
    )


def _asked(plan: InstancesPlan, unit: Unit, regions: Multiscale) -> Asked:
    part = plan.parts[unit.index]
    source, found, box = part.source, plan.first_pass(part.number), part.write_box
    mine = [
        (number, one)
        for number, one in enumerate(found.proposals)
        if box.y0 <= one.pixel[0] < box.y1 and box.x0 <= one.pixel[1] < box.x1
    ]
    proposals = [one for _, one in mine]
    valid = inside_own_component(proposals, found.joined, plan.region_at(part.number))
    around = box.grow(plan.config.refinement.halo_px) if valid else Box(box.y0, box.x0, box.y0, box.x0)
    seen = around.intersect(Box(0, 0, *source.shape_yx))
    numbers = regions.levels[0].read(seen.slices).astype(np.int64) - 1
    tile = FirstPassTile(seen, source.shape_yx, Evidence.of(source.map(seen)), numbers)
    return Asked([number for number, _ in mine], proposals, valid, source.colours(seen), tile)


def _shown(plan: InstancesPlan, asked: Asked, one: Instance) -> Bools:
    """Mark the pixels of an instance's box where the map shows object."""
    tile = asked.first_pass
    shown: Bools = tile.evidence.object[one.box.within(tile.box)] >= np.float32(plan.limits.object_from)
    return shown

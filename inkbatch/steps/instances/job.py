"""`inkbatch instances`: maps become separate objects, outlined, numbered and measured.

Three passes over the same units. The first finds basins and writes facts; the second joins all facts of a picture and
writes labels; the last one measures the instances that begin in each unit. With a promptable network there are five:
regions are written instead, the network is asked for the proposals in each unit, its answers of a picture are settled
and painted as labels. What is written does not depend on units.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from inkbatch.io.half_floats import opencv_threads
from inkbatch.io.store.location import Location
from inkbatch.reports.leave import leave_report
from inkbatch.run.job import JobReport, RunContext, begin, run_job
from inkbatch.run.passes import all_whole, run_first, run_rest
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import RunFolder
from inkbatch.steps.instances.finish import finish
from inkbatch.steps.instances.page import doubts, page
from inkbatch.steps.instances.plan import InstancesPlan, make_plan
from inkbatch.steps.instances.refinement import refine_work
from inkbatch.steps.instances.settings import InstancesConfig
from inkbatch.steps.instances.work import facts_work, labels_work, paint_work, regions_work, rows_work
from inkbatch.text import bytes_text, count_text

BASE_BYTES = 150 << 20  # the interpreter with numpy, OpenCV and scikit-image
BYTES_PER_PIXEL = 91  # of a unit with its halo: maps of three classes, heights, ways and their ends; measured
GREY_BYTES, COLOUR_BYTES = 7, 8  # per pixel of a photograph while it is decoded, as grey, and as R, G and B; measured
OBJECT_BYTES = 1000  # facts of a region, its share of a row of units


def run(config: InstancesConfig, context: RunContext) -> JobReport:
    """Find the instances of a segment or of pictures, or do this shard's part of it.

    A pass needs the one before it whole. A shard that finds units of the first pass missing ends with units left; the
    last one finishes what is left of all passes.

    Raises:
        InkbatchError: See `make_plan`; no proposals; damaged data; storage that gave up; a stop signal.
    """
    with opencv_threads(1):
        return _run(make_plan(config), context)


def _run(plan: InstancesPlan, context: RunContext) -> JobReport:
    check_pictures(plan, context)  # a refusal leaves nothing behind, and removes nothing
    begin(plan.record, context)
    middle = _middle(plan)
    records = [plan.facts_record, *(record for record, _ in middle), plan.record]
    if not all_whole([(record, plan.units) for record in records], context):
        words = {"job": "instances", "doing": "searched", "result": "result"}
        first = run_first(plan.facts_record, plan.units, lambda: facts_work(plan), context, **words)
        if not first.complete:
            return first
        for record, work in middle:
            report = run_rest(partial(_pass, plan, record, work), context)
            if not report.complete:
                return report

    def measure(part: RunContext) -> JobReport:
        return run_job(
            plan.record,
            plan.units,
            lambda: rows_work(plan),
            part,
            lambda _: finish(plan),
            _leave,
        )

    return run_rest(measure, context)


def check_pictures(plan: InstancesPlan, context: RunContext) -> None:
    """Look at each picture that this shard has still to search, before anything is computed.

    Raises:
        DataError: One cannot be read, or is no opaque one of 8 bits.
        MismatchError: One has another size than its map.
        Preempted: A stop was asked for.
    """
    if plan.record.is_complete() and not context.replace:
        return
    done = set() if context.replace else plan.facts_record.done()
    pending = (unit for unit in context.shard.select(plan.units) if unit.name not in done)
    for number in sorted({plan.parts[unit.index].number for unit in pending}):
        context.stop.check()
        plan.sources.pictures[number].check()


def _leave(folder: Location, note: Callable[[str], None]) -> None:
    for doubt in doubts((folder / "instances.json").read_mapping()):
        note(f"careful: {doubt}")
    leave_report(folder, note, page)


Work = Callable[[InstancesPlan], UnitWork[Any, Any]]


def _middle(plan: InstancesPlan) -> list[tuple[RunFolder, Work]]:
    """List the passes between the first and the last one."""
    if plan.network is None:
        return [(plan.labels_record, labels_work)]
    asking = [(plan.regions_record, regions_work), (plan.answers_record, refine_work)]
    return [*asking, (plan.labels_record, paint_work)]


def _pass(plan: InstancesPlan, record: RunFolder, work: Work, part: RunContext) -> JobReport:
    return run_job(record, plan.units, lambda: work(plan), part)


def describe(config: InstancesConfig) -> str:
    """Describe the plan, as lines of text. Only metadata are read, nothing is written."""
    plan = make_plan(config)
    pictures = plan.sources.pictures
    pixels = sum(height * width for height, width in (one.shape_yx for one in pictures))
    done = "already complete"
    if not plan.record.is_complete():
        counts = [len(record.done()) for record in (plan.facts_record, plan.labels_record, plan.record)]
        asked = "" if plan.network is None else f"{len(plan.answers_record.done())} refined, "
        done = f"{counts[0]} already searched, {asked}{counts[1]} labelled, {counts[2]} measured"
    return "\n".join(
        [
            f"instances {config.subject}: {count_text(len(pictures), 'picture')}, {pixels:,} px",
            f"  objects       from {plan.limits.object_from:g}, at least {plan.limits.min_px} px, "
            f"growing into boundaries by at most {plan.limits.grow_px} px",
            f"  refine        {_refine(plan)}",
            f"  units         {len(plan.units)}, each in {'three' if plan.network is None else 'five'} passes; {done}",
            f"  halo          {plan.limits.halo_px} px",
            f"  peak memory   {_memory(plan)}",
            f"  writes        labels ({bytes_text(4 * pixels * 4 // 3)} before compression), "
            f"{', '.join(plan.forms)} to {plan.folder}",
        ]
    )


def _memory(plan: InstancesPlan) -> str:
    """Estimate the most memory: units in flight, and a photograph, which is decoded as a whole."""
    beside = "" if plan.network is None else " beside the network"
    units = max(part.read_box.area for part in plan.parts) * BYTES_PER_PIXEL
    photographs = [math.prod(one.shape_yx) for one in plan.sources.pictures if one.is_decoded_whole]
    whole, per_pixel = max(photographs, default=0), GREY_BYTES if plan.network is None else COLOUR_BYTES
    total = BASE_BYTES + max(whole * per_pixel, whole + units)  # grey stays, the rest is gone before units are computed
    return f"about {bytes_text(total)}{beside}, and {bytes_text(OBJECT_BYTES * 1_000_000)} per million objects"


def _refine(plan: InstancesPlan) -> str:
    if plan.network is None:
        return "none"
    document, rules = plan.network.document, plan.config.refinement
    tiles = f"tiles of {rules.cell_px} px with {rules.halo_px} px around"
    return f"{document.name} ({document.kind}), {tiles}, by {rules.prompts}"


def summary(folder: Location) -> list[str]:
    """Sum up a finished result in lines of text."""
    facts = (folder / "instances.json").read_mapping()
    counts = facts["counts"]
    return [
        f"instances: {count_text(facts['instances'], 'instance')}; of {count_text(counts['proposals'], 'proposal')} "
        f"{counts['proposals_instance']:,} are an instance, {counts['proposals_merged']:,} merged into one, "
        f"{counts['proposals_rejected']:,} rejected"
    ]

"""`inkbatch sweep`: bundles over depths, directions, phases and nulls of one segment, from one reading of its layers.

Two stages over the same units. The first computes every map and keeps statistics over depths, with exact counts; the
second needs the counts of every unit for the bundles' stretches, and puts the bundles together.
"""

from __future__ import annotations

from inkbatch.data.datasets.trained_pixels import TrainedPixels
from inkbatch.errors import DataError
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.reports.leave import leave_report
from inkbatch.run.job import JobReport, RunContext, begin, run_job
from inkbatch.run.passes import all_whole, run_first, run_rest
from inkbatch.steps.live_preview import live_preview
from inkbatch.steps.sweep.control import control_record, control_units, control_work, rules_of, stored_control
from inkbatch.steps.sweep.maps import maps_work
from inkbatch.steps.sweep.page import one_network
from inkbatch.steps.sweep.page import page as report_page
from inkbatch.steps.sweep.plan import SweepPlan, make_plan
from inkbatch.steps.sweep.settings import SweepConfig as SweepConfig
from inkbatch.steps.sweep.together import Summary, finish, together_work
from inkbatch.text import share_text


def run(config: SweepConfig, context: RunContext) -> JobReport:
    """Sweep a segment, or this shard's part of it.

    The second stage needs the counts of every unit. A shard that finds some missing (another shard has them in hand)
    ends after its first stage with units left; the last one finishes the sweep.

    Raises:
        InkbatchError: See `make_plan`; damaged surface; a model that returns NaN; storage that gave up; a stop signal.
    """
    plan = make_plan(config)
    _warn(plan, context)
    begin(plan.record, context)  # refuses a result of other settings or inputs before any work is done
    summary = Summary(plan)
    planted = control_units(plan)
    control = control_record(plan, planted)
    passes = [(plan.maps_record, plan.units), (control, planted), (plan.record, plan.units)]
    if not all_whole([(record, units) for record, units in passes if units], context):
        words = {"job": "sweep", "doing": "computed", "result": "sweep"}
        first = run_first(plan.maps_record, plan.units, lambda: maps_work(plan, context), context, **words)
        live_preview(context, plan.volume.shape_yx, plan.folder).place.delete()
        if not first.complete:
            return first
        if summary.pixels == 0:
            left_out = ", and what its preflight left out" if config.preflight == "mask" else ""
            raise DataError(f"segment {config.segment}: no tile holds papyrus; check its mask{left_out}")
        if planted:
            controlled = run_rest(
                lambda part: run_job(control, planted, lambda: control_work(plan, summary, control, context), part),
                context,
            )
            if not controlled.complete:
                return controlled

    def together(part: RunContext) -> JobReport:
        return run_job(
            plan.record,
            plan.units,
            lambda: together_work(plan, summary),
            part,
            lambda _: finish(plan, summary, rules_of(plan), stored_control(plan, planted)),
            lambda folder, note: leave_report(folder, note, report_page, Location.parse(config.root)),
        )

    return run_rest(together, context)


def summary_lines(folder: Location) -> list[str]:
    """Sum up a finished sweep in lines of text: stretch of each bundle, and how far its nulls lie below it."""
    document = (folder / "sweep.json").read_mapping()
    lines = []
    for row in document["bundles"]:
        means = ", ".join(f"{name} {found['mean']:.3f}" for name, found in row["series"].items())
        stretch = row["stretch"]
        lines.append(f"sweep: {row['name']} mean {stretch['mean']:.3f} ± {stretch['deviation']:.3f} (means: {means})")
    return lines


def _warn(plan: SweepPlan, context: RunContext) -> None:
    for member in plan.members:
        for text in member.bundle.document.warnings:
            context.reporter.note(f"warning: bundle {member.name}: {text}")
    for text in one_network([(member.name, member.bundle.document.weights_sha256) for member in plan.members]):
        context.reporter.note(f"careful: {text}")
    if plan.judged is not None:
        context.reporter.note(f"preflight {plan.judged.record['name']}: {plan.judged.sentence}")
    share = trained_share(plan)
    if share:
        context.reporter.note(
            f"careful: {share_text(share)} of segment {plan.config.segment} trained a network of this sweep; what it "
            "finds there it has seen before"
        )


def trained_share(plan: SweepPlan) -> float:
    """Share of the surface's pixels, papyrus or not, that trained a network of the sweep."""
    whole = Box(0, 0, *plan.volume.shape_yx)
    return TrainedPixels.of(plan.manifest.inputs.get("trained_on", {})).share([whole])

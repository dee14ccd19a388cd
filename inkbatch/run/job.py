"""The frame around every big job: manifest, what is done already, the loop, `complete`, and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from inkbatch.errors import InkbatchError, Preempted
from inkbatch.geometry import Unit
from inkbatch.io.store.location import Location
from inkbatch.run.identity import ShardSpec
from inkbatch.run.pipeline import StageSeconds, UnitWork, run_units
from inkbatch.run.progress import QuietReporter, Reporter, Reporting
from inkbatch.run.record import RunFolder, RunFolders, report_place
from inkbatch.run.run_file import Usage, write_run_file
from inkbatch.run.signals import StopFlag


@dataclass(frozen=True)
class RunContext:
    """How this process runs, none of which changes the result; several jobs in a row may share one.

    Attributes:
        shard: The part of the units that this process does.
        stop: Set by signals; checked at safe points.
        reporter: Where progress goes.
        attempt: The scheduler's attempt number, from 1.
    """

    shard: ShardSpec = field(default_factory=ShardSpec)
    stop: StopFlag = field(default_factory=StopFlag)
    reporter: Reporter = field(default_factory=QuietReporter)
    attempt: int = 1


@dataclass(frozen=True)
class JobReport:
    """What a process did.

    Attributes:
        job: Name of the job.
        location: Folder of the run.
        units: Units in the plan.
        stored: Units that this process stored.
        skipped: Units of this shard that were done before.
        left: Units of the plan without a marker, all shards together.
        seconds: Wall-clock seconds.
        facts: Sums over this process's units, and stage seconds.
        beside: Folders of the other runs that were made together with this one.
    """

    job: str
    location: Location
    units: int
    stored: int
    skipped: int
    left: int
    seconds: float
    facts: Mapping[str, Any]
    beside: tuple[Location, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every unit of the plan is stored."""
        return self.left == 0


Finish = Callable[[RunFolder], Mapping[str, Any]]
Note = Callable[[str], None]
Report = Callable[[Location, Note], None]


def run_job(
    folder: RunFolder | RunFolders,
    units: Sequence[Unit],
    make_work: Callable[[], UnitWork[Any, Any]],
    context: RunContext,
    finish: Finish = lambda folder: {},
    report: Report | None = None,
) -> JobReport:
    """Do this shard's missing units, and complete the run when no unit of the plan is left.

    Args:
        folder: The run's folder, or those of several runs that are made together; manifests are written first.
        units: The whole plan.
        make_work: Builds the job's functions; not called when there is nothing to do, so that a finished task never
            touches the device.
        context: How this process runs.
        finish: Called for each folder by whoever finds every marker standing, before ``complete.json``; must give equal
            results when it is called twice. Its facts go into ``complete.json``.
        report: Leaves the page of each finished run, from what is stored: called last, by every process that finds the
            run whole, so that the page of a sharded run has all their clocks. Must not raise.

    Raises:
        Preempted: A stop was asked for; markers tell what is done.
    """
    usage = Usage()
    beside = tuple(part.location for part in folder.parts[1:])
    folder.begin()
    if folder.is_complete():
        context.reporter.note(f"{folder.manifest.job}: already complete at {folder.location}, nothing to do")
        if report:
            for part in folder.parts:  # a process may have died between complete.json and the page
                if not _page_of(part).exists():
                    report(part.location, context.reporter.note)
        return JobReport(folder.manifest.job, folder.location, len(units), 0, len(units), 0, 0.0, {}, beside)
    if report:
        for part in folder.parts:
            _page_of(part).delete()  # it would show a result that is not whole
    mine = context.shard.select(units)
    done = folder.done()
    pending = [unit for unit in mine if unit.name not in done]
    stages, sums = StageSeconds(), _Sums()
    work: UnitWork[Any, Any] | None = None
    reason = "done"
    try:
        with Reporting(context.reporter) as reporter:
            reporter.start(folder.manifest.job, len(mine), len(mine) - len(pending))

            def on_done(unit: Unit, facts: Mapping[str, Any]) -> None:
                sums.add(facts)
                pace = usage.pace(stages if work and work.compute else None)
                reporter.unit(unit.name, {**facts, **pace})

            if pending:
                work = make_work()
                usage.loop_begins()
                run_units(pending, work, stop=context.stop, on_done=on_done, seconds=stages)
                usage.loop_ends()
        left = len(folder.missing(units))
        if left == 0:
            for part in folder.parts:
                part.complete(finish(part))
    except InkbatchError as error:
        reason = str(error)
        if isinstance(error, Preempted):
            stored = sums.units
            raise Preempted(
                f"{reason}; {stored} units were stored by this process, {len(pending) - stored} of its own are left; "
                "run the same command again to go on"
            ) from error
        raise
    finally:
        computed_on = work.device() if work else {"device": "cpu"}
        facts: dict[str, Any] = {**sums.totals, **usage.stage_facts(stages), **computed_on}
        facts |= {"units_stored": sums.units, "units_skipped": len(mine) - len(pending)}
        if beside:
            facts["made_together"] = [part.location.name for part in folder.parts]
        for part in folder.parts:
            write_run_file(part, context.shard, context.attempt, usage, reason, facts)
        seconds = usage.seconds
    if left == 0 and report:
        for part in folder.parts:
            report(part.location, context.reporter.note)
    return JobReport(
        folder.manifest.job,
        folder.location,
        len(units),
        sums.units,
        len(mine) - len(pending),
        left,
        seconds,
        facts,
        beside,
    )


def run_rest(do: Callable[[RunContext], JobReport], context: RunContext) -> JobReport:
    """Do this shard's part of a last pass, then what the others left: whoever finds all facts finishes the run.

    The shards of a job of two passes end after the first one while others still have units of it in hand; the last one
    that ends finds everything, and nobody comes after it. Two that end together store equal bytes.

    Args:
        do: The last pass, or one shard's part of it.
        context: How this process runs.
    """
    report = do(context)
    if report.complete or context.shard.count == 1:
        return report
    others = do(replace(context, shard=ShardSpec()))
    return replace(others, stored=report.stored + others.stored, seconds=report.seconds + others.seconds)


def _page_of(part: RunFolder) -> Location:
    return report_place(part.location, part.manifest.job)


class _Sums:
    """Sums of the numeric facts of finished units."""

    def __init__(self) -> None:
        self.units = 0
        self.totals: dict[str, float] = {}

    def add(self, facts: Mapping[str, Any]) -> None:
        self.units += 1
        for key, value in facts.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self.totals[key] = self.totals.get(key, 0) + value

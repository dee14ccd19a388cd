"""Frame of every big job: manifest, markers that are there, the loop over units, `complete`, run file and page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from inkbatch.errors import InkbatchError, Preempted
from inkbatch.geometry import Unit
from inkbatch.io.store.local_files import remove_leftovers
from inkbatch.io.store.location import Location
from inkbatch.run.identity import ShardSpec
from inkbatch.run.pipeline import StageSeconds, UnitWork, run_units
from inkbatch.run.progress import QuietReporter, Reporter, Reporting
from inkbatch.run.record import RunFolder, RunFolders, report_place, totals_of
from inkbatch.run.run_file import Usage, write_run_file
from inkbatch.run.signals import StopFlag
from inkbatch.text import count_text, done_text


@dataclass(frozen=True)
class RunContext:
    """Circumstances of a process, none of which changes the result; several jobs in a row may share one.

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
    """Account of what a process did.

    Attributes:
        job: Name of the job.
        location: Folder of the run.
        units: Units in the plan.
        stored: Units that this process stored.
        skipped: Units of this shard that were already done.
        left: Units of the plan without a marker, all shards together.
        seconds: Wall-clock seconds.
        facts: Sums over this process's units, and seconds per stage.
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
        """True if every unit of the plan is stored."""
        return self.left == 0

    @property
    def counts(self) -> str:
        """Counts for people, for example ``1 unit stored, 3 already done``."""
        return f"{count_text(self.stored, 'unit')} stored, {done_text(self.skipped, complete=False)}"


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
    """Do this shard's missing units, and complete the run if no unit of the plan is left.

    Args:
        folder: The run's folder, or those of several runs that are made together; manifests are written first.
        units: The whole plan.
        make_work: Builds the job's functions; not called if there is nothing to do, so that a finished task never
            touches the device.
        context: Circumstances of this process.
        finish: Called for each run by every process that finds all markers, before ``complete.json``; must give equal
            results if it is called twice. Its facts go into ``complete.json``.
        report: Writes the page of each finished run from stored files. Called last, by every process that finds the run
            complete, so that the page of a sharded run has all their clocks. Must not raise.

    Raises:
        Preempted: The stop flag is set; markers tell what is done.
    """
    usage = Usage()
    folder.begin()
    if folder.is_complete():
        return _already_complete(folder, units, context, report)
    if report:
        _delete_pages(folder)  # they would show a result that is not whole
    _remove_leftovers(folder)
    process = _Process(folder, units, context, usage)
    try:
        process.do_pending_units(make_work)
        left = len(folder.missing(units))
        if left == 0:
            _complete(folder, finish)
    except Preempted as error:
        process.ended = str(error)
        raise Preempted(process.stopped_because(error)) from error
    except InkbatchError as error:
        process.ended = str(error)
        raise
    finally:
        done = process.write_run_files()
    if left == 0 and report:
        _write_pages(folder.runs, context, report)
    return replace(done, left=left)


def run_rest(do: Callable[[RunContext], JobReport], context: RunContext) -> JobReport:
    """Do this shard's units of a last pass, then those that other shards left.

    The shards of a job with two passes end after the first pass while others still compute units of it. The last shard
    finds everything, and no process comes after it to finish the run. Two that end together store equal bytes.

    Args:
        do: Does the last pass for the shard of the context that it is given.
        context: Circumstances of this process.
    """
    report = do(context)
    if report.complete or context.shard.count == 1:
        return report
    others = do(replace(context, shard=ShardSpec()))
    return replace(others, stored=report.stored + others.stored, seconds=report.seconds + others.seconds)


def _already_complete(
    folder: RunFolder | RunFolders, units: Sequence[Unit], context: RunContext, report: Report | None
) -> JobReport:
    """Say that nothing is left to do; write pages that a process did not live to write."""
    context.reporter.note(f"{folder.manifest.job}: already complete at {folder.location}, nothing to do")
    if report:
        _write_pages([run for run in folder.runs if not _page_of(run).exists()], context, report)
    return _report_of(folder, units, skipped=len(units))


def _complete(folder: RunFolder | RunFolders, finish: Finish) -> None:
    for run in folder.runs:
        run.complete(finish(run))


def _write_pages(runs: Iterable[RunFolder], context: RunContext, report: Report) -> None:
    for run in runs:
        report(run.location, context.reporter.note)


def _delete_pages(folder: RunFolder | RunFolders) -> None:
    for run in folder.runs:
        _page_of(run).delete()


def _remove_leftovers(folder: RunFolder | RunFolders) -> None:
    """Remove temporary files of processes that were killed, on a local disk."""
    for run in folder.runs:
        if run.location.is_local:
            remove_leftovers(_page_of(run).parent.path)


def _page_of(run: RunFolder) -> Location:
    return report_place(run.location, run.manifest.job)


def _report_of(folder: RunFolder | RunFolders, units: Sequence[Unit], skipped: int) -> JobReport:
    """Make the report of a process that stored nothing."""
    beside = tuple(run.location for run in folder.runs[1:])
    return JobReport(folder.manifest.job, folder.location, len(units), 0, skipped, 0, 0.0, {}, beside)


class _Process:
    """Share of one process in a run: its units, clocks and counts.

    Attributes:
        ended: ``done``, or why it stopped; goes into the run file.
    """

    def __init__(
        self, folder: RunFolder | RunFolders, units: Sequence[Unit], context: RunContext, usage: Usage
    ) -> None:
        done = folder.done()
        self.ended = "done"
        self._folder, self._units, self._context, self._usage = folder, units, context, usage
        self._mine = context.shard.select(units)
        self._pending = [unit for unit in self._mine if unit.name not in done]
        self._work: UnitWork[Any, Any] | None = None
        self._stages, self._sums = StageSeconds(), _Sums()

    @property
    def skipped(self) -> int:
        """Units of this shard that were already done."""
        return len(self._mine) - len(self._pending)

    def do_pending_units(self, make_work: Callable[[], UnitWork[Any, Any]]) -> None:
        """Run the loop over this shard's missing units, and tell the reporter of each."""
        with Reporting(self._context.reporter) as reporter:
            reporter.start(self._folder.manifest.job, len(self._mine), self.skipped)
            if not self._pending:
                return
            work = self._work = make_work()

            def on_done(unit: Unit, facts: Mapping[str, Any]) -> None:
                totals = totals_of(facts)
                self._sums.add(totals)
                pace = self._usage.pace(self._stages if work.compute else None)
                reporter.unit(unit.name, {**totals, **pace})

            self._usage.loop_begins()
            run_units(self._pending, work, stop=self._context.stop, on_done=on_done, seconds=self._stages)
            self._usage.loop_ends()

    def stopped_because(self, error: Preempted) -> str:
        """Write the message of a stop, with what is left for the next process."""
        stored = self._sums.units
        return (
            f"{error}; {count_text(stored, 'unit')} stored by this process, {len(self._pending) - stored} of its own "
            "are left; run the same command again to go on"
        )

    def write_run_files(self) -> JobReport:
        """Write this process's row beside every run, however it ended, and report it."""
        device = self._work.device() if self._work else {"device": "cpu"}
        facts: dict[str, Any] = {**self._sums.totals, **self._usage.stage_facts(self._stages), **device}
        facts |= {"units_stored": self._sums.units, "units_skipped": self.skipped}
        runs = self._folder.runs
        if len(runs) > 1:
            facts["made_together"] = [run.location.name for run in runs]
        for run in runs:
            write_run_file(run, self._context.shard, self._context.attempt, self._usage, self.ended, facts)
        report = _report_of(self._folder, self._units, self.skipped)
        return replace(report, stored=self._sums.units, seconds=self._usage.seconds, facts=facts)


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

"""Frame of every big job: manifest, markers that are there, the loop over units, `complete`, run file and page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from inkbatch.errors import InkbatchError, Preempted, StorageError
from inkbatch.geometry import Unit
from inkbatch.io.store.ledger import make_durable, recording
from inkbatch.io.store.local_files import remove_leftovers
from inkbatch.io.store.location import Location
from inkbatch.run.identity import ShardSpec
from inkbatch.run.objects import broken_units, reopened, sealed
from inkbatch.run.pipeline import StageSeconds, UnitWork, run_units
from inkbatch.run.progress import QuietReporter, Reporter, Reporting
from inkbatch.run.record import RunFolder, RunFolders, report_place, totals_of
from inkbatch.run.replacing import remove_other
from inkbatch.run.run_file import Usage, write_run_file
from inkbatch.run.signals import StopFlag
from inkbatch.text import count_text, done_text

ROUNDS = 3  # in which units whose objects vanished are done again
ASKED_BY_NAME = 512  # markers that a listing lacks and that are read one by one


@dataclass(frozen=True)
class RunContext:
    """Circumstances of a process, none of which changes the result; several jobs in a row may share one.

    Attributes:
        shard: The part of the units that this process does.
        stop: Set by signals; checked at safe points.
        reporter: Where progress goes.
        attempt: The scheduler's attempt number, from 1.
        replace: Remove what another run left at a job's place, or this run if its inputs have changed since.
    """

    shard: ShardSpec = field(default_factory=ShardSpec)
    stop: StopFlag = field(default_factory=StopFlag)
    reporter: Reporter = field(default_factory=QuietReporter)
    attempt: int = 1
    replace: bool = False


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
        noun: What a unit is for people: of `train` a run.
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
    noun: str = "unit"

    @property
    def complete(self) -> bool:
        """True if every unit of the plan is stored."""
        return self.left == 0

    @property
    def counts(self) -> str:
        """Counts for people, for example ``1 unit stored, 3 already done``."""
        return f"{count_text(self.stored, self.noun)} stored, {done_text(self.skipped, complete=False)}"


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
        MismatchError: The place holds another run, or inputs have changed since it was made; see `begin`.
        Preempted: The stop flag is set; markers tell what is done.
        StorageError: Units of a run without shards have no marker in the end, or objects vanish again.
    """
    usage = Usage()
    begin(folder, context)
    if is_whole(folder, units, context):
        return _already_complete(folder, units, context, report)
    process = _Process(folder, units, context, usage)

    def begun_work() -> UnitWork[Any, Any]:
        work = make_work()  # it may refuse, and a refusal touches nothing
        if report:
            _delete_pages(folder)  # they would show a result that is not whole
        return work

    try:
        process.do_pending_units(begun_work)
        left = process.settle(begun_work)
        if left == 0:
            _complete(folder, units, finish)
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


def begin(folder: RunFolder | RunFolders, context: RunContext) -> bool:
    """Write the manifests, or join the run that wrote equal ones; with ``--replace`` remove others first.

    Temporary files that a killed process left are removed.

    Returns:
        True if this process wrote them all.

    Raises:
        MismatchError: See `RunFolder.begin`.
        ConfigError: See `remove_other`.
    """
    if context.replace:
        for run in folder.runs:
            remove_other(run, context.shard, context.reporter.note)
    created = folder.begin()
    _remove_leftovers(folder)
    return created


def _already_complete(
    folder: RunFolder | RunFolders, units: Sequence[Unit], context: RunContext, report: Report | None
) -> JobReport:
    """Say that nothing is left to do; write pages that a process did not live to write."""
    context.reporter.note(f"{folder.manifest.job}: already complete at {folder.location}, nothing to do")
    if report:
        _write_pages([run for run in folder.runs if not _page_of(run).exists()], context, report)
    return _report_of(folder, units, skipped=len(units))


def is_whole(folder: RunFolder | RunFolders, units: Sequence[Unit], context: RunContext) -> bool:
    """Tell if the run is complete and its objects are there; what is missing is forgotten, to be done again.

    Objects are those of the units, and the files that the end of the job wrote. Where no marker is left (a copy of the
    result alone), ``complete.json`` stands for itself.
    """
    if not folder.is_complete():
        return False
    broken: dict[Unit, str] = {}
    marked = [run for run in folder.runs if run.done()]
    for run in marked:
        broken |= broken_units(run, units)
    again = [reopened(run, run.manifest.job, context.reporter.note) for run in marked]
    if not broken:
        return not any(again)
    for run in folder.runs:
        (run.location / "complete.json").delete()
    _forget(folder, broken, context)
    return False


def _forget(folder: RunFolder | RunFolders, broken: Mapping[Unit, str], context: RunContext) -> None:
    """Remove the markers of units whose objects are gone."""
    first = next(iter(broken.values()))
    count = count_text(len(broken), "unit")
    context.reporter.note(f"{folder.manifest.job}: {count} of {folder.location} must be done again: {first}")
    for unit in broken:
        folder.forget(unit)


def _complete(folder: RunFolder | RunFolders, units: Sequence[Unit], finish: Finish) -> None:
    for run in folder.runs:
        run.require_own()
        run.require_inputs()
        with recording() as ledger:
            facts = finish(run)
        make_durable(ledger)
        run.complete({**facts, **sealed(run, units, ledger)})


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
        self.ended = "done"
        self._folder, self._units, self._context, self._usage = folder, units, context, usage
        self._mine = context.shard.select(units)
        self._marked = self._still_there()
        self._pending = [unit for unit in self._mine if unit.name not in self._marked]
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
            self._do(self._pending, make_work, reporter)

    def settle(self, make_work: Callable[[], UnitWork[Any, Any]]) -> int:
        """Look at every marker and object before the run counts as whole; do again what is not there.

        Returns:
            Units without a marker, which other shards have in hand; 0 once all objects are there.

        Raises:
            StorageError: This process did every unit and some have no marker; objects vanish again.
        """
        for _ in range(ROUNDS):
            left = self._unmarked()
            if left and self._context.shard.count > 1:
                return len(left)
            broken = {} if left else self._broken(self._units)
            if not left and not broken:
                return 0
            if broken:
                _forget(self._folder, broken, self._context)
            again = left or list(broken)
            self._marked -= {unit.name for unit in again}
            with Reporting(self._context.reporter) as reporter:
                reporter.start(self._folder.manifest.job, len(again), 0)
                self._do(again, make_work, reporter)
        raise StorageError(
            f"{self._folder.location}: objects that were stored are missing, again after they were stored once more; "
            "look for what removes them (a lifecycle rule, a full disk, another job), then run the same command again"
        )

    def _do(self, units: Sequence[Unit], make_work: Callable[[], UnitWork[Any, Any]], reporter: Reporter) -> None:
        work = self._work = self._work or make_work()

        def on_done(unit: Unit, facts: Mapping[str, Any]) -> None:
            self._marked.add(unit.name)
            totals = totals_of(facts)
            self._sums.add(totals)
            pace = self._usage.pace(self._stages if work.device else None)
            reporter.unit(unit.name, {**totals, **pace})

        def store(unit: Unit, computed: Any) -> Mapping[str, Any]:
            for run in self._folder.runs:
                run.require_own()  # another job with --replace may have taken the place: write nothing into its arrays
            facts = work.store(unit, computed)
            for run in self._folder.runs:
                run.require_inputs()
            return {**facts, "read": self._folder.manifest.read}

        self._usage.loop_begins()
        guarded = replace(work, store=store)
        run_units(units, guarded, stop=self._context.stop, on_done=on_done, seconds=self._stages)
        self._usage.loop_ends()

    def _unmarked(self) -> list[Unit]:
        """List the units without a marker. Own markers count at once; a few that a listing lacks are read by name."""
        known = self._folder.done() | self._marked
        missing = [unit for unit in self._units if unit.name not in known]
        if 0 < len(missing) <= ASKED_BY_NAME:
            found = [run.markers(missing) for run in self._folder.runs]
            missing = [unit for unit in missing if any(markers[unit.name] is None for markers in found)]
        return missing

    def _still_there(self) -> set[str]:
        """Return the names of this shard's units that are done; those whose objects are gone are forgotten."""
        done = self._folder.done()
        broken = self._broken([unit for unit in self._mine if unit.name in done])
        if broken:
            _forget(self._folder, broken, self._context)
        return done - {unit.name for unit in broken}

    def _broken(self, units: Sequence[Unit]) -> dict[Unit, str]:
        found: dict[Unit, str] = {}
        for run in self._folder.runs:
            found |= broken_units(run, units)
        return found

    def stopped_because(self, error: Preempted) -> str:
        """Write the message of a stop, with what is left for the next process."""
        stored = self._sums.units
        left = max(0, len(self._pending) - stored)
        return (
            f"{error}; {count_text(stored, 'unit')} stored by this process, {left} of its own "
            "are left; run the same command again to go on"
        )

    def write_run_files(self) -> JobReport:
        """Write this process's row beside every run, however it ended, and report it."""
        device = self._work.device() if self._work and self._work.device else {"device": "cpu"}
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

"""Jobs of several passes over their units: each pass needs the one before it whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from inkbatch.geometry import Unit
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import JobReport, RunContext, is_whole, run_job
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import RunFolder
from inkbatch.text import count_text


def all_whole(passes: Sequence[tuple[RunFolder, Sequence[Unit]]], context: RunContext) -> bool:
    """Tell if the last pass of a job is complete, and the objects of all its passes are there; see `is_whole`.

    Args:
        passes: Every pass that leaves a run, in their order, each with its own plan of units.
        context: Circumstances of this process.
    """
    last, _ = passes[-1]
    looked_at = passes if last.done() else passes[-1:]
    whole = [is_whole(record, units, context) for record, units in looked_at]  # each forgets its own
    return all(whole)


def run_first(
    record: RunFolder,
    units: Sequence[Unit],
    make_work: Callable[[], UnitWork[Any, Any]],
    context: RunContext,
    *,
    job: str,
    doing: str,
    result: str,
) -> JobReport:
    """Do this shard's units of a first pass, and say it where other shards still have some in hand.

    Args:
        record: The pass' run.
        units: The whole plan.
        make_work: See `run_job`.
        context: Circumstances of this process.
        job: Name of the job, for the words.
        doing: Work on a unit, for the words: "counted".
        result: Result of the job, for the words: "map".
    """
    report = run_job(record, units, make_work, context)
    if not report.complete:
        context.reporter.note(
            f"{job}: {report.left} of {count_text(report.units, 'unit')} to be {doing} by other shards; the last one "
            f"of them finishes the {result}"
        )
    return report


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

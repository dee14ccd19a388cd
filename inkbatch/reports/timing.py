"""Time and money by stage, from the rows that a run's processes left in their run files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inkbatch.reports.page import Spent, Stage, Table
from inkbatch.reports.render import usd_text
from inkbatch.text import seconds_text

STAGES = ("getting ready", "computing", "waiting for storage", "finishing")
MOST_PROCESSES = 100


def spent(rows: Sequence[Mapping[str, Any]], names: Sequence[str | None] = STAGES) -> Spent | None:
    """Divide the wall clock of a run's processes, and the money, into stages.

    A process gets ready (opens inputs, builds a network), then its loop computes or waits for what is read and written
    beside it, then it finishes. These four add up to the wall clock, so each has its share of the money.

    Args:
        rows: See `run_rows`.
        names: Names of the four stages for this job; the second is None where no device computes, and what
            computed nevertheless belongs to the third.
    """
    if not rows:
        return None
    seconds = [0.0, 0.0, 0.0, 0.0]
    usd = [0.0, 0.0, 0.0, 0.0]
    priced = all(money_of(row) is not None for row in rows)
    for row in rows:
        ready, computing, rest, finishing = _parts(row)
        parts = (ready, computing, rest, finishing) if names[1] else (ready, 0.0, computing + rest, finishing)
        total = max(sum(parts), 1e-9)
        for number, part in enumerate(parts):
            seconds[number] += part
            usd[number] += (money_of(row) or 0.0) * part / total
    named = zip(names, seconds, usd, strict=True)
    stages = tuple(Stage(name, taken, money if priced else None) for name, taken, money in named if name is not None)
    return Spent(stages, _sentence(rows, priced), _processes(rows) if len(rows) > 1 else None)


def money_of(row: Mapping[str, Any]) -> float | None:
    """Return the cost of a process: at the stated price, else at the machine's price on demand; None if unknown."""
    found = row.get("usd_stated", row.get("usd_on_demand"))
    return None if found is None else float(found)


def money_text(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Format the cost of all processes together; None if a price is unknown."""
    known = [money_of(row) for row in rows]
    return None if not known or None in known else usd_text(sum(value or 0.0 for value in known))


def device_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Name the devices that computed."""
    found = dict.fromkeys(str(row.get("device_name") or _device(row)) for row in rows if row.get("device"))
    return ", ".join(found) or "an unknown device"


def stops(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the reasons of processes that ended before their share was done."""
    return [str(row["ended"]) for row in rows if row.get("ended") not in (None, "done")]


def _device(row: Mapping[str, Any]) -> str:
    return str(row.get("processor") or "the CPU") if row["device"] == "cpu" else str(row["device"])


def _parts(row: Mapping[str, Any]) -> tuple[float, float, float, float]:
    total, loop = float(row.get("seconds", 0)), float(row.get("loop_s", 0))
    ready, computing = float(row.get("setup_s", 0)), min(float(row.get("compute_s", 0)), loop)
    return ready, computing, loop - computing, max(0.0, total - ready - loop)


def _sentence(rows: Sequence[Mapping[str, Any]], priced: bool) -> str:
    last = rows[-1]
    words = f"{len(rows)} processes" if len(rows) > 1 else "One process"
    words += (
        f" on {device_of(rows)}, {last.get('cores', '?')} cores each, {seconds_text(_sum(rows, 'seconds'))} in all."
    )
    reading, writing = _sum(rows, "load_s"), _sum(rows, "store_s")
    if reading or writing:
        words += f" Beside the loop, threads read for {seconds_text(reading)} and wrote for {seconds_text(writing)}."
    if not priced:
        return f"{words} No price was stated (INKBATCH_MACHINE or INKBATCH_USD_PER_HOUR), so no money is shown."
    if any("usd_stated" in row for row in rows):
        return f"{words} Money is the stated price per hour."
    return f"{words} Money is {last.get('machine')} on demand, prices of {last.get('prices_as_of')}."


def _processes(rows: Sequence[Mapping[str, Any]]) -> Table:
    shown = tuple(
        (
            str(row.get("shard", "")),
            str(row.get("attempt", "")),
            str(row.get("started", "")),
            seconds_text(float(row.get("seconds", 0))),
            f"{row.get('units_stored', 0):,}",
            str(row.get("ended", "")),
        )
        for row in rows
    )
    columns = ("shard", "attempt", "started", "time", "units stored", "ended")
    return Table("The processes of this run, those that were stopped included.", columns, shown, frozenset({3, 4}))


def _sum(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    return sum(float(row.get(key, 0)) for row in rows)

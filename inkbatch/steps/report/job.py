"""`inkbatch report`: the pages of finished runs once more, from what is stored alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from pydantic import Field

from inkbatch.config import JobConfig
from inkbatch.data.segments.catalog import check_segment_id
from inkbatch.errors import DataError
from inkbatch.io.store.location import Location
from inkbatch.run.finished import MANIFEST_NAME, StoredRun, open_run
from inkbatch.steps.report.registry import PAGES, write_report
from inkbatch.steps.train.folds_page import TABLE_NAME, fold_runs, is_folds


class ReportConfig(JobConfig):
    """Settings of `inkbatch report`.

    Attributes:
        run: Folder or URI of a run, or its manifest; or else the name of what lies under ROOT: a segment (with all that
            was made of it), a dataset, a training run, a series of rounds.
        root: ROOT; for a run that is given by its folder, the ROOT that holds its segment, where that is another one.
        name: One result of the segment (a prediction, probe, sweep, …), or one round; None takes all.
    """

    job: ClassVar[str] = "report"
    spelled: ClassVar[Mapping[str, str]] = {"run": "RUN"}

    run: str
    root: str | None = None
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")


def run(config: ReportConfig) -> Iterator[str]:
    """Write the pages; yields a line for each.

    Raises:
        ConfigError: A kind of run that has no page.
        DataError: No finished run is there, or what one stored is damaged.
    """
    given = _given(config.run)
    if given is not None:
        for one in fold_runs(given) if is_folds(given) else ():
            yield f"report: {write_report(one.folder)}"
        yield f"report: {write_report(given, Location.parse(config.root) if config.root else None)}"
        return
    root = Location.parse(config.root or "root")
    found = list(_below(root, check_segment_id(config.run), config.name))
    overview = root / "runs" / config.run
    finished = [one for one in found if one.complete]
    if not finished:
        what = f"{config.run} {config.name}" if config.name else config.run
        there = ", ".join(f"{one.folder} is not finished" for one in found) or "nothing is there"
        raise DataError(
            f"report: no finished run of {what} under {root} ({there}); name a run's folder, or give --root and --name"
        )
    for one in found:
        if one.complete:
            yield f"report: {write_report(one.folder, root)}"
        else:
            yield f"report: {one.folder} is not finished, no page was made"
    if config.name is None and is_folds(overview):
        yield f"report: {write_report(overview, root)}"


def _given(text: str) -> Location | None:
    """Return the run's folder that `text` leads to; None if it is a name under ROOT."""
    place = Location.parse(text)
    if "/" in text or any((place / name).exists() for name in (MANIFEST_NAME, f"prepare/{MANIFEST_NAME}", TABLE_NAME)):
        return place
    return None


def _below(root: Location, subject: str, name: str | None) -> Iterator[StoredRun]:
    """List the runs with a page under ROOT by this name: of a segment, a dataset, a training run."""
    folders = (
        [] if name else [root / f"segments/{subject}/prepare", root / f"datasets/{subject}", root / f"runs/{subject}"]
    )
    for room in ("preflights", "probes", "predictions", "sweeps", "instances", "rounds"):
        made = root / room / subject
        folders += [made / one for one in ([name] if name else made.names())]
    for folder in folders:
        for place in (folder, *(folder / one for one in folder.names() if one.startswith(("evaluation", "fold-")))):
            if (place / MANIFEST_NAME).exists():
                found = open_run(place.uri)
                if found.job in PAGES:
                    yield found

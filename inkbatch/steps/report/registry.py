"""Which page belongs to which job, and how it gets to its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from inkbatch.errors import ConfigError
from inkbatch.io.store.location import Location
from inkbatch.reports.page import Page
from inkbatch.reports.render import render, with_foot
from inkbatch.run.finished import StoredRun, open_run
from inkbatch.run.record import REPORT_NAME, report_place
from inkbatch.steps.dataset import page as build_dataset
from inkbatch.steps.ensemble import page as ensemble
from inkbatch.steps.evaluate import page as evaluate
from inkbatch.steps.infer import page as infer
from inkbatch.steps.prepare import page as prepare
from inkbatch.steps.probe import page as probe
from inkbatch.steps.train import folds_page as folds
from inkbatch.steps.train import page as train

ROOMS = ("segments", "datasets", "runs", "probes", "predictions")  # folders of ROOT

PageMaker = Callable[[StoredRun, Location], Page]

PAGES: Mapping[str, PageMaker] = {
    "prepare": prepare.page,
    "build-dataset": build_dataset.page,
    "train": train.page,
    "infer": infer.page,
    "ensemble": ensemble.page,
    "evaluate": evaluate.page,
    "probe": probe.page,
}


def write_report(folder: Location, root: Location | None = None) -> Location:
    """Make a finished run's page from what is stored, and store it.

    Args:
        folder: The run's folder, or the one above the folds of a training.
        root: ROOT that holds what the page shows beside the run (the papyrus under a map); None is the run's own.

    Returns:
        Where the page lies.

    Raises:
        ConfigError: A job that has no page.
        DataError: The run is not complete, or what it stored is damaged.
    """
    if folds.is_folds(folder):
        runs = folds.fold_runs(folder)
        place = folder / REPORT_NAME
        place.write_bytes(render(with_foot(folds.page(folder, runs), *folds.identity(runs))))
        return place
    run = open_run(folder.uri)
    if run.job not in PAGES:
        raise ConfigError(f"{folder}: a {run.job} run has no report page (there are {', '.join(sorted(PAGES))})")
    run.require_complete()
    page = PAGES[run.job](run, root or root_of(run.folder))
    place = report_place(run.folder, run.job)
    place.write_bytes(render(with_foot(page, str(run.manifest["inkbatch"]), str(run.manifest["digest"]))))
    return place


def root_of(folder: Location) -> Location:
    """ROOT of a run's folder: what lies above ``segments``, ``predictions``, …; else the folder's own parent."""
    place = folder
    while place.parent.uri != place.uri:
        if place.name in ROOMS:
            return place.parent
        place = place.parent
    return folder.parent


def leave_report(folder: Location, note: Callable[[str], None], root: Location | None = None) -> None:
    """Make the page at the end of a job; the result stands without it, so a failure is said aloud and ends nothing.

    Args:
        folder: The finished run.
        note: Says something to whoever watches the job.
        root: See `write_report`.
    """
    try:
        place = write_report(folder, root)
    except Exception as error:  # whatever it is: every unit is stored, and the run must not be called a failure
        note(
            f"report: the run at {folder} is whole, but its page could not be made "
            f"({type(error).__name__}: {error}); inkbatch report {folder} tries again"
        )
        return
    note(f"report: {place}")

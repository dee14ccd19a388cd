"""Write the page beside a finished run."""

from __future__ import annotations

from collections.abc import Callable

from inkbatch.io.store.location import Location
from inkbatch.reports.page import Page
from inkbatch.reports.render import render, with_foot
from inkbatch.reports.stored import root_of
from inkbatch.run.finished import StoredRun, open_run
from inkbatch.run.record import report_place

PageMaker = Callable[[StoredRun, Location], Page]
Note = Callable[[str], None]


def write_page(folder: Location, make_page: PageMaker, root: Location | None = None) -> Location:
    """Make the page of a finished run from stored files, and store it.

    Args:
        folder: The run's folder.
        make_page: The job's own page, as a function of the run and ROOT.
        root: ROOT that holds what the page shows beside the run (the papyrus under a map); None is the run's own.

    Returns:
        The page's place.

    Raises:
        DataError: The run is not complete, or what it stored is damaged.
    """
    run = open_run(folder.uri)
    run.require_complete()
    page = make_page(run, root or root_of(run.folder))
    place = report_place(run.folder, run.job)
    place.write_bytes(render(with_foot(page, str(run.manifest["inkbatch"]), str(run.manifest["digest"]))))
    return place


def leave_report(folder: Location, note: Note, make_page: PageMaker, root: Location | None = None) -> None:
    """Write the page at the end of a job; the result stands without it, so a failure is noted and raises nothing.

    Args:
        folder: The finished run.
        note: Receives notes for the user.
        make_page: See `write_page`.
        root: See `write_page`.
    """
    leave(folder, note, lambda: write_page(folder, make_page, root))


def leave(folder: Location, note: Note, write: Callable[[], Location]) -> None:
    """Call `write` and note the page's place, or why there is none."""
    try:
        place = write()
    except Exception as error:  # every unit is stored, so the run must not fail, whatever this is
        note(
            f"report: the run at {folder} is whole, but its page could not be made "
            f"({type(error).__name__}: {error}); inkbatch report {folder} tries again"
        )
        return
    note(f"report: {place}")

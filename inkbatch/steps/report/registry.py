"""Every job's page by the job's name: for the report command, which makes any of them again."""

from __future__ import annotations

from collections.abc import Mapping

from inkbatch.errors import ConfigError
from inkbatch.io.store.location import Location
from inkbatch.reports.leave import PageMaker, write_page
from inkbatch.run.finished import open_run
from inkbatch.steps.dataset import page as dataset
from inkbatch.steps.ensemble import page as ensemble
from inkbatch.steps.evaluate import page as evaluate
from inkbatch.steps.infer import page as infer
from inkbatch.steps.instances import page as instances
from inkbatch.steps.labels import clean_page as clean
from inkbatch.steps.letters import page as letters
from inkbatch.steps.preflight import page as preflight
from inkbatch.steps.prepare import page as prepare
from inkbatch.steps.probe import page as probe
from inkbatch.steps.round import page as rounds
from inkbatch.steps.sweep import page as sweep
from inkbatch.steps.train import folds_page as folds
from inkbatch.steps.train import page as train
from inkbatch.steps.train import soup_page as soup

PAGES: Mapping[str, PageMaker] = {
    "prepare": prepare.page,
    "build-dataset": dataset.page,
    "train": train.page,
    "soup": soup.page,
    "infer": infer.page,
    "ensemble": ensemble.page,
    "evaluate": evaluate.page,
    "clean": clean.page,
    "instances": instances.page,
    "letters": letters.page,
    "probe": probe.page,
    "preflight": preflight.page,
    "sweep": sweep.page,
    "round": rounds.page,
}


def write_report(folder: Location, root: Location | None = None) -> Location:
    """Make the page of a finished run from stored files, and store it.

    Args:
        folder: The run's folder, or the one above the folds of a training.
        root: ROOT that holds what the page shows beside the run (the papyrus under a map); None is the run's own.

    Returns:
        The page's place.

    Raises:
        ConfigError: A job that has no page.
        DataError: The run is not complete, or what it stored is damaged.
    """
    if folds.is_folds(folder):
        return folds.write_folds_page(folder)
    job = open_run(folder.uri).job
    if job not in PAGES:
        raise ConfigError(f"{folder}: a {job} run has no report page (there are {', '.join(sorted(PAGES))})")
    return write_page(folder, PAGES[job], root)

"""The page of a training over folds: how far the folds agree, their curves beside each other, and each one's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from inkbatch.config import digest
from inkbatch.errors import DataError
from inkbatch.io.store.location import Location
from inkbatch.reports.charts.shapes import Axis
from inkbatch.reports.charts.svg import bar_chart
from inkbatch.reports.page import Cell, Chart, Figure, Gallery, Link, Page, Section, Table
from inkbatch.reports.render import render, with_foot
from inkbatch.reports.stored import links, number, shown, table
from inkbatch.reports.timing import money_text, spent
from inkbatch.run.finished import StoredRun, open_run
from inkbatch.run.record import REPORT_NAME
from inkbatch.steps.train.page import OVERALL, SCORES, STAGES, losses_chart, scores_chart

TABLE_NAME = "folds.csv"
DRAWN = ("f05", "dice", "average_precision", "auc")
WIDE_SPREAD = 0.05  # standard deviation of F0.5 over the folds
CURVES_REM = 20

Rows = Sequence[Mapping[str, str]]


def write_folds_page(folder: Location) -> Location:
    """Make the page over all folds of a training from stored files, and store it.

    Raises:
        DataError: A fold is missing or not complete.
    """
    runs = fold_runs(folder)
    place = folder / REPORT_NAME
    place.write_bytes(render(with_foot(page(folder, runs), *identity(runs))))
    return place


def is_folds(folder: Location) -> bool:
    """Tell if a folder holds the folds of a training that have all ended."""
    return (folder / TABLE_NAME).exists()


def fold_runs(folder: Location) -> list[StoredRun]:
    """List the runs of the table, in its order.

    Raises:
        DataError: One is not there, or not complete.
    """
    names = [row["fold"] for row in table(folder / TABLE_NAME) if row["fold"] not in ("mean", "std")]
    if not names:
        raise DataError(f"{folder / TABLE_NAME}: lists no fold; run the same inkbatch train again to write it again")
    runs = [open_run((folder / f"fold-{name}").uri) for name in names]
    for run in runs:
        run.require_complete()
    return runs


def identity(runs: Sequence[StoredRun]) -> tuple[str, str]:
    """Return (version of inkbatch, digest) for the last line: the digest of all folds' digests."""
    return str(runs[0].manifest["inkbatch"]), digest([run.manifest["digest"] for run in runs])


def page(folder: Location, runs: Sequence[StoredRun]) -> Page:
    """Make the page over all folds.

    Args:
        folder: ``ROOT/runs/{run}``.
        runs: See `fold_runs`.

    Raises:
        DataError: A fold's curves are gone.
    """
    rows = table(folder / TABLE_NAME)
    folds, (mean, spread) = rows[:-2], rows[-2:]
    clocks = [row for run in runs for row in run.rows]
    first = runs[0].manifest
    money = money_text(clocks)
    return Page(
        job="train",
        title=f"{first['config']['run']}, {len(runs)} folds",
        sentence=(
            f"The same network learned {len(runs)} times on dataset {first['inputs']['dataset']}, each time with "
            "another fold of it kept back to validate."
        ),
        hero=(_bars(folds),),
        figures=(
            *(
                Figure(f"{shown(number(mean[name]))} ± {shown(number(spread[name]))}", SCORES[name], "mean ± deviation")
                for name in DRAWN
            ),
            Figure(str(len(runs)), "folds"),
            *((Figure(money, "money"),) if money else ()),
        ),
        warnings=tuple(_warnings(folds, number(spread["f05"]))),
        spent=spent(clocks, STAGES),
        sections=(
            Section("All folds", (_table(rows),)),
            Section("Losses, fold by fold", (Gallery(tuple(_curves(runs, losses=True)), CURVES_REM),)),
            Section("Scores, fold by fold", (Gallery(tuple(_curves(runs, losses=False)), CURVES_REM),)),
        ),
        repeat="\n".join(f"inkbatch rerun {run.folder.name}/manifest.json --root ANOTHER_ROOT" for run in runs),
        repeat_note="In this page's folder; each line repeats one fold.",
        files=(
            Link(TABLE_NAME, TABLE_NAME, "scores of every fold, mean and deviation"),
            *links(folder, [(f"{run.folder.name}/{REPORT_NAME}", "the page of this fold") for run in runs]),
        ),
    )


def _bars(folds: Rows) -> Chart:
    series = {SCORES[name]: [number(row[name]) for row in folds] for name in DRAWN}
    f05 = ", ".join(f"fold {row['fold']} {shown(number(row['f05']))}" for row in folds)
    return bar_chart(
        "Scores of each fold's kept epoch, on the papyrus that this fold kept back.",
        f"Scores of {len(folds)} folds; F0.5 by fold: {f05}.",
        Axis("score", 0, 1),
        [f"fold {row['fold']}" for row in folds],
        series,
    )


def _warnings(folds: Rows, spread: float) -> list[str]:
    found = []
    if spread > WIDE_SPREAD:
        worst = min(folds, key=lambda row: number(row["f05"]))
        found.append(
            f"The folds differ by ±{spread:.2f} in F0.5: the score depends on what was kept back. Look at fold "
            f"{worst['fold']} first, the lowest."
        )
    return [*found, "Each fold chose threshold and epoch on its own validation areas, so the scores flatter a little."]


def _table(rows: Rows) -> Table:
    cells = tuple(
        (
            _named(row["fold"]),
            row["best_epoch"] or "–",
            *(shown(number(row[name]), 4) for name in SCORES),
        )
        for row in rows
    )
    return Table(
        "Scores of each fold, their mean and standard deviation; a fold's name leads to its page.",
        ("fold", "best epoch", *SCORES.values()),
        cells,
        frozenset(range(1, 2 + len(SCORES))),
        len(rows) - 2,
        Link(TABLE_NAME, TABLE_NAME),
    )


def _named(fold: str) -> Cell:
    return fold if fold in ("mean", "std") else Link(f"fold {fold}", f"fold-{fold}/{REPORT_NAME}")


def _curves(runs: Sequence[StoredRun], losses: bool) -> list[Chart]:
    charts = []
    for run in runs:
        epochs = [row for row in table(run.folder / "metrics.csv") if row["segment"] == OVERALL]
        if not epochs:
            raise DataError(f"{run.folder / 'metrics.csv'}: no curves are there; train the fold again")
        best = int((run.folder / "complete.json").read_json()["best_epoch"])
        drawn = losses_chart(epochs, best) if losses else scores_chart(epochs, best)
        fold = f"Fold {run.manifest['config']['fold']}"
        charts.append(replace(drawn, alt=f"{fold}. {drawn.alt}", caption=f"{fold}; epoch {best} was kept."))
    return charts

"""The page of a soup: its score beside its members', and whether averaging helped on the validation areas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inkbatch.io.store.location import Location
from inkbatch.reports.calibrated import calibration_section
from inkbatch.reports.charts.shapes import Axis
from inkbatch.reports.charts.svg import bar_chart
from inkbatch.reports.page import Chart, Code, Figure, Page, Section, Table
from inkbatch.reports.stored import RERUN, below, interruptions, links, money, shown
from inkbatch.reports.timing import spent
from inkbatch.run.finished import StoredRun
from inkbatch.steps.train.page import SCORES, STAGES, use_of

SOUP_NAME = "soup.json"
DRAWN = ("f05", "average_precision", "auc")
FILES = (
    ("bundle/bundle.json", "the contract: what the network must be fed, and its scores"),
    (SOUP_NAME, "members, their cosine, and all scores"),
    ("manifest.json", "settings and inputs"),
    ("run.json", "seconds, machine"),
)
CAVEAT = (
    "One run is one measurement: to know if averaging helps your data, compare several seeds. The scores are of the "
    "validation areas that chose the best epoch, so they flatter a little."
)


def page(run: StoredRun, root: Location) -> Page:
    """Make the page of a finished soup.

    Args:
        run: The run, in ``ROOT/runs/{name}``.
        root: ROOT, for the command that uses the bundle.
    """
    found = (run.folder / SOUP_NAME).read_mapping()
    members, soup = list(reversed(found["members"])), found["scores"]["overall"]
    bundle = (run.folder / "bundle/bundle.json").read_mapping()
    epochs = ", ".join(str(member["epoch"]) for member in members)
    best = max((member["f05"] for member in members if member["f05"] is not None), default=None)
    return Page(
        job="soup",
        title=run.manifest["config"]["name"],
        sentence=(
            f"The weights after epochs {epochs} of run {bundle['training']['soup_of']} were averaged to one network"
            f"{'; the statistics of its normalisation were renewed' if found['statistics_renewed'] else ''}."
        ),
        hero=(_bars(members, soup),),
        figures=(
            *(Figure(shown(soup[name], 4), words) for name, words in SCORES.items()),
            Figure(shown(best, 4), "best member", "F0.5 of one epoch"),
            Figure(f"{min(member['cosine'] for member in members):.3f}", "least cosine", "between weights of members"),
            *money(run),
        ),
        warnings=(*_worse(soup["f05"], best), CAVEAT, *interruptions(run)),
        spent=spent(run.rows, STAGES),
        sections=(
            Section("Members", (_table(members, soup),)),
            *calibration_section(run.folder / "bundle", bundle["weights_sha256"]),
            Section("Use it", (Code(use_of(bundle["contract"], f"{below(run.folder, root)}/bundle")),)),
        ),
        repeat=RERUN,
        repeat_note="On a CPU the same checkpoints and the same dataset give the same weights, to the bit.",
        files=links(run.folder, FILES),
    )


def _worse(soup: float | None, best: float | None) -> tuple[str, ...]:
    """Warn of a soup that scores lower than its best member."""
    if soup is None or best is None or soup >= best:
        return ()
    return (
        f"The soup scores lower than its best member (F0.5 {soup:.3f} against {best:.3f}): averaging did not help; "
        "use the bundle of the run, or renew the statistics on more tiles (statistics_steps).",
    )


def _bars(members: list[Mapping[str, Any]], soup: Mapping[str, Any]) -> Chart:
    rows = [*members, soup]
    names = [*(f"epoch {member['epoch']}" for member in members), "soup"]
    series = {SCORES[name]: [row[name] or 0.0 for row in rows] for name in DRAWN}
    spoken = ", ".join(f"{name} {shown(row['f05'])}" for name, row in zip(names, rows, strict=True))
    return bar_chart(
        "Scores of each member and of their mean, on the papyrus that the run kept back.",
        f"F0.5 of {len(members)} members and the soup: {spoken}.",
        Axis("score", 0, 1),
        names,
        series,
    )


def _table(members: list[Mapping[str, Any]], soup: Mapping[str, Any]) -> Table:
    cells = [
        (f"epoch {row['epoch']}", f"{row['cosine']:.4f}", *(shown(row[name], 4) for name in SCORES)) for row in members
    ]
    cells.append(("soup", "", *(shown(soup[name], 4) for name in SCORES)))
    return Table(
        "Members, oldest first, and the soup. The cosine is that of the weights with the newest member's.",
        ("network", "cosine", *SCORES.values()),
        tuple(cells),
        frozenset(range(1, 2 + len(SCORES))),
        len(cells) - 1,
    )

"""The page of a round: better or not, what changed, and where to look next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inkbatch.data.maps.scoring import ALARMS
from inkbatch.io.store.location import Location
from inkbatch.reports.charts.shapes import Axis
from inkbatch.reports.charts.svg import bar_chart
from inkbatch.reports.page import Chart, Figure, Gallery, Link, Page, Section, Table, Words
from inkbatch.reports.stored import RERUN, interruptions, links, money, shown, up_to
from inkbatch.reports.timing import spent
from inkbatch.run.finished import StoredRun
from inkbatch.run.record import REPORT_NAME
from inkbatch.steps.round.names import BLOCKS, DOCUMENT, PROPOSALS, round_folder
from inkbatch.steps.round.page_pictures import changed_maps, region_pictures
from inkbatch.text import count_text

STAGES = ("labels", "training and inference", None, "proposals")
SCORES = {"f05": "F0.5", "average_precision": "average precision", "auc": "AUC", ALARMS: "alarms at 80 % recall"}
DRAWN = ("f05", "average_precision", "auc")
FILES = (
    (DOCUMENT, "scores, verdict, and the names of all that the round made"),
    (PROPOSALS, "the regions to label next"),
    (BLOCKS, "yardstick and folds"),
    ("labels", "the labels that the round took"),
    ("proposals", "a first label for each region: ink 255, bare papyrus 0, ignored 127"),
    ("manifest.json", "settings and inputs"),
    ("run.json", "seconds, machine"),
)
GONE_ON = (
    " The networks went on from those of the round before: a difference is of labels and of further steps together."
)
CAVEATS = (
    "The threshold was fitted on labels outside of the yardstick; epochs were chosen on each fold's own labels, so the "
    "scores out of fold flatter a little. Those on the yardstick do not.",
)


def page(run: StoredRun, root: Location) -> Page:
    """Make the page of a finished round from what it and the rounds before it stored.

    Args:
        run: The round.
        root: ROOT, for maps and the pages of other runs.
    """
    found = (run.folder / DOCUMENT).read_mapping()
    regions = (run.folder / PROPOSALS).read_mapping()["regions"]
    rounds = _rounds(run.folder, found)
    before = rounds[-2] if len(rounds) > 1 else None
    grown = f"{found['labelled_cm2'] - before['labelled_cm2']:+.3f} cm² since the round before" if before else ""
    return Page(
        job="round",
        title=f"{found['series']}, round {found['round']}",
        sentence=(
            f"{len(found['weights_sha256'])} networks learned, each without a fold of the labels, and read all "
            "papyrus; each pixel was scored and proposed only by networks that never saw it, nor anything within a "
            "tile of it."
        ),
        hero=(_chart(rounds),),
        figures=(
            Figure(_said(found), "verdict", f"by {SCORES[found['score']]} on the yardstick"),
            *(Figure(shown(found["yardstick"][name], 4), words, "yardstick") for name, words in SCORES.items()),
            Figure(f"{found['labelled_cm2']:.3f} cm²", "labelled", grown),
            *money(run),
        ),
        warnings=(*_stop(found), *CAVEATS, *interruptions(run)),
        spent=spent(run.rows, STAGES),
        sections=(
            Section("Better or not", (_against(found), _table(rounds))),
            *((Section("What changed", tuple(_changed(found, before, root))),) if before else ()),
            Section("Where to label next", tuple(_proposals(run.folder, regions, root))),
            Section("Made in this round", (_made(run.folder, found, root),)),
        ),
        repeat=RERUN,
        repeat_note="On a CPU the same labels and settings give the same round, to the bit.",
        files=links(run.folder, FILES),
    )


def _rounds(folder: Location, found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Read this round and those before it that lie beside it, oldest first."""
    rows: list[Mapping[str, Any]] = []
    root, series = folder.parent.parent.parent, str(found["series"])
    for number in range(1, int(found["round"])):
        place = round_folder(root, series, number) / DOCUMENT
        if place.exists():
            rows.append(place.read_mapping())
    return [*rows, found]


def _said(found: Mapping[str, Any]) -> str:
    return {"first": "first round", "no difference that can be shown": "no difference shown"}.get(
        found["verdict"], str(found["verdict"])
    )


def _stop(found: Mapping[str, Any]) -> tuple[str, ...]:
    if not found["stop"]:
        return ()
    return (f"Stop here: {found['stop']} on the yardstick. Another round of the same kind would cost and not help.",)


def _chart(rounds: Sequence[Mapping[str, Any]]) -> Chart:
    series = {SCORES[name]: [_number(one["yardstick"][name]) for one in rounds] for name in DRAWN}
    said = ", ".join(f"round {one['round']} {shown(one['yardstick']['f05'])}" for one in rounds)
    return bar_chart(
        "Scores of each round on the yardstick, which was fixed in the first round and never trains.",
        f"Scores of {count_text(len(rounds), 'round')} on the yardstick; F0.5: {said}.",
        Axis("score", 0, 1),
        [f"round {one['round']}" for one in rounds],
        series,
    )


def _against(found: Mapping[str, Any]) -> Table | Words:
    if not found["against"]:
        return Words("The first round fixes the yardstick; the next one is compared with it.")
    rows = [
        (
            SCORES[name],
            shown(one["first"], 4),
            shown(one["second"], 4),
            "–" if one["low"] is None else f"{one['low']:+.4f} to {one['high']:+.4f}",
        )
        for name, one in found["against"].items()
    ]
    return Table(
        f"This round and the one before it on the same {found['yardstick']['blocks']} blocks of the yardstick: the "
        "interval is that of the difference, from a paired bootstrap over blocks. One that holds 0 shows no "
        f"difference.{GONE_ON if found.get('started_from') else ''}",
        ("score", "this round", "the round before", "interval of the difference"),
        tuple(rows),
        frozenset({1, 2, 3}),
    )


def _table(rounds: Sequence[Mapping[str, Any]]) -> Table:
    rows: list[tuple[str | Link, ...]] = [
        (
            Link(f"round {one['round']}", f"../round-{one['round']:03d}/{REPORT_NAME}"),
            f"{one['labelled_cm2']:.3f}",
            *(shown(one["yardstick"][name], 4) for name in SCORES),
            shown(one["out_of_fold"]["f05"], 4),
            _said(one),
        )
        for one in rounds
    ]
    return Table(
        "All rounds so far; scores on the yardstick, then F0.5 out of fold on the labels of the round.",
        ("round", "labelled, cm²", *SCORES.values(), "F0.5 out of fold", "verdict"),
        tuple(rows),
        frozenset(range(1, 3 + len(SCORES))),
        len(rows) - 1,
    )


def _changed(found: Mapping[str, Any], before: Mapping[str, Any], root: Location) -> list[Table | Gallery | Words]:
    """Say what the labels and the maps of this round are beside those of the round before."""
    rows = [
        (
            segment,
            *(str(one["labels"].get(segment, {}).get("version", "own")) for one in (before, found)),
            *(_areas(one, segment) for one in (before, found)),
        )
        for segment, now in found.get("labelled", {}).items()
        if now["cm2"] or before.get("labelled", {}).get(segment, now)["cm2"]
    ]
    table = Table(
        "Labels that the two rounds took outside of the yardstick: versions, and square centimetres that count, with "
        "ink among them.",
        ("segment", "version before", "version now", "cm² before, ink", "cm² now, ink"),
        tuple(rows),
        frozenset({3, 4}),
    )
    maps = changed_maps(root, found, before)
    parts: list[Table | Gallery | Words] = [table] if rows else []
    if maps:
        parts += [Words("Maps out of fold before and now, of the segments that changed most."), *maps]
    return parts


def _areas(found: Mapping[str, Any], segment: str) -> str:
    one = found.get("labelled", {}).get(segment)
    return "–" if one is None else f"{one['cm2']:.4f}, {one['ink_cm2']:.4f}"


def _proposals(folder: Location, regions: Sequence[Mapping[str, Any]], root: Location) -> list[Table | Words | Gallery]:
    if not regions:
        return [Words("No region is left that networks disagree about, that is legible and that is not labelled.")]
    rows: list[tuple[str | Link, ...]] = [
        (
            str(one["rank"]),
            one["segment"],
            ", ".join(map(str, one["box"])),
            shown(one["disagreement"]),
            shown(one["legibility"]),
            "–" if one["distance_px"] is None else f"{one['distance_px']:,.0f}",
            shown(one["score"]),
            Link("in the viewer", one["view"]),
        )
        for one in regions
    ]
    table = Table(
        "Regions, the best first: where networks disagree, ink is legible and labels are far. The links open while "
        "inkbatch view SEGMENT runs; with --edit, and the tab that it opened, labels are painted there.",
        ("rank", "segment", "y0, x0, y1, x1", "disagreement", "legibility", "labels, px away", "score", "view"),
        tuple(rows),
        frozenset({0, 3, 4, 5, 6}),
        None,
        Link(PROPOSALS, PROPOSALS),
    )
    return [table, *region_pictures(root, folder, regions)]


def _made(folder: Location, found: Mapping[str, Any], root: Location) -> Table:
    up = up_to(folder, root)

    def named(text: str, place: str) -> str | Link:
        there = up is not None and (root / place).exists()
        return Link(text, f"{up}{place}") if there else text

    name = str(found["training"])
    rows: list[tuple[str | Link, ...]] = [
        ("dataset", named(str(found["dataset"]), f"datasets/{found['dataset']}/{REPORT_NAME}"), ""),
        ("training", named(name, f"runs/{name}/{REPORT_NAME}"), f"seed {found['seeds']['training']}"),
    ]
    starts = found.get("started_from", {})
    for fold, digest in found["weights_sha256"].items():
        start = f", which went on from {starts[fold][:16]} of the round before" if fold in starts else ""
        rows.append(("bundle", named(fold, f"runs/{name}/{fold}/{REPORT_NAME}"), f"weights {digest[:16]}{start}"))
    for segment, version in found["labels"].items():
        rows.append(("labels", segment, " ".join(f"{key} {str(value)[:16]}" for key, value in version.items())))
    rows += [("map", f"{segment}/{run}", "out of fold") for segment, run in found["maps"].items()]
    return Table("Names of all that the round made.", ("kind", "name", "which"), tuple(rows))


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)

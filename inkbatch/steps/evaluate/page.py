"""Page of an evaluation: agreement of map and labels, scores, and the regions with most errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inkbatch.data.maps.scoring import ALARMS, AT_RECALL, RECALL
from inkbatch.io.pictures.palettes import palette
from inkbatch.io.store.location import Location
from inkbatch.reports.charts.shapes import Axis, Mark
from inkbatch.reports.charts.svg import line_chart
from inkbatch.reports.page import (
    Chart,
    Figure,
    Gallery,
    Page,
    Picture,
    Promise,
    Section,
    Table,
    Words,
)
from inkbatch.reports.pictures import legend_of
from inkbatch.reports.stored import (
    RERUN,
    bundle_warnings,
    interruptions,
    links,
    money,
    number,
    pixels,
    shown,
    table,
)
from inkbatch.reports.timing import spent
from inkbatch.run.finished import StoredRun
from inkbatch.steps.evaluate.curves import stored_lines
from inkbatch.steps.evaluate.pictures import DOCUMENT as PICTURES
from inkbatch.steps.evaluate.tables import DOCUMENT, origin_of, region_grid, remembers, trained_words
from inkbatch.steps.evaluate.verdict import better_map, is_rough, verdict

FILES = (
    (DOCUMENT, "every score, and the comparison of two maps"),
    ("regions.csv", "scores of each region"),
    ("curves.csv", "precision, recall and F over the threshold"),
    ("calibration.csv", "how often there is ink where the map says p"),
    ("curves.png", "the curves as one picture"),
    ("regions.png", "the regions as one picture"),
    ("agreement.png", "found, missed and wrongly found ink"),
    ("manifest.json", "settings and inputs"),
    ("run.json", "seconds, bytes, machine"),
)
STAGES = ("opening map and labels", None, "reading and counting", "scoring and drawing")
KEY = (
    "White: ink that both have. Blue: ink that the map misses. Orange: ink that only the map has. Black: bare papyrus. "
    "Grey: does not count."
)
LOST = 0.05  # of F-beta, by a threshold that is not the best
BADLY_CALIBRATED = 0.1
CELL_PX = 24


def page(run: StoredRun, root: Location) -> Page:
    """Make the page of a finished evaluation.

    Args:
        run: The run, beside its prediction or wherever ``to`` led it.
        root: Not needed.
    """
    found = (run.folder / DOCUMENT).read_mapping()
    drawn, config = (run.folder / PICTURES).find_mapping(), run.manifest["config"]
    names, segment = [one["name"] for one in found["maps"]], config["segment"]
    share = found["ink_px"] / found["counted_px"]
    return Page(
        job="evaluate",
        title=f"{segment} / {' versus '.join(names)}",
        sentence=(
            f"The ink map {names[0]} of segment {segment} was compared with {_labels(found)}"
            + (f", and with the map {names[1]}" if len(names) > 1 else "")
            + f": {found['counted_px']:,} pixels count, {share:.1%} of them are ink."
        ),
        hero=(*_pictures(run, drawn, found), *_curves(run, found)),
        figures=(*_figures(found), *money(run)),
        warnings=(*bundle_warnings(run), *_warnings(found), *interruptions(run)),
        contract=_contract(run, found),
        contract_caption="What a score is worth depends on what was compared: maps, labels and masks, by digest.",
        spent=spent(run.rows, STAGES),
        sections=tuple(_sections(run, drawn, found)),
        repeat=RERUN,
        repeat_note=f"The same in a terminal: inkbatch evaluate {segment} --name {names[0]} --root ROOT.",
        files=links(run.folder, FILES),
    )


def _labels(found: Mapping[str, Any]) -> str:
    return f"the labels at {str(found['labels']).rstrip('/').rsplit('/', 1)[-1]}"


def _beta(found: Mapping[str, Any]) -> str:
    return f"F{found['beta']:g}"


def _figures(found: Mapping[str, Any]) -> list[Figure]:
    one, beta = found["maps"][0], _beta(found)
    best = one["best"]
    listed = [
        Figure(shown(best["f_beta"]), f"best {beta}", f"from probability {best['threshold']:.3f} on"),
        *(
            Figure(
                shown(at["f_beta"]),
                f"{beta} at {at['threshold']:g}",
                f"Dice {shown(at['dice'])}{origin_of(found, at['threshold'])}",
            )
            for at in one["at"]
        ),
        Figure(shown(best["precision"]), "precision", "share of found ink that is ink, at the best threshold"),
        Figure(shown(best["recall"]), "recall", "share of ink that is found, at the best threshold"),
        Figure(shown(one["average_precision"]), "average precision", "over all thresholds"),
        Figure(shown(one["auc"]), "AUC", "0.5 is chance"),
        Figure(shown(one["calibration_error"]), "calibration error", "mean distance of probability and share of ink"),
        Figure(f"{shown(one['psnr_db'], 1)} dB", "PSNR", "of the map against its labels"),
    ]
    if ALARMS in one:  # not in documents of older versions
        caption = f"share of bare papyrus that is found at the threshold with this recall, {shown(one[AT_RECALL])}"
        listed.append(Figure(shown(one[ALARMS]), f"alarms at recall {RECALL:g}", caption))
    return listed


def _pictures(run: StoredRun, drawn: Mapping[str, Any] | None, found: Mapping[str, Any]) -> list[Picture]:
    agreements, maps = [], []
    for one in () if drawn is None else drawn["maps"]:
        agreement, tones = pixels(run.folder / one["agreement"]), pixels(run.folder / one["map"])
        whose = f" of {one['name']}" if len(found["maps"]) > 1 else ""
        if agreement is not None:
            agreements.append(
                Picture(
                    agreement,
                    alt=f"Map{whose} against labels, in five colours. {KEY}",
                    caption=f"The map{whose} against its labels, ink from {one['threshold']:.3f} on. {KEY}",
                    width_um=agreement.shape[1] * drawn["pixel_um"] if drawn else None,
                )
            )
        if tones is not None:
            maps.append(
                Picture(
                    tones,
                    alt=f"The map{whose}: the brighter, the more probable is ink.",
                    caption=f"The map{whose} itself: probability of ink.",
                    width_um=tones.shape[1] * drawn["pixel_um"] if drawn else None,
                    legend=legend_of("grey", "0", "1"),
                )
            )
    return [*agreements, *maps]


def _curves(run: StoredRun, found: Mapping[str, Any]) -> list[Chart]:
    names, beta = [one["name"] for one in found["maps"]], _beta(found)
    lines = stored_lines(run.folder, names)
    best = found["maps"][0]["best"]
    return [
        line_chart(
            "Precision against recall; each point of a curve is a threshold.",
            f"Precision and recall. At its best threshold {names[0]} has precision {shown(best['precision'], 2)} at "
            f"recall {shown(best['recall'], 2)}.",
            Axis("recall", 0, 1),
            Axis("precision", 0, 1),
            lines.trade_off,
            [Mark(f"best {beta}", best["recall"], best["precision"])],
        ),
        line_chart(
            "Reliability: where the map says p, how often is there ink? On the straight line it means what it says.",
            "Reliability. "
            + "; ".join(
                f"{one['name']} has a calibration error of {shown(one['calibration_error'])}" for one in found["maps"]
            ),
            Axis("probability in the map", 0, 1),
            Axis("share of ink", 0, 1),
            lines.reliability,
        ),
        line_chart(
            f"{beta} over the threshold: a broad hill forgives a threshold that is a little off.",
            f"{beta} over the threshold; the best of {names[0]} is {shown(best['f_beta'])} at {best['threshold']:.3f}.",
            Axis("threshold", 0, 1),
            Axis(beta, 0, 1),
            lines.threshold,
            [Mark("best", best["threshold"], best["f_beta"])],
        ),
    ]


def _warnings(found: Mapping[str, Any]) -> list[str]:
    one, beta, listed = found["maps"][0], _beta(found), []
    if found["labels_made_from"]:
        listed.append(
            f"The labels were made from the prediction {found['labels_made_from']}: a map that agrees with them agrees "
            "with that prediction, not with the papyrus."
        )
    trained = trained_words(found)
    if trained:
        listed.append(f"{trained[:1].upper()}{trained[1:]}.")
    lost = [at for at in one["at"] if one["best"]["f_beta"] - (at["f_beta"] or 0) > LOST]
    if lost:
        at = min(lost, key=lambda row: row["f_beta"] or 0)
        listed.append(
            f"At {at['threshold']:g} the map reaches {beta} {shown(at['f_beta'])} only, {shown(one['best']['f_beta'])} "
            f"at {one['best']['threshold']:.3f}. The best threshold was found on these very labels: on another segment "
            "it may lie elsewhere."
        )
    if (one["calibration_error"] or 0) > BADLY_CALIBRATED:
        listed.append("The map's values are no probabilities: its calibration error is large (see reliability).")
    if "comparison" in found and is_rough(found["comparison"]):
        listed.append(f"The maps are compared over {found['comparison']['blocks']} blocks only: rough intervals.")
    return listed


def _contract(run: StoredRun, found: Mapping[str, Any]) -> tuple[Promise, ...]:
    inputs, config = run.manifest["inputs"], run.manifest["config"]
    truth = inputs["truth"]
    area = config.get("area")
    once = "opened once for all shards; other bytes make another run"
    return (
        *(
            Promise(
                "map", str(one["name"]), f"run {str(one['digest'])[:12]}, complete", "its digest is in the manifest"
            )
            for one in inputs["predictions"]
        ),
        Promise("labels", str(found["labels"]), "the size of the map", once),
        Promise("mask", "bare table does not count", "the segment's own mask", once),
        Promise(
            "ignore mask",
            "doubtful papyrus does not count",
            "none was there" if truth["ignore"] is None else "left out",
            once,
        ),
        Promise(
            "area",
            "the whole segment" if area is None else "rows {0}:{2}, columns {1}:{3}".format(*area),
            f"{found['counted_px']:,} pixels count, each once",
            "regions never overlap",
        ),
    )


def _sections(run: StoredRun, drawn: Mapping[str, Any] | None, found: Mapping[str, Any]) -> list[Section]:
    listed = []
    if "comparison" in found:
        listed.append(
            Section(
                "Which map is better",
                (
                    Words(_verdict(found)),
                    _comparison(found),
                ),
            )
        )
    worst = [] if drawn is None else [_worst(run, one) for one in drawn["worst"]]
    regions = table(run.folder / "regions.csv")
    if any(worst):
        listed.append(
            Section(
                "Where most pixels are wrong",
                (
                    Words(f"Map on the left, agreement on the right. {KEY}"),
                    Gallery(tuple(picture for picture in worst if picture is not None), 22),
                ),
            )
        )
    if regions:
        listed.append(Section("Region by region", (Gallery(tuple(_grids(found, regions)), 22),)))
    listed.append(Section("All scores", (_scores(found),)))
    return listed


def _worst(run: StoredRun, one: Mapping[str, Any]) -> Picture | None:
    found = pixels(run.folder / one["picture"])
    if found is None:
        return None
    rows, columns = f"{one['y0']:,} to {one['y1'] - 1:,}", f"{one['x0']:,} to {one['x1'] - 1:,}"
    share = one["wrong_px"] / max(one["counted_px"], 1)
    words = f"{one['missed_px']:,} px missed, {one['false_px']:,} px wrongly found ({share:.0%} of what counts)"
    return Picture(
        found,
        alt=f"Map and agreement in rows {rows}, columns {columns}: {words}.",
        caption=f"Rows {rows}, columns {columns}: {words}.",
    )


def _grids(found: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> list[Picture]:
    """Draw F-beta of every region in colour; grey for regions without ink."""
    edge, beta = int(found["region_px"]), _beta(found)
    places, (height, width) = region_grid([(int(row["y0"]), int(row["x0"])) for row in rows], edge)
    times = max(2, min(CELL_PX, 1200 // max(height, width)))
    colours, listed = palette("cividis"), []
    for one in found["maps"]:
        grid = np.full((height, width, 3), 128, np.uint8)
        for row, (y, x) in zip(rows, places, strict=True):
            value = number(row["f_beta"])
            if row["map"] == one["name"] and math.isfinite(value):
                grid[y, x] = colours[round(value * 255)]
        listed.append(
            Picture(
                grid.repeat(times, axis=0).repeat(times, axis=1),
                alt=f"{beta} of {one['name']} in each region of {edge} px, as a grid of colours.",
                caption=f"{one['name']}: {beta} in each region of {edge} px at its best threshold; grey: no ink there.",
                legend=legend_of("cividis", "0", "1"),
                crisp=True,
            )
        )
    return listed


def _verdict(found: Mapping[str, Any]) -> str:
    if remembers(found):
        return "No verdict: pixels that trained a network of these maps were counted."
    return verdict([one["name"] for one in found["maps"]], found["comparison"]["scores"])


def _comparison(found: Mapping[str, Any]) -> Table:
    names, comparison = [one["name"] for one in found["maps"]], found["comparison"]
    rows = []
    for name, score in comparison["scores"].items():
        interval = "–" if score["low"] is None else f"{score['low']:+.4f} to {score['high']:+.4f}"
        difference = "–" if score["difference"] is None else f"{score['difference']:+.4f}"
        rows.append(
            (
                name.replace("f_beta", _beta(found)).replace("_", " "),
                difference,
                interval,
                "no verdict" if remembers(found) else better_map(names, score) or "open",
            )
        )
    return Table(
        f"{names[0]} minus {names[1]}; {comparison['level']:.0%} intervals from {comparison['draws']:,} draws of "
        f"{comparison['blocks']} blocks of {found['region_px']} px.",
        ("score", "difference", "interval", "better"),
        tuple(rows),
        frozenset({1, 2}),
    )


def _scores(found: Mapping[str, Any]) -> Table:
    rows: list[tuple[str, ...]] = []
    strong = None
    for one in found["maps"]:
        for name, at in (("best", one["best"]), *(("given", at) for at in one["at"])):
            strong = len(rows) if strong is None and name == "best" else strong
            scores = [shown(at[key], 4) for key in ("f_beta", "dice", "iou", "precision", "recall")]
            rows.append((f"{one['name']}, {name}", f"{at['threshold']:.4f}", *scores))
    columns = ("map", "threshold", _beta(found), "Dice", "IoU", "precision", "recall")
    return Table("Scores at every threshold.", columns, tuple(rows), frozenset(range(1, 7)), strong)

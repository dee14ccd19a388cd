"""Files of `inkbatch evaluate`: scores as JSON, tables as CSV, plots as PNG; equal counts give equal files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.maps.bootstrap import BlockCounts, Difference, compare, group_starts
from inkbatch.data.maps.comparison import Where
from inkbatch.data.maps.scoring import ALARMS, AT_RECALL, RECALL, ScoreHistogram
from inkbatch.errors import DataError
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.reports.charts.raster import beside, png, shades
from inkbatch.steps.evaluate.curves import (
    CALIBRATION_COLUMNS,
    CURVE_COLUMNS,
    calibration_rows,
    curve_plots,
    curve_rows,
    curves_of,
)
from inkbatch.steps.evaluate.verdict import better_map, is_rough
from inkbatch.text import share_text

DOCUMENT = "evaluation.json"
THRESHOLD_SCORES = ("f_beta", "dice", "iou", "precision", "recall")
REGION_COLUMNS = (
    *("map", "y0", "x0", "y1", "x1", "counted_px", "ink_px", "found_px", "threshold"),
    *(*THRESHOLD_SCORES, "average_precision", "auc", "calibration_error", "psnr_db", ALARMS),
)


@dataclass(frozen=True)
class RegionCounts:
    """Counts of one region.

    Attributes:
        box: The region.
        maps: One histogram per map.
    """

    box: Box
    maps: list[ScoreHistogram]


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the comparison of two maps.

    Attributes:
        draws: How often blocks are drawn.
        level: Of the intervals.
        seed: Of the draws.
    """

    draws: int
    level: float
    seed: int


@dataclass(frozen=True)
class Evaluation:
    """All scores of an evaluation.

    Attributes:
        names: Of the maps.
        totals: All counts, per map.
        best: (F-beta, threshold) per map.
        thresholds: Given ones.
        beta: Of F-beta.
        bins: Of the reliability curve.
        regions: Rows of ``regions.csv``.
        blocks: Regions with pixels that count.
        bootstrap: How two maps were compared.
        differences: By score, where there are two maps.
    """

    names: tuple[str, ...]
    totals: tuple[ScoreHistogram, ...]
    best: tuple[tuple[float, float], ...]
    thresholds: tuple[float, ...]
    beta: float
    bins: int
    regions: tuple[Mapping[str, Any], ...]
    blocks: int
    bootstrap: Bootstrap
    differences: Mapping[str, Difference]

    @staticmethod
    def of(
        regions: Callable[[], Iterable[RegionCounts]],
        names: Sequence[str],
        thresholds: Sequence[float],
        beta: float,
        bins: int,
        bootstrap: Bootstrap,
    ) -> Evaluation:
        """Add up the counts of all regions, and score them; calls `regions` twice.

        Raises:
            DataError: Two maps, and less than two regions with pixels that count.
        """
        totals = tuple(ScoreHistogram() for _ in names)
        for region in regions():
            for total, found in zip(totals, region.maps, strict=True):
                total.merge(found)
        best = tuple(total.best_f_beta(beta) for total in totals)
        blocks = [
            BlockCounts(_compared(thresholds, at), beta, group_starts(total))
            for total, (_, at) in zip(totals, best, strict=True)
            if len(names) == 2
        ]
        rows: list[Mapping[str, Any]] = []
        filled = 0
        for region in regions():
            if not region.maps[0].counted:
                continue
            filled += 1
            for name, found, (_, at) in zip(names, region.maps, best, strict=True):
                rows.append(_region(name, region.box, found, at, beta, bins))
            for kept, found in zip(blocks, region.maps, strict=False):
                kept.add(found)
        differences: Mapping[str, Difference] = {}
        if blocks and filled and totals[0].ink.any():
            if filled < 2:
                raise DataError(
                    f"evaluate: two maps are compared over blocks, and {filled} block has pixels that count; choose a "
                    "smaller region_px or a larger area"
                )
            whole = [_whole(total, kept, beta) for total, kept in zip(totals, blocks, strict=True)]
            differences = compare(blocks, whole, bootstrap.draws, bootstrap.level, bootstrap.seed)
        return Evaluation(
            tuple(names), totals, best, tuple(thresholds), beta, bins, tuple(rows), filled, bootstrap, differences
        )

    @property
    def counted(self) -> int:
        """Pixels that counted."""
        return self.totals[0].counted

    @property
    def ink(self) -> int:
        """Those of them that are ink."""
        return int(self.totals[0].ink.sum())

    def document(self) -> dict[str, Any]:
        """Make the content of ``evaluation.json``."""
        found: dict[str, Any] = {
            "beta": self.beta,
            "counted_px": self.counted,
            "ink_px": self.ink,
            "regions": self.blocks,
            "maps": [
                {
                    "name": name,
                    "average_precision": total.average_precision(),
                    "auc": total.auc(),
                    "calibration_error": total.reliability(self.bins).error,
                    "psnr_db": total.psnr(),
                    **dict(zip((AT_RECALL, ALARMS), total.alarms_at_recall(), strict=True)),
                    "best": total.scores(at, self.beta),
                    "at": [total.scores(threshold, self.beta) for threshold in self.thresholds],
                }
                for name, total, (_, at) in zip(self.names, self.totals, self.best, strict=True)
            ],
        }
        if self.differences:
            found["comparison"] = {
                "blocks": self.blocks,
                "draws": self.bootstrap.draws,
                "level": self.bootstrap.level,
                "seed": self.bootstrap.seed,
                "scores": {name: difference.document for name, difference in self.differences.items()},
            }
        return found


@dataclass(frozen=True)
class Basis:
    """Pixels that were counted.

    Attributes:
        labels: Where the labels come from.
        made_from: The prediction that the labels were made from, or None.
        region_px: Edge of a region.
        where: ``unseen``, ``validation`` or ``all``, see `inkbatch.data.maps.comparison.Comparison`.
        labelled_px: Pixels that count by mask and ignore mask.
        trained_px: Those of them that trained a network of the maps.
        fitted_on: Origin of thresholds that maps state, in words, where it is known.
    """

    labels: str
    made_from: str | None
    region_px: int
    where: Where
    labelled_px: int
    trained_px: int
    fitted_on: Mapping[float | None, str | None] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        """Entries of ``evaluation.json``."""
        share = self.trained_px / max(self.labelled_px, 1)
        known = [{"threshold": at, "fitted_on": words} for at, words in self.fitted_on.items() if words is not None]
        return {
            **({"thresholds": known} if known else {}),
            **{"labels": self.labels, "labels_made_from": self.made_from, "region_px": self.region_px},
            **{"on": self.where, "labelled_px": self.labelled_px, "trained_px": self.trained_px},
            "trained_share": share,
        }


def trained_words(found: Mapping[str, Any]) -> str | None:
    """Say how many of the pixels trained the network, and what was done with them; None where nothing is to be said.

    Args:
        found: ``evaluation.json``.
    """
    where, share = found.get("on", "unseen"), float(found.get("trained_share", 0))
    if where == "validation":
        return "only pixels that validated the network count; its best epoch and threshold were chosen on them"
    if not share:
        return None
    whose = "trained this network" if len(found["maps"]) == 1 else "trained a network of these maps"
    said = f"{share_text(share)} of the labelled pixels {whose}"
    if where == "all":
        return f"{said} and count all the same: this is what it remembers, not a score"
    return f"{said} and are left out; the score is of the others"


def origin_of(found: Mapping[str, Any], threshold: float) -> str:
    """Say where a threshold was fitted, after a comma; empty where that is not known.

    Args:
        found: ``evaluation.json``.
        threshold: One of its thresholds.
    """
    words = [one["fitted_on"] for one in found.get("thresholds", ()) if one["threshold"] == threshold]
    return f", fitted on {words[0]}" if words else ""


def remembers(found: Mapping[str, Any]) -> bool:
    """Tell if pixels that trained a network were counted, so that no verdict on two maps holds."""
    return found.get("on") == "all" and bool(found.get("trained_share"))


def write_report(folder: Location, evaluation: Evaluation, basis: Basis) -> None:
    """Write ``evaluation.json``, ``regions.csv``, ``calibration.csv``, ``curves.csv``, ``curves.png``, ``regions.png``.

    Args:
        folder: Where they go.
        evaluation: What was found.
        basis: What was counted.
    """
    document = {**evaluation.document(), **basis.document}
    (folder / "regions.csv").write_bytes(_csv(REGION_COLUMNS, evaluation.regions))
    found = curves_of(evaluation.names, evaluation.totals, evaluation.beta, evaluation.bins)
    (folder / "calibration.csv").write_bytes(_csv(CALIBRATION_COLUMNS, calibration_rows(found)))
    (folder / "curves.csv").write_bytes(_csv(CURVE_COLUMNS, curve_rows(found)))
    (folder / "curves.png").write_bytes(curve_plots(found, evaluation.beta))
    (folder / "regions.png").write_bytes(_region_plots(evaluation, basis.region_px))
    (folder / DOCUMENT).write_json(_finite(document))


def lines(folder: Location) -> Iterator[str]:
    """Describe ``evaluation.json`` for people."""
    found = (folder / DOCUMENT).read_mapping()
    yield f"{found['counted_px']:,} pixels count, {found['ink_px'] / found['counted_px']:.1%} of them are ink"
    if found["labels_made_from"]:
        yield f"careful: the labels were made from the prediction {found['labels_made_from']}"
    trained = trained_words(found)
    if trained:
        yield f"careful: {trained}"
    beta = f"F{found['beta']:g}"
    for one in found["maps"]:
        best = one["best"]
        yield f"{one['name']}:"
        yield (
            f"  best {beta} {_shown(best['f_beta'])} at {best['threshold']:.4f} (Dice {_shown(best['dice'])}, "
            f"IoU {_shown(best['iou'])}, precision {_shown(best['precision'])}, recall {_shown(best['recall'])})"
        )
        for at in one["at"]:
            origin = origin_of(found, at["threshold"])
            yield f"  {beta} {_shown(at['f_beta'])} at {at['threshold']:g} (Dice {_shown(at['dice'])}){origin}"
        yield (
            f"  average precision {_shown(one['average_precision'])}, AUC {_shown(one['auc'])}, calibration error "
            f"{_shown(one['calibration_error'])}, PSNR {_shown(one['psnr_db'], 2)} dB"
        )
        if ALARMS in one:  # not in those of older versions
            yield (
                f"  alarms on blank ground {_shown(one[ALARMS])} at recall {RECALL:g}, from {_shown(one[AT_RECALL])} on"
            )
    yield from _comparison_lines(found)
    yield f"tables and plots: {folder}"


def _comparison_lines(found: Mapping[str, Any]) -> Iterator[str]:
    if "comparison" not in found:
        return
    comparison, names = found["comparison"], [one["name"] for one in found["maps"]]
    rough = "; few blocks, hence rough intervals" if is_rough(comparison) else ""
    yield (
        f"{names[0]} minus {names[1]}, {comparison['level']:.0%} interval over {comparison['blocks']} blocks of "
        f"{found['region_px']} px{rough}:"
    )
    for name, score in comparison["scores"].items():
        better = better_map(names, score)
        said = "no clear difference" if better is None else f"{better} is better"
        said = "no verdict" if remembers(found) else said
        interval = f"{_shown(score['low'], sign='+')} to {_shown(score['high'], sign='+')}"
        yield f"  {name}: {_shown(score['difference'], sign='+')} ({interval}): {said}"


def _compared(thresholds: Sequence[float], best: float) -> dict[str, float]:
    """Name the compared scores, with their thresholds."""
    return {**{f"f_beta_at_{threshold:g}": threshold for threshold in thresholds}, "f_beta_at_its_best": best}


def _whole(total: ScoreHistogram, kept: BlockCounts, beta: float) -> dict[str, float]:
    found = {name: total.f_beta(threshold, beta) for name, threshold in kept.thresholds.items()}
    return {**found, "average_precision": total.average_precision(), "auc": total.auc()}


def _region(name: str, box: Box, found: ScoreHistogram, at: float, beta: float, bins: int) -> dict[str, Any]:
    """Make one row of ``regions.csv``; scores that need ink are empty if a region has none."""
    ink = int(found.ink.sum())
    hits, alarms, _ = found.found(at)
    scores = found.scores(at, beta) if ink else {}
    return {
        **{"map": name, "y0": box.y0, "x0": box.x0, "y1": box.y1, "x1": box.x1},
        **{"counted_px": found.counted, "ink_px": ink, "found_px": hits + alarms, "threshold": at},
        **{score: scores.get(score, math.nan) for score in THRESHOLD_SCORES},
        "average_precision": found.average_precision(),
        "auc": found.auc(),
        "calibration_error": found.reliability(bins).error,
        "psnr_db": found.psnr(),
        ALARMS: found.alarms_at_recall()[1],
    }


def _region_plots(evaluation: Evaluation, region_px: int) -> bytes:
    places, shape = region_grid([(row["y0"], row["x0"]) for row in evaluation.regions], region_px)
    grids = {name: np.full(shape, np.nan) for name in evaluation.names}
    for (y, x), row in zip(places, evaluation.regions, strict=True):
        grids[row["map"]][y, x] = row["f_beta"]
    title = f"F{evaluation.beta:g} per region of {region_px} px"
    plots = [shades(f"{name}: {title}", grid, 0, 1) for name, grid in grids.items()]
    if len(plots) == 2:
        first, second = grids.values()
        plots.append(shades("first minus second", first - second, -0.5, 0.5, signed=True))
    return png(beside(plots))


def region_grid(corners: Sequence[tuple[int, int]], region_px: int) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """Place regions on a grid of one cell each.

    Args:
        corners: Upper left corner (y, x) of each region in pixels; at least one.
        region_px: Edge of a region.

    Returns:
        (regions, 2) row and column of each cell, and (rows, columns) of the grid.
    """
    cells = np.array(corners, np.int64) // region_px
    cells -= cells.min(axis=0)
    height, width = cells.max(axis=0) + 1
    return cells, (int(height), int(width))


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({key: _cell(value) for key, value in row.items()})
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, float):  # numpy's float64 too
        return "" if math.isnan(value) else repr(float(value))
    return value


def _finite(value: Any) -> Any:
    """Replace what is not finite by null, for JSON."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def _shown(value: float | None, digits: int = 4, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.{digits}f}"

"""The page of an ensemble: the merged map, where its members disagree, and what each of them weighs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.trained_pixels import TrainedPixels
from inkbatch.data.maps.scoring import threshold_of
from inkbatch.geometry import Box
from inkbatch.io.store.location import Location
from inkbatch.reports.page import (
    Cell,
    Figure,
    Gallery,
    Link,
    Page,
    Picture,
    Pixels,
    Promise,
    Section,
    Table,
)
from inkbatch.reports.pictures import coloured, legend_of
from inkbatch.reports.stored import (
    RERUN,
    bundle_warnings,
    interruptions,
    links,
    money,
    pixel_um,
    pixels,
    shown,
    up_to,
)
from inkbatch.reports.timing import spent
from inkbatch.run.finished import StoredRun
from inkbatch.text import share_text

FILES = (
    ("prediction.zarr", "the merged map, float16 probability with a pyramid"),
    ("disagreement.zarr", "standard deviation of the members, pixel by pixel"),
    ("preview.png", "the merged map, small"),
    ("disagreement.png", "the disagreement, small"),
    ("weights.json", "fitted weights and threshold"),
    ("manifest.json", "settings and inputs"),
    ("run.json", "seconds, bytes, machine"),
)
STAGES = ("opening the members", None, "reading, combining and writing", "finishing")
METHODS = {
    "mean": "their mean",
    "weighted-mean": "their weighted mean",
    "median": "their median",
    "maximum": "their maximum",
    "odds": "the geometric mean of their odds",
    "ranks": "the mean of their ranks",
    "zscore": "the mean of their z-scores",
    "consensus": "their mean where a second one confirms a mark, else their smallest value",
}
METRICS = {"f05": "F0.5", "dice": "Dice"}
DISPUTED = 0.2  # a standard deviation of probability that is worth a look
MUCH = 0.1  # share of a map that is disputed
MOST = 0.5  # largest standard deviation of probabilities
PLACES, PLACE_PX = 4, 160  # squares of the preview around strong disagreement


def page(run: StoredRun, root: Location) -> Page:
    """Make the page of a finished ensemble.

    Args:
        run: The run, in ``ROOT/predictions/{segment}/{name}``.
        root: ROOT, for links to its members.
    """
    config, members = run.manifest["config"], run.manifest["inputs"]["predictions"]
    merged, spread = pixels(run.folder / "preview.png"), pixels(run.folder / "disagreement.png")
    weights, um = (run.folder / "weights.json").find_mapping(), pixel_um(run.folder / "prediction.zarr")
    width_um = None if um is None else um * _width(run.folder)
    names = [str(member["name"]) for member in members]
    return Page(
        job="ensemble",
        title=f"{config['segment']} / {config['name']}",
        sentence=(
            f"{len(names)} ink maps of segment {config['segment']} ({', '.join(names)}) became one map: "
            f"{METHODS.get(config['method'], config['method'])}, pixel by pixel."
        ),
        hero=tuple(_pictures(config, merged, spread, width_um)),
        figures=(*_figures(config, merged, spread, weights), *money(run)),
        warnings=(
            *bundle_warnings(run),
            *_trained(run, weights),
            *_warnings(config, merged, spread, weights),
            *interruptions(run),
        ),
        contract=_contract(run, members),
        contract_caption="What was asked of the members before a pixel was read.",
        spent=spent(run.rows, STAGES),
        sections=tuple(_sections(run, root, weights, merged, spread)),
        repeat=RERUN,
        repeat_note=(
            f"Look at it beside its members: inkbatch view {config['segment']} --root ROOT. The map serves every job "
            f"that takes a prediction, for example inkbatch evaluate {config['segment']} --name {config['name']} "
            "--root ROOT."
        ),
        files=links(run.folder, FILES),
    )


def _width(folder: Location) -> int:
    return int((folder / "prediction.zarr" / "0" / "zarr.json").read_mapping()["shape"][-1])


def _pictures(
    config: Mapping[str, Any], merged: Pixels | None, spread: Pixels | None, width_um: float | None
) -> list[Picture]:
    found = []
    if merged is not None:
        holds = {"ranks": "rank", "zscore": "z-score"}.get(config["method"], "probability of ink")
        found.append(
            Picture(
                merged,
                alt=f"The merged map of segment {config['segment']}: the brighter, the higher the {holds}.",
                caption=f"The merged map: {holds}, black is 0 and white is 1.",
                width_um=width_um,
                legend=legend_of("grey", "0", "1"),
            )
        )
    if spread is not None:
        found.append(
            Picture(
                coloured(_stretched(spread)),
                alt=f"Where the members disagree on segment {config['segment']}: the brighter, the more.",
                caption="Where the members disagree: standard deviation of their probabilities, dark where they agree.",
                width_um=width_um,
                legend=legend_of("inferno", "agree", f"±{MOST:g}"),
            )
        )
    return found


def _figures(
    config: Mapping[str, Any], merged: Pixels | None, spread: Pixels | None, weights: Mapping[str, Any] | None
) -> list[Figure]:
    found = []
    if weights is not None:
        name, equal = METRICS.get(weights["metric"], weights["metric"]), weights["equal_weights"]["score"]
        found += [
            Figure(shown(weights["score"]), name, f"with fitted weights, on {weights['pixels']:,} labelled pixels"),
            Figure(f"{weights['score'] - equal:+.3f}", "gained by the weights", f"equal ones reach {shown(equal)}"),
            Figure(shown(weights["threshold"], 2), "threshold", "a pixel counts as ink from here on"),
        ]
    if merged is not None and config["method"] not in ("ranks", "zscore"):
        at = threshold_of(None if weights is None else float(weights["threshold"]))
        inside = merged > 0
        share = float((merged >= at * 255).sum() / max(int(inside.sum()), 1))
        found.append(Figure(f"{share:.1%}", "of the papyrus called ink", f"probability of {at:.2f} or more"))
    if spread is not None and merged is not None:
        mean, disputed = _disagreement(merged, spread)
        found += [
            Figure(f"±{mean:.3f}", "mean disagreement", "standard deviation of the members"),
            Figure(f"{disputed:.1%}", "disputed", f"members differ by ±{DISPUTED:g} or more"),
        ]
    return found


def _disagreement(merged: Pixels, spread: Pixels) -> tuple[float, float]:
    """Average the disagreement over papyrus, and the share of it that is disputed, as the small pictures have them."""
    inside = spread[(merged > 0) | (spread > 0)].astype(np.float64) / 255
    return (float(inside.mean()), float((inside >= DISPUTED).mean())) if inside.size else (0.0, 0.0)


def _trained(run: StoredRun, weights: Mapping[str, Any] | None) -> list[str]:
    """Say how much of the map trained its members' networks."""
    trained = TrainedPixels.of(run.manifest["inputs"].get("trained_on", {}))
    shape = (run.folder / "prediction.zarr" / "0" / "zarr.json").read_json()["shape"]
    share = trained.share([Box(0, 0, *shape[-2:])])
    if not share:
        return []
    fitted = " The weights were fitted on the others." if weights is not None else ""
    return [f"{share_text(share)} of these pixels trained a member's network: scores leave these pixels out.{fitted}"]


def _warnings(
    config: Mapping[str, Any], merged: Pixels | None, spread: Pixels | None, weights: Mapping[str, Any] | None
) -> list[str]:
    found = []
    if config["method"] == "ranks":
        found.append("The map holds ranks, not probabilities: 0.9 means brighter than 90 % of the map, not 90 % ink.")
    if config["method"] == "zscore":
        found.append(
            "The map holds z-scores, not probabilities: 0.25 is the mean of a member's map, and each 1/16 above it one "
            "standard deviation."
        )
    if merged is not None and spread is not None and (share := _disagreement(merged, spread)[1]) > MUCH:
        found.append(
            f"The members disagree on {share:.0%} of the papyrus by ±{DISPUTED:g} or more: the mean hides that one of "
            "them sees something that others do not. Compare them in the viewer before you read letters."
        )
    if weights is not None:
        best = max(weights["each_alone"].items(), key=lambda item: item[1]["score"])
        if best[1]["score"] >= weights["score"] - 0.002:
            found.append(f"{best[0]} alone reaches {shown(best[1]['score'])}: the ensemble adds next to nothing.")
        found.append("Weights and threshold were fitted on labels: scores on the same area flatter this map.")
    return found


def _contract(run: StoredRun, members: list[dict[str, Any]]) -> tuple[Promise, ...]:
    config, count = run.manifest["config"], len(members)
    before = "when the members were opened"
    return (
        Promise("segment", str(config["segment"]), f"all {count} are maps of it", before),
        Promise("whole maps", "every unit stored", f"all {count} are complete", "by their complete.json"),
        Promise("one grid", "the same size and pixel", f"all {count} lie on it", before),
        Promise("one scale", "probabilities or ranks, never both", f"{config['method']} of one kind", before),
        Promise("no member twice", "different runs", "all digests differ", before),
        Promise("units", f"{run.manifest['units']}", f"{run.manifest['units']}", "each has a marker"),
    )


def _sections(
    run: StoredRun,
    root: Location,
    weights: Mapping[str, Any] | None,
    merged: Pixels | None,
    spread: Pixels | None,
) -> list[Section]:
    found = [Section("Members", (_members(run, root, weights),))]
    if merged is not None and spread is not None and (places := _disputed_places(run.folder, merged, spread)):
        found.insert(0, Section("Look here first", (Gallery(tuple(places), 22),)))
    return found


def _members(run: StoredRun, root: Location, weights: Mapping[str, Any] | None) -> Table:
    config, members = run.manifest["config"], run.manifest["inputs"]["predictions"]
    given = config.get("weights") or [1 / len(members)] * len(members)
    fitted = {} if weights is None else weights["weights"]
    back, here = up_to(run.folder, root), run.folder.name
    rows: list[tuple[Cell, ...]] = []
    for weight, member in zip(given, members, strict=True):
        name = str(member["name"])
        beside = run.folder.parent / name
        there = back is not None and name != here and (beside / "manifest.json").exists()
        cell: Cell = Link(name, f"../{name}/report.html") if there else name
        own = fitted.get(name, weight)
        alone = [] if weights is None else [shown(weights["each_alone"].get(name, {}).get("score"))]
        weighed = f"{own:.2f}" if config["method"] in ("mean", "weighted-mean", "odds", "ranks", "zscore") else "–"
        rows.append((cell, weighed, *alone, str(member["digest"])[:12]))
    score = [] if weights is None else [f"{METRICS.get(weights['metric'], weights['metric'])} alone"]
    columns = ("map", "weight", *score, "run")
    return Table("The maps that went into it.", columns, tuple(rows), frozenset(range(1, len(columns) - 1)))


def _disputed_places(folder: Location, merged: Pixels, spread: Pixels) -> list[Picture]:
    """Draw the squares with most disagreement, the merged map on the left, the disagreement on the right."""
    factor = max(1, round(_width(folder) / merged.shape[1]))
    edge = min(PLACE_PX, max(16, min(merged.shape) // 2))
    rows, columns = (max(1, size // edge) for size in merged.shape)
    cells = spread[: rows * edge, : columns * edge].astype(np.float64)
    if cells.shape != (rows * edge, columns * edge):
        return []
    sums = cells.reshape(rows, edge, columns, edge).mean(axis=(1, 3))
    found = []
    for rank in np.argsort(-sums, axis=None, kind="stable")[:PLACES]:
        row, column = divmod(int(rank), columns)
        if sums[row, column] < 1:
            break
        square = np.s_[row * edge : (row + 1) * edge, column * edge : (column + 1) * edge]
        found.append(_place(merged[square], spread[square], (row * edge * factor, column * edge * factor)))
    return found


def _place(merged: Pixels, spread: Pixels, corner: tuple[int, int]) -> Picture:
    grey = np.repeat(merged[..., None], 3, axis=2)
    shown_at = np.concatenate([grey, np.full((len(grey), 4, 3), 128, np.uint8), coloured(_stretched(spread))], 1)
    most = float(spread.max()) / 255
    times = max(1, 320 // shown_at.shape[1])
    large = cv2.resize(shown_at, None, fx=times, fy=times, interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    y, x = corner
    return Picture(
        large,
        alt=f"Merged map and disagreement around row {y}, column {x}.",
        caption=f"From row {y:,}, column {x:,}: map on the left, disagreement (up to ±{most:.2f}) on the right.",
    )


def _stretched(spread: Pixels) -> NDArray[np.uint8]:
    """Stretch 0 to `MOST` over all colours."""
    tones: NDArray[np.uint8] = np.clip(spread.astype(np.float32) / MOST, 0, 255).astype(np.uint8)
    return tones

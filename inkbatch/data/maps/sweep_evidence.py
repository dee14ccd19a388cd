"""From the stored maps of a sweep to evidence: numbers of every window, its rank, and how unlike the null it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.data.maps.depth_agreement import (
    COMMON_PIXELS,
    DepthAgreement,
    common_product_name,
    common_sum_name,
)
from inkbatch.data.maps.discovery import (
    Q_CALLED,
    ControlPoint,
    Ground,
    control_point,
    least_together,
    most_directions,
    p_values,
    q_values,
    sentence,
)
from inkbatch.data.maps.evidence import (
    BLOCK_PX,
    SMALL_PX,
    Doubles,
    Floats,
    Halves,
    Moments,
    MomentSums,
    WindowGrid,
    WindowNumbers,
    border_px,
    peak_of,
    window_numbers,
)
from inkbatch.data.maps.rhythm import Rhythm, rhythms_of
from inkbatch.data.maps.sweep import GRID, MEAN, StoredSweep, block_pixels_name, block_sum_name, read_counts
from inkbatch.geometry import Box, cells, cut
from inkbatch.io.half_floats import opencv_threads
from inkbatch.io.multiscale import CHUNK_PX
from inkbatch.io.threads import CORES, WorkerPool

PASS_PX = 1024  # edge of the parts in which maps are read
LEAST_FILLED = 0.5
ALARM_Z = (1.0, 2.0, 3.0)
LEAST_ALARM_MM2 = 0.05  # smaller specks are no strokes

TOO_LITTLE = "holds too little papyrus"

moments_pool = WorkerPool("moments", CORES)
"""Reads parts of maps and sums them up, side by side."""


@dataclass(frozen=True)
class EvidenceRules:
    """Rules of evidence.

    Attributes:
        window_mm: Edge of a window; the nearest whole number of blocks is taken.
        tile_px: Edge of the largest tile of any bundle: windows within half of it from the border are flagged.
        blank: Boxes y0, x0, y1, x1 without ink, as the user knows.
        blank_series: Real series that shows the reverse side, without ink; None: none does.
    """

    window_mm: float = 2.5
    tile_px: int = 0
    blank: tuple[tuple[int, int, int, int], ...] = ()
    blank_series: str | None = None


@dataclass(frozen=True, eq=False)
class Judged:
    """Windows of a sweep, judged.

    Attributes:
        grid: The windows.
        numbers: By series.
        scores: By series, (windows,), see `depth_agreement`.
        judged: True for windows that are judged, (windows,).
        border: Distance of each from the border, pixels.
        null: Scores of null windows, all null series together.
        p: By real series, (windows,); 1 for windows that are not judged.
        q: The same.
        together: Smallest q of each window, paid for by the number of directions.
        moments: By series.
        depth_means: Mean z value of all bundles at every depth, by series, (depths, windows).
    """

    grid: WindowGrid
    numbers: Mapping[str, WindowNumbers]
    scores: Mapping[str, Doubles]
    judged: NDArray[np.bool_]
    border: Doubles
    null: Doubles
    p: Mapping[str, Doubles]
    q: Mapping[str, Doubles]
    together: Doubles
    moments: Mapping[str, Moments]
    depth_means: Mapping[str, Doubles]

    @property
    def judged_scores(self) -> dict[str, Doubles]:
        """Scores of the judged windows by real series."""
        return {name: self.scores[name][self.judged] for name in self.p}

    @property
    def least(self) -> int:
        """Windows that must stand out together before any can be called."""
        return least_together(int(self.judged.sum()), len(self.null), len(self.p))

    @property
    def ground(self) -> Ground:
        """Area that was judged, and why the rest was not; void beside the papyrus is no area."""
        filled = next(iter(self.numbers.values())).filled
        pixels = filled * np.array([box.area for box in self.grid.boxes])
        return Ground(int(pixels[self.judged].sum()), {TOO_LITTLE: int(pixels[~self.judged].sum())})


def moments_of(sweep: StoredSweep, series: str) -> Moments:
    """Read the maps of one series, once, and sum them up."""
    stretches = [(found.mean, found.deviation) for found in map(sweep.stretch, sweep.bundles)]
    sums = MomentSums(sweep.shape_yx, len(stretches))
    read_means(sweep, series, lambda box, means: sums.add(box, means, stretches))
    return sums.moments


def read_means(sweep: StoredSweep, series: str, use: Callable[[Box, list[Halves]], object]) -> None:
    """Read the mean maps of one series part by part, on all cores; the thread that decoded a part uses it.

    Args:
        sweep: The sweep.
        series: Name of the series.
        use: Called with a box of whole blocks and the map of each bundle there, by several threads.
    """
    maps = [sweep.bundle_map(bundle, series, MEAN).levels[0] for bundle in sweep.bundles]

    def read(box: Box) -> None:
        with ExitStack() as stack:
            opened = [stack.enter_context(array.opened(box.slices)) for array in maps]
            for part in cells(box, CHUNK_PX, PASS_PX):
                use(part, [region.read(part.slices) for region in opened])

    with opencv_threads(1):
        moments_pool.map(read, list(cut(sweep.shape_yx, PASS_PX, PASS_PX)))


def judge(sweep: StoredSweep, rules: EvidenceRules) -> Judged:
    """Hold the real windows of a sweep against its null windows."""
    rows = sweep.document["series"]
    moments = {row["name"]: moments_of(sweep, row["name"]) for row in rows}
    grid = WindowGrid.of(sweep.shape_yx, rules.window_mm, float(sweep.document["voxel_size_um"]))
    numbers = {name: window_numbers(found, grid) for name, found in moments.items()}
    first = next(iter(moments.values()))
    border = border_px(first.filled, grid)
    filled = next(iter(numbers.values())).filled
    judged = filled >= LEAST_FILLED
    scores, depth_means = _by_depth(sweep, grid)
    nulls = [scores[row["name"]][judged] for row in rows if row["null"] is not None]
    null = np.concatenate(nulls) if nulls else np.zeros(0)
    p, q = {}, {}
    for row in rows:
        if row["null"] is None:
            p[row["name"]], q[row["name"]] = np.ones(len(filled)), np.ones(len(filled))
            if len(null):
                p[row["name"]][judged] = p_values(scores[row["name"]][judged], null)
                q[row["name"]][judged] = q_values(p[row["name"]][judged])
    together = most_directions(np.stack(list(q.values())))
    return Judged(grid, numbers, scores, judged, border, null, p, q, together, moments, depth_means)


@dataclass(frozen=True)
class PlantedWindow:
    """Window in which ink was planted.

    Attributes:
        at: Its upper left corner, (y, x).
        scores: Score by contrast, and in it by real series.
    """

    at: tuple[int, int]
    scores: Mapping[float, Mapping[str, float]]


def control_points(found: Judged, planted: Sequence[PlantedWindow]) -> list[ControlPoint]:
    """Ask for each contrast how many of the planted windows would have been called; weakest contrast last."""
    places = {(box.y0, box.x0): number for number, box in enumerate(found.grid.boxes)}
    order = np.cumsum(found.judged) - 1  # place of a window among the judged ones
    inside = [one for one in planted if found.judged[places[one.at]]]
    if not inside or not len(found.null):
        return []
    sampled = np.array([order[places[one.at]] for one in inside], np.intp)
    scores = np.stack(list(found.judged_scores.values()))
    points = []
    for contrast in sorted(inside[0].scores, key=abs, reverse=True):
        with_ink = np.array([[one.scores[contrast][name] for one in inside] for name in found.p])
        points.append(control_point(contrast, scores, found.null, sampled, with_ink))
    return points


def evidence(sweep: StoredSweep, rules: EvidenceRules, planted: Sequence[PlantedWindow] = ()) -> dict[str, Any]:
    """Make the evidence of a sweep, as ``sweep.json`` holds it; lists have an entry per window, row-major.

    Args:
        sweep: The maps, of all stages.
        rules: Rules of evidence.
        planted: Windows in which ink of falling contrast was planted, each with its scores.
    """
    found = judge(sweep, rules)
    control = control_points(found, planted)
    real = list(found.p)
    best = np.argmin(np.stack([found.p[name] for name in real]), axis=0)
    scores = np.stack([found.scores[name] for name in real])[best, np.arange(len(best))]
    order = np.lexsort((-scores, found.together, ~found.judged))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    profiles = _profiles(sweep, found.depth_means)
    called = int((found.together <= Q_CALLED).sum())
    judged = int(found.judged.sum())
    return {
        "window_px": found.grid.window_px,
        "window_mm": round(found.grid.window_px * float(sweep.document["voxel_size_um"]) / 1000, 4),
        "q_called": Q_CALLED,
        "called": called,
        "windows": judged,
        "null_windows": len(found.null),
        "least_together": found.least,
        "sentence": sentence(called, list(control), found.ground, found.least, judged),
        "ground": {"judged_px": found.ground.judged, "not_judged_px": found.ground.reasons},
        "control": [{"contrast": one.contrast, "found": one.found, "windows": one.windows} for one in control],
        "blank": _blank(sweep, found, rules),
        "at": [[box.y0, box.x0, box.y1, box.x1] for box in found.grid.boxes],
        "judged": found.judged.tolist(),
        "rank": rank.tolist(),
        "q": _rounded(found.together),
        "direction": [real[place] for place in best],
        "void": _rounded(1 - found.numbers[real[0]].filled),
        "border_px": _rounded(found.border),
        "near_border": (found.border < rules.tile_px / 2).tolist(),
        **_rhythms(sweep, found, [real[place] for place in best]),
        "series": {name: _series(sweep, found, profiles, name) for name in found.numbers},
    }


def _series(sweep: StoredSweep, found: Judged, profiles: Mapping[str, Doubles], name: str) -> dict[str, Any]:
    numbers = found.numbers[name]
    told = {"z": _rounded(numbers.z), "score": _rounded(found.scores[name]), "agreement": _rounded(numbers.agreement)}
    if name not in found.p:
        return told
    peaks = [peak_of(profile, sweep.depths) for profile in profiles[name].T]
    return {
        **told,
        "p": _rounded(found.p[name]),
        "q": _rounded(found.q[name]),
        "depth": _rounded(np.array([peak.depth for peak in peaks])),
        "depth_width": _rounded(np.array([peak.width for peak in peaks])),
        "depth_height": _rounded(np.array([peak.height for peak in peaks])),
        "profile": _rounded(profiles[name][:, found.judged].mean(axis=1)) if found.judged.any() else [],
    }


def _profiles(sweep: StoredSweep, alone: Mapping[str, Doubles]) -> dict[str, Doubles]:
    """Average z values of all bundles at every depth over windows, by real series, less those of the series' nulls.

    Returns:
        (depths, windows) each.
    """
    rows, found = sweep.document["series"], {}
    for row in rows:
        if row["null"] is None:
            nulls = [
                alone[other["name"]]
                for other in rows
                if other["null"] == "repeated" or (other["null"] and other["direction"] == row["direction"])
            ]
            found[row["name"]] = alone[row["name"]] - (np.mean(nulls, axis=0) if nulls else 0)
    return found


def _by_depth(sweep: StoredSweep, grid: WindowGrid) -> tuple[dict[str, Doubles], dict[str, Doubles]]:
    """Read each unit's counts, once, and add them up over windows.

    Returns:
        Scores (windows,), and mean z values of all bundles at every depth, (depths, windows), by series.
    """
    series = list(enumerate(sweep.series))
    names = [COMMON_PIXELS, *(block_pixels_name(b) for b in range(len(sweep.bundles)))]
    for s, _ in series:
        names += [common_sum_name(s), common_product_name(s)]
        names += [block_sum_name(b, s) for b in range(len(sweep.bundles))]
    found = _window_sums(sweep, grid, names)
    stretches = [sweep.stretch(bundle) for bundle in sweep.bundles]
    deviations = [one.deviation for one in stretches]
    scores, means = {}, {}
    for s, name in series:
        agreed = DepthAgreement(found[COMMON_PIXELS], found[common_sum_name(s)], found[common_product_name(s)])
        scores[name] = agreed.scores(deviations)
        z = [
            (found[block_sum_name(b, s)] / GRID / np.maximum(found[block_pixels_name(b)], 1) - one.mean)
            / (one.deviation or 1)
            for b, one in enumerate(stretches)
        ]
        means[name] = np.asarray(np.mean(z, axis=0), np.float64)
    return scores, means


def _window_sums(sweep: StoredSweep, grid: WindowGrid, names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Add up counts of blocks over windows: (…, rows, columns) of each unit to (…, windows)."""
    windows, columns = len(grid.boxes), -(-sweep.shape_yx[1] // grid.window_px)
    total: dict[str, NDArray[np.int64]] = {}
    for (y, x), place in sweep.units.items():
        counts = read_counts(place)
        rows, places = (
            (start // BLOCK_PX + np.arange(size)) // grid.edge_blocks
            for start, size in zip((y, x), counts[names[0]].shape, strict=True)
        )
        window = rows[:, None] * columns + places[None, :]
        inside, where = np.unique(window, return_inverse=True)
        order = np.argsort(where.ravel(), kind="stable")
        starts = np.searchsorted(where.ravel()[order], np.arange(len(inside)))
        for name in names:
            blocks = counts[name].reshape(*counts[name].shape[:-2], -1).astype(np.int64)[..., order]
            sums = total.setdefault(name, np.zeros((*blocks.shape[:-1], windows), np.int64))
            sums[..., inside] += np.add.reduceat(blocks, starts, axis=-1)
    return total


def _rhythms(sweep: StoredSweep, found: Judged, directions: Sequence[str]) -> dict[str, Any]:
    """Measure rows, letters and marks around each window in the series that it is judged by."""
    um = float(sweep.document["voxel_size_um"])
    rhythms: dict[int, Rhythm] = {}
    for series in dict.fromkeys(directions):
        own = [number for number, name in enumerate(directions) if name == series]
        small = found.moments[series].small
        rhythms.update(zip(own, rhythms_of(small, [found.grid.boxes[number] for number in own], um), strict=True))
    rows = [rhythms[number] for number in range(len(directions))]
    return {
        "row_mm": _rounded(np.array([one.row_mm for one in rows])),
        "row_strength": _rounded(np.array([one.row_strength for one in rows])),
        "letter_mm": _rounded(np.array([one.letter_mm for one in rows])),
        "mark_mm": _rounded(np.array([one.mark_mm for one in rows])),
    }


def _blank(sweep: StoredSweep, found: Judged, rules: EvidenceRules) -> dict[str, Any] | None:
    """Count marks where there is no ink, per square centimetre."""
    series = rules.blank_series or next(iter(found.p))
    if not rules.blank and rules.blank_series is None:
        return None
    um = float(sweep.document["voxel_size_um"])
    small = found.moments[series].small
    named = [Box(*box) for box in rules.blank] or [Box(0, 0, *sweep.shape_yx)]
    return {"series": series, **alarms(small, named, um)}


def alarms(small: Floats, boxes: Sequence[Box], pixel_um: float) -> dict[str, Any]:
    """Count marks per square centimetre of ground without ink, at several z values.

    Args:
        small: Mean z values in squares of `SMALL_PX`; 0 where there is no value.
        boxes: The ground, in pixels of the maps.
        pixel_um: Edge of a pixel of the maps.
    """
    square_mm2 = (pixel_um * SMALL_PX / 1000) ** 2
    ground = np.zeros(small.shape, bool)
    for box in boxes:
        ground[box.y0 // SMALL_PX : -(-box.y1 // SMALL_PX), box.x0 // SMALL_PX : -(-box.x1 // SMALL_PX)] = True
    ground &= small != 0
    cm2 = float(ground.sum()) * square_mm2 / 100
    counts = []
    for level in ALARM_Z:
        _, _, stats, _ = cv2.connectedComponentsWithStats(((small >= level) & ground).astype(np.uint8), connectivity=8)
        counts.append(int((stats[1:, cv2.CC_STAT_AREA] * square_mm2 >= LEAST_ALARM_MM2).sum()))
    per = [round(count / cm2, 3) if cm2 else None for count in counts]
    return {"cm2": round(cm2, 4), "z": list(ALARM_Z), "marks": counts, "marks_per_cm2": per}


def _rounded(values: NDArray[Any]) -> list[float | None]:
    return [_plain(float(value)) for value in values]


def _plain(value: float) -> float | None:
    """Round for JSON, which knows no NaN."""
    return None if value != value else float(f"{value:.5g}")

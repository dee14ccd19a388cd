"""From the stored maps of a sweep to evidence: numbers of every window, its rank, and how unlike the null it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.data.maps.common_depth import HeldWindows, heights, held, least_covariance
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
    Outlook,
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
from inkbatch.data.maps.sweep import MEAN, StoredSweep, read_counts
from inkbatch.geometry import Box, cells, cut
from inkbatch.io.half_floats import opencv_threads
from inkbatch.io.multiscale import CHUNK_PX
from inkbatch.io.shards.array import ShardedArray
from inkbatch.io.threads import CORES, WorkerPool

PASS_PX = 1024  # edge of the parts in which maps are read
LEAST_FILLED = 0.5
ALARM_Z = (1.0, 2.0, 3.0)
LEAST_ALARM_MM2 = 0.05  # smaller specks are no strokes

TOO_LITTLE = "holds too little papyrus"
NOT_BY_ALL = "is not read by every network"

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
        left_out: Pixels of papyrus that have no value in any map, by the reason.
        papyrus_px: Pixels of papyrus beside these; None: those at which every bundle has a value.
    """

    window_mm: float = 2.5
    tile_px: int = 0
    blank: tuple[tuple[int, int, int, int], ...] = ()
    blank_series: str | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    papyrus_px: int | None = None


@dataclass(frozen=True, eq=False)
class Judged:
    """Windows of a sweep, judged.

    Attributes:
        grid: The windows.
        numbers: By series.
        profiles: ``C(d)`` by series, (depths, windows), see `depth_agreement`.
        pixels: At which every bundle has a value, (windows,).
        judged: True for windows that are judged, (windows,).
        border: Distance of each from the border, pixels.
        real: Names of the real series.
        held: The judged windows, held against themselves at other depths; its series are `real`.
        moments: By series.
    """

    grid: WindowGrid
    numbers: Mapping[str, WindowNumbers]
    profiles: Mapping[str, Doubles]
    pixels: NDArray[np.int64]
    judged: NDArray[np.bool_]
    border: Doubles
    real: tuple[str, ...]
    held: HeldWindows
    moments: Mapping[str, Moments]

    @property
    def judged_profiles(self) -> Doubles:
        """Profiles of the judged windows, (real series, depths, windows)."""
        return np.stack([self.profiles[name][:, self.judged] for name in self.real])

    def of_all(self, values: NDArray[Any], otherwise: Any) -> NDArray[Any]:
        """Spread values of the judged windows over all windows."""
        found = np.full(len(self.judged), otherwise, values.dtype)
        found[self.judged] = values
        return found

    def ground(self, rules: EvidenceRules) -> Ground:
        """Return the area that was judged, and why the rest was not; void beside the papyrus is no area."""
        judged, thin = int(self.pixels[self.judged].sum()), int(self.pixels[~self.judged].sum())
        missing = 0 if rules.papyrus_px is None else rules.papyrus_px - judged - thin
        return Ground(judged, {TOO_LITTLE: thin, NOT_BY_ALL: missing, **rules.left_out})


def moments_of(sweep: StoredSweep, series: str) -> Moments:
    """Read the maps of one series, once, and sum them up."""
    stretches = [(found.mean, found.deviation) for found in map(sweep.stretch, sweep.bundles)]
    sums = MomentSums(sweep.shape_yx, len(stretches))
    read_means(sweep, series, lambda box, means, filled: sums.add(box, means, stretches, filled))
    return sums.moments


def read_means(sweep: StoredSweep, series: str, use: Callable[[Box, list[Halves], Floats | None], object]) -> None:
    """Read the mean maps of one series part by part, on all cores; the thread that decoded a part uses it.

    Args:
        sweep: The sweep.
        series: Name of the series.
        use: Called with a box of whole blocks, the map of each bundle there, and 1 where all of them have a value and 0
            elsewhere (None: all do everywhere), by several threads.
    """
    maps = [sweep.bundle_map(bundle, series, MEAN).levels[0] for bundle in sweep.bundles]
    counts = [sweep.count(bundle).levels[0] for bundle in sweep.bundles]

    def read(box: Box) -> None:
        with ExitStack() as stack:
            opened = [stack.enter_context(array.opened(box.slices)) for array in maps]
            for part in cells(box, CHUNK_PX, PASS_PX):
                means = [region.read(part.slices) for region in opened]
                use(part, means, _filled(means, counts, part))

    with opencv_threads(1):
        moments_pool.map(read, list(cut(sweep.shape_yx, PASS_PX, PASS_PX)))


def _filled(means: Sequence[Halves], counts: Sequence[ShardedArray], box: Box) -> Floats | None:
    """Return 1 where every bundle has a value and 0 elsewhere; None where all do everywhere.

    A value may be 0, where a network is sure; so counts are read wherever one is.
    """
    if all(cv2.countNonZero(one.view(np.uint16)) == one.size for one in means):
        return None
    has_value = np.ones(box.shape, bool)
    for array in counts:
        with array.opened(box.slices) as region:
            has_value &= region.read(box.slices) > 0
    return None if has_value.all() else has_value.astype(np.float32)


def judge(sweep: StoredSweep, rules: EvidenceRules) -> Judged:
    """Hold the windows of a sweep against themselves at other depths."""
    rows = sweep.document["series"]
    moments = {row["name"]: moments_of(sweep, row["name"]) for row in rows}
    grid = WindowGrid.of(sweep.shape_yx, rules.window_mm, float(sweep.document["voxel_size_um"]))
    numbers = {name: window_numbers(found, grid) for name, found in moments.items()}
    first = next(iter(moments.values()))
    border = border_px(first.covered, grid)
    pixels, profiles = _profiles(sweep, grid)
    judged = pixels >= LEAST_FILLED * np.array([box.area for box in grid.boxes])
    real = tuple(row["name"] for row in rows if row["null"] is None)
    against = held(np.stack([profiles[name][:, judged] for name in real]), sweep.depths, _least(sweep))
    return Judged(grid, numbers, profiles, pixels, judged, border, real, against, moments)


@dataclass(frozen=True)
class PlantedWindow:
    """Window in which ink was planted.

    Attributes:
        at: Its upper left corner, (y, x).
        profiles: ``C(d)`` by contrast, and in it by real series, (depths,).
    """

    at: tuple[int, int]
    profiles: Mapping[float, Mapping[str, Sequence[float]]]


def control_points(found: Judged, planted: Sequence[PlantedWindow], sweep: StoredSweep) -> list[ControlPoint]:
    """Ask for each contrast how many of the planted windows would have been called; weakest contrast last.

    Windows that are called as they are would be called with anything planted into them: they are no control.
    """
    places = {(box.y0, box.x0): number for number, box in enumerate(found.grid.boxes)}
    order = np.cumsum(found.judged) - 1  # place of a window among the judged ones
    open_yet = found.judged & ~found.of_all(found.held.called, False)
    inside = [one for one in planted if open_yet[places[one.at]]]
    if not inside:
        return []
    sampled = np.array([order[places[one.at]] for one in inside], np.intp)
    points = []
    for contrast in sorted(inside[0].profiles, key=abs, reverse=True):
        with_ink = found.judged_profiles
        for window, one in zip(sampled, inside, strict=True):
            with_ink[:, :, window] = [one.profiles[contrast][name] for name in found.real]
        called = held(with_ink, sweep.depths, _least(sweep)).called[sampled]
        points.append(ControlPoint(contrast, int(called.sum()), len(sampled)))
    return points


def evidence(sweep: StoredSweep, rules: EvidenceRules, planted: Sequence[PlantedWindow] = ()) -> dict[str, Any]:
    """Make the evidence of a sweep, as ``sweep.json`` holds it; lists have an entry per window, row-major.

    Args:
        sweep: The maps, of all stages.
        rules: Rules of evidence.
        planted: Windows in which ink of falling contrast was planted, each with its scores.
    """
    found = judge(sweep, rules)
    against = found.held
    control = control_points(found, planted, sweep)
    ground = found.ground(rules)
    q = found.of_all(against.q, 1.0)
    scores = found.of_all(against.scores, 0.0)
    order = np.lexsort((-scores, q, ~found.judged))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    called, judged = int(against.called.sum()), len(against.scores)
    direction = [found.real[place] for place in found.of_all(against.series, 0)]
    return {
        "window_px": found.grid.window_px,
        "window_mm": round(found.grid.window_px * float(sweep.document["voxel_size_um"]) / 1000, 4),
        "q_called": Q_CALLED,
        "called": called,
        "windows": judged,
        "null_windows": len(against.null),
        "least_together": against.least,
        "cut_off": against.cut_off,
        "empty": against.empty,
        "sentence": sentence(called, control, ground, Outlook(judged, against.least, against.cut_off, against.empty)),
        "ground": {"judged_px": ground.judged, "not_judged_px": ground.reasons},
        "control": [{"contrast": one.contrast, "found": one.found, "windows": one.windows} for one in control],
        "blank": _blank(sweep, found, rules),
        "at": [[box.y0, box.x0, box.y1, box.x1] for box in found.grid.boxes],
        "judged": found.judged.tolist(),
        "rank": rank.tolist(),
        "p": _rounded(found.of_all(against.p, 1.0)),
        "q": _rounded(q),
        "direction": direction,
        "void": _rounded(1 - found.numbers[found.real[0]].filled),
        "border_px": _rounded(found.border),
        "near_border": (found.border < rules.tile_px / 2).tolist(),
        **_rhythms(sweep, found, direction),
        "series": {name: _series(sweep, found, name) for name in found.numbers},
    }


def _series(sweep: StoredSweep, found: Judged, name: str) -> dict[str, Any]:
    numbers, profile = found.numbers[name], heights(found.profiles[name])
    judged = profile[:, found.judged]
    told = {
        "z": _rounded(numbers.z),
        "score": _rounded(profile.max(axis=0)),
        "agreement": _rounded(numbers.agreement),
        "called": int(held(found.profiles[name][None][..., found.judged], sweep.depths, _least(sweep)).called.sum()),
        "profile": _rounded(judged.mean(axis=1)) if found.judged.any() else [],
    }
    if name not in found.real:
        return told
    tops = found.of_all(found.held.depth[found.real.index(name)], 0)
    peaks = [peak_of(one, sweep.depths, int(top)) for one, top in zip(profile.T, tops, strict=True)]
    return {
        **told,
        "depth": _rounded(np.array([peak.depth for peak in peaks])),
        "depth_width": _rounded(np.array([peak.width for peak in peaks])),
        "depth_height": _rounded(np.array([peak.height for peak in peaks])),
    }


def _least(sweep: StoredSweep) -> float:
    return least_covariance([sweep.stretch(bundle).deviation for bundle in sweep.bundles])


def _profiles(sweep: StoredSweep, grid: WindowGrid) -> tuple[NDArray[np.int64], dict[str, Doubles]]:
    """Read each unit's counts, once: pixels of windows, and ``C(d)`` of windows by series, (depths, windows)."""
    names = [COMMON_PIXELS]
    for s in range(len(sweep.series)):
        names += [common_sum_name(s), common_product_name(s)]
    found = _window_sums(sweep, grid, names)
    deviations = [sweep.stretch(bundle).deviation for bundle in sweep.bundles]
    pixels = found[COMMON_PIXELS]
    return pixels, {
        name: DepthAgreement(pixels, found[common_sum_name(s)], found[common_product_name(s)]).covariances(deviations)
        for s, name in enumerate(sweep.series)
    }


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
    series = rules.blank_series or found.real[0]
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

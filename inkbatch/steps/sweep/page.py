"""The page of a sweep: how unlike its nulls a segment answers, where, at which depth, and which bundles agree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.trained_pixels import TrainedPixels
from inkbatch.data.maps.sweep import BEST_DEPTH, DOCUMENT_NAME, MAPS_NAME, Z
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.pictures.preview import preview_level
from inkbatch.io.pictures.z_maps import SHOWN_Z, grey_of_z
from inkbatch.io.store.location import Location
from inkbatch.reports.charts.shapes import Axis, Line
from inkbatch.reports.charts.svg import line_chart
from inkbatch.reports.page import Chart, Figure, Page, Picture, Section, Table, Words
from inkbatch.reports.pictures import READ_PX, coloured, fitted, legend_of
from inkbatch.reports.stored import RERUN, interruptions, links, money, shown
from inkbatch.reports.timing import spent
from inkbatch.run.finished import StoredRun, open_run
from inkbatch.steps.sweep.rough_layers import rough_layer
from inkbatch.steps.sweep.window_pictures import WindowSource, depth_colours
from inkbatch.steps.sweep.windows_page import window_sections
from inkbatch.text import count_text, share_text

FILES = (
    ("sweep.json", "stretches, means, profiles, agreement, and the evidence of every window"),
    ("maps", "statistics of each bundle by itself"),
    ("manifest.json", "settings and inputs"),
    ("run.json", "seconds, bytes, machine"),
)
STAGES = ("getting ready: the networks", "computing", "waiting for layers and storage", "finishing")
NULL_SHARE = 0.01  # of a null lies above the z value that real maps are held against
UNLIKE = 2.0  # times as much of the real map above it: worth a look
EDGE_SHARE = 0.3  # of the papyrus whose best depth is the first or the last one


@dataclass(frozen=True)
class SmallMap:
    """A z map at the size of a page.

    Attributes:
        name: Its series.
        z: (Y, X), float32.
        has_value: True where it has one.
    """

    name: str
    z: NDArray[np.float32]
    has_value: NDArray[np.bool_]

    def share_above(self, z: float) -> float:
        """Share of the map that lies above a value."""
        return float((self.z[self.has_value] > z).mean()) if self.has_value.any() else 0.0


@dataclass(frozen=True)
class Comparison:
    """A real series beside its loudest null.

    Attributes:
        real: The real one.
        null: The null of which most lies high; None where none was swept.
        level: z value that `NULL_SHARE` of that null reaches.
    """

    real: SmallMap
    null: SmallMap | None
    level: float

    @property
    def times(self) -> float:
        """Times as much of the real map as of the null lies above the level."""
        return self.real.share_above(self.level) / NULL_SHARE


def page(run: StoredRun, root: Location) -> Page:
    """Make the page of a finished sweep.

    Args:
        run: The run, in ``ROOT/sweeps/{segment}/{name}``.
        root: ROOT.
    """
    document = (run.folder / DOCUMENT_NAME).read_mapping()
    config = run.manifest["config"]
    compared = sorted(_comparisons(run.folder, document), key=lambda one: -one.times)
    first = open_run((run.folder / MAPS_NAME).uri)
    um = float(document["voxel_size_um"]) * int(document["shape_yx"][1])
    depths = _depth_picture(run.folder, document, compared[0].real.name, um)
    return Page(
        job="sweep",
        title=f"{config['segment']} / {config['name']}",
        sentence=" ".join((*_of_windows(document), _honest(document, compared))),
        hero=(*_pictures(compared, um), *depths),
        figures=(*_figures(document, compared), *money(first)),
        warnings=(*_warnings(run, document, compared), *interruptions(first)),
        spent=spent(first.rows, STAGES),
        sections=(*window_sections(WindowSource.of(run, root, document)), *_sections(document)),
        repeat=RERUN,
        repeat_note=(
            f"To look closer: inkbatch view {config['segment']} --root ROOT shows z values and best depths of every "
            "series as layers. docs/search.md says what they can tell and what not."
        ),
        files=links(run.folder, FILES),
    )


def _of_windows(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the evidence says in a sentence, for the top of the page; nothing of older sweeps."""
    return (document["evidence"]["sentence"],) if "evidence" in document else ()


def _honest(document: Mapping[str, Any], compared: Sequence[Comparison]) -> str:
    """Say in one sentence how unlike its null the search answers, and nothing of ink."""
    bundles, depths = document["bundles"], document["depths"]
    asked = f"{count_text(len(bundles), 'network')} at {count_text(len(depths), 'depth')}"
    best = compared[0]
    if best.null is None:
        return (
            f"{asked} looked at segment {document['segment']}, without a null: nothing on this page says whether what "
            "is bright is more than the networks paint anywhere."
        )
    share, level = best.real.share_above(best.level), best.level
    measured = (
        f"{best.times:.1f} times as much as in the null: look there, it is no proof of ink"
        if best.times >= UNLIKE
        else f"{'hardly' if best.times >= 1 else 'no'} more than in the null: brightness alone tells nothing here, "
        "neither for ink nor against it"
    )
    return (
        f"{asked} looked at segment {document['segment']}. A z value of {level:.2f}, which {NULL_SHARE:.0%} of the "
        f"null ({best.null.name}) reaches, is reached by {share:.1%} of the {best.real.name} map: {measured}."
    )


def _small(folder: Location, series: str) -> SmallMap:
    pyramid = Multiscale.open(folder / series / Z)
    array = pyramid.levels[preview_level(pyramid, READ_PX)]
    z = array.read([slice(0, size) for size in array.layout.shape]).astype(np.float32)
    return SmallMap(series, z, z != 0)


def _comparisons(folder: Location, document: Mapping[str, Any]) -> Iterator[Comparison]:
    maps = {row["name"]: (row, _small(folder, row["name"])) for row in document["series"]}
    for row, real in maps.values():
        if row["null"] is not None:
            continue
        nulls = [
            small
            for other, small in maps.values()
            if other["null"] == "repeated" or (other["null"] and other["direction"] == row["direction"])
        ]
        level, null = max(((_level(one), one) for one in nulls), key=lambda pair: pair[0], default=(math.nan, None))
        yield Comparison(real, null, level)


def _level(null: SmallMap) -> float:
    values = null.z[null.has_value]
    return float(np.quantile(values, 1 - NULL_SHARE)) if values.size else 0.0


def _pictures(compared: Sequence[Comparison], width_um: float) -> Iterator[Picture]:
    best = compared[0]
    shown_maps = [(best.real, f"The {best.real.name} map: mean z value over depths and networks.")]
    if best.null is not None:
        said = f"The null beside it ({best.null.name}), in the same colours: layers out of order, or one repeated."
        shown_maps.append((best.null, said))
    shown_maps += [(one.real, f"The {one.real.name} map.") for one in compared[1:]]
    low, high = SHOWN_Z
    for small, caption in shown_maps:
        tones = np.where(small.has_value, grey_of_z(small.z.astype(np.float16)), 0).astype(np.uint8)
        yield Picture(
            coloured(fitted(tones)),
            alt=f"z values of the series {small.name}: {small.share_above(2):.1%} of it lie above 2.",
            caption=caption,
            width_um=width_um,
            legend=legend_of("inferno", f"z {low:g}", f"z {high:g}"),
        )


def _depth_picture(folder: Location, document: Mapping[str, Any], series: str, width_um: float) -> list[Picture]:
    places = _small_depths(folder, series)
    depths = document["depths"]
    if len(depths) < 2:
        return []
    return [
        Picture(
            fitted(depth_colours(places, len(depths))),
            alt=f"Best depth of the series {series}, from {depths[0]} to {depths[-1]} layers.",
            caption=f"At which depth the {series} map is brightest: a sheet with ink has one colour over large areas.",
            width_um=width_um,
            legend=legend_of("viridis", f"{depths[0]} layers", f"{depths[-1]} layers"),
        )
    ]


def _small_depths(folder: Location, series: str) -> NDArray[np.uint8]:
    pyramid = Multiscale.open(folder / series / BEST_DEPTH)
    array = pyramid.levels[preview_level(pyramid, READ_PX)]
    return np.asarray(array.read([slice(0, size) for size in array.layout.shape]), np.uint8)


def _figures(document: Mapping[str, Any], compared: Sequence[Comparison]) -> Iterator[Figure]:
    best = compared[0]
    if best.null is not None:
        above = best.real.share_above(best.level)
        yield Figure(f"{above:.1%}", f"of {best.real.name} above z {best.level:.2f}", f"{NULL_SHARE:.0%} of its null")
    real, null = (_agreement(document, is_null=is_null) for is_null in (False, True))
    if real is not None:
        beside = "" if null is None else f"{null:+.2f} on nulls"
        yield Figure(f"{real:+.2f}", "agreement of the networks", f"mean correlation; {beside}".rstrip("; "))
    depths = document["depths"]
    reach = f"{depths[0]} to {depths[-1]}" if len(depths) > 1 else f"{depths[0]}"
    name = "depth" if len(depths) == 1 else "depths"
    yield Figure(f"{len(depths)}", name, f"{reach} layers of {document['layer_um']:g} µm")


def _agreement(document: Mapping[str, Any], *, is_null: bool) -> float | None:
    """Average the correlations of every two bundles over series of one kind; None for a single bundle."""
    chosen = [row["name"] for row in document["series"] if (row["null"] is not None) == is_null]
    found = [
        row[j]
        for name in chosen
        for i, row in enumerate(document["agreement"][name])
        for j in range(i + 1, len(row))
        if row[j] is not None
    ]
    return sum(found) / len(found) if found else None


def _warnings(run: StoredRun, document: Mapping[str, Any], compared: Sequence[Comparison]) -> Iterator[str]:
    trained = TrainedPixels.of(run.manifest["inputs"].get("trained_on", {}))
    if share := trained.share([Box(0, 0, *document["shape_yx"])]):
        yield f"{share_text(share)} of these pixels trained a network of this sweep: what it shows there it has learnt."
    yield from one_network([(row["name"], row["weights_sha256"]) for row in document["bundles"]])
    if rough := rough_layer(document):
        yield rough
    if compared[0].null is None:
        yield "No null was swept: run it again with --nulls shuffled,repeated before you read anything into it."
    places = _small_depths(run.folder, compared[0].real.name)
    inside = places[places > 0]
    if len(document["depths"]) > 2 and inside.size:
        ends = float(((inside == 1) | (inside == len(document["depths"]))).mean())
        if ends > EDGE_SHARE:
            yield (
                f"On {share_text(ends)} of the papyrus the brightest depth is the first or the last one: the sheet may "
                "lie further off; sweep more depths, or look at the segmentation."
            )


def one_network(digests: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Warn of bundles with the same weights.

    Args:
        digests: Name and digest of the weights, by bundle.
    """
    for digest in dict.fromkeys(digest for _, digest in digests):
        names = [name for name, other in digests if other == digest]
        if len(names) > 1:
            yield f"{', '.join(names)} have the same weights: they are one network, and that they agree tells nothing."


def _sections(document: Mapping[str, Any]) -> Iterator[Section]:
    if len(document["depths"]) > 1:
        yield Section("By depth", (_profile_chart(document),))
    if len(document["bundles"]) > 1:
        yield Section("Which networks agree", (_agreement_table(document), Words(AGREEMENT_WORDS)))
    yield Section("The networks", (_bundle_table(document),))


AGREEMENT_WORDS = (
    "Networks that were trained apart and agree on the real layers, but not on the nulls, answer to something in the "
    "papyrus. Networks that agree on nulls, too, share a habit."
)


def _profile_chart(document: Mapping[str, Any]) -> Chart:
    depths, lines = np.array(document["depths"], np.float64), []
    for row in document["series"]:
        found = [
            (np.array(one["series"][row["name"]]["profile"]) - one["stretch"]["mean"])
            / (one["stretch"]["deviation"] or 1.0)
            for one in document["bundles"]
        ]
        lines.append(Line.of(row["name"], depths, np.mean(found, axis=0), dots=len(depths) < 40))
    tops = [(line.name, *max(line.points, key=lambda point: point[1])) for line in lines]
    words = "; ".join(f"{name} highest at {depth:g}, {z:.2f}" for name, depth, z in tops)
    return line_chart(
        "Mean z value over the papyrus at each depth. Ink is a thin layer: it makes a thin peak.",
        f"Mean z value by depth: {words}.",
        Axis("depth, layers from where each network looks by itself", whole=True),
        Axis("mean z"),
        lines,
    )


def _agreement_table(document: Mapping[str, Any]) -> Table:
    names = [row["name"] for row in document["bundles"]]
    series = [row["name"] for row in document["series"]]
    rows = [
        (names[i], names[j], *(shown(document["agreement"][one][i][j], 2) for one in series))
        for i in range(len(names))
        for j in range(i + 1, len(names))
    ]
    columns = ("network", "and", *series)
    caption = "Correlation of the means of every two networks over the papyrus, by series."
    return Table(caption, columns, tuple(rows), frozenset(range(2, len(columns))))


def _bundle_table(document: Mapping[str, Any]) -> Table:
    series = [row["name"] for row in document["series"]]
    rows = []
    for one in document["bundles"]:
        stretch, (start, stop) = one["stretch"], one["layers"]
        known = (f"{start}:{stop}", f"{stretch['mean']:.3f} ± {stretch['deviation']:.3f}")
        means = ((name, f"{one['series'][name]['mean']:.3f}") for name in series)
        rows += [(one["name"], *(("", "") if number else known), *mean) for number, mean in enumerate(means)]
    columns = ("network", "layers at depth 0", "stretch", "series", "mean")
    caption = "Each network's stretch (mean and deviation of all its real values), and its mean by series."
    return Table(caption, columns, tuple(rows), frozenset({4}))

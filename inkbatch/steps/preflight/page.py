"""The page of a preflight: where the layers can be read, what is wrong elsewhere, and what could not be judged."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.io.store.location import Location
from inkbatch.reports.charts.shapes import Axis, Line
from inkbatch.reports.charts.svg import line_chart
from inkbatch.reports.page import Chart, Figure, Page, Picture, Section, Table, Words
from inkbatch.reports.stored import RERUN, bundle_warnings, interruptions, links, money
from inkbatch.reports.timing import spent
from inkbatch.run.finished import StoredRun
from inkbatch.steps.preflight.picture import coloured
from inkbatch.steps.preflight.verdict import UNIT_OF, WORDS
from inkbatch.steps.stored_preflight import UNREADABLE
from inkbatch.text import count_text, share_text

FILES = (
    ("preflight.json", "verdict and number of every tile"),
    ("preflight.zarr", "the verdicts as a map, one pixel per tile"),
    ("preflight.png", "the same as one picture"),
    ("measures", "all that was measured in each tile, its profile among it"),
    ("manifest.json", "settings and inputs"),
    ("run.json", "seconds, bytes, machine"),
)
STAGES = ("opening the surface", "measuring", "waiting for storage", "weighing the tiles")
MOST_LINES = 4  # colours of a chart
COLOUR_WORDS = {
    "fine": "light grey",
    "outside": "black",
    "blank": "grey",
    "seam": "red",
    "no sheet": "brown",
    "two sheets": "orange",
    "off-centre": "blue",
    "scale": "violet",
    "lossy codec": "green",
}
CURES = {
    "outside": "the layers leave the volume, or there is no papyrus; nothing can be read there",
    "blank": "no texture, only noise: the surface runs through air, or the rendering failed",
    "seam": "patches of the surface do not meet: strokes break off at the line; look at the mesh",
    "no sheet": "texture, but no layer is brighter than the others: the surface follows no sheet",
    "two sheets": "two sheets among the layers that count: ink of either may show; look at the mesh",
    "off-centre": "the sheet lies beside the layers that count: move the layers by this number, or probe",
    "scale": "the grain does not fit the pixels that the network was trained on; look at the stated voxel size",
    "lossy codec": "the layers went through JPG or a video codec: fine contrast is gone; look for the original",
}


def page(run: StoredRun, root: Location) -> Page:
    """Make the page of a finished preflight.

    Args:
        run: The run, in ``ROOT/preflights/{segment}/{name}``.
        root: Not needed.
    """
    found = (run.folder / "preflight.json").read_mapping()
    counts, codes = found["tiles"], np.array(found["codes"], np.uint8)
    total = codes.size
    fine, unreadable = counts["fine"] / total, sum(counts[word] for word in UNREADABLE) / total
    return Page(
        job="preflight",
        title=f"{found['segment']}: {share_text(fine)} of the tiles are fine",
        sentence=(
            f"Every tile of {found['tile_px']} px of segment {found['segment']} was judged by its layers alone, before "
            f"any network: {counts['fine']:,} of {total:,} are fine."
        ),
        hero=(_map(found, codes), *_profiles(run, found)),
        figures=(
            Figure(share_text(fine), "fine", "nothing is wrong that the layers show by themselves"),
            Figure(
                share_text(unreadable), "cannot be read", "outside, blank or without a sheet: what a mask leaves out"
            ),
            Figure(share_text(1 - fine - unreadable), "with another fault", "can be read, with care"),
            *money(run),
        ),
        warnings=(*bundle_warnings(run), *_warnings(found), *interruptions(run)),
        spent=spent(run.rows, STAGES),
        sections=(
            Section("What was found", (_counts(found, codes),)),
            Section("How to read it", (Words(READING),), folded=True),
        ),
        repeat=RERUN,
        repeat_note=(
            f"inkbatch infer {found['segment']} --bundle BUNDLE --preflight mask --root ROOT leaves out what cannot be "
            "read; --preflight warn only says it."
        ),
        files=links(run.folder, FILES),
    )


READING = (
    "A tile has one verdict, the gravest one, with one number. The profile (mean grey value by layer) tells about "
    "sheets; it can be judged where the layers reach beyond a sheet, that is from 200 µm on. Texture tells the rest: "
    "what neighbours have in common (blank, scale), steps along a straight line (seam), steps along a grid of 8 px "
    "(lossy codec). The limits were set on made tiles of known fault and on the shipped crop of real papyrus; on "
    "other papyrus they may be wrong, and a tile without a fault here may still be spoiled."
)


def _map(found: dict[str, Any], codes: NDArray[np.uint8]) -> Picture:
    there = [word for word in WORDS if found["tiles"][word]]
    colours = ", ".join(f"{COLOUR_WORDS[word]} {word}" for word in there)
    counts = ", ".join(f"{found['tiles'][word]:,} {word}" for word in there)
    return Picture(
        coloured(codes),
        alt=f"Map of the segment, one square per tile, coloured by verdict: {counts}.",
        caption=f"One square per tile of {found['tile_px']} px: {colours}.",
        crisp=True,
    )


def _profiles(run: StoredRun, found: dict[str, Any]) -> tuple[Chart, ...]:
    """Draw the mean profile of the tiles of each verdict that has one."""
    sums: dict[str, Any] = {}
    for name in (run.folder / "measures").names():
        for tile in (run.folder / "measures" / name).read_mapping()["tiles"]:
            if tile["inside"] > 0:
                total, count = sums.get(tile["verdict"], (0.0, 0))
                sums[tile["verdict"]] = (total + np.array(tile["profile"]), count + 1)
    if not sums:
        return ()
    shown = sorted(sums, key=lambda word: -sums[word][1])[:MOST_LINES]
    lines = [
        Line(word, [(float(layer), float(value)) for layer, value in enumerate(sums[word][0] / sums[word][1])])
        for word in WORDS
        if word in shown
    ]
    first, stop = found["layers"]
    return (
        line_chart(
            f"Mean grey value by layer, over tiles of the most frequent verdicts. Layers {first} to {stop - 1} count.",
            f"Profiles of the tiles by verdict: {', '.join(line.name for line in lines)}.",
            Axis("layer, depth order", whole=True),
            Axis("grey value of 255", low=0),
            lines,
        ),
    )


def _warnings(found: dict[str, Any]) -> tuple[str, ...]:
    listed = [
        f"{count_text(found['tiles'][word], 'tile')} {word}: {CURES[word]}."
        for word in WORDS
        if word != "fine" and found["tiles"][word]
    ]
    missing = found["not_judged"]
    if "no sheet" in missing:
        listed.append("The layers are too few to reach beyond a sheet: nobody can tell from them where the sheet lies.")
    if "scale" in missing:
        listed.append("The scale was not judged: no bundle (bundle) and no scale (scale_um) was stated.")
    return tuple(listed)


def _counts(found: dict[str, Any], codes: NDArray[np.uint8]) -> Table:
    numbers = np.array(found["numbers"])
    rows = []
    for code, word in enumerate(WORDS):
        these = numbers[codes == code]
        if these.size:
            low, high = np.percentile(these, (10, 90))
            numbered = "–" if word == "fine" else f"{np.median(these):.2f} ({low:.2f} to {high:.2f})"
            rows.append((word, f"{these.size:,}", share_text(these.size / codes.size), numbered, UNIT_OF[word] or "–"))
    return Table(
        "Tiles by verdict, with the median of their number and where eight of ten lie.",
        ("verdict", "tiles", "share", "number", "it counts"),
        tuple(rows),
        frozenset({1, 2, 3}),
    )

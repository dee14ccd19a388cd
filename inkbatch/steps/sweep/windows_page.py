"""Sections of a sweep's page on its windows: ranked ones as pictures, a map of ranks, and the control."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np

from inkbatch.data.maps.discovery import SEEN_SHARE
from inkbatch.reports.charts.shapes import Axis, Line
from inkbatch.reports.charts.svg import line_chart
from inkbatch.reports.page import Chart, Element, Gallery, Picture, Section, Table, Words
from inkbatch.reports.pictures import coloured, legend_of
from inkbatch.reports.stored import shown
from inkbatch.steps.sweep.window_pictures import WindowSource, loudest_null, window_picture
from inkbatch.text import count_text

SHOWN, LISTED = 6, 20  # windows as pictures, and as rows
CELL_PX, LEAST_PX, MOST_PX = 16, 480, 1200  # of the map of ranks: a window, and the longer edge
NOT_JUDGED = 150  # grey; the colours of ranks have none


def window_sections(source: WindowSource) -> Iterator[Section]:
    """Make the sections; none where an older sweep has no evidence."""
    document = source.document
    evidence = document.get("evidence")
    if not evidence:
        return
    order = [number for number in np.argsort(evidence["rank"]).tolist() if evidence["judged"][number]]
    parts: list[Element] = []
    if order:
        ranks = [_rank_map(document)] if len(order) > 1 else []  # of one window it is a square of one colour
        parts = [_gallery(source, order[:SHOWN]), *ranks, _table(document, order[:LISTED])]
        parts.append(Words(f"{VIEWER_WORDS} inkbatch view {document['segment']} --root ROOT."))
    yield Section("Windows, the most unlike themselves at other depths first", (*parts, Words(WORDS)))
    if evidence["control"]:
        yield Section("What would have been seen", (_control(evidence),))
    if evidence["blank"]:
        yield Section("Ground without ink", (_blank(evidence["blank"]),))


WORDS = (
    "A q of 0.05 means: of this window and all that rank before it, one in twenty is expected to be false. Nothing "
    "here says ink: a window is unlike the same papyrus at other depths."
)

VIEWER_WORDS = "Links open a window in the viewer, real maps beside their null, while it runs on this machine:"


def _gallery(source: WindowSource, order: list[int]) -> Gallery:
    return Gallery(tuple(window_picture(source, number) for number in order), 30)


def _rank_map(document: Mapping[str, Any]) -> Picture:
    """Colour every window by its rank; those that were not judged are grey."""
    evidence = document["evidence"]
    edge = evidence["window_px"]
    rows, columns = (-(-side // edge) for side in document["shape_yx"])
    count = max(1, sum(evidence["judged"]))
    rank, judged = np.array(evidence["rank"]), np.array(evidence["judged"])
    share = np.where(judged, 1 - (rank - 1) / count, 0.0).reshape(rows, columns)
    colours = coloured(np.rint(share * 255).astype(np.uint8))
    colours[~judged.reshape(rows, columns)] = NOT_JUDGED
    longer = max(rows, columns)
    cell = max(1, min(MOST_PX, max(LEAST_PX, CELL_PX * longer)) // longer)
    large = cv2.resize(colours, (columns * cell, rows * cell), interpolation=cv2.INTER_NEAREST)
    return Picture(
        np.asarray(large, np.uint8),
        alt=f"Map of the ranks of {rows} × {columns} windows: the brighter, the more unlike the null.",
        caption=f"Rank of every window of {evidence['window_mm']:.2f} mm; grey was not judged.",
        width_um=columns * edge * float(document["voxel_size_um"]),
        legend=legend_of("inferno", "last", "first"),
        crisp=True,
    )


def _table(document: Mapping[str, Any], order: list[int]) -> Table:
    evidence = document["evidence"]
    rows = []
    for number in order:
        series = evidence["direction"][number]
        real, null = evidence["series"][series], loudest_null(document, series, number)
        beside = evidence["series"][null] if null else None
        flag = " (near the border)" if evidence["near_border"][number] else ""
        y0, x0 = evidence["at"][number][:2]
        rows.append(
            (
                str(evidence["rank"][number]),
                f"{y0:,}, {x0:,}{flag}",
                series,
                shown(evidence["q"][number], 3),
                f"{shown(real['z'][number], 2)} / {shown(beside and beside['z'][number], 2)}",
                f"{shown(real['agreement'][number], 2)} / {shown(beside and beside['agreement'][number], 2)}",
                f"{shown(real['depth'][number], 1)} ± {shown(real['depth_width'][number] / 2, 1)}",
                f"{evidence['void'][number]:.0%}",
                f"{shown(evidence['row_mm'][number], 1)} / {shown(evidence['letter_mm'][number], 1)}",
            )
        )
    columns = ("rank", "row, column", "direction", "q", "z, real / null", "agreement, real / null", "depth", "void")
    caption = (
        "The first windows. Depth is where the networks agree most, in layers; rows and letters are the distance "
        "of rows and the height of letters in mm, where the map around a window has any."
    )
    return Table(caption, (*columns, "rows / letters, mm"), tuple(rows), frozenset(range(3, 9)))


def _blank(found: Mapping[str, Any]) -> Table:
    """List false marks of ground that the user named."""
    rows = [
        (f"{z:g}", str(marks), shown(per, 1))
        for z, marks, per in zip(found["z"], found["marks"], found["marks_per_cm2"], strict=True)
    ]
    caption = f"Marks of the {found['series']} map on {found['cm2']:.2f} cm² where you know of no ink: all are false."
    return Table(caption, ("z above", "marks", "per cm²"), tuple(rows), frozenset(range(3)))


def _control(evidence: Mapping[str, Any]) -> Chart:
    points = sorted((row["contrast"], row["found"] / max(row["windows"], 1)) for row in evidence["control"])
    words = ", ".join(f"{contrast:g}: {share:.0%}" for contrast, share in points)
    windows = evidence["control"][0]["windows"]
    elsewhere = (
        " Windows are called as they are, and strokes planted elsewhere in depth are tested at the depth of these: a "
        "share of 0 says nothing."
        if evidence["called"]
        else ""
    )
    return line_chart(
        f"Strokes planted in {count_text(windows, 'window')}: share called at q ≤ {evidence['q_called']:g}. From "
        f"{SEEN_SHARE:.0%} on they count as seen.{elsewhere}",
        f"Share of planted windows that would be called, by contrast: {words}.",
        Axis("contrast of planted strokes, grey values of 255"),
        Axis("share called", low=0, high=1),
        [Line("planted strokes", points, dots=True)],
    )

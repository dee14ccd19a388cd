"""The picture beside a probe's verdict: answers of all readings, lift of planted ink by depth, and null inputs."""

from __future__ import annotations

import numpy as np

from inkbatch.reports.charts.panels import GREEN, MIDDLE, bar_panel, headline, line_panel
from inkbatch.reports.charts.raster import png
from inkbatch.steps.probe.evidence import Scene
from inkbatch.steps.probe.verdict import Verdict

ORDER_COLOURS = {"forward": (170, 90, 20), "reversed": (40, 80, 220)}  # blue, orange; OpenCV's channel order


def draw_probe(verdict: Verdict, scene: Scene) -> bytes:
    """Draw a verdict; equal verdicts give equal bytes.

    Returns:
        A PNG.
    """
    numbers = verdict.numbers
    answers = {
        order: [(float(start), value) for start, value in row.items()] for order, row in numbers["answers"].items()
    }
    lifts = {order: list(enumerate(map(float, curve))) for order, curve in numbers["lift"].items()}
    nulls = {name: (row["answer"], row["lift"]) for name, row in numbers["nulls"].items()}
    best = numbers["answers"][verdict.order][str(verdict.start)]
    canvas = np.vstack(
        [
            headline(
                f"{verdict.words}: {verdict.order} order from layer {verdict.start}, "
                f"confidence {verdict.confidence:.2f}"
            ),
            line_panel(
                "own answer (mean of the map), by first layer of the window",
                answers,
                ORDER_COLOURS,
                (scene.usual[1], "usual"),
                (float(verdict.start), best, "best reading"),
            ),
            line_panel(
                "lift of planted ink, by its place among the layers that the network is given", lifts, ORDER_COLOURS
            ),
            bar_panel(
                "null inputs: answer (grey), lift of ink planted into them (green)",
                nulls,
                (MIDDLE, GREEN),
                best,
                ("answer of the best", "reading"),
            ),
        ]
    )
    return png(canvas)

"""The label editor in a real Chromium: milliseconds from pointer up to tiles on the screen, and the page's memory.

    python -m benchmarks.edit_browser

The real command serves a segment of 30,000 x 16,000 pixels (laid out as in `bench_view`); a mouse paints strokes of 80
screen pixels with the brush. The floor is the page fetching two tiles. Not part of ``make bench``: it needs Chromium.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bench_view import SHARD_PX, make_segment
from benchmarks.common import REPOSITORY, Report, options, real_layers, scratch
from inkbatch.testing.browser import chromium, settle, wait_until

SHAPE, QUICK_SHAPE, LAYERS = (16_000, 30_000), (1100, 2100), 4
PROMISED_MS = 50.0
VIEWPORT = {"width": 1280, "height": 800}
ZOOMS = (1.0, 0.25)  # screen pixels per pixel
EDITOR = "window.inkbatch.editor"
ROUND_TRIP = """async () => {
  const { link } = window.inkbatch.editor, start = performance.now();
  const { group, version } = link.session;
  const tile = async (row) => (await link.ask(`${group}/tile/0/0_${row}?version=${version}`)).arrayBuffer();
  await Promise.all([0, 1].map(tile));
  return performance.now() - start;
}"""
HEAP = "performance.memory.usedJSHeapSize"


@contextmanager
def editor(root: Path) -> Iterator[str]:
    """Run the real command; yields its address."""
    line = [sys.executable, "-m", "inkbatch", "view", "large", "--root", str(root), "--edit", "--port", "0"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as server:
        try:
            yield next(
                "http://" + text.split("http://")[1].split()[0] for text in server.stdout or () if "http://" in text
            )
        finally:
            server.terminate()


def main(arguments: Sequence[str] | None = None) -> int:
    found = options(__doc__, arguments, rounds=250)
    report = Report("edit_browser", found, {"shape_yx": QUICK_SHAPE if found.quick else SHAPE})
    with scratch(found) as root:
        measure(report, root)
    return report.finish()


def measure(report: Report, root: Path) -> None:
    """Measure strokes at two zooms, and the page's memory over many.

    Args:
        report: Takes the rows; a quick one makes a few strokes on a small segment.
        root: Empty folder on the disk that is measured.
    """
    quick, shape = report.options.quick, QUICK_SHAPE if report.options.quick else SHAPE
    make_segment(root, shape, LAYERS, real_layers(LAYERS, (SHARD_PX, SHARD_PX), report.options.layers))
    strokes = 4 if quick else report.options.rounds
    with editor(root) as url, chromium() as browser:
        page = browser.new_page(viewport=VIEWPORT)
        page.goto(url)
        settle(page)
        early = 0.0
        for zoom in ZOOMS:
            page.evaluate(f"window.inkbatch.stages[0].goTo({{ x: {shape[1] // 2}, y: {shape[0] // 2}, zoom: {zoom} }})")
            settle(page)
            found = []
            for number in range(strokes):
                found.append(stroke(page, number))
                if zoom == ZOOMS[0] and number == strokes // 5:
                    early = heap(page)
            floor = statistics.median(page.evaluate(ROUND_TRIP) for _ in range(3 if quick else 25))
            what = f"stroke in the browser at zoom {zoom:g}, pointer up to tiles shown, median of {strokes}"
            report.row(what, statistics.median(found), "ms", floor, "fetching two tiles from the same page")
            report.row(f"{what}, as promised", statistics.median(found), "ms", PROMISED_MS, "the promise", at_most=1.0)
        late = heap(page) / 2**20
        report.row(
            f"the page's heap after {2 * strokes} strokes",
            late,
            "MiB",
            early / 2**20,
            f"after {strokes // 5}",
            at_most=1.2,
        )


def stroke(page: Any, number: int) -> float:
    """Paint a stroke of 80 screen pixels; return its milliseconds."""
    x, y = 150 + 113 * number % 700, 120 + 71 * number % 500
    page.evaluate(f"{EDITOR}.lastMs = null")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 50, steps=5)
    page.mouse.up()
    wait_until(page, f"{EDITOR}.lastMs")
    return float(page.evaluate(f"{EDITOR}.lastMs"))


def heap(page: Any) -> float:
    """Return the bytes of the page's heap, after its garbage was collected."""
    client = page.context.new_cdp_session(page)
    client.send("HeapProfiler.collectGarbage")
    client.detach()
    return float(page.evaluate(HEAP))


if __name__ == "__main__":
    sys.exit(main())

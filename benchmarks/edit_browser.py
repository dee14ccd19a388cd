"""The label editor in a real Chromium: milliseconds from pointer up to tiles on the screen, and the page's memory.

    python -m benchmarks.edit_browser

The real command serves a segment of 30,000 x 16,000 pixels (laid out as in `bench_view`); a mouse paints strokes of 80
screen pixels with the brush. The floor is the page fetching two tiles. Then the mouse paints 5,000 strokes more at ever
other places, with an undo and a redo after every tenth; the page's heap and the server's memory are read at every 500.
Not part of ``make bench``: it needs Chromium.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bench_view import SHARD_PX, make_segment, memory_bytes
from benchmarks.common import REPOSITORY, Report, options, real_layers, scratch
from inkbatch.testing.browser import chromium, settle, wait_until

SHAPE, QUICK_SHAPE, LAYERS = (16_000, 30_000), (1100, 2100), 4
PROMISED_MS = 50.0
VIEWPORT = {"width": 1280, "height": 800}
ZOOMS = (1.0, 0.25)  # screen pixels per pixel
MANY, STEP, PAN_AFTER, UNDO_AFTER = 5000, 500, 25, 10  # strokes
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
def editor(root: Path) -> Iterator[tuple[str, int]]:
    """Run the real command; yields its address and its process."""
    line = [sys.executable, "-m", "inkbatch", "view", "large", "--root", str(root), "--edit", "--port", "0"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as server:
        try:
            url = next(
                "http://" + text.split("http://")[1].split()[0] for text in server.stdout or () if "http://" in text
            )
            yield url, server.pid
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
    with editor(root) as (url, pid), chromium() as browser:
        page = browser.new_page(viewport=VIEWPORT)
        page.goto(url)
        settle(page)
        for zoom in ZOOMS:
            look_at(page, shape[0] // 2, shape[1] // 2, zoom)
            found = [stroke(page, number) for number in range(strokes)]
            floor = statistics.median(page.evaluate(ROUND_TRIP) for _ in range(3 if quick else 25))
            what = f"stroke in the browser at zoom {zoom:g}, pointer up to tiles shown, median of {strokes}"
            report.row(what, statistics.median(found), "ms", floor, "fetching two tiles from the same page")
            report.row(f"{what}, as promised", statistics.median(found), "ms", PROMISED_MS, "the promise", at_most=1.0)
        measure_memory(report, page, pid, shape, PAN_AFTER if quick else MANY)


def measure_memory(report: Report, page: Any, pid: int, shape: tuple[int, int], strokes: int) -> None:
    """Measure the page's heap and the server's memory while strokes go on all over the segment.

    Args:
        report: Takes the rows.
        page: The page, which has painted already.
        pid: The server's process.
        shape: (height, width) of the segment.
        strokes: How many.
    """
    step = min(STEP, strokes)
    heaps, servers = [], []
    for number in range(1, strokes + 1):
        if number % PAN_AFTER == 1:
            screen = number // PAN_AFTER
            y, x = 400 + 577 * screen % (shape[0] - 800), 640 + 1009 * screen % (shape[1] - 1280)
            look_at(page, y, x, ZOOMS[0])
        stroke(page, number)
        if number % UNDO_AFTER == 0:
            for key in "zZ":
                answered(page, lambda key=key: page.keyboard.press(key))
        if number % step == 0:
            heaps.append(heap(page) / 2**20)
            servers.append(memory_bytes(pid) / 2**20)
            report.note(f"after {number} strokes: heap {heaps[-1]:.2f} MiB, server {servers[-1]:.0f} MiB")
    first = f"after the first {step}"
    report.row(f"the page's heap after {strokes} strokes", heaps[-1], "MiB", heaps[0], first, at_most=1.2)
    report.row(f"the server's memory after {strokes} strokes", servers[-1], "MiB", servers[0], first, at_most=1.2)


def look_at(page: Any, y: int, x: int, zoom: float) -> None:
    """Move the middle of the view to a pixel."""
    page.evaluate(f"window.inkbatch.stages[0].goTo({{ x: {x}, y: {y}, zoom: {zoom} }})")
    settle(page)


def stroke(page: Any, number: int) -> float:
    """Paint a stroke of 80 screen pixels; return its milliseconds."""
    x, y = 150 + 113 * number % 700, 120 + 71 * number % 500
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 50, steps=5)
    return answered(page, page.mouse.up)


def answered(page: Any, send: Callable[[], object]) -> float:
    """Send a stroke; return the milliseconds until its tiles are shown."""
    page.evaluate(f"{EDITOR}.lastMs = null")
    send()
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

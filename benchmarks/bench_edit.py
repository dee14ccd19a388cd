"""The label editor: milliseconds per stroke on a segment of 30,000 x 16,000 pixels, and the server's memory.

The real command serves a local segment (laid out as in `bench_view`). Strokes go through HTTP over a connection that
stays open, as the page sends them: a brush of radius 20 px along 40 points, each at a place that was not seen before,
its undo, and a brush that takes what a prediction holds. A stroke is answered when it is stored. The floor is a new
file with as many bytes as the stroke's record holds, forced onto the disk. Memory is the server's own, at every 500 of
5,000 more strokes, and once all of them were undone and redone: its cache of tiles is full after the first 500.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_view import SHARD_PX, make_segment, memory_bytes
from benchmarks.common import REPOSITORY, Report, options, real_layers, scratch

PROMISED_MS, RADIUS_PX, POINTS = 50.0, 20, 40
MANY, STEP = 5000, 500


class Painter:
    """A tab that paints.

    Args:
        address: What the command printed, with the token.
        shape_yx: Size of the segment.
    """

    def __init__(self, address: str, shape_yx: tuple[int, int]) -> None:
        place, self._token = address.split("/#token=")
        self._connection = http.client.HTTPConnection("127.0.0.1", int(place.rsplit(":", 1)[1]), timeout=60)
        self._random, self._shape, self._seq = np.random.default_rng(1), shape_yx, 0

    def send(self, op: dict[str, Any]) -> float:
        """Send a stroke; return the seconds until it is stored."""
        self._seq += 1
        message = {"tab": "bench", "seq": self._seq, "base": self._seq - 1, "version": "v001", "op": op}
        body = json.dumps(message).encode()
        headers = {"Content-Type": "application/json", "X-Inkbatch-Token": self._token}
        start = time.perf_counter()
        self._connection.request("POST", "/edit/0/op", body, headers)
        answer = self._connection.getresponse()
        found = answer.read()
        seconds = time.perf_counter() - start
        if answer.status != 200:
            raise SystemExit(f"{op['kind']}: {answer.status} {found[:300]!r}")
        return seconds

    def line(self) -> dict[str, Any]:
        """Make a line of a brush at a place of its own."""
        y, x = (float(self._random.uniform(300, size - 300)) for size in self._shape)
        turns = np.cumsum(self._random.normal(0, 4, (POINTS, 2)), axis=0)
        return {"points": [[y + dy, x + dx, 1] for dy, dx in turns.round(2).tolist()], "radius": RADIUS_PX}

    def brush(self) -> float:
        """Paint a stroke."""
        return self.send({"kind": "brush", "layer": "ink", **self.line()})

    def take(self) -> float:
        """Take what a prediction holds along a stroke."""
        return self.send({"kind": "take", "map": "one", "threshold": 0.5, "band": [0.3, 0.5], **self.line()})


def floors_s(journal: Path, place: Path) -> list[float]:
    """Measure the seconds of storing as many bytes as each stroke's record, durably, in a new file."""
    found = []
    for record in sorted(journal.glob("*.strokes"))[-60:]:
        data = os.urandom(record.stat().st_size)
        start = time.perf_counter()
        handle = os.open(place / f"{record.stem}.floor", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(handle, data)
        os.fsync(handle)
        os.close(handle)
        found.append(time.perf_counter() - start)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    found = options(__doc__, arguments, rounds=100)
    shape, layers = ((1100, 2100), 4) if found.quick else ((16_000, 30_000), 4)
    strokes = 5 if found.quick else found.rounds
    report = Report("edit", found, {"shape_yx": shape, "radius_px": RADIUS_PX, "points": POINTS})
    with scratch(found) as root:
        make_segment(root, shape, layers, real_layers(layers, (SHARD_PX, SHARD_PX), found.layers))
        line = [sys.executable, "-m", "inkbatch", "view", "large", "--root", str(root), "--port", "0", "--edit"]
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as server:
            try:
                address = next(text.split()[1] for text in server.stdout or () if "http://" in text)
                measure(report, Painter(address, shape), root, strokes, server.pid)
            finally:
                server.terminate()
    return report.finish()


def measure(report: Report, painter: Painter, root: Path, strokes: int, pid: int) -> None:
    journal = root / "labels" / "large" / "v001" / "journal"
    kinds = {
        "brush": painter.brush,
        "undo of a brush": lambda: painter.send({"kind": "undo"}),
        "taking a map": painter.take,
    }
    for name, send in kinds.items():
        seconds = statistics.median(send() for _ in range(strokes))
        floor = statistics.median(floors_s(journal, root))
        for place in root.glob("*.floor"):
            place.unlink()
        report.row(f"stroke, {name}", seconds * 1000, "ms", floor * 1000, "writing its record durably")
        report.row(f"stroke, {name}, as promised", seconds * 1000, "ms", PROMISED_MS, "the promise", at_most=1.0)
    if report.options.quick:
        return
    held = []
    for _ in range(MANY // STEP):
        for _ in range(STEP):
            painter.brush()
        held.append(memory_bytes(pid) / 2**20)
    report.note(f"memory at every {STEP} strokes, MiB: {', '.join(f'{one:.0f}' for one in held)}")
    floor_is = f"after the first {STEP}"
    report.row(f"memory after {MANY} strokes", held[-1], "MiB", held[0], floor_is, at_most=1.2)
    for kind in ("undo", "redo"):
        for _ in range(MANY):
            painter.send({"kind": kind})
        now = memory_bytes(pid) / 2**20
        report.row(f"memory after {kind} of all {MANY}", now, "MiB", held[0], floor_is, at_most=1.2)


if __name__ == "__main__":
    sys.exit(main())

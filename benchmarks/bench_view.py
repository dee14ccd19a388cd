"""The viewer: milliseconds per tile and per screen, and its memory, on a segment of 30,000 x 16,000 pixels.

A surface of 65 layers and two predictions are laid out as `prepare` and `infer` lay them out; all zarr shards of a
level are hard links to one file (31 GB of layers would not add anything but time), so that the page cache is warm. The
real command serves them; tiles come through HTTP over six connections, as a browser asks for them, each at a place that
was not seen before. The floor is the same window read and decoded in this process, without drawing, encoding or HTTP.
Memory is the server's own, after a first pan over the segment and after a longer one.
"""

from __future__ import annotations

import http.client
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import REPOSITORY, Report, options, real_layers, scratch
from inkbatch.geometry import Box
from inkbatch.io.halving import halve
from inkbatch.io.multiscale import CHUNK_PX, Multiscale
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location
from inkbatch.io.surface import CHUNK_LAYERS, SurfaceProvenance, SurfaceVolume
from inkbatch.view.blocks import TILE_PX

SHARD_PX, LAYERS, PROMISED_MS, CONNECTIONS = 1024, 65, 100.0, 6
SCREEN = (3, 4)  # tiles of a screen of 1920 x 1080
PAPYRUS = "papyrus", "range=32,33"
VIEWS = {
    "one layer": PAPYRUS,
    "mean of 65 layers": ("papyrus", "range=0,65"),
    "a prediction": ("map", "maps=one"),
    "mean of two": ("map", "maps=one,two&boost=2&threshold=0.2"),
    "difference": ("map", "maps=one&minus=two"),
}


def link_all(pyramid: Multiscale, block: NDArray[Any]) -> None:
    """Store one whole shard per level, and link every other shard of the level to it."""
    for level, array in enumerate(pyramid.levels):
        layout = array.layout
        edge = layout.shards[-1]
        whole = np.ascontiguousarray(block[..., :edge, :edge])
        lead = (0,) * (len(layout.shape) - 2)
        rows, columns = (-(-size // edge) for size in layout.shape[-2:])
        inner = [min(edge, size) for size in layout.shape[-2:]]
        array.write_shard((*lead, 0, 0), whole[..., : inner[0], : inner[1]])
        first = array.shard_location((*lead, 0, 0)).path
        for y in range(rows):
            for x in range(columns):
                place = array.shard_location((*lead, y, x)).path
                if place != first:
                    os.makedirs(os.path.dirname(place), exist_ok=True)
                    os.link(first, place)
        if level + 1 < len(pyramid.levels):
            block = halve(block, pyramid.pooling)


def make_segment(root: Path, shape_yx: tuple[int, int], layers: int, papyrus: NDArray[np.uint8]) -> None:
    """Make a segment and two predictions under `root`."""
    folder = Location.parse(root) / "segments" / "large"
    made = SurfaceProvenance(
        segment="large", source="memory://large", source_dtype="uint8", source_layers=(0, layers),
        depth_order="forward", intensity="keep", voxel_size_um=7.91, mask="derived",
    ).model_dump(mode="json")  # fmt: skip
    common = {"shard_px": SHARD_PX, "voxel_size_um": 7.91, "provenance": made}
    chunk = (min(CHUNK_LAYERS, layers), CHUNK_PX, CHUNK_PX)
    surface = Multiscale.create(folder / "surface.zarr", (layers, *shape_yx), dtype="uint8", chunk=chunk, **common)  # type: ignore[arg-type]
    link_all(surface, papyrus)
    mask = Multiscale.create(folder / "mask.zarr", shape_yx, dtype="uint8", chunk=chunk[1:], **common)  # type: ignore[arg-type]
    link_all(mask, np.ones(papyrus.shape[1:], np.uint8))
    for number, name in enumerate(("one", "two")):
        place = Location.parse(root) / "predictions" / "large" / name
        made_map = Prediction.create(place, shape_yx, SHARD_PX, 7.91, {"kind": "prediction"})
        link_all(made_map.pyramid, (papyrus[number].astype(np.float32) / 255).astype(np.float16))


class Client:
    """Asks as a browser does: six connections that stay open."""

    def __init__(self, port: int) -> None:
        self._free: Queue[http.client.HTTPConnection] = Queue()
        for _ in range(CONNECTIONS):
            self._free.put(http.client.HTTPConnection("127.0.0.1", port, timeout=60))
        self._pool = ThreadPoolExecutor(CONNECTIONS)

    def one(self, path: str) -> float:
        """Measure the seconds of one tile."""
        connection = self._free.get()
        try:
            start = time.perf_counter()
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise SystemExit(f"{path}: {answer.status} {body[:300]!r}")
            return time.perf_counter() - start
        finally:
            self._free.put(connection)

    def screen(self, paths: Sequence[str]) -> float:
        """Measure the seconds until a whole screen is there."""
        start = time.perf_counter()
        list(self._pool.map(self.one, paths))
        return time.perf_counter() - start


def tile_path(view: tuple[str, str], level: int, row: int, column: int) -> str:
    kind, query = view
    return f"/tile/0/{kind}/{level}/{column}_{row}?{query}"


def places(shape_yx: tuple[int, int], count: int, seed: int) -> list[tuple[int, int]]:
    """Choose tiles of full size at random, none of them at a border."""
    rows, columns = (max(1, size // TILE_PX) for size in shape_yx)
    random = np.random.default_rng(seed)
    return [divmod(int(place), columns) for place in random.permutation(rows * columns)[:count]]


def floor_s(root: Path, view: tuple[str, str], where: Sequence[tuple[int, int]]) -> float:
    """Measure the median seconds of reading the bytes of a tile."""
    surface = SurfaceVolume.open(Location.parse(root) / "segments" / "large").volume.levels[0]
    maps = [Prediction.open(Location.parse(root) / "predictions" / "large" / name) for name in ("one", "two")]
    found = []
    for row, column in where:
        box = Box(row * TILE_PX, column * TILE_PX, (row + 1) * TILE_PX, (column + 1) * TILE_PX)
        start = time.perf_counter()
        if view[0] == "papyrus":
            low, high = (int(part) for part in view[1].removeprefix("range=").split(","))
            surface.read((slice(low, min(high, surface.layout.shape[0])), *box.slices))
        else:
            for one in maps if "two" in view[1] else maps[:1]:
                one.read(box)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def memory_bytes(pid: int) -> int:
    """Return the server's own memory; pages of mapped files are not in it."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("RssAnon"))


def pan(client: Client, shape_yx: tuple[int, int], screens: int, first: int) -> list[float]:
    """Pan over the segment, papyrus and a map, screen beside screen; return the seconds of each."""
    rows, columns = (max(1, size // TILE_PX) for size in shape_yx)
    found = []
    for number in range(first, first + screens):
        top, left = (number * SCREEN[1] // columns) * SCREEN[0], number * SCREEN[1]
        tiles = [((top + y) % rows, (left + x) % columns) for y in range(SCREEN[0]) for x in range(SCREEN[1])]
        paths = [tile_path(view, 0, *tile) for tile in tiles for view in (PAPYRUS, VIEWS["a prediction"])]
        found.append(client.screen(list(dict.fromkeys(paths))))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    found = options(__doc__, arguments, rounds=60)
    shape, layers = ((1100, 2100), 4) if found.quick else ((16_000, 30_000), LAYERS)
    tiles, screens = (3, 2) if found.quick else (found.rounds, 40)
    report = Report("view", found, {"shape_yx": shape, "layers": layers, "tile_px": TILE_PX})
    with scratch(found) as root:
        make_segment(root, shape, layers, real_layers(layers, (SHARD_PX, SHARD_PX), found.layers))
        line = [sys.executable, "-m", "inkbatch", "view", "large", "--root", str(root), "--port", "0"]
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as server:
            try:
                port = next(int(text.split(":")[-1].split("/")[0]) for text in server.stdout or () if "http://" in text)
                measure(report, Client(port), root, shape, tiles, screens, server.pid)
            finally:
                server.terminate()
    return report.finish()


def measure(
    report: Report, client: Client, root: Path, shape: tuple[int, int], tiles: int, screens: int, pid: int
) -> None:
    floors: dict[str, float] = {}
    for number, (name, view) in enumerate(VIEWS.items()):
        clipped = (view[0], view[1].replace("range=32,33", "range=1,2").replace("range=0,65", "range=0,4"))
        view = clipped if report.options.quick else view
        where = places(shape, tiles, number)
        seconds = statistics.median(client.one(tile_path(view, 0, *place)) for place in where)
        floor = floors[name] = floor_s(root, view, where)
        report.row(f"tile, {name}", seconds * 1000, "ms", floor * 1000, "reading the same window")
        report.row(f"tile, {name}, as promised", seconds * 1000, "ms", PROMISED_MS, "the promise", at_most=1.0)
    if report.options.quick:
        return
    first = pan(client, shape, screens, 0)
    early = memory_bytes(pid)
    later = pan(client, shape, 3 * screens, screens)
    screen = statistics.median([*first, *later])
    reading = SCREEN[0] * SCREEN[1] * (floors["one layer"] + floors["a prediction"])
    what = f"a new screen of {SCREEN[0] * SCREEN[1]} tiles, papyrus and map"
    report.row(what, screen * 1000, "ms", reading * 1000, "reading the same windows")
    peak = memory_bytes(pid)
    report.row("memory after a long pan", peak / 2**20, "MiB", early / 2**20, "after a short one", at_most=1.1)


if __name__ == "__main__":
    sys.exit(main())

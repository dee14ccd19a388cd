"""Choice of chunks, shards and codec: the two patterns that inkbatch reads, our own code beside zarr-python and zarrs.

A surface of real layers, sharded, is written once per setting and read in two patterns: a unit (all layers of 4096 x
4096 pixels) and training tiles (26 layers, 256 x 256, at random places). Stated per setting: stored bytes, MB/s of
writing, MB/s of reading units, tiles per second, and the bytes that one tile moves (what a remote store would send, in
how many chunks). The floor of units is a copy of as many decoded bytes in memory, that of tiles the same windows copied
out of an array in memory. zarr-python with its default pipeline and with zarrs reads the files that our code wrote.
"""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from benchmarks.common import Report, Sample, best, options, real_layers, scratch, timed
from inkbatch.io.multiscale import CHUNK_PX
from inkbatch.io.shards.array import ArrayLayout, ShardedArray
from inkbatch.io.store.location import Location
from inkbatch.io.surface import CHUNK_LAYERS

TILE_LAYERS, TILE_PX = 26, 256
ZARRS = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}
DEFAULT = {"codec_pipeline.path": "zarr.core.codec_pipeline.BatchedCodecPipeline"}


@dataclass(frozen=True)
class Setting:
    """One way to store the surface."""

    chunk: tuple[int, int, int]
    shard_px: int = 1024
    codec: str = "lz4"

    def layout(self, shape: tuple[int, ...]) -> ArrayLayout:
        depth = -(-shape[0] // self.chunk[0]) * self.chunk[0]
        return ArrayLayout(shape, self.chunk, (depth, self.shard_px, self.shard_px), "uint8", self.codec)

    def __str__(self) -> str:
        return f"chunk {'x'.join(map(str, self.chunk))}, shard {self.shard_px}, {self.codec}"


def settings(*, quick: bool) -> list[Setting]:
    """List the settings to compare: chunk shapes, then codecs and shard edges at the chosen chunk."""
    chosen = (CHUNK_LAYERS, CHUNK_PX, CHUNK_PX)
    if quick:
        return [Setting((8, 64, 64), 128), Setting((8, 64, 64), 128, "zstd")]
    shapes = [(16, 64, 64), (16, 128, 128), (32, 128, 128), (64, 128, 128), (1, 256, 256), (8, 256, 256)]
    shapes += [chosen, (32, 256, 256), (64, 256, 256), (16, 512, 512)]
    found = [Setting(shape) for shape in dict.fromkeys(shapes)]
    found += [Setting(chosen, codec=codec) for codec in ("lz4-bit", "zstd")]
    return found + [Setting(chosen, edge) for edge in (512, 2048)]


def write(array: ShardedArray, content: NDArray[np.uint8]) -> int:
    """Store all shards; returns their bytes."""
    edge = array.layout.shards[-1]
    places = itertools.product(range(0, content.shape[1], edge), range(0, content.shape[2], edge))
    return sum(array.write_shard((0, y // edge, x // edge), content[:, y : y + edge, x : x + edge]) for y, x in places)


def tile_windows(shape: tuple[int, ...], count: int) -> list[tuple[slice, slice, slice]]:
    """Draw random windows of a training tile."""
    random = np.random.default_rng(0)
    size = (min(TILE_LAYERS, shape[0]), min(TILE_PX, shape[1]), min(TILE_PX, shape[2]))
    first = shape[0] // 2 - size[0] // 2
    windows = []
    for _ in range(count):
        y, x = (int(random.integers(0, length - edge + 1)) for length, edge in zip(shape[1:], size[1:], strict=True))
        windows.append((slice(first, first + size[0]), slice(y, y + size[1]), slice(x, x + size[2])))
    return windows


def chunks_of(window: tuple[slice, slice, slice], chunk: tuple[int, ...]) -> int:
    """Count the chunks that a window touches."""
    return int(np.prod([-(-part.stop // size) - part.start // size for part, size in zip(window, chunk, strict=True)]))


def repeated(action: Callable[[], object], rounds: int) -> list[Sample]:
    return [timed(action) for _ in range(rounds)]


def reading(read: Callable[[tuple[slice, ...]], Any], windows: Sequence[tuple[slice, ...]]) -> Callable[[], None]:
    def run() -> None:
        for window in windows:
            read(window)

    return run


class Patterns:
    """Both patterns on one surface, with their floors."""

    def __init__(self, report: Report, content: NDArray[np.uint8], rounds: int, tiles: int) -> None:
        self.report, self.content, self.rounds = report, content, rounds
        self.whole: tuple[slice, ...] = tuple(slice(0, size) for size in content.shape)
        self.windows = tile_windows(content.shape, tiles)
        self.megabytes = content.nbytes / 1e6
        target = np.empty_like(content)
        self.unit_floor = self.megabytes / best(repeated(lambda: np.copyto(target, content), rounds))
        in_memory = reading(lambda window: content[window].copy(), self.windows)
        self.tile_floor = len(self.windows) / best(repeated(in_memory, rounds))

    def measure(self, what: str, unit: Callable[[], object], tile: Callable[[tuple[slice, ...]], Any]) -> None:
        units = repeated(unit, self.rounds)
        tiles = repeated(reading(tile, self.windows), self.rounds)
        self.report.keep({f"{what}: unit": units, f"{what}: tiles": tiles})
        floors = (self.unit_floor, "copy in memory"), (self.tile_floor, "windows of an array in memory")
        self.report.row(f"{what}: unit", self.megabytes / best(units), "MB/s", *floors[0])
        self.report.row(f"{what}: tiles", len(self.windows) / best(tiles), "tiles/s", *floors[1])

    def ours(self, setting: Setting, array: ShardedArray) -> None:
        stored = 0

        def store() -> None:
            nonlocal stored
            stored = write(array, self.content)

        writes = repeated(store, self.rounds)
        self.report.keep({f"{setting}: write": writes})
        chunks = np.mean([chunks_of(window, setting.chunk) for window in self.windows])
        wanted = np.prod([part.stop - part.start for part in self.windows[0]])
        moved = chunks * array.layout.chunk_bytes * stored / self.content.nbytes
        self.report.note(
            f"{setting}: {stored / 1e6:,.0f} MB stored ({stored / self.content.nbytes:.2f} of raw); "
            f"a tile moves {moved / 1e6:.1f} MB in {chunks:.1f} chunks, {moved / wanted:.1f} x what it holds"
        )
        self.report.row(f"{setting}: write", self.megabytes / best(writes), "MB/s", self.unit_floor, "copy in memory")
        out = np.empty_like(self.content)
        self.measure(str(setting), lambda: array.read(self.whole, out), array.read)

    def theirs(self, folder: Path, name: str, pipeline: dict[str, str], setting: Setting) -> None:
        with zarr.config.set(pipeline):
            opened: Any = zarr.open_array(str(folder), mode="r")
            self.measure(f"{setting}, {name}", lambda: opened[self.whole], lambda window: opened[window])


def main(arguments: Sequence[str] | None = None) -> int:
    found = options(__doc__, arguments, rounds=3)
    shape = (16, 256, 256) if found.quick else (64, 4096, 4096)
    report = Report("zarr", found, {"shape": shape, "tile": (TILE_LAYERS, TILE_PX, TILE_PX)})
    content = real_layers(shape[0], (shape[1], shape[2]), found.layers)
    patterns = Patterns(report, content, found.rounds, 5 if found.quick else 200)
    chosen = Setting((CHUNK_LAYERS, CHUNK_PX, CHUNK_PX))
    with scratch(found) as folder:
        for setting in settings(quick=found.quick):
            place = folder / "ours.zarr"
            array = ShardedArray.create(Location.parse(place), setting.layout(shape))
            patterns.ours(setting, array)
            if setting == chosen or found.quick:
                patterns.theirs(place, "zarrs", ZARRS, setting)
                patterns.theirs(place, "zarr-python", DEFAULT, setting)
            shutil.rmtree(place)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())

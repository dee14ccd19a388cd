"""Rendering of layers from a volume and a mesh: against SciPy on a volume in memory, and the field's C++ renderer.

A wavy sheet with a vertex every 20 voxels, 65 layers, chunks of 128^3, uncompressed, warm. Stated are voxels per CPU
second of the engine alone and of the whole command (which encodes, makes the pyramid and the mask), beside trilinear
sampling of the same points by SciPy's `map_coordinates` with the volume in memory, and beside the 13 million per CPU
second that the field's renderer made on a machine of this kind (4000 x 4000 x 65, 3.8 GB of memory). Then bytes read
beside the bytes of the chunks that some point needs, and the memory of pictures of 2k and 16k on a side.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from benchmarks.common import Report, Usage, cpu, options, run_process, scratch, timed
from inkbatch.geometry import Box, cut
from inkbatch.render.opening import RenderSettings, open_rendered
from inkbatch.render.surface import RenderedSurface
from inkbatch.render.volume import ChunkReader

FIELD_VOXELS_PER_CPU_S = 13e6
SPACING = 20
COARSE = 8  # voxels between the random numbers that the volume is made of
SMALL, LARGE = 2048, 16384


def write_volume(folder: Path, shape: tuple[int, int, int], chunk: int) -> Path:
    """Smooth noise, uint8, raw chunks."""
    noise = np.random.default_rng(0)
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    levels = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [7.91] * 3}]}]
    array: dict[str, Any] = {"zarr_format": 2, "shape": shape, "chunks": [chunk] * 3, "dtype": "|u1", "order": "C"}
    array |= {"compressor": None, "filters": None, "fill_value": 0, "dimension_separator": "/"}
    (folder / "0").mkdir(parents=True)
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    (folder / ".zattrs").write_text(json.dumps({"multiscales": [{"version": "0.4", "axes": axes, "datasets": levels}]}))
    (folder / "0" / ".zarray").write_text(json.dumps(array))
    for place in itertools.product(*(range(size // chunk) for size in shape)):
        coarse = noise.integers(0, 256, (chunk // COARSE,) * 3, dtype=np.uint8).repeat(COARSE, 0)
        file = folder / "0" / "/".join(map(str, place))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(np.stack([cv2.resize(plane, (chunk, chunk)) for plane in coarse]).tobytes())
    return folder


def write_mesh(folder: Path, picture_yx: tuple[int, int], shape: tuple[int, int, int]) -> Path:
    """Write a wavy sheet; if the picture is larger than the volume, it runs to and fro."""
    grid = np.meshgrid(*(np.arange(size // SPACING + 2) * float(SPACING) for size in picture_yx), indexing="ij")
    y, x = (40 + _folded(at, size - 80) for at, size in zip(grid, shape[1:], strict=True))
    z = shape[0] / 2 + shape[0] / 8 * np.sin(x / 200) + shape[0] / 16 * np.cos(y / 150)
    folder.mkdir(parents=True)
    for name, plane in (("x", x), ("y", y), ("z", z)):
        tifffile.imwrite(folder / f"{name}.tif", plane.astype(np.float32))
    (folder / "meta.json").write_text(json.dumps({"format": "tifxyz", "scale": [1 / SPACING] * 2}))
    return folder


def _folded(at: NDArray[np.float64], length: float) -> NDArray[np.float64]:
    """Fold coordinates to and fro between 0 and `length`."""
    rest = np.mod(at, 2 * length)
    return np.minimum(rest, 2 * length - rest)


def needed_chunks(surface: RenderedSurface, box: Box) -> int:
    """Count the chunks that hold a voxel which some point of a box needs; every point is looked at."""
    marks = np.zeros(surface.volume.chunk_counts, bool)
    last = np.array(surface.volume.shape_zyx)[:, None] - 1
    part = np.array(surface.volume.chunk_zyx)[:, None]
    for strip in cut(box.shape, 64, box.width):
        pixels = surface.raster.pixels(strip.shift(box.y0, box.x0))
        for offset in surface.offsets:
            points = (pixels.points + float(offset) * pixels.normals)[:, pixels.valid]
            low = np.floor(points).astype(np.int64)
            ends = [np.clip(low, 0, last) // part, np.clip(low + 1, 0, last) // part]
            for corner in itertools.product((0, 1), repeat=3):
                marks[tuple(ends[end][axis] for axis, end in enumerate(corner))] = True
    return int(marks.sum())


def read_bytes() -> int:
    """Return the bytes that this process has asked the kernel for."""
    lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar")))


def sampled_by_scipy(surface: RenderedSurface, volume: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """Sample the same points from the volume in memory."""
    pixels = surface.raster.pixels(box)
    points = pixels.points.astype(np.float32)[:, None] + surface.offsets[:, None, None] * pixels.normals[:, None]
    return map_coordinates(volume, points.reshape(3, -1), order=1, output=np.uint8, prefilter=False)


def in_memory(surface: RenderedSurface) -> NDArray[np.uint8]:
    """Read the whole volume, once."""
    depth, height, width = surface.volume.shape_zyx
    return np.asarray(surface.volume.array.read(range(depth), Box(0, 0, height, width)), np.uint8)


def engine(report: Report, surface: RenderedSurface, units: Sequence[Box], rounds: int) -> None:
    layers = range(surface.shape_zyx[0])
    voxels = sum(box.area for box in units) * len(layers)

    def render() -> None:
        surface.chunks = ChunkReader(surface.volume, surface.chunks.limit_bytes)
        for box in units:
            surface.read(layers, box)

    render()  # warm
    before = read_bytes()
    samples = [timed(render)]
    read, asked = read_bytes() - before, surface.chunks.chunks_read
    samples += [timed(render) for _ in range(rounds - 1)]
    report.keep({"engine": samples})
    rate = voxels / cpu(samples)
    report.row("engine", rate / 1e6, "Mvoxel/CPU-s", FIELD_VOXELS_PER_CPU_S / 1e6, "field's renderer", at_least=1.0)
    small = units[0].intersect(Box(units[0].y0, units[0].x0, units[0].y0 + 256, units[0].x1))
    volume = in_memory(surface)
    floors = [timed(lambda: sampled_by_scipy(surface, volume, small)) for _ in range(rounds)]
    floor = small.area * len(layers) / cpu(floors)
    report.row("engine", rate / 1e6, "Mvoxel/CPU-s", floor / 1e6, "SciPy, volume in memory", at_least=0.5)
    size = surface.volume.chunk_bytes
    needed = sum(needed_chunks(surface, box) for box in units) * size
    planned = sum(len(surface.planned_chunks(box)) for box in units) * size
    report.row("bytes read", read / 2**20, "MiB", needed / 2**20, "chunks that points need", at_most=1.2)
    report.row("bytes asked for", asked * size / 2**20, "MiB", needed / 2**20, "chunks that points need", at_most=1.2)
    report.row("bytes in the plan", planned / 2**20, "MiB", needed / 2**20, "chunks that points need")


def command(folder: Path, mesh: Path, volume: Path, layers: int, *more: str) -> Usage:
    """Run the command line tool in a process of its own."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    arguments = ["prepare", "sheet", "--root", folder / "out", "--source", mesh, "--volume", volume]
    arguments += ["--layers-count", layers, "--depth-order", "forward", "--max-outside", "0.5", *more]
    usage = run_process(["-m", "inkbatch", *map(str, arguments)])
    shutil.rmtree(folder / "out", ignore_errors=True)
    return usage


def main(arguments: Sequence[str] | None = None) -> int:
    found = options(__doc__, arguments, rounds=3)
    shape, chunk = ((64, 256, 256), 32) if found.quick else ((256, 1280, 4096), 128)
    layers, unit = (9, 128) if found.quick else (65, 1024)
    small, large = (128, 256) if found.quick else (SMALL, LARGE)
    report = Report("render", found, {"volume": shape, "chunk": chunk, "layers": layers, "unit_px": unit})
    with scratch(found) as folder:
        volume = write_volume(folder / "volume", shape, chunk)
        mesh = write_mesh(folder / "mesh", (shape[1] - 80, shape[2] - 80), shape)
        surface = open_rendered(str(mesh), str(volume), RenderSettings(layers))
        height, width = surface.shape_zyx[1:]
        units = [box for box in cut((min(height, unit), width), unit, unit) if box.width == unit]
        engine(report, surface, units, found.rounds)
        box = f"0:{min(height, unit)},0:{len(units) * unit}"
        whole = command(folder, mesh, volume, layers, "--box", box)
        rate = sum(one.area for one in units) * layers / whole.cpu_s
        field = FIELD_VOXELS_PER_CPU_S / 1e6
        report.row("command", rate / 1e6, "Mvoxel/CPU-s", field, "field's renderer", at_least=1.0)
        report.row("command, own memory (RssAnon)", whole.peak_anon_bytes / 2**30, "GiB", 1.0, "1 GiB", at_most=1.0)
        peaks = []
        for edge in (small, large):
            sheet = write_mesh(folder / f"mesh-{edge}", (edge, edge), shape)
            peaks.append(command(folder, sheet, volume, 5).peak_anon_bytes / 2**20)
        report.row(f"memory at {large} px, 5 layers", peaks[1], "MiB", peaks[0], f"at {small} px", at_most=1.1)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())

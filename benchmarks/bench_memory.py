"""Peak memory from a small segment to one 64 times as large: flat, for `infer` and for `prepare`; of `sweep` by depths.

Each run is the command itself in a process of its own. `infer`: the identity model on 64-pixel tiles, 13 layers, every
tile computed; the stores consist of one zarr shard of real layers per level, linked to all places. `prepare`: 32 layers
of 16 bits in sparse files, real in their first corner and zero elsewhere. Stated is the resident memory (RSS), and the
part of it that is the process's own (RssAnon): `prepare` maps its source into memory, and the pages of mapped files
count as resident until the kernel needs them for something else. The floor of every row is the smallest segment.
`sweep`: 32 depths beside 4 on one segment, each with its shuffled null. The four lie eight layers apart, so that both
read nearly the same layers (37 and 44): a unit holds those, and statistics that do not grow with the number of depths.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from benchmarks.common import Report, Usage, options, real_layers, run_process, scratch
from inkbatch.io.halving import halve
from inkbatch.io.multiscale import CHUNK_PX, Multiscale
from inkbatch.io.store.location import Location
from inkbatch.io.surface import CHUNK_LAYERS, SurfaceProvenance
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.testing.segments import identity_bundle

SHARD_PX = 1024
INFER_LAYERS, PREPARE_LAYERS = 13, 32
TILE_PX, STRIDE_PX = 64, 32
FLAT = 1.10
SWEEP_PX, SWEEP_LAYERS, SWEEP_DEPTHS = 2048, 44, {4: "-15:17:8", 32: "-15:17"}


def linked(pyramid: Multiscale, block: NDArray[Any]) -> None:
    """Fill a pyramid with one shard per level, linked to the places of all others."""
    for number, array in enumerate(pyramid.levels):
        edge = array.layout.shards[-1]
        lead = (0,) * (block.ndim - 2)
        if number:
            block = halve(block, pyramid.pooling)
        array.write_shard((*lead, 0, 0), block)
        first = Path(array.shard_location((*lead, 0, 0)).path)
        rows, columns = (-(-size // edge) for size in array.layout.shape[-2:])
        for y in range(rows):
            for x in range(columns):
                place = Path(array.shard_location((*lead, y, x)).path)
                if place != first:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    os.link(first, place)


def linked_segment(root: Path, edge: int, shard_px: int, layers: NDArray[np.uint8]) -> None:
    """Make a complete prepared segment of one shard, linked many times."""
    folder = Location.parse(root) / "segments" / str(edge)
    provenance = SurfaceProvenance(
        segment=str(edge),
        source="benchmark",
        source_dtype="uint8",
        source_layers=(0, len(layers)),
        depth_order="forward",
        intensity="keep",
        voxel_size_um=8.0,
        mask="derived",
    ).model_dump(mode="json")
    common: dict[str, Any] = {"shard_px": shard_px, "voxel_size_um": 8.0, "provenance": provenance, "dtype": "uint8"}
    chunk = (min(CHUNK_LAYERS, len(layers)), CHUNK_PX, CHUNK_PX)
    linked(Multiscale.create(folder / "surface.zarr", (len(layers), edge, edge), chunk=chunk, **common), layers)
    mask = Multiscale.create(folder / "mask.zarr", (edge, edge), chunk=chunk[1:], pooling="max", codec="zstd", **common)
    linked(mask, np.ones((shard_px, shard_px), np.uint8))
    record = RunFolder(folder / "prepare", RunManifest("prepare", provenance, {}, 1))
    record.begin()
    record.complete()


def infer(root: Path, edge: int, bundle: Path) -> Usage:
    arguments = ["--root", str(root), "--bundle", str(bundle), "--device", "cpu", "--log", "json"]
    usage = run_process(["-m", "inkbatch", "infer", str(edge), *arguments])
    shutil.rmtree(root / "predictions")
    return usage


def sweep(root: Path, edge: int, bundle: Path, depths: str) -> Usage:
    options = ["--root", str(root), "--bundle", str(bundle), "--device", "cpu", "--log", "json", f"--depths={depths}"]
    options += ["--directions", "forward", "--nulls", "shuffled", "--set", "control_windows=0"]
    usage = run_process(["-m", "inkbatch", "sweep", str(edge), *options])
    shutil.rmtree(root / "sweeps")
    return usage


def sparse_stack(folder: Path, edge: int, corner: NDArray[np.uint8]) -> Path:
    """Make layers of 16 bits, zero but for their first corner; one file, linked."""
    folder.mkdir(parents=True)
    first = folder / "00.tif"
    mapped = tifffile.memmap(first, shape=(edge, edge), dtype=np.uint16)
    height, width = min(edge, corner.shape[0]), min(edge, corner.shape[1])
    mapped[:height, :width] = corner[:height, :width].astype(np.uint16) << 8
    mapped.flush()
    del mapped
    for number in range(1, PREPARE_LAYERS):
        os.link(first, folder / f"{number:02d}.tif")
    return folder


def prepare(folder: Path, edge: int, corner: NDArray[np.uint8]) -> Usage:
    source = sparse_stack(folder / "layers" / str(edge), edge, corner)
    arguments = ["--root", str(folder / "out"), "--source", str(source), "--depth-order", "forward"]
    usage = run_process(
        [
            "-m",
            "inkbatch",
            "prepare",
            str(edge),
            *arguments,
            "--voxel-size-um",
            "8",
            "--memory",
            "2GiB",
            "--log",
            "json",
        ]
    )
    shutil.rmtree(folder / "out")
    shutil.rmtree(source)
    return usage


def rows_by_depths(report: Report, used: dict[int, Usage]) -> None:
    """Add the rows of a sweep: resident memory of many depths beside that of few."""
    few, many = sorted(used)
    floor, figure = (used[count].peak_rss_bytes / 2**20 for count in (few, many))
    report.row(f"sweep, {many} depths, RSS", figure, "MiB", floor, f"{few} depths", at_most=FLAT)
    report.note(f"sweep: {few} depths {used[few].wall_s:.1f} s, {many} depths {used[many].wall_s:.1f} s")


def main(arguments: Sequence[str] | None = None) -> int:
    found = options(__doc__, arguments, rounds=1)
    sizes = (128, 256) if found.quick else (2048, 4096, 8192, 16384)
    shard_px = 64 if found.quick else SHARD_PX
    report = Report("memory", found, {"sizes_px": sizes, "shard_px": shard_px, "depths": list(SWEEP_DEPTHS)})
    corner = real_layers(INFER_LAYERS, (shard_px, shard_px), found.layers)
    with scratch(found) as folder:
        identity_bundle(folder / "bundle", INFER_LAYERS, tile_px=TILE_PX, stride_px=STRIDE_PX)
        used: dict[str, list[Usage]] = {"infer": [], "prepare": []}
        for edge in sizes:
            linked_segment(folder / "root", edge, shard_px, corner)
            used["infer"].append(infer(folder / "root", edge, folder / "bundle"))
            used["prepare"].append(prepare(folder, edge, corner[0]))
        edge = sizes[-1] if found.quick else SWEEP_PX
        layers = real_layers(SWEEP_LAYERS, (shard_px, shard_px), found.layers)
        linked_segment(folder / "swept", edge, shard_px, layers)
        by_depths = {
            count: sweep(folder / "swept", edge, folder / "bundle", depths) for count, depths in SWEEP_DEPTHS.items()
        }
    rows_by_depths(report, by_depths)
    for job, usages in used.items():
        for kind, key in (("RSS", "peak_rss_bytes"), ("own memory (RssAnon)", "peak_anon_bytes")):
            judged = kind == "RSS" if job == "infer" else kind != "RSS"
            floor = getattr(usages[0], key) / 2**20
            for edge, usage in zip(sizes, usages, strict=True):
                target = FLAT if judged and edge != sizes[0] else None
                figure = getattr(usage, key) / 2**20
                report.row(f"{job}, {edge} px, {kind}", figure, "MiB", floor, f"{sizes[0]} px", at_most=target)
        report.note(
            f"{job}: " + ", ".join(f"{edge} px {u.wall_s:.1f} s" for edge, u in zip(sizes, usages, strict=True))
        )
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())

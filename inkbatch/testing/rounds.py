"""A tiny series of rounds: three segments with planted discs, of which labels cover a part, and a small network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from inkbatch.data.labels.round_labels import IGNORE_NAME, INK_NAME
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.store.location import Location
from inkbatch.reports.page import Page
from inkbatch.run.finished import open_run
from inkbatch.run.job import RunContext
from inkbatch.steps.prepare.job import run as run_prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.steps.round.page import page
from inkbatch.steps.round.settings import RoundConfig
from inkbatch.testing.segments import VOXEL_SIZE_UM, write_layers
from inkbatch.testing.training import planted_segment

SEGMENTS = ("r0", "r1", "r2")
SHAPE = (96, 192)
BY_BLOCKS: dict[str, Any] = {
    "segments": list(SEGMENTS[:2]),
    "folds": {"by": "blocks", "count": 2},
    "yardstick": {"share": 0.25, "region_px": 32, "draws": 100},
}
NETWORK: dict[str, Any] = {"dims": 2, "depth_layers": 4, "widths": [8, 16], "blocks": [1, 1]}
LABELLED_PX = 96  # columns, from the left, that labels cover; of the yardstick all


def rounds_root(root: Path | str, sources: Path) -> None:
    """Prepare three segments; the last one is labelled throughout, the others in their left half."""
    for number, segment in enumerate(SEGMENTS):
        layers, _ = planted_segment(10 + number, (4, *SHAPE))
        source = write_layers(sources / segment, layers)
        prepare = {"segment": segment, "root": str(root), "source": str(source), "shard_px": 64}
        values = {**prepare, "depth_order": "forward", "voxel_size_um": VOXEL_SIZE_UM}
        run_prepare(PrepareConfig.checked(values, "rounds"), RunContext())
        label_part(root, segment, SHAPE[1] if number == 2 else LABELLED_PX)


def label_part(root: Path | str, segment: str, columns: int) -> None:
    """Store the planted ink of the first columns as a segment's labels; the others are ignored."""
    ink = planted_segment(10 + SEGMENTS.index(segment), (4, *SHAPE))[1]
    ignore = np.ones(SHAPE, np.uint8)
    ignore[:, :columns] = 0
    folder = Location.parse(root) / "segments" / segment
    for name, plane in ((INK_NAME, np.where(ignore == 0, ink, 0)), (IGNORE_NAME, ignore)):
        (folder / name).delete_folder()
        provenance = {"kind": name, "columns": columns}
        created = Multiscale.create_mask(
            folder / name, SHAPE, shard_px=64, voxel_size_um=VOXEL_SIZE_UM, provenance=provenance
        )
        for y in range(0, SHAPE[0], 64):
            for x in range(0, SHAPE[1], 64):
                box = Box(y, x, min(y + 64, SHAPE[0]), x + 64)
                created.write(box, np.ascontiguousarray(plane[box.slices]).astype(np.uint8))


def tiny_round(root: Path | str, **changes: Any) -> dict[str, Any]:
    """Return settings of a round on `rounds_root`: two folds by segment, the third segment is the yardstick."""
    values: dict[str, Any] = {
        "name": "discs",
        "root": str(root),
        "segments": list(SEGMENTS),
        "block_px": 96,
        "folds": {"by": "segments", "count": 2},
        "yardstick": {"segments": ["r2"], "share": 0.0, "region_px": 32, "draws": 100},
        "sample_px": 32,
        "sampling": {"kind": "grid", "stride_px": 16, "min_counted": 0.5},
        "proposals": {"regions": 3, "region_px": 32, "min_area_px": 4},
        "train": {
            "model": {"architecture": "residual-unet", "config": NETWORK},
            "epochs": 1,
            "batch": 8,
            "optimiser": {"rate": 5e-3},
            "sampler": {"samples_per_epoch": 64},
            "device": "cpu",
        },
    }
    return {**values, **changes}


def round_settings(root: Path | str, **changes: Any) -> RoundConfig:
    """Return checked settings of `tiny_round`."""
    return RoundConfig.checked(tiny_round(root, **changes), "test")


def round_document(root: Path, number: int, name: str = "round.json") -> Any:
    """Read a document of a round of the series."""
    return json.loads((root / f"rounds/discs/round-{number:03d}" / name).read_text())


def open_page(root: Path, number: int) -> Page:
    """Make the page of a round of the series."""
    return page(open_run(str(root / f"rounds/discs/round-{number:03d}")), Location.parse(root))

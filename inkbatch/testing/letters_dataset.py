"""The dataset ``letters``: two prepared segments with labels, and settings that build it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from inkbatch.io.store.location import Location
from inkbatch.steps.dataset.job import BuildDatasetConfig
from inkbatch.testing.datasets import inked, labelled_segment

TIMED = {"run.json", "run-0-of-2.json", "run-1-of-2.json", "report.html"}  # the files with a clock
SHAPE = (150, 170)


def two_segments(root: str | Path, **changes: Any) -> None:
    """Store the segments ``left`` and ``right``, a patch of ink in each; `changes` are those of `labelled_segment`."""
    labelled_segment(root, "left", inked(SHAPE, (20, 20, 90, 60)), **changes)
    ignore = np.zeros(SHAPE, np.uint8)
    ignore[:40] = 1
    labelled_segment(root, "right", inked(SHAPE, (60, 70, 140, 150)), ignore=ignore, **changes)


def settings(root: str | Path, **changes: Any) -> BuildDatasetConfig:
    """Make settings that train on ``left`` and validate on ``right``."""
    values: dict[str, Any] = {
        "name": "letters",
        "root": str(root),
        "segments": ["left", "right"],
        "sample_px": 32,
        "sampling": {"kind": "grid", "stride_px": 16},
        "splits": {"kind": "lists", "train": ["left"], "validation": ["right"]},
        "card": {"licence": "CC BY-NC 4.0", "sources": ["two phantoms"], "previews": 2},
    }
    return BuildDatasetConfig.checked({**values, **changes}, "test")


def tree(folder: str | Path) -> dict[str, bytes]:
    """Read all files below a folder, by path, but those with a clock."""
    folder = Path(folder)
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in TIMED)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def folder_of(root: str | Path) -> Location:
    """Return the place of the dataset."""
    return Location.parse(root) / "datasets" / "letters"

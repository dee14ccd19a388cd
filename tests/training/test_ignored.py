"""Ignored pixels count in no loss and in no metric: what is written under an ignore mask moves neither."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inkbatch.run.job import RunContext
from inkbatch.steps.dataset import job as build_dataset
from inkbatch.steps.train import job as train
from inkbatch.testing.datasets import labelled_segment
from inkbatch.testing.training import planted_segment, tiny_run

SHAPE = (96, 96)
LOSSES = {"terms": [{"name": name} for name in ("dice", "bce", "tversky", "focal", "lovasz")], "label_smoothing": 0.1}
WARPS = {"warp": 1.0, "rotate_deg": 180, "perspective": 0.1, "grid_distortion": 0.2, "cut_out": 0.5, "cut_out_px": 8}


def curves(root: Path, under_the_mask: NDArray[np.uint8]) -> tuple[bytes, bytes]:
    """Losses and metrics of a run whose labels are `under_the_mask` wherever pixels are ignored."""
    for number, name in enumerate(("left", "right")):
        layers, labels = planted_segment(number, (4, *SHAPE))
        ignore = (np.random.default_rng(number).random(SHAPE) < 0.2).astype(np.uint8)
        ignore[:40, :30] = 1
        shown = np.where(ignore, under_the_mask, labels).astype(np.uint8)
        labelled_segment(root, name, shown, layers=layers, ignore=ignore)
    values = {"name": "tiny", "root": str(root), "segments": ["left", "right"], "sample_px": 48}
    values["splits"] = {"kind": "lists", "train": ["left"], "validation": ["right"]}
    build_dataset.run(build_dataset.BuildDatasetConfig.checked(values, "test"), RunContext())
    changes = {"loss": LOSSES, "augment": WARPS, "tile_px": 32, "sampler": {"samples_per_epoch": 32}}
    train.run(train.TrainConfig.checked(tiny_run(root, **changes), "test"), RunContext())
    return tuple((root / "runs/first" / name).read_bytes() for name in ("losses.csv", "metrics.csv"))


def test_labels_under_the_ignore_mask_move_no_loss_and_no_metric(tmp_path):
    wild = np.random.default_rng(7).integers(0, 256, SHAPE, dtype=np.uint8)
    assert curves(tmp_path / "ink", np.full(SHAPE, 255, np.uint8)) == curves(tmp_path / "wild", wild)

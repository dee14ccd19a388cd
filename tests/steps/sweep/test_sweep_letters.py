"""Rows and letters as `sweep.json` tells them after a whole sweep of a phantom whose letters are known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from inkbatch.run.job import RunContext
from inkbatch.steps.sweep.job import run
from inkbatch.testing.letters import write_column
from inkbatch.testing.papyrus import planted
from inkbatch.testing.segments import identity_bundle
from inkbatch.testing.swept import config_for, opened, prepared

PIXEL_UM = 20.0  # coarse, so that few pixels hold several rows
HEIGHT_PX, PITCH_PX, STROKE_PX = 110, 190, 11
LINES, LETTERS, INK_LAYER = 4, 5, 2
TRUTH_MM = {"row_mm": PITCH_PX * PIXEL_UM / 1000, "letter_mm": (HEIGHT_PX + STROKE_PX) * PIXEL_UM / 1000}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[np.float64]]:
    """Return what a sweep tells of windows inside a column, NaN where it is nothing; networks hand back a layer."""
    folder: Path = tmp_path_factory.mktemp("letters")
    column = write_column(lines=LINES, letters=LETTERS, height_px=HEIGHT_PX, pitch_px=PITCH_PX, seed=1)
    ink = cv2.GaussianBlur(cv2.dilate(column.ink, np.ones((STROKE_PX - 2,) * 2)), (0, 0), 1.5)
    bare = np.random.default_rng(4).integers(90, 150, (5, *ink.shape), dtype=np.uint8)
    prepared(folder, "page", planted(bare, ink, amplitude=60.0, depth_layer=INK_LAYER, seed=2), PIXEL_UM)
    bundle = identity_bundle(folder / "reader", voxel_size_um=PIXEL_UM, tile_px=64, stride_px=64, window="uniform")
    asked = {"bundles": [str(bundle.location)], "directions": "forward", "nulls": [], "control_windows": 0}
    run(config_for(folder, **asked, unit_px=512), RunContext())
    evidence = opened(folder).document["evidence"]
    boxes = [box for _, _, box in column.letters]
    y0, x0 = (min(getattr(box, name) for box in boxes) for name in ("y0", "x0"))
    y1, x1 = (max(getattr(box, name) for box in boxes) for name in ("y1", "x1"))
    inside = [at[0] >= y0 and at[1] >= x0 and at[2] <= y1 and at[3] <= x1 for at in evidence["at"]]
    return {name: np.array(evidence[name], np.float64)[inside] for name in TRUTH_MM}


@pytest.mark.parametrize("name", TRUTH_MM)
def test_rows_and_letters_of_a_whole_sweep_are_told_within_10_per_cent(told, name):
    """Windows at the first and last line hold too little of the next one to tell."""
    found = told[name][np.isfinite(told[name])]
    assert len(found) >= max(8, len(told[name]) / 2)
    assert np.abs(found / TRUTH_MM[name] - 1).max() <= 0.1

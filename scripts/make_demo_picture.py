"""Draw the README's picture: one layer of the demo, the planted truth, and the map that infer made of it.

    python scripts/make_demo_picture.py ROOT docs/images/demo.png

`ROOT` is where `make demo` put its prediction.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import tifffile

from inkbatch.cli.outcome import run_script
from inkbatch.errors import DataError
from inkbatch.geometry import Box
from inkbatch.io.pictures.png import png_bytes
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location

DEMO = Path(__file__).resolve().parent.parent / "inkbatch" / "demo"
INK_LAYER = 3
GAP_PX = 12
SCALE = 0.5


def main() -> None:
    """Write the three panels side by side, at half size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="ROOT of the prediction")
    parser.add_argument("to", type=Path, help="the picture, a PNG")
    chosen = parser.parse_args()
    folders = sorted(chosen.root.glob("predictions/demo/*/complete.json"))
    if not folders:
        raise DataError(f"{chosen.root}: no complete prediction of the demo; run make demo first")
    prediction = Prediction.open(Location.parse(folders[-1].parent))
    ink_map = np.rint(prediction.read(Box(0, 0, *prediction.shape_yx)).astype(np.float32) * 255).astype(np.uint8)
    layer = tifffile.imread(DEMO / "layers" / f"{INK_LAYER:02d}.tif")
    truth = cv2.imread(str(DEMO / "truth.png"), cv2.IMREAD_GRAYSCALE)
    gap = np.full((layer.shape[0], GAP_PX), 255, np.uint8)
    row = np.hstack([layer, gap, truth, gap, ink_map])
    picture = cv2.resize(row, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_AREA)
    chosen.to.write_bytes(png_bytes(picture, 9))


if __name__ == "__main__":
    sys.exit(run_script(main, "python scripts/make_demo_picture.py"))

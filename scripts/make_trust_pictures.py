"""Draw the pictures of docs/trust.md: the demo read rightly and in three wrong ways, and the probe's plot.

    python scripts/make_trust_pictures.py ROOT docs/images

`ROOT` is where the commands of docs/trust.md put their predictions (there it is called ``trust``).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.cli.outcome import run_script
from inkbatch.errors import DataError
from inkbatch.geometry import Box
from inkbatch.io.pictures.png import png_bytes
from inkbatch.io.prediction import Prediction
from inkbatch.io.store.location import Location

MAPS = {
    "right": ("demo", "right"),
    "wrong order": ("demo", "wrong-order"),
    "wrong window (3 layers too early)": ("demo-early", "wrong-window"),
    "wrong divisor (128 instead of 255)": ("demo", "wrong-divisor"),
}
TITLE_PX, GAP_PX = 44, 12
SCALE = 0.5


def panel(title: str, ink_map: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw a map under its title."""
    head = np.full((TITLE_PX, ink_map.shape[1]), 255, np.uint8)
    cv2.putText(head, title, (6, 31), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 0, 2, cv2.LINE_AA)
    return np.vstack([head, ink_map])


def read_map(root: Path, segment: str, name: str) -> NDArray[np.uint8]:
    """Read a prediction as grey values."""
    folder = root / "predictions" / segment / name
    if not (folder / "complete.json").exists():
        raise DataError(f"{folder}: no complete prediction; run the commands of docs/trust.md first")
    prediction = Prediction.open(Location.parse(folder))
    return np.rint(prediction.read(Box(0, 0, *prediction.shape_yx)).astype(np.float32) * 255).astype(np.uint8)


def main() -> None:
    """Write ``trust-maps.png`` and ``trust-probe.png``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="ROOT of the predictions")
    parser.add_argument("to", type=Path, help="where the pictures go")
    chosen = parser.parse_args()
    panels = [panel(title, read_map(chosen.root, *place)) for title, place in MAPS.items()]
    gap = np.full((panels[0].shape[0], GAP_PX), 255, np.uint8)
    rows = [np.hstack([left, gap, right]) for left, right in (panels[:2], panels[2:])]
    picture = cv2.resize(np.vstack(rows), None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_AREA)
    (chosen.to / "trust-maps.png").write_bytes(png_bytes(picture, 9))
    plot = chosen.root / "probes" / "demo" / "demo" / "probe.png"
    (chosen.to / "trust-probe.png").write_bytes(plot.read_bytes())


if __name__ == "__main__":
    sys.exit(run_script(main, "python scripts/make_trust_pictures.py"))

"""Make the demo segment and the training data of the demo bundle from the public data they come from.

    python scripts/make_demo_data.py FOLDER

FOLDER holds

- ``scroll1_20231005123335_r2c4/layers/00.tif`` … ``12.tif``: tile "2-4" of segment 20231005123335 (Scroll 1),
  2000 x 2000 px, from the letter data set of the vesuvius-kintsugi repository (``data/20231005123335/2-4.zarr``), one
  TIFF per layer;
- ``labels/20231005123336_inklabels.png`` and ``labels/20231012184423_inklabels.png``: from ``all_labels/`` of the
  Vesuvius-Grandprize-Winner repository.

Written are ``inkbatch/demo`` (layers, truth.png, phantom.json) and ``scripts/data`` (papyrus, letters). Demo and
training share neither pixels nor letters.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
from pathlib import Path

import cv2

from inkbatch.cli.outcome import run_script
from inkbatch.data.synthetic.phantom import label_mask, truth_of
from inkbatch.geometry import Box
from inkbatch.io.layers import open_layer_source
from inkbatch.steps.synthetic.phantom import PhantomConfig, png_bytes, read_picture, run, tiff_bytes
from inkbatch.text import bytes_text

REPOSITORY = Path(__file__).resolve().parent.parent
LAYERS = "scroll1_20231005123335_r2c4/layers"

DEMO_PAPYRUS = (1296, 960, 1936, 1984)
DEMO_LETTERS = ("labels/20231005123336_inklabels.png", (1900, 17050, 4460, 21146))  # ΠΟΡΦΥΡΑC in the middle line
TRAINING_PAPYRUS = (640, 1040, 1152, 1936)
TRAINING_LETTERS = {
    "train": ("labels/20231012184423_inklabels.png", (2400, 4400, 7700, 12800)),
    "validation": ("labels/20231012184423_inklabels.png", (3300, 14300, 7800, 22500)),
}
LETTER_SCALE = 0.25  # three lines of text fit the demo; strokes are about 28 px wide

INK = {
    "amplitude": 50,
    "depth_layer": 3,
    "width_layers": 1.5,
    "crackle": 0.6,
    "crackle_px": 8,
    "edge_px": 1.5,
    "seed": 7,
}
NOTE = (
    "Papyrus: Scroll 1 (PHerc. Paris 4), segment 20231005123335, tile 2-4 (vesuvius-kintsugi; EduceLab-Scrolls, "
    "CC BY-NC 4.0). Letters: ink labels of segment 20231005123336 (Vesuvius-Grandprize-Winner, MIT). "
    "The ink is planted."
)


def make_demo(folder: Path, demo: Path) -> list[str]:
    """Plant the demo's letters into its papyrus."""
    shutil.rmtree(demo / "layers", ignore_errors=True)
    for name in ("truth.png", "phantom.json"):
        (demo / name).unlink(missing_ok=True)
    labels, label_box = DEMO_LETTERS
    with contextlib.chdir(folder):  # phantom.json keeps names relative to this folder
        return run(
            PhantomConfig.checked(
                {
                    "source": LAYERS,
                    "source_box": DEMO_PAPYRUS,
                    "labels": labels,
                    "label_box": label_box,
                    "label_scale": LETTER_SCALE,
                    "output": str(demo),
                    "source_note": NOTE,
                    **INK,
                },
                "demo",
            )
        )


def make_training_data(folder: Path, data: Path) -> None:
    """Cut the training papyrus, without planted ink, and the letters for training and validation."""
    (data / "papyrus").mkdir(parents=True, exist_ok=True)
    (data / "letters").mkdir(parents=True, exist_ok=True)
    with open_layer_source(str(folder / LAYERS)) as source:
        for layer in range(source.first_layer, source.first_layer + source.shape_zyx[0]):
            stored = source.read(range(layer, layer + 1), Box(*TRAINING_PAPYRUS))[0]
            (data / "papyrus" / f"{layer:02d}.tif").write_bytes(tiff_bytes(stored))
    for name, (labels, numbers) in TRAINING_LETTERS.items():
        box = Box(*numbers)
        picture = read_picture(str(folder / labels))[box.slices]
        shape = (int(box.height * LETTER_SCALE), int(box.width * LETTER_SCALE))
        letters = truth_of(label_mask(picture, shape, scale=LETTER_SCALE))
        (data / "letters" / f"{name}.png").write_bytes(png_bytes(letters))


def require_disjoint() -> None:
    """Refuse a training that sees the demo's pixels or its letters."""
    shared = Box(*DEMO_PAPYRUS).intersect(Box(*TRAINING_PAPYRUS)).area
    files = {DEMO_LETTERS[0]} & {labels for labels, _ in TRAINING_LETTERS.values()}
    if shared or files:
        raise SystemExit(f"demo and training share {shared} pixels and the label files {sorted(files)}")


def main() -> None:
    """Make everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with the public data")
    parser.add_argument("--demo", type=Path, default=REPOSITORY / "inkbatch" / "demo")
    parser.add_argument("--data", type=Path, default=REPOSITORY / "scripts" / "data")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    require_disjoint()
    for line in make_demo(arguments.folder.resolve(), arguments.demo.resolve()):
        print(line)
    make_training_data(arguments.folder.resolve(), arguments.data.resolve())
    for part in (arguments.demo / "layers", arguments.data / "papyrus", arguments.data / "letters"):
        size = sum(file.stat().st_size for file in part.iterdir())
        print(f"{part.name}: {bytes_text(size)}")


if __name__ == "__main__":
    sys.exit(run_script(main, "python scripts/make_demo_data.py"))

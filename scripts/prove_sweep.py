"""Sweep segments of known truth, and say what was found; exit 1 if a promise does not hold.

    python scripts/prove_sweep.py --root build/sweep-proof        (make test-sweep)

Two small networks are trained first, apart from each other, on other letters and on other pixels: of the same papyrus
where it is real. What is done is kept in the folder: stopped anywhere, the same command goes on. Without the folder it
begins at the start.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from inkbatch.cli.outcome import run_script
from inkbatch.data.synthetic.phantom import label_mask
from inkbatch.testing.papyrus import synthetic_papyrus
from inkbatch.testing.proof_segments import proof_segment
from inkbatch.testing.sweep_proof import METHODS, SWEEP, Outcome, broken_promises, cases, outcome, tally
from inkbatch.testing.thin_layer_net import (
    ThinLayerConfig,
    register_thin_layer_net,
    save_thin_layer_bundle,
    train_thin_layer_net,
)

DATA = Path(__file__).resolve().parent / "data"
STEPS, DEPTH_LAYERS, MADE = 500, 7, 6
RESULTS = "outcomes.jsonl"


def bundles(root: Path) -> list[Path]:
    """Train the two networks that are not there yet: each on its half of the real papyrus, and on made papyrus."""
    register_thin_layer_net()
    layers = sorted((DATA / "papyrus").glob("*.tif"))
    real = np.stack([cv2.imread(str(place), cv2.IMREAD_GRAYSCALE) for place in layers]).astype(np.uint8)
    picture = np.asarray(cv2.imread(str(DATA / "letters/train.png"), cv2.IMREAD_GRAYSCALE), np.uint8)
    letters = label_mask(picture, (picture.shape[0], picture.shape[1]), edge_px=1.5)
    made = [synthetic_papyrus((len(real), 256, 256), 1000 + seed) for seed in range(MADE)]
    half = real.shape[2] // 2
    found = []
    for number, part in enumerate((real[:, :, :half], real[:, :, half:])):
        place = root / f"reader-{number}"
        if not (place / "bundle.json").exists():
            papyri = [part, part, *made[number::2]]
            config = ThinLayerConfig(depth_layers=DEPTH_LAYERS)
            network = train_thin_layer_net(papyri, letters, config, seed=1 + number, steps=STEPS)
            save_thin_layer_bundle(place, network, place.name)
        found.append(place)
    return found


def lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Put all figures into lines of text."""
    found = []
    groups = dict.fromkeys((one.kind, one.papyrus, one.amplitude if one.kind == "ink" else 0.0) for one in outcomes)
    for kind, papyrus, amplitude in sorted(groups):
        some = [
            one for one in outcomes if (one.kind, one.papyrus) == (kind, papyrus) and amplitude in (0, one.amplitude)
        ]
        total = tally(some)
        called = total.found[SWEEP]
        contrast = f" of contrast {amplitude:g}" if amplitude else ""
        found.append(
            f"{kind}{contrast}, {papyrus} papyrus: {total.segments} segments, {total.touched} with a window called; "
            f"{called.inked} of {total.inked} inked windows found, {called.bare} of {called.called} called are false, "
            f"{total.depth_right} within one layer"
        )
    inked = tally([one for one in outcomes if one.kind == "ink"])
    blank = tally([one for one in outcomes if one.kind == "blank"])
    found.append(f"segments without ink: {blank.touched} of {blank.segments} have a window called")
    for method in METHODS:
        called = inked.found[method]
        found.append(
            f"{method}: {called.inked} of {inked.inked} inked windows found, {called.bare} of {called.called} called "
            "are false"
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the proof; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("build/sweep-proof"))
    parser.add_argument("--minutes", type=float, default=24 * 60.0, help="stop after these; the same command goes on")
    options = parser.parse_args(arguments)
    options.root.mkdir(parents=True, exist_ok=True)
    begun, place = time.monotonic(), options.root / RESULTS
    readers = bundles(options.root)
    outcomes = [Outcome.of(json.loads(line)) for line in place.read_text().splitlines()] if place.exists() else []
    done, wanted = {one.name for one in outcomes}, list(cases())
    for kind, papyrus, seed in wanted:
        segment = proof_segment(kind, papyrus, seed)
        if segment.name in done or time.monotonic() - begun > options.minutes * 60:
            continue
        outcomes.append(outcome(segment, options.root, readers))
        with place.open("a") as file:
            file.write(json.dumps(outcomes[-1].document()) + "\n")
    print("\n".join(lines(outcomes)))
    if len(outcomes) < len(wanted):
        print(f"{len(wanted) - len(outcomes)} of {len(wanted)} segments are left: run the same command again")
        return 1
    broken = broken_promises(outcomes)
    print("\n".join(f"BROKEN: {one}" for one in broken) or "every promise holds")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(run_script(main, "python scripts/prove_sweep.py"))

"""Separate the grains of made thin sections in several ways, and score each against the known outlines.

    python scripts/instances_demo.py --root root        (make instances-demo)

First pass: components of the map of a small U-Net of three classes. Watershed: `inkbatch instances` without a network,
which gives grains back the width of the boundary that the U-Net was taught; not grown: the same without that.
Refined: `inkbatch instances` with a small SAM 2. Both networks are shipped and were trained on made sections of other
seeds (`jobs/demo/grains-train.yaml`, `scripts/train_tiny_sam.py`); no rule was chosen on these sections. Stopped
anywhere, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.cli.outcome import run_script
from inkbatch.data.instances.scoring import InstanceScores, Overlaps, score
from inkbatch.data.labels.components import label
from inkbatch.data.synthetic.grains import GrainConfig, MadeSection, make_section, write_sections
from inkbatch.io.store.location import Location
from inkbatch.reports.page import Figure, Link, Page, Picture, Section, Table
from inkbatch.reports.render import render
from inkbatch.run.job import RunContext
from inkbatch.steps import infer_pictures
from inkbatch.steps.instances import job as instances
from inkbatch.steps.instances.settings import InstancesConfig

DATA = Path(__file__).resolve().parent / "data"
TRAINED_ON = GrainConfig(seed=1, count=30)  # the U-Net
SECTIONS = GrainConfig(shape_yx=(320, 320), seed=100_000, count=4, radius_px=(8.0, 22.0))
PROPOSALS = {"cluster": 6.0}
SELECTION = {"edge": 0.0}
REFINEMENT = {"cell_px": 32, "halo_px": 32}  # tiles as large as crops in training: 72 to 150 px
WAYS = ("first pass", "not grown", "watershed", "refined")
SHOWN = ("first pass", "watershed", "refined")
SCORES = {"ap": "AP", "ap50": "AP at 0.5", "ap75": "AP at 0.75", "pq": "PQ", "aji": "AJI", "f1": "F1"}
GOOD, FAIR, MISSED = (60, 190, 90), (240, 180, 40), (230, 60, 50)

Labels = NDArray[np.integer]


def components(values: NDArray[np.float32]) -> Labels:
    """Number the first pass as it is: components of pixels that are probably object."""
    return label(values[1] >= np.float32(0.5), 4).labels.astype(np.int64)


def separated(root: Path, images: Path, maps: Path, name: str, refine: str, grow: float | None = None) -> Path:
    """Run `inkbatch instances`; return the folder of its result."""
    values = {
        "subject": "made-sections",
        "root": str(root),
        "maps": str(maps),
        "pictures": str(images),
        "result": name,
        "refine": refine,
        "proposals": {**PROPOSALS, "grow": grow},
        "selection": SELECTION,
        "refinement": REFINEMENT,
        "device": "cpu",
        "forms": ["csv", "npy", "overlay"],
    }
    return Path(instances.run(InstancesConfig.checked(values, "instances"), RunContext()).location.path)


def outlined(picture: NDArray[np.uint8], found: Labels, true: Labels) -> NDArray[np.uint8]:
    """Draw outlines: green where IoU with the truth reaches 0.75, amber from 0.5 on, else red."""
    overlaps, shown = Overlaps.of(found, true), cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    best = np.zeros(len(overlaps.found))
    np.maximum.at(best, overlaps.pairs[:, 0], overlaps.iou)
    for number, iou in zip((one for one in np.unique(found) if one), best, strict=True):
        mask = cv2.resize((found == number).astype(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        colour = GOOD if iou >= 0.75 else FAIR if iou >= 0.5 else MISSED
        shown = np.asarray(cv2.drawContours(np.ascontiguousarray(shown), outlines, -1, colour, 1), np.uint8)
    return np.asarray(shown, np.uint8)


def table(scores: dict[str, InstanceScores]) -> str:
    """Write a row of scores per way."""
    rows = [f"{'':12}" + "".join(f"{name:>12}" for name in SCORES.values()) + "   found / true"]
    for way, one in scores.items():
        rows.append(
            f"{way:12}" + "".join(f"{getattr(one, key):12.3f}" for key in SCORES) + f"{one.found:8} / {one.true}"
        )
    return "\n".join(rows)


def verdict(scores: dict[str, InstanceScores]) -> str:
    """Say if refinement is better than the watershed by AP, and not worse by any other score."""
    refined, watershed = scores["refined"], scores["watershed"]
    worse = [name for key, name in SCORES.items() if getattr(refined, key) < getattr(watershed, key)]
    if worse:
        return f"refined is worse than watershed by {', '.join(worse)}"
    if refined.ap > watershed.ap:
        return f"refined is better than watershed by AP ({refined.ap - watershed.ap:+.3f}), and not worse by any score"
    return "refined is as good as watershed by AP"


def page(scores: dict[str, InstanceScores], sections: list[MadeSection], found: list[dict[str, Labels]]) -> Page:
    """Make the page: scores, and per section the outlines of each way over the picture."""
    rows = tuple((way, *(f"{getattr(one, key):.3f}" for key in SCORES)) for way, one in scores.items())
    shown = []
    for number, (section, ways) in enumerate(zip(sections, found, strict=True)):
        panels = [outlined(section.picture, ways[way], section.instances) for way in SHOWN]
        shown.append(
            Picture(
                np.concatenate(panels, axis=1),
                alt=f"Section {number} three times, with the outlines of each way.",
                caption=f"Section {number}, {section.illumination} light: {', '.join(SHOWN)}. Green: IoU with the "
                "truth from 0.75 on; amber: from 0.5 on; red: less.",
            )
        )
    count = sum(int(one.instances.max()) for one in sections)
    return Page(
        job="instances-demo",
        title="made thin sections",
        sentence=f"{count:,} grains of known outlines in {len(sections)} made thin sections: {verdict(scores)}.",
        hero=(shown[0],),
        figures=tuple(Figure(f"{scores[way].ap:.3f}", f"AP, {way}", f"PQ {scores[way].pq:.3f}") for way in WAYS),
        sections=(
            Section("Scores", (Table("All sections together.", ("", *SCORES.values()), rows, frozenset(range(1, 7))),)),
            Section("Sections", tuple(shown[1:])),
        ),
        files=(Link("scores.json", "scores.json", "all scores, with size quantiles"),),
    )


def main() -> None:
    """Make sections, infer their maps, separate, score and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("root"))
    parser.add_argument("--bundle", default=str(DATA / "grains-unet"), help="the first pass")
    parser.add_argument("--promptable", default=str(DATA / "grains-sam2"), help="the network that refines")
    parser.add_argument("--seed", type=int, default=SECTIONS.seed)
    parser.add_argument("--only-sections", action="store_true", help="write those that the first pass is trained on")
    chosen = parser.parse_args()
    if chosen.only_sections:
        place = chosen.root / "grains"
        print(f"{write_sections(Location.parse(str(place)), TRAINED_ON)} sections: {place}")
        return
    started, root = time.perf_counter(), chosen.root / "instances-demo"
    config = SECTIONS.model_copy(update={"seed": chosen.seed})
    write_sections(Location.parse(str(root / "sections")), config)
    images, maps = root / "sections/images", root / "maps"
    infer_pictures.run(
        infer_pictures.InferPicturesConfig(bundle=chosen.bundle, images=str(images), output=str(maps), device="cpu"),
        RunContext(),
    )
    folders = {
        "not grown": separated(root, images, maps, "not-grown", "none", 0.0),
        "watershed": separated(root, images, maps, "watershed", "none"),
        "refined": separated(root, images, maps, "refined", chosen.promptable),
    }
    sections = [make_section(config, number) for number in range(config.count)]
    found: list[dict[str, Labels]] = []
    for number in range(config.count):
        name = f"section-{number:03d}.npy"
        ways = {way: np.load(folder / "npy" / name).astype(np.int64) for way, folder in folders.items()}
        found.append({"first pass": components(np.load(maps / name)), **ways})
    scores = {
        way: score([Overlaps.of(one[way], section.instances) for one, section in zip(found, sections, strict=True)])
        for way in WAYS
    }
    (root / "scores.json").write_text(json.dumps({way: asdict(one) for way, one in scores.items()}, indent=2))
    (root / "report.html").write_bytes(render(page(scores, sections, found)))
    print(table(scores))
    print(verdict(scores))
    print(f"where: {root / 'report.html'} · {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    sys.exit(run_script(main, "python scripts/instances_demo.py"))

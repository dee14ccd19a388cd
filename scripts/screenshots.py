"""Pictures of the real pages for README and docs: the demo in the viewer and on report pages, in a headless Chromium.

    make screenshots                      # into docs/images
    python scripts/screenshots.py --root root --to docs/images

What the demo lacks under ROOT (prepared layers, predictions, labels, the ensemble of docs/ensembles.md and its
evaluation, a probe, a dataset and a short training) is made first. `--only NAME` draws one picture again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from inkbatch.cli.outcome import run_script
from inkbatch.data.segments.catalog import shipped_catalog
from inkbatch.run.job import RunContext
from inkbatch.run.record import REPORT_NAME
from inkbatch.steps import chains
from inkbatch.steps.dataset import job as build_dataset
from inkbatch.steps.ensemble import job as ensemble
from inkbatch.steps.evaluate import job as evaluate
from inkbatch.steps.infer import job as infer
from inkbatch.steps.labels import job as labels
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.steps.probe import job as probe
from inkbatch.steps.report import job as report
from inkbatch.steps.train import job as train
from inkbatch.testing.browser import chromium, settle, viewer_of
from inkbatch.text import bytes_text

WIDE, PHONE = (1280, 800), (390, 844)
VIEWS = {
    "viewer": (WIDE, "x=512&y=320&z=0.94&n=3&l=5", ""),
    "viewer-compare": (WIDE, "x=660&y=330&z=1.35&v=side&maps=fine&with=rough&il=1", ""),
    "viewer-difference": (WIDE, "x=620&y=330&z=1.7&v=difference&maps=fine&with=rough&g=3", ""),
    "viewer-profile": (WIDE, "x=560&y=300&z=2.2&pin=300,560&p=1&o=0.6&il=1", ""),
    "viewer-phone": (PHONE, "x=512&y=320&z=0.55&c=amber", "document.getElementById('drawer').click()"),
}

EDITED = {"label-editor": "x=512&y=320&z=0.94", "label-editor-near": "x=560&y=120&z=4&c=grey&o=0.5"}
PAINTED = (  # keys that are pressed, and the way of the mouse in pixels (y, x)
    ("4r", ((12, 225), (196, 985))),
    ("1ua", ((112, 516),)),
    ("a", ((69, 747),)),
    ("a", ((101, 844),)),
    ("2b", ((176, 250), (182, 480), (176, 700))),
    ("3n", ((215, 640), (205, 760), (240, 930), (280, 900), (262, 700), (215, 640))),
    ("1b", ((60, 610), (40, 640), (130, 690), (130, 690))),
)

REPORTS = {  # size, scheme, folder under ROOT
    "report-infer": ((1100, 1330), "light", "predictions/demo/fine"),
    "report-infer-phone": (PHONE, "dark", "predictions/demo/fine"),
    "report-build-dataset": ((1100, 1000), "light", "datasets/demo"),
    "report-train": ((1100, 1330), "light", "runs/demo"),
    "report-ensemble": ((1100, 1330), "light", "predictions/demo/fitted"),
    "report-evaluate": ((1100, 1330), "light", "predictions/demo/ensemble-mean/evaluation-versus-fitted"),
    "report-probe": ((1100, 1330), "light", "probes/demo/demo"),
}

MEMBERS: Mapping[str, Mapping[str, Any]] = {  # those of docs/ensembles.md
    "a": {"stride_px": 64},
    "b": {"stride_px": 96},
    "c": {"override": {"divisor": 110}},
}
DATASET = {
    "name": "demo",
    "segments": ["demo"],
    "sample_px": 64,
    "sampling": {"kind": "grid", "stride_px": 32},
    "splits": {"kind": "blocks", "block_px": 192, "validation": 0.2},
    "card": {"licence": "MIT"},
}
TRAINING = {  # short: for its curves, not for its network
    "run": "demo",
    "dataset": "demo",
    "model": {
        "architecture": "smp",
        "config": {
            "family": "Unet",
            "encoder": "tu-mobilenetv3_small_050",
            "decoder": {"encoder_depth": 4, "decoder_channels": [32, 32, 16, 8]},
        },
    },
    "tile_px": 64,
    "epochs": 10,
    "batch": 16,
    "ema": 0.95,
    "optimiser": {"rate": 3e-3},
    "loss": {"terms": [{"name": "bce"}, {"name": "dice"}]},
    "device": "cpu",
}


def demo(root: str) -> None:
    """Prepare, infer twice and label the demo segment; existing results are used again."""
    prepare.run(PrepareConfig.load(options={"segment": "demo", "root": root}), RunContext())
    for name, stride in (("fine", 64), ("rough", 128)):
        options = {"segment": "demo", "root": root, "bundle": "demo", "name": name, "stride_px": stride}
        infer.run(infer.InferConfig.load(options=options), RunContext())
    truth = str(shipped_catalog().parent / "truth.png")
    clean = {"min_area_px": 0, "max_hole_px": 0}  # the truth as it is: its small letters are no specks
    options = {"segment": "demo", "root": root, "image": truth, "clean": clean}
    labels.run(labels.LabelsConfig.load(options=options), RunContext())
    options = {"segment": "demo", "root": root, "name": "fine"}
    evaluate.run(evaluate.EvaluateConfig.load(options=options), RunContext())
    joined(root)
    learned(root)
    probe.run(probe.ProbeConfig.load(options={"segment": "demo", "root": root, "bundle": "demo"}), RunContext())
    for line in report.run(report.ReportConfig(run="demo", root=root)):  # with the scores
        print(line)


def joined(root: str) -> None:
    """Compute the ensembles of docs/ensembles.md, and how much better the fitted one is."""
    where = {"segment": "demo", "root": root}
    for name, changes in MEMBERS.items():
        infer.run(infer.InferConfig.load(options={**where, "bundle": "demo", "name": name, **changes}), RunContext())
    members = {**where, "predictions": list(MEMBERS)}
    fitted = {"name": "fitted", "fit_weights": True, "fit": {"area": [0, 0, 640, 512]}}
    for changes in ({}, fitted):
        ensemble.run(ensemble.EnsembleConfig.load(options={**members, **changes}), RunContext())
    options = {**where, "name": "ensemble-mean", "versus": "fitted", "region_px": 128}
    evaluate.run(evaluate.EvaluateConfig.load(options=options), RunContext())


def learned(root: str) -> None:
    """Make a dataset of the demo's blocks, and run a short training on it."""
    options = {**DATASET, "root": root}
    chains.build_dataset(build_dataset.BuildDatasetConfig.load(options=options), RunContext())
    train.run(train.TrainConfig.load(options={**TRAINING, "root": root}), RunContext())


def compact(picture: bytes) -> bytes:
    """Encode the picture as WebP: a tenth of the bytes of a PNG."""
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    return cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, 86])[1].tobytes()


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="root/screenshots", help="where the demo is prepared")
    parser.add_argument("--to", type=Path, default=Path("docs/images"), help="where the pictures go")
    parser.add_argument("--only", action="append", help="name of a picture; may be repeated")
    found = parser.parse_args()
    wanted = set(found.only or (*VIEWS, *EDITED, *REPORTS))
    demo(found.root)
    found.to.mkdir(parents=True, exist_ok=True)
    with viewer_of(["demo"], found.root) as url, chromium() as browser:
        for name, ((width, height), view, script) in VIEWS.items():
            if name not in wanted:
                continue
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(f"{url}#{view}")
            settle(page)
            if script:
                page.evaluate(script)
                page.wait_for_timeout(500)
            save(page, found.to / f"{name}.webp")
        if wanted & set(EDITED):
            paint(browser, found.root, found.to)
        for name, ((width, height), scheme, folder) in REPORTS.items():
            if name not in wanted:
                continue
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(f"file://{Path(found.root).resolve() / folder / REPORT_NAME}")
            save(page, found.to / f"{name}.webp")


def paint(browser: Any, root: str, to: Path) -> None:
    """Paint as a person does, into a new ROOT with the same segment and map, and make the pictures of the editor."""
    with TemporaryDirectory() as other:
        for room in ("segments", "predictions"):
            (Path(other) / room).symlink_to(Path(root).resolve() / room)
        with viewer_of(["demo"], other, edit=True) as url:
            page = browser.new_page(viewport={"width": WIDE[0], "height": WIDE[1]})
            page.goto(f"{url}&{EDITED['label-editor']}&maps=fine")
            settle(page)
            for keys, way in PAINTED:
                for key in keys:
                    page.keyboard.press(key)
                stroke(page, way)
            for name, view in EDITED.items():
                page.evaluate(f"location.hash = '{view}&maps=fine'")
                page.mouse.move(620, 330)
                settle(page)
                (to / f"{name}.webp").write_bytes(compact(page.screenshot()))
            page.close()


def stroke(page: Any, way: Sequence[tuple[int, int]]) -> None:
    """Drag the mouse along pixels of the segment."""
    place = "([y, x]) => { const at = window.inkbatch.stages[0].toScreen(x, y); return [at.x, at.y] }"
    top = page.locator("#stage-one").bounding_box()["y"]
    for number, point in enumerate(way):
        x, y = page.evaluate(place, point)
        page.mouse.move(x, y + top, steps=8)
        if number == 0:
            page.mouse.down()
    page.mouse.up()
    settle(page)


def save(page: Any, place: Path) -> None:
    """Store what the page shows, and close it."""
    place.write_bytes(compact(page.screenshot()))
    print(f"{place}: {bytes_text(place.stat().st_size)}")
    page.close()


if __name__ == "__main__":
    sys.exit(run_script(main, "python scripts/screenshots.py"))

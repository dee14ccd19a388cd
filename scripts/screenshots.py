"""Pictures of the real pages for README and docs: the demo in the viewer and on report pages, in a headless Chromium.

    make screenshots                      # into docs/images
    python scripts/screenshots.py --root root --to docs/images

What the demo lacks under ROOT (prepared layers, two predictions, labels) is made first.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from inkbatch.data.catalog import shipped_catalog
from inkbatch.run.job import RunContext
from inkbatch.run.record import REPORT_NAME
from inkbatch.steps import evaluate, infer, labels, prepare, report
from inkbatch.testing.browser import chromium, settle, viewer_of

WIDE, PHONE = (1280, 800), (390, 844)
VIEWS = {
    "viewer": (WIDE, "x=512&y=320&z=0.94&n=3&l=5", ""),
    "viewer-compare": (WIDE, "x=660&y=330&z=1.35&v=side&maps=fine&with=rough&il=1", ""),
    "viewer-difference": (WIDE, "x=620&y=330&z=1.7&v=difference&maps=fine&with=rough&g=3", ""),
    "viewer-profile": (WIDE, "x=560&y=300&z=2.2&pin=300,560&p=1&o=0.6&il=1", ""),
    "viewer-phone": (PHONE, "x=512&y=320&z=0.55&c=amber", "document.getElementById('drawer').click()"),
}

REPORTS = {  # size, scheme, folder under ROOT
    "report-infer": ((1100, 1330), "light", "predictions/demo/fine"),
    "report-infer-phone": (PHONE, "dark", "predictions/demo/fine"),
}


def demo(root: str) -> None:
    """Prepare, infer twice and label the demo segment; what is there is used on."""
    prepare.run(prepare.PrepareConfig.load(options={"segment": "demo", "root": root}), RunContext())
    for name, stride in (("fine", 64), ("rough", 128)):
        options = {"segment": "demo", "root": root, "bundle": "demo", "name": name, "stride_px": stride}
        infer.run(infer.InferConfig.load(options=options), RunContext())
    truth = str(shipped_catalog().parent / "truth.png")
    options = {"segment": "demo", "root": root, "image": truth}
    labels.run(labels.LabelsConfig.load(options=options), RunContext())
    options = {"segment": "demo", "root": root, "name": "fine"}
    evaluate.run(evaluate.EvaluateConfig.load(options=options), RunContext())
    for line in report.run(report.ReportConfig(run="demo", root=root)):  # with the scores
        print(line)


def compact(picture: bytes) -> bytes:
    """The picture as WebP: a tenth of the bytes of a PNG."""
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    return cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, 86])[1].tobytes()


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="root/screenshots", help="where the demo is prepared")
    parser.add_argument("--to", type=Path, default=Path("docs/images"), help="where the pictures go")
    found = parser.parse_args()
    demo(found.root)
    found.to.mkdir(parents=True, exist_ok=True)
    with viewer_of(["demo"], found.root) as url, chromium() as browser:
        for name, ((width, height), view, script) in VIEWS.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(f"{url}#{view}")
            settle(page)
            if script:
                page.evaluate(script)
                page.wait_for_timeout(500)
            save(page, found.to / f"{name}.webp")
        for name, ((width, height), scheme, folder) in REPORTS.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(f"file://{Path(found.root).resolve() / folder / REPORT_NAME}")
            save(page, found.to / f"{name}.webp")


def save(page: Any, place: Path) -> None:
    """Store what the page shows, and close it."""
    place.write_bytes(compact(page.screenshot()))
    print(f"{place}: {place.stat().st_size / 1e3:.0f} kB")
    page.close()


if __name__ == "__main__":
    main()

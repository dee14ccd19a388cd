"""Draw the pictures of docs/rounds.md from the rounds of ``make rounds-demo``, in a headless Chromium.

    python scripts/make_round_pictures.py root/rounds-demo/seed-0 docs/images

The editor shows the best region of the first round, at the place that the link in the round's page leads to, on the
label version that the round proposed. Nothing is painted.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from inkbatch.cli.outcome import run_script
from inkbatch.data.labels.painting_version import labels_folder, read_facts, version_names
from inkbatch.io.store.location import Location
from inkbatch.run.record import REPORT_NAME
from inkbatch.steps.round.names import PROPOSALS, round_folder, round_name
from inkbatch.testing.browser import chromium, settle, viewer_of
from inkbatch.text import bytes_text

SERIES = "demo"
QUALITY = 86
EDITOR, PAGE = {"width": 1280, "height": 800}, {"width": 1100, "height": 1040}
BRUSH_KEY, BRUSH_STEPS, WHEEL_PX, WHEEL_STEPS = (
    "[",
    12,
    240,
    4,
)  # a brush that hides little, and the letters around the region
MARGIN_PX = 16
CHANGED = "What changed"


def draw_editor(browser: Any, root: Path, to: Path) -> None:
    """Draw the editor at the best region of the first round."""
    best = (round_folder(Location.parse(root), SERIES, 1) / PROPOSALS).read_mapping()["regions"][0]
    folder, origin = labels_folder(str(root), best["segment"]), f"proposals of {round_name(SERIES, 1)}"
    version = next(name for name in version_names(folder) if read_facts(folder / name)["started_from"] == origin)
    with viewer_of([best["segment"]], str(root), edit=True, version=version) as url:
        page = browser.new_page(viewport=EDITOR)
        page.goto(f"{url}&{best['view'].partition('#')[2]}")
        settle(page)
        page.mouse.move(480, 400)
        for _ in range(WHEEL_STEPS):
            page.mouse.wheel(0, WHEEL_PX)
        for _ in range(BRUSH_STEPS):
            page.keyboard.press(BRUSH_KEY)
        settle(page)
        save(page.screenshot(), to)
        page.close()


def draw_page(browser: Any, root: Path, number: int, to: Path) -> None:
    """Draw the upper part of a round's page, and what changed in it."""
    place = Path(round_folder(Location.parse(root), SERIES, number).uri.removeprefix("file://")) / REPORT_NAME
    page = browser.new_page(viewport=PAGE, color_scheme="light")
    page.goto(f"file://{place}")
    heading = page.locator(f"h2:text-is('{CHANGED}')")
    upper = {"x": 0, "y": 0, "width": PAGE["width"], "height": heading.bounding_box()["y"] - MARGIN_PX}
    save(page.screenshot(full_page=True, clip=upper), to / "report-round.webp")
    pair = page.locator(f"h2:text-is('{CHANGED}') ~ .gallery").first.bounding_box()
    maps = {"x": 0, "y": pair["y"] - MARGIN_PX, "width": PAGE["width"], "height": pair["height"] + MARGIN_PX - 1}
    save(page.screenshot(full_page=True, clip=maps), to / "round-maps.webp")
    page.close()


def save(picture: bytes, place: Path) -> None:
    """Store a picture as WebP."""
    values = np.asarray(cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR))
    place.write_bytes(cv2.imencode(".webp", values, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])[1].tobytes())
    print(f"{place}: {bytes_text(place.stat().st_size)}")


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="ROOT of the rounds")
    parser.add_argument("to", type=Path, help="where the pictures go")
    parser.add_argument("--round", type=int, default=2, help="the round whose page is shown")
    given = parser.parse_args()
    root = given.root.resolve()
    with chromium() as browser:
        draw_editor(browser, root, given.to / "round-editor.webp")
        draw_page(browser, root, given.round, given.to)


if __name__ == "__main__":
    sys.exit(run_script(main, "python scripts/make_round_pictures.py"))

"""A segment to paint on, and the label editor in a browser as a person uses it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from inkbatch.testing.browser import PATIENCE_S, settle
from inkbatch.testing.datasets import inked, labelled_segment
from inkbatch.testing.maps import store_map

SHAPE = (600, 900)
BLOT = (240, 600, 300, 700)  # y0, x0, y1, x1 where the map is sure of ink
HALO = (230, 590, 310, 710)  # and around it uncertain


def segment_to_paint(root: Path) -> Path:
    """Store the segment ``seg`` with a map ``net`` of one blot of ink; returns ROOT."""
    labelled_segment(root, "seg", inked(SHAPE, (10, 10, 40, 60)), shard_px=256)
    values = np.full(SHAPE, 0.1)
    for box, value in ((HALO, 0.4), (BLOT, 0.9)):
        values[box[0] : box[2], box[1] : box[3]] = value
    store_map(root, "seg", "net", values, unit_px=256)
    return root


def stored_marks(root: Path, layer: str, version: str = "v001") -> NDArray[np.bool_]:
    """Read the marks of a layer as another program reads them."""
    array: Any = zarr.open_array(root / "labels" / "seg" / version / f"{layer}.zarr" / "0", mode="r")
    return np.asarray(array) > 0


class Desk:
    """A page with the editor, at one screen pixel per pixel unless zoomed."""

    def __init__(self, browser: Any, url: str, context: Any = None, **options: Any) -> None:
        options = {"viewport": {"width": 1280, "height": 800}, **options}
        self.context = context or browser.new_context(**options)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.sent: list[Any] = []  # strokes
        self.unanswered: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("requestfailed", lambda one: self.unanswered.append(one.url))
        self.page.on("request", self._note_stroke)
        self.page.goto(url)
        self.settle()
        self.page.keyboard.press("9")
        self.settle()

    def _note_stroke(self, request: Any) -> None:
        if request.url.endswith("/op"):
            self.sent.append(request.post_data_json["op"])

    def settle(self) -> None:
        """Wait until all is drawn and stored."""
        settle(self.page)

    def screen(self, y: float, x: float) -> Any:
        """Return a pixel's place on the screen."""
        script = (
            "([y, x]) => { const stage = window.inkbatch.stages[0], at = stage.toScreen(x, y), "
            "box = stage.element.getBoundingClientRect(); return [at.x + box.left, at.y + box.top] }"
        )
        return self.page.evaluate(script, [y, x])

    def stroke(self, *points: tuple[float, float], button: str = "left", steps: int = 6) -> None:
        """Draw with the mouse from point to point (y, x)."""
        self.page.mouse.move(*self.screen(*points[0]))
        self.page.mouse.down(button=button)
        for point in points[1:]:
            self.page.mouse.move(*self.screen(*point), steps=steps)
        self.page.mouse.up(button=button)
        self.settle()

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()

    def wait_for_unanswered(self, count: int) -> None:
        """Wait until so many requests of the editor got no answer."""
        end = time.monotonic() + PATIENCE_S
        while sum("/edit/" in url for url in self.unanswered) < count:
            assert time.monotonic() < end, self.unanswered
            self.page.wait_for_timeout(50)

    def status(self) -> Any:
        """Read the words beside the title: saved or not."""
        return self.page.locator("#saved").text_content()

    def shown(self, y: float, x: float) -> Any:
        """Read the colour (red, green, blue, opacity) of the painted layers at a pixel."""
        script = (
            "([y, x]) => { const stage = window.inkbatch.stages[0], at = stage.toScreen(x, y), r = devicePixelRatio; "
            "const canvas = stage.element.querySelector('canvas.painted'); "
            "return [...canvas.getContext('2d').getImageData(at.x * r, at.y * r, 1, 1).data] }"
        )
        return self.page.evaluate(script, [y, x])

"""Our links in Neuroglancer itself, by its Python package. Run by make test-browser."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from inkbatch.geometry import Box
from inkbatch.io.pictures.ome_zarr_v2 import LevelValues, write_ome_zarr_v2
from inkbatch.io.store.location import Location
from inkbatch.steps.export.neuroglancer import ImageLayer, ink_layer, neuroglancer_link
from inkbatch.testing.browser import chromium

pytestmark = pytest.mark.browser
SHAPE, SPACING = (300, 400), (2.4, 7.91, 7.91)
AS_STORED = "void main() { emitGrayscale(toNormalized(getDataValue())); }"


class Open(http.server.SimpleHTTPRequestHandler):
    """Serves files to pages of any origin."""

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Open, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def store(place: Path, values: np.ndarray) -> None:
    def read(box: Box) -> np.ndarray:
        return values[:, box.y0 : box.y1, box.x0 : box.x1]

    write_ome_zarr_v2(Location(str(place)), [LevelValues(values.shape, values.dtype, read)], SPACING, {})


def shown(link: str, folder: Path) -> np.ndarray:
    """Open a link's state in the viewer; the picture as BGR."""
    import neuroglancer

    neuroglancer.set_server_bind_address("127.0.0.1")
    viewer = neuroglancer.Viewer()
    viewer.set_state(json.loads(unquote(link.split("#!", 1)[1])))
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 800, "height": 600})
        page.goto(str(viewer))
        page.wait_for_function("document.querySelectorAll('.neuroglancer-layer-item').length === 2")
        picture = np.zeros((1, 1, 3), np.uint8)
        for _ in range(60):  # chunks arrive one by one
            page.wait_for_timeout(250)
            before, picture = picture, cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
            if before.shape == picture.shape and (before == picture).all() and red(picture).any():
                break
        cv2.imwrite(str(folder / "shown.png"), picture)
    neuroglancer.stop()
    return picture


def red(picture: np.ndarray) -> np.ndarray:
    blue, green, own = np.moveaxis(picture.astype(int), -1, 0)
    return (own > 200) & (green < 60) & (blue < 60)


def largest(marked: np.ndarray) -> np.ndarray:
    """Left, top, width, height and area of the largest component."""
    found = cv2.connectedComponentsWithStats(marked.astype(np.uint8))[2][1:]
    return found[found[:, cv2.CC_STAT_AREA].argmax()]


def test_a_link_shows_red_ink_over_papyrus_at_its_true_scale(tmp_path):
    ink = np.zeros((1, *SHAPE), np.uint8)
    ink[0, 100:200, 150:250] = 255
    store(tmp_path / "map.zarr", ink)
    papyrus = np.broadcast_to(np.arange(40, 240, 40, dtype=np.uint8)[:, None, None], (5, *SHAPE))
    store(tmp_path / "papyrus.zarr", papyrus)
    with served(tmp_path) as address:
        below = ImageLayer("papyrus", f"{address}/papyrus.zarr", AS_STORED)
        layers = [below, ink_layer(f"{address}/map.zarr", plane_px_um=SPACING[2])]
        picture = shown(neuroglancer_link(layers, papyrus.shape, SPACING), tmp_path)
    left, top, width, height, area = largest(red(picture))  # the axes' names are red as well
    assert max(abs(width - 100), abs(height - 100)) <= 2  # one screen pixel per value
    assert area > 0.95 * width * height
    x, y, *size, area = largest((picture == papyrus[2, 0, 0]).all(axis=-1))
    assert np.abs(np.subtract(size, (400, 300))).max() <= 4  # the viewer draws a line around the volume
    assert area > 0.95 * (400 * 300 - 100 * 100)  # the middle layer, and no other, lies around the ink
    assert max(abs(left - x - 150), abs(top - y - 100)) <= 2

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
from inkbatch.steps.export.neuroglancer import ink_layer, neuroglancer_link, papyrus_layer
from inkbatch.testing.browser import chromium

pytestmark = pytest.mark.browser
SHAPE, SPACING = (300, 400), (7.91, 7.91, 7.91)


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


def test_a_link_shows_red_ink_over_papyrus_at_its_true_scale(tmp_path):
    ink = np.zeros((1, *SHAPE), np.uint8)
    ink[0, 100:200, 150:250] = 255
    store(tmp_path / "map.zarr", ink)
    store(tmp_path / "papyrus.zarr", np.full((1, *SHAPE), 128, np.uint8))
    with served(tmp_path) as address:
        layers = [papyrus_layer(f"{address}/papyrus.zarr"), ink_layer(f"{address}/map.zarr")]
        picture = shown(neuroglancer_link(layers, (1, *SHAPE), SPACING), tmp_path)
    _, _, found, _ = cv2.connectedComponentsWithStats(red(picture).astype(np.uint8))
    _, _, width, height, area = found[1 + found[1:, cv2.CC_STAT_AREA].argmax()]  # the axes' names are red as well
    assert max(abs(width - 100), abs(height - 100)) <= 2  # one screen pixel per value
    assert area > 0.95 * width * height

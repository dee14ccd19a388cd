"""Questions to a window, with a stand-in for the network."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from inkbatch.geometry import Box
from inkbatch.models.rules import Stitching
from inkbatch.steps.probe.measure import ORDERS, Asked, ProbeInk, measure

DEPTH, STARTS = 4, (0, 1, 2)


class Counting:
    """Answers with the mean of the layers that it is given, and remembers them."""

    contract = SimpleNamespace(tile_px=32, stride_px=32, stitching=Stitching())

    def __init__(self) -> None:
        self.given: list[bytes] = []

    def blend(self, unit, loaded):
        self.given.append(loaded.layers.tobytes())
        return loaded.layers.mean(axis=0).astype(np.float32) / 255


def test_no_reading_of_the_layers_is_computed_twice():
    slab = np.random.default_rng(0).integers(60, 180, (DEPTH + 2, 32, 32)).astype(np.uint8)
    slab[1:3] += 60  # the sheet
    predictor = Counting()
    ink = ProbeInk(amplitude=50, width_layers=1.5, stroke_px=6, edge_px=1, seed=0)
    asked = Asked(DEPTH, STARTS, 1, "forward", ink)
    found = measure(predictor, slab, np.ones((32, 32), bool), Box(0, 0, 32, 32), asked)
    assert {order: len(found["answers"][order]) for order in ORDERS} == {"forward": 3, "reversed": 3}
    assert len(predictor.given) == len(set(predictor.given))
    assert len(predictor.given) == 2 * len(STARTS) + 2 * len(found["planted"]["forward"]) + 2 * len(found["nulls"])

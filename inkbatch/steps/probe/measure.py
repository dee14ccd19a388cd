"""Answers of a bundle in one window: to every reading of the layers, to planted ink at every depth, to null inputs.

A *reading* is a depth order and a first layer. An *answer* is the mean of the ink map. The *lift* of planted ink is how
far the map rises on the planted strokes, less its rise beside them, counted where the map was dark before. The
*contrast* of a reading is how much brighter each layer is where its map says ink than where it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.picture_layers import cut_out
from inkbatch.data.synthetic.phantom import GREY_UNIT, InkConfig, ink_plane, truth_of
from inkbatch.data.synthetic.strokes import Slab, strokes, with_ink
from inkbatch.geometry import Box, Unit
from inkbatch.io.surface import DepthOrder, in_order
from inkbatch.predict.coverage import covered_tiles, grid_of
from inkbatch.predict.predictor import Predictor, SubVolume
from inkbatch.steps.probe.inputs import NULLS, null_input, sheet_faces

ORDERS: tuple[DepthOrder, DepthOrder] = ("forward", "reversed")
BLOCKS_PER_EDGE = 4  # a window's answer is kept per block, so that confidence can be resampled
MAX_DEPTHS = 16  # at which ink is planted in turn
DARK = 0.5  # map value below which a pixel can show a lift


@dataclass(frozen=True)
class ProbeInk:
    """The ink that is planted.

    Attributes:
        amplitude: Grey values of 255 at its centre; negative is darker than papyrus.
        width_layers: Standard deviation along depth.
        stroke_px: Width of a stroke.
        edge_px: Softness of its edges.
        seed: Of strokes and null inputs.
    """

    amplitude: float
    width_layers: float
    stroke_px: float
    edge_px: float
    seed: int


@dataclass(frozen=True)
class Planted:
    """Effect of planted ink on a map.

    Attributes:
        lift: Rise on the strokes less rise beside them, in dark pixels; -1 to 1.
        gain: Rise of the map's mean over all dark pixels.
        certainty: Mean of the map on the strokes that were dark and are ink now; 0 where there are none.
    """

    lift: float
    gain: float
    certainty: float


@dataclass(frozen=True)
class Asked:
    """Readings and planted ink of a window.

    Attributes:
        depth: Layers that the network takes.
        starts: First layers (indices of the surface) of the readings; `usual_start` is one of them.
        usual_start: First layer that `infer` takes by itself.
        usual_order: The order that `infer` takes by itself.
        ink: The planted ink.
    """

    depth: int
    starts: Sequence[int]
    usual_start: int
    usual_order: DepthOrder
    ink: ProbeInk


def measure(predictor: Predictor, slab: Slab, mask: NDArray[np.bool_], box: Box, asked: Asked) -> dict[str, Any]:
    """Ask one window everything.

    Args:
        predictor: The network.
        slab: All layers of the window, (Z, Y, X), depth order of the surface.
        mask: Where there is papyrus, (Y, X).
        box: The window's place on the surface.
        asked: What is asked.

    Returns:
        JSON values. ``answers``: per order, per start, the mean map of each block (None without papyrus).
        ``contrasts``: likewise, how many pixels say ink, and by how many grey values of 255 each layer that the network
        was given is brighter there, in the order in which it was given. ``planted``:
        per order, per layer of the surface, lift and gain of ink there, seen from the usual layers. ``faces``: the
        layers of the sheet's two faces; they are among the planted ones. ``nulls``: per null input, answer, lift, gain.
        ``tiles``: how many the network was given.
    """
    window = _Window(predictor, mask, box, asked)
    own = {(order, start): window.map_of(slab, order, start) for order in ORDERS for start in asked.starts}
    usual = {order: own[order, asked.usual_start] for order in ORDERS}
    faces = sheet_faces(np.array([layer[mask].mean() for layer in slab]))
    depths = sorted({*_planted_depths(asked), *faces})
    planted: dict[str, dict[str, Any]] = {order: {} for order in ORDERS}
    for depth in depths:
        inked = window.inked(slab, depth)
        for order in ORDERS:
            after = window.map_of(inked, order, asked.usual_start)
            planted[order][str(depth)] = asdict(window.rise(usual[order], after))
    return {
        "box": [box.y0, box.x0, box.y1, box.x1],
        "answers": {
            order: {str(start): window.blocks(own[order, start]) for start in asked.starts} for order in ORDERS
        },
        "contrasts": {
            order: {str(start): window.contrast(slab, own[order, start], order, start) for start in asked.starts}
            for order in ORDERS
        },
        "planted": planted,
        "faces": list(faces),
        "nulls": _nulls(window, slab, planted, asked),
        "tiles": window.maps * window.tiles.count,
    }


def _planted_depths(asked: Asked) -> range:
    """List the layers of the surface that get ink in turn: all that the network takes, or every n-th."""
    step = -(-asked.depth // MAX_DEPTHS)
    return range(asked.usual_start, asked.usual_start + asked.depth, step)


def _nulls(window: _Window, slab: Slab, planted: dict[str, dict[str, Any]], asked: Asked) -> dict[str, Any]:
    """Make null inputs of the usual reading; ink is planted into them where the usual order sees it best."""
    seen = planted[asked.usual_order]
    best = max(_planted_depths(asked), key=lambda depth: float(seen[str(depth)]["lift"])) - asked.usual_start
    usual = slab[asked.usual_start : asked.usual_start + asked.depth]
    found = {}
    for number, name in enumerate(NULLS):
        null = null_input(name, usual, best, asked.ink.seed + number)
        before = window.map_of(null, asked.usual_order, 0)
        after = window.map_of(window.inked(null, best), asked.usual_order, 0)
        found[name] = {"answer": window.answer(before), **asdict(window.rise(before, after))}
    return found


class _Window:
    """One window with its tiles, strokes and blocks."""

    def __init__(self, predictor: Predictor, mask: NDArray[np.bool_], box: Box, asked: Asked) -> None:
        self.predictor, self.asked, self.maps = predictor, asked, 0
        contract = predictor.contract
        here = Box(0, 0, *box.shape)
        grid = grid_of(contract, box.shape)
        hull = grid.read_box(here)
        self.room = (hull.height - box.height, hull.width - box.width)
        self.mask = mask
        self.unit = Unit(0, here, hull)
        self.padded, self.tiles = covered_tiles(contract, grid, here, lambda part: cut_out(mask, part))
        ink = asked.ink
        letters = strokes(box, ink.stroke_px, ink.edge_px, ink.seed)
        self.truth = truth_of(letters, mask)
        self.config = InkConfig(
            amplitude=ink.amplitude, depth_layer=0, width_layers=ink.width_layers, crackle=0, seed=ink.seed
        )
        self.plane = ink_plane(letters, mask, self.config)

    def map_of(self, slab: Slab, order: DepthOrder, start: int) -> NDArray[np.float32]:
        """Compute the ink map of one reading, (Y, X)."""
        self.maps += 1
        layers = in_order(slab[start : start + self.asked.depth], order)
        padded = np.pad(layers, ((0, 0), (0, self.room[0]), (0, self.room[1])))
        return self.predictor.blend(self.unit, SubVolume(np.ascontiguousarray(padded), self.padded, self.tiles))

    def inked(self, slab: Slab, depth: int) -> Slab:
        """Plant the window's strokes at a layer of the slab."""
        return with_ink(slab, self.plane, self.config.model_copy(update={"depth_layer": float(depth)}))

    def rise(self, before: NDArray[np.float32], after: NDArray[np.float32]) -> Planted:
        """Measure what planting changed, where the map was dark before."""
        dark = self.mask & (before < DARK)
        on, beside = dark & self.truth, dark & ~self.truth
        change = after - before
        lift = _mean(change[on]) - _mean(change[beside])
        return Planted(round(lift, 6), round(_mean(change[dark]), 6), round(_mean(after[on & (after >= DARK)]), 6))

    def contrast(self, slab: Slab, ink_map: NDArray[np.float32], order: DepthOrder, start: int) -> dict[str, Any]:
        """Measure how much brighter the layers of a reading are where its map says ink."""
        lit, dark = self.mask & (ink_map >= DARK), self.mask & (ink_map < DARK)
        layers = in_order(slab[start : start + self.asked.depth], order)
        if not lit.any() or not dark.any():
            return {"lit": 0, "certainty": 0.0, "layers": [0.0] * len(layers)}
        steps = GREY_UNIT[slab.dtype.name]
        found = [float(layer[lit].mean() - layer[dark].mean()) / steps for layer in layers]
        return {
            "lit": int(np.count_nonzero(lit)),
            "certainty": round(_mean(ink_map[lit]), 6),
            "layers": [round(value, 3) for value in found],
        }

    def answer(self, ink_map: NDArray[np.float32]) -> float:
        """Average a map over papyrus."""
        return round(_mean(ink_map[self.mask]), 6)

    def blocks(self, ink_map: NDArray[np.float32]) -> list[float | None]:
        """Average a map over the papyrus of each block, row-major; None where a block has none."""
        found: list[float | None] = []
        for rows in np.array_split(np.arange(ink_map.shape[0]), BLOCKS_PER_EDGE):
            for columns in np.array_split(np.arange(ink_map.shape[1]), BLOCKS_PER_EDGE):
                here = np.ix_(rows, columns)
                values = ink_map[here][self.mask[here]]
                found.append(round(float(values.mean()), 6) if values.size else None)
        return found


def _mean(values: NDArray[np.float32]) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else 0.0

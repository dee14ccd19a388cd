"""One unit of `prepare`: its layers are read, converted and halved, each layer once and while it is in the cache."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import NonFiniteError
from inkbatch.geometry import Box
from inkbatch.io.clahe import clahe_box, equalise
from inkbatch.io.multiscale import Multiscale, halve
from inkbatch.io.shards import codec_pool

if TYPE_CHECKING:
    from inkbatch.steps.prepare import PreparePlan


class Room:
    """Memory for one unit, used again by later ones: touching fresh memory costs more than filling it."""

    def __init__(self, surface: Multiscale) -> None:
        self._surface = surface
        self._flat = [np.empty(0, surface.levels[0].layout.dtype) for _ in surface.levels]

    def cut(self, shape: tuple[int, ...]) -> list[NDArray[Any]]:
        """Arrays for a unit of this shape and its halves, contents undefined."""
        shapes = self._surface.halved(shape)
        for level, wanted in enumerate(shapes):
            if self._flat[level].size < math.prod(wanted):
                self._flat[level] = np.empty(math.prod(wanted), self._flat[level].dtype)
        return [flat[: math.prod(wanted)].reshape(wanted) for flat, wanted in zip(self._flat, shapes, strict=True)]


@dataclass(frozen=True)
class LoadedUnit:
    """One unit, converted.

    Attributes:
        levels: (layers, height, width) in depth order and its halves, one array per level of the pyramid.
        mask: uint8 (height, width), 1 where there is papyrus.
        room: The memory of `levels`.
    """

    levels: Sequence[NDArray[Any]]
    mask: NDArray[np.uint8]
    room: Room


def load_unit(settled: PreparePlan, box: Box, room: Room) -> LoadedUnit:
    """Read and convert one unit.

    Args:
        settled: The plan.
        box: The unit's write box.
        room: Memory for the unit.

    Raises:
        NonFiniteError: A float layer holds NaN or infinity.
        DataError: A layer is damaged or truncated.
    """
    layers = list(settled.layers)
    levels = room.cut((len(layers), *box.shape))
    clahe = settled.provenance.clahe
    read_box = clahe_box(box, clahe.cell_px, settled.source.shape_zyx[1:]) if clahe else box
    outside = np.ones(box.shape, bool) if settled.mask_source is None else None
    order = range(len(layers)) if settled.provenance.depth_order == "forward" else range(len(layers))[::-1]

    def convert(number: int, place: int) -> NDArray[Any]:
        target = levels[0][place]
        stored = settled.source.view(number, read_box)
        if stored is None:
            stored = settled.source.read(range(number, number + 1), read_box)[0]
        try:
            if clahe is None:
                settled.mapping.apply(stored, target)
            else:
                grey = np.empty(read_box.shape, np.uint8)
                settled.mapping.apply(stored, grey)
                target[:] = equalise(grey, read_box, box, clahe)
        except NonFiniteError as error:
            raise NonFiniteError(f"{settled.source.uri}, layer {number}: {error}") from error
        for upper, lower in itertools.pairwise(levels):
            halve(upper[place], "mean", lower[place])
        return stored

    window = box.within(read_box)
    jobs = deque(codec_pool().submit(convert, layers[source], target) for target, source in enumerate(order))
    try:
        while jobs:
            stored = jobs[0].result()[window]
            jobs.popleft()
            if outside is not None and outside.any():
                outside &= stored == 0
            del stored
    finally:
        for job in jobs:
            job.cancel()
        wait(jobs)
    if outside is None:
        assert settled.mask_source is not None
        outside = settled.mask_source.read(range(1), box)[0] == 0
    return LoadedUnit(levels, (~outside).astype(np.uint8), room)

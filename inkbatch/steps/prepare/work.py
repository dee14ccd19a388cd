"""One unit of `prepare`: its layers are read, converted and halved, each layer once and while it is in the cache."""

from __future__ import annotations

import itertools
import math
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import NonFiniteError
from inkbatch.geometry import Box
from inkbatch.io.clahe import clahe_box, equalise
from inkbatch.io.layers.single import read_one_layer
from inkbatch.io.multiscale import Multiscale, halve
from inkbatch.io.shards.codec import Place, scatter
from inkbatch.io.shards.scratch import scratch
from inkbatch.io.threads import codec_pool

if TYPE_CHECKING:
    from inkbatch.steps.prepare.settings import PreparePlan


THUMBNAIL_STEP = 8


class Room:
    """Memory for one unit, used again by later ones: touching fresh memory costs more than filling it."""

    def __init__(self, surface: Multiscale) -> None:
        self._surface = surface
        self._flat = [np.empty(0, surface.levels[0].layout.dtype) for _ in surface.levels]

    def cut(self, shape: tuple[int, ...], *, halves_only: bool = False) -> list[NDArray[Any]]:
        """Arrays for a unit of this shape and its halves, or for the halves alone, contents undefined."""
        levels = range(int(halves_only), len(self._flat))
        shapes = self._surface.halved(shape)
        for level in levels:
            wanted = math.prod(shapes[level])
            if self._flat[level].size < wanted:
                self._flat[level] = np.empty(wanted, self._flat[level].dtype)
        return [self._flat[level][: math.prod(shapes[level])].reshape(shapes[level]) for level in levels]


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


@dataclass(frozen=True)
class MappedUnit:
    """One unit that lies in mapped files: nothing is read before it is written.

    Attributes:
        views: One per layer in depth order, (height, width), the source's dtype.
    """

    views: Sequence[NDArray[Any]]


def map_unit(plan: PreparePlan, box: Box) -> MappedUnit | None:
    """A unit without a copy, where the source is mapped into memory and pixels do not depend on their neighbours."""
    if plan.provenance.clahe is not None:
        return None
    views = []
    for number in plan.layers:
        view = plan.source.view(number, box)
        if view is None:
            return None
        views.append(view)
    return MappedUnit(views if plan.provenance.depth_order == "forward" else views[::-1])


def load_unit(plan: PreparePlan, box: Box, room: Room) -> LoadedUnit:
    """Read and convert one unit.

    Args:
        plan: See `make_plan`.
        box: The unit's write box.
        room: Memory for the unit.

    Raises:
        NonFiniteError: A float layer holds NaN or infinity.
        DataError: A layer is damaged or truncated.
    """
    layers = list(plan.layers)
    levels = room.cut((len(layers), *box.shape))
    clahe = plan.provenance.clahe
    read_box = clahe_box(box, clahe.cell_px, plan.source.shape_zyx[1:]) if clahe else box
    outside = np.ones(box.shape, bool) if plan.mask_source is None else None
    order = range(len(layers)) if plan.provenance.depth_order == "forward" else range(len(layers))[::-1]

    def convert(number: int, place: int, stored: NDArray[Any] | None = None) -> NDArray[Any]:
        target = levels[0][place]
        if stored is None:
            stored = plan.source.view(number, read_box)
        if stored is None:
            stored = plan.source.read(range(number, number + 1), read_box)[0]
        try:
            if clahe is None:
                plan.mapping.apply(stored, target)
            else:
                grey = np.empty(read_box.shape, np.uint8)
                plan.mapping.apply(stored, grey)
                target[:] = equalise(grey, read_box, box, clahe)
        except NonFiniteError as error:
            raise NonFiniteError(f"{plan.source.uri}, layer {number}: {error}") from error
        for upper, lower in itertools.pairwise(levels):
            halve(upper[place], "mean", lower[place])
        return stored

    window = box.within(read_box)

    def settle(outside: NDArray[np.bool_] | None, left: int) -> None:
        while len(jobs) > left:
            stored = jobs[0].result()[window]
            jobs.popleft()
            if outside is not None and outside.any():
                outside &= stored == 0
            del stored

    jobs: deque[Future[NDArray[Any]]] = deque()
    targets = {layers[source]: target for target, source in enumerate(order)}
    try:
        for group in _stored_together(plan):
            block = plan.source.read(group, read_box) if len(group) > 1 else itertools.repeat(None)
            before = len(jobs)
            jobs.extend(codec_pool.submit(convert, n, targets[n], one) for n, one in zip(group, block, strict=False))
            if len(group) > 1:
                del block
                settle(outside, len(jobs) - before)
        settle(outside, 0)
    finally:
        for job in jobs:
            job.cancel()
        wait(jobs)
    return LoadedUnit(levels, _mask(plan, box, outside), room)


def middle_layer(plan: PreparePlan, unit: LoadedUnit | MappedUnit) -> NDArray[np.float32]:
    """The middle layer of a unit for a thumbnail: every few pixels, from 0 to 1."""
    if isinstance(unit, LoadedUnit):
        grey = unit.levels[0][len(unit.levels[0]) // 2][::THUMBNAIL_STEP, ::THUMBNAIL_STEP]
    else:
        seen = np.ascontiguousarray(unit.views[len(unit.views) // 2][::THUMBNAIL_STEP, ::THUMBNAIL_STEP])
        grey = np.empty(seen.shape, plan.mapping.dtype)
        plan.mapping.apply(seen, grey)
    top = np.iinfo(grey.dtype).max if grey.dtype.kind == "u" else 1
    return np.asarray(grey, np.float32) / np.float32(top)


def _stored_together(plan: PreparePlan) -> list[range]:
    """The wanted layers, in the groups that are read at a time; borders between groups are borders of stored blocks."""
    layers, size, first = plan.layers, plan.units.group_layers, plan.source.first_layer
    borders = range(layers.start - (layers.start - first) % size, layers.stop, size)
    return [range(max(start, layers.start), min(start + size, layers.stop)) for start in borders]


def write_mapped(
    plan: PreparePlan, surface: Multiscale, box: Box, unit: MappedUnit, room: Room
) -> tuple[int, NDArray[np.uint8]]:
    """Convert and store a mapped unit, a row of chunks at a time: each pixel goes from the source's pages to the shard.

    Returns:
        Stored bytes, and the mask: uint8 (height, width), 1 where there is papyrus.
    """
    halves = room.cut((len(unit.views), *box.shape), halves_only=True)
    outside = np.ones(box.shape, bool) if plan.mask_source is None else None
    marking = threading.Lock()
    depth, height, _ = surface.levels[0].layout.chunks

    def fill(place: Place, target: NDArray[Any]) -> None:
        rows = slice(place[1] * height, min((place[1] + 1) * height, box.height))
        views = unit.views[place[0] * depth : (place[0] + 1) * depth]
        if not views or rows.start >= rows.stop:
            target[...] = 0
            return
        target[:, len(views) :] = 0
        shape = (rows.stop - rows.start, box.width)
        lent = scratch.take(math.prod(shape) * target.itemsize)
        grey = lent.view(target.dtype).reshape(shape)
        unknown = outside is not None
        for layer, view in enumerate(views):
            plan.mapping.apply(view[rows], grey)
            scatter(grey, target[:, layer])
            if halves:
                lower = halves[0][place[0] * depth + layer]
                halve(grey, "mean", lower[rows.start // 2 : -(-rows.stop // 2)])
            if unknown and outside is not None:
                with marking:
                    outside[rows] &= view[rows] == 0
                    unknown = bool(outside[rows].any())
        scratch.give(lent)

    place, count = surface.shard_row(0, box)
    stored = surface.levels[0].write_shard_row(place, count, fill)
    for number, (upper, lower) in enumerate(itertools.pairwise([None, *halves])):
        if upper is not None and lower is not None:
            halve(upper, "mean", lower)
        if lower is not None:
            stored += surface.write_level(number + 1, box, lower)
    return stored, _mask(plan, box, outside)


def _mask(plan: PreparePlan, box: Box, outside: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """The mask that was given, or where not every layer is zero."""
    if outside is None:
        assert plan.mask_source is not None
        outside = read_one_layer(plan.mask_source, box) == 0
    return (~outside).astype(np.uint8)

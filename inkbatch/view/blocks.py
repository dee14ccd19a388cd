"""Decoded pieces of pyramids and rendered tiles in bounded memory; concurrent requests make an item once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import ConfigError, CorruptDataError
from inkbatch.geometry import Box, cut
from inkbatch.io.multiscale import Multiscale

TILE_PX = 512
EXTRA_LEVELS = 3  # halvings beyond a pyramid's coarsest level, made when needed

Item = TypeVar("Item")


class BoundedCache(Generic[Item]):
    """The most recently used items, up to a number of bytes. Safe to use from several threads."""

    def __init__(self, limit_bytes: int, size_of: Callable[[Item], int]) -> None:
        self.limit_bytes, self._size_of = limit_bytes, size_of
        self._items: OrderedDict[Hashable, Item] = OrderedDict()
        self._making: dict[Hashable, Future[Item]] = {}
        self._lock = threading.Lock()
        self.used_bytes = 0

    def get(self, key: Hashable, make: Callable[[], Item]) -> Item:
        """Return the item of a key; the first caller makes it while others wait. A failure is not kept."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key]
            waiting = self._making.get(key)
            if waiting is None:
                mine = self._making[key] = Future()
        if waiting is not None:
            return waiting.result()
        try:
            item = make()
        except BaseException as error:
            with self._lock:
                del self._making[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._making[key]
            self._keep(key, item)
        mine.set_result(item)
        return item

    def _keep(self, key: Hashable, item: Item) -> None:
        size = self._size_of(item)
        if size > self.limit_bytes:
            return
        self._items[key] = item
        self.used_bytes += size
        while self.used_bytes > self.limit_bytes:
            self.used_bytes -= self._size_of(self._items.popitem(last=False)[1])


def level_shape(shape_yx: tuple[int, int], level: int) -> tuple[int, int]:
    """Return (height, width) after `level` halvings, rounded up."""
    return -(-shape_yx[0] // 2**level), -(-shape_yx[1] // 2**level)


def level_count(shape_yx: tuple[int, int], pyramids: list[Multiscale]) -> int:
    """Count the levels that can be shown: until one tile holds the whole, as far as every pyramid goes."""
    wanted = 1
    while max(level_shape(shape_yx, wanted - 1)) > TILE_PX:
        wanted += 1
    return min([wanted, *(len(pyramid.levels) + EXTRA_LEVELS for pyramid in pyramids)])


def tile_box(shape_yx: tuple[int, int], level: int, row: int, column: int) -> Box:
    """Return the pixels of a tile, in pixels of its level.

    Raises:
        ConfigError: The tile lies outside.
    """
    height, width = level_shape(shape_yx, level)
    y0, x0 = row * TILE_PX, column * TILE_PX
    if level < 0 or row < 0 or column < 0 or y0 >= height or x0 >= width:
        raise ConfigError(f"tile {level}/{column}_{row}: outside; level {level} is {width} × {height} px")
    return Box(y0, x0, min(y0 + TILE_PX, height), min(x0 + TILE_PX, width))


def read_level(
    pyramid: Multiscale, level: int, box: Box, reduce: Callable[[NDArray[Any]], NDArray[Any]], lead: slice | None = None
) -> NDArray[Any]:
    """Read a box of a level, made by averaging where the pyramid does not go so far.

    Args:
        pyramid: (Y, X), or (Z, Y, X) with `lead`.
        level: Halvings of full size.
        box: In pixels of that level, inside it.
        reduce: From what is stored to (height, width).
        lead: Layers.

    Returns:
        (box.height, box.width), the dtype of what `reduce` gives.

    Raises:
        ConfigError: More than `EXTRA_LEVELS` beyond the pyramid.
        CorruptDataError: A stored object is damaged or missing.
    """
    front = () if lead is None else (lead,)
    beyond = level - (len(pyramid.levels) - 1)
    if beyond <= 0:
        return reduce(pyramid.levels[level].read((*front, *box.slices)))
    if beyond > EXTRA_LEVELS:
        raise ConfigError(f"level {level}: {pyramid.location.name} has only {len(pyramid.levels)} levels")
    array, factor = pyramid.levels[-1], 2**beyond
    height, width = array.layout.shape[-2:]
    whole = np.empty(box.shape, np.float32)
    dtype = np.dtype(array.layout.dtype)
    for part in cut(box.shape, TILE_PX // factor, TILE_PX // factor):
        y0, x0 = (box.y0 + part.y0) * factor, (box.x0 + part.x0) * factor
        source = Box(y0, x0, min(y0 + part.height * factor, height), min(x0 + part.width * factor, width))
        block = reduce(array.read((*front, *source.slices)))
        size = (part.width, part.height)
        whole[part.slices] = cv2.resize(block.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        dtype = block.dtype
    return whole.astype(dtype) if dtype.kind == "f" else np.rint(whole).astype(dtype)


def read_what_is_there(pyramid: Multiscale, level: int, box: Box) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Read a box of a map that is still being made.

    Returns:
        The box, zero where nothing is stored yet, and where that is; None where all is stored.

    Raises:
        CorruptDataError: A stored object is damaged.
    """
    try:
        return read_level(pyramid, level, box, lambda block: block), None
    except CorruptDataError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
    stored = min(level, len(pyramid.levels) - 1)
    edge = max(1, pyramid.levels[stored].layout.shards[-1] >> (level - stored))
    out = np.zeros(box.shape, pyramid.levels[stored].layout.dtype)
    missing = np.zeros(box.shape, bool)
    for y in range(box.y0 // edge, -(-box.y1 // edge)):
        for x in range(box.x0 // edge, -(-box.x1 // edge)):
            part = Box(y * edge, x * edge, (y + 1) * edge, (x + 1) * edge).intersect(box)
            inside = part.within(box)
            try:
                out[inside] = read_level(pyramid, level, part, lambda block: block)
            except CorruptDataError as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise
                missing[inside] = True
    return out, missing

"""Memory for whole units, used again by later ones: touching fresh memory costs more than filling it."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.io.multiscale import Multiscale


class UnitBuffers:
    """Memory for one unit of a pyramid and its halves.

    Args:
        pyramid: Pyramid whose units they are; gives the dtype and the number of levels.
    """

    def __init__(self, pyramid: Multiscale) -> None:
        self._pyramid = pyramid
        self._flat = [np.empty(0, pyramid.levels[0].layout.dtype) for _ in pyramid.levels]

    def cut(self, shape: tuple[int, ...], *, halves_only: bool = False) -> list[NDArray[Any]]:
        """Cut out arrays for a unit of this shape and its halves, contents undefined.

        Args:
            shape: (layers, height, width) of the unit at level 0.
            halves_only: Leave out level 0.

        Returns:
            One array per level, finest first; valid until the next call.
        """
        shapes = self._pyramid.halved(shape)
        return [self._array(level, shapes[level]) for level in range(int(halves_only), len(self._flat))]

    def _array(self, level: int, shape: tuple[int, ...]) -> NDArray[Any]:
        size = math.prod(shape)
        if self._flat[level].size < size:
            self._flat[level] = np.empty(size, self._flat[level].dtype)
        return self._flat[level][:size].reshape(shape)


class BufferShelf:
    """Buffers that wait for their next unit. Safe to use from several threads.

    Args:
        pyramid: See `UnitBuffers`.
    """

    def __init__(self, pyramid: Multiscale) -> None:
        self._pyramid = pyramid
        self._free: deque[UnitBuffers] = deque()

    def take(self) -> UnitBuffers:
        """Take buffers, new ones where none wait."""
        try:
            return self._free.pop()
        except IndexError:
            return UnitBuffers(self._pyramid)

    def give(self, buffers: UnitBuffers) -> None:
        """Bring buffers back; their arrays must not be used any more."""
        self._free.append(buffers)

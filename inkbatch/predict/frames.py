"""Surfaces of one sheet at different scales: places on one seen from another, and maps brought from one to the other.

A pixel's value follows from its place on the whole surface alone, so that maps do not depend on how they are cut: finer
maps are first averaged over whole squares of a grid anchored at (0, 0), then both kinds are interpolated linearly
between pixel centres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from inkbatch.geometry import Box

SAME_SCALE = 1e-3  # relative difference of pixels below which they count as equal


@dataclass(frozen=True)
class _Axis:
    """Places along one axis: between which two squares each pixel of the other surface lies.

    Attributes:
        first: Index of the first of the two squares, on the whole surface.
        second: Index of the second one; at the border the same.
        share: Weight of the second one, float32.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    share: NDArray[np.float32]


@dataclass(frozen=True)
class Frame:
    """A surface below the pixels of another one.

    Attributes:
        ratio: Pixels of this surface along one pixel of the other.
        shape_yx: Size of this surface.
    """

    ratio: float
    shape_yx: tuple[int, int]

    @property
    def square_px(self) -> int:
        """Edge of the squares that are averaged first."""
        return max(1, math.floor(self.ratio * (1 + SAME_SCALE)))

    @property
    def is_same(self) -> bool:
        """True if pixels of both surfaces are equal."""
        return abs(self.ratio - 1) < SAME_SCALE

    def box(self, other: Box) -> Box:
        """Return the pixels of this surface that a box of the other one depends on."""
        if self.is_same:
            return other
        edge, (rows, columns) = self.square_px, self._axes(other)
        y0, x0 = int(rows.first[0]) * edge, int(columns.first[0]) * edge
        y1, x1 = (int(axis.second[-1] + 1) * edge for axis in (rows, columns))
        return Box(y0, x0, min(y1, self.shape_yx[0]), min(x1, self.shape_yx[1]))

    def brought(self, values: Tensor, other: Box) -> Tensor:
        """Bring values to the pixels of the other surface.

        Args:
            values: float32 (height, width) of `box(other)`.
            other: Box of the other surface.

        Returns:
            float32 (height, width) of `other`.
        """
        if self.is_same:
            return values
        own, edge = self.box(other), self.square_px
        squares = _averaged(values, edge)
        for dim, (axis, start) in enumerate(zip(self._axes(other), (own.y0, own.x0), strict=True)):
            first, second = (torch.from_numpy(place - start // edge) for place in (axis.first, axis.second))
            share = torch.from_numpy(axis.share).to(values.device).view((-1, 1) if dim == 0 else (1, -1))
            low = squares.index_select(dim, first.to(values.device))
            high = squares.index_select(dim, second.to(values.device))
            squares = low + (high - low) * share
        return squares

    def _axes(self, other: Box) -> tuple[_Axis, _Axis]:
        return (
            self._axis(other.y0, other.y1, self.shape_yx[0]),
            self._axis(other.x0, other.x1, self.shape_yx[1]),
        )

    def _axis(self, start: int, stop: int, length: int) -> _Axis:
        last = -(-length // self.square_px) - 1
        centres = (np.arange(start, stop) + 0.5) * (self.ratio / self.square_px) - 0.5
        places = np.clip(centres, 0, last)
        first = np.floor(places).astype(np.int64)
        return _Axis(first, np.minimum(first + 1, last), (places - first).astype(np.float32))


def _averaged(values: Tensor, edge: int) -> Tensor:
    """Average squares of `edge`; at the border over the pixels that there are."""
    if edge == 1:
        return values
    height, width = values.shape
    missing = (0, -width % edge, 0, -height % edge)
    padded, counted = functional.pad(values, missing), functional.pad(torch.ones_like(values), missing)
    total, count = torch.zeros_like(padded[::edge, ::edge]), torch.zeros_like(padded[::edge, ::edge])
    for y in range(edge):  # in one order, whatever the size
        for x in range(edge):
            total += padded[y::edge, x::edge]
            count += counted[y::edge, x::edge]
    return total / count

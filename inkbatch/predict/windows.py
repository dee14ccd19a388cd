"""Blending weights of a tile: strictly positive, at most 1, largest in the middle."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from inkbatch.config import WindowName
from inkbatch.models.bundle import Contract
from inkbatch.models.rules import Stitching

WINDOW_FLOOR = 1e-3  # of the peak: a pixel seen by one tile's border alone still has a weight
Weights = NDArray[np.float32]


@dataclass(frozen=True)
class TileWindow:
    """The blending weights of a tile.

    Attributes:
        full: float32 (T, T).
        axis: float32 (T,) whose outer product with itself `full` is, or None where there is none.
    """

    full: Weights
    axis: Weights | None = None

    @staticmethod
    def separable(axis: Weights) -> TileWindow:
        """Return the outer product of an axis' weights with themselves."""
        return TileWindow(axis[:, None] * axis[None, :], axis)


def window_of(contract: Contract) -> TileWindow:
    """Compute the window that a contract states."""
    name, edge = contract.window, contract.tile_px
    if name == "hann-symmetric":
        return TileWindow(_hann_symmetric(edge))
    if name == "gaussian-cdf":
        return TileWindow(_gaussian_cdf(edge))
    return TileWindow.separable(window_1d(name, edge, contract.window_sigma))


def divisor_of(window: TileWindow, rules: Stitching) -> TileWindow:
    """Return what a tile adds to the divisor of its pixels: its weights, or 1 where tiles are counted."""
    return TileWindow.separable(np.ones(len(window.full), np.float32)) if rules.divide_by == "count" else window


def window_1d(name: WindowName, tile_px: int, sigma: float = 0.25) -> Weights:
    """Compute blending weights along one axis of a tile; the window of a tile is their outer product.

    ``hann`` is ``sin²`` at pixel centres, floored; ``gaussian`` has a standard deviation of `sigma` tile edges and is
    cut off by the tile's border; ``uniform`` is one.

    Returns:
        float32 (tile_px,), strictly positive, symmetric, peak at most 1.
    """
    centres = (np.arange(tile_px) + 0.5) / tile_px
    if name == "hann":
        weights = np.maximum(np.sin(math.pi * centres) ** 2, WINDOW_FLOOR)
    elif name == "gaussian":
        weights = np.exp(-0.5 * ((centres - 0.5) / sigma) ** 2)
    else:
        weights = np.ones(tile_px)
    symmetric: Weights = ((weights + weights[::-1]) / 2).astype(np.float32)
    return symmetric


def _hann_symmetric(tile_px: int) -> Weights:
    """Compute a Hann with zeros at both ends, outer product over its maximum, then floored: as villa and Hecate do.

    For an even tile the maximum is below 1 before. A tile of 1 or 2 px has no such window and weighs 1.
    """
    if tile_px <= 2:
        return np.ones((tile_px, tile_px), np.float32)
    axis = torch.hann_window(tile_px, periodic=False, dtype=torch.float32)
    full = torch.outer(axis, axis)
    weights: Weights = (full / full.max()).clamp(min=WINDOW_FLOOR).numpy()
    return weights


def _gaussian_cdf(tile_px: int) -> Weights:
    """Take differences of the normal distribution function over tile + 1 points in [-1, 1], outer product, peak 1."""
    points = np.linspace(-1, 1, tile_px + 1)
    axis = np.diff([0.5 * (1 + math.erf(point / math.sqrt(2))) for point in points])
    full = np.outer(axis, axis)
    weights: Weights = (full / full.max()).astype(np.float32)
    return weights

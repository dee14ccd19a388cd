"""Blocks halved along y and x, for the next level of a pyramid."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.io.half_floats import to_half, to_single

STRIP_PX = 1 << 16  # pixels that are halved at a time where they pass through another dtype

Pooling = Literal["mean", "max", "first"]


def halve(block: NDArray[Any], pooling: Pooling, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Halve a block along its last two axes; an odd border row or column counts twice.

    Args:
        block: (Z, Y, X) or (Y, X); uint8, uint16, uint32 (``max`` and ``first``), float16 or float32.
        pooling: ``mean`` of 2 x 2 pixels (integers round half up), ``max``, or the ``first`` of them.
        out: Optional array of the result's shape and dtype to fill.

    Returns:
        (…, ceil(Y / 2), ceil(X / 2)), same dtype.
    """
    height, width = block.shape[-2:]
    if out is None:
        out = np.empty((*block.shape[:-2], -(-height // 2), -(-width // 2)), block.dtype)
    if block.ndim == 3:
        for plane, target in zip(block, out, strict=True):
            halve(plane, pooling, target)
        return out
    if pooling == "first":
        out[...] = block[::2, ::2]
        return out
    if height % 2 or width % 2:
        block = np.pad(block, [(0, height % 2), (0, width % 2)], mode="edge")
    if pooling == "max":
        rows = np.maximum(block[::2], block[1::2])
        np.maximum(rows[:, ::2], rows[:, 1::2], out=out)
        return out
    size = (out.shape[1], out.shape[0])
    if block.dtype == np.float16:
        _halve_halves(block, out)
    else:
        cv2.resize(np.ascontiguousarray(block), size, dst=out, interpolation=cv2.INTER_AREA)
    return out


def _halve_halves(block: NDArray[np.float16], out: NDArray[np.float16]) -> None:
    """Halve float16 by way of float32, some rows at a time, which stay in the cache."""
    rows = max(1, STRIP_PX // max(block.shape[1], 1))
    for start in range(0, len(out), rows):
        part = out[start : start + rows]
        single = to_single(block[2 * start : 2 * (start + rows)])
        smaller = cv2.resize(single, (part.shape[1], part.shape[0]), interpolation=cv2.INTER_AREA)
        part[...] = to_half(np.asarray(smaller, np.float32).reshape(part.shape))

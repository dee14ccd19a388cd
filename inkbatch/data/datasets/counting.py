"""Count papyrus and ink in many boxes of a segment with one pass over its mask and labels, in bounded memory.

For boxes whose corners lie on a grid of rows and columns, the counts below and left of each grid crossing are enough
(a summed-area table that is kept only at the crossings)::

    count(box) = S(y1, x1) - S(y0, x1) - S(y1, x0) + S(y0, x0)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.segment_arrays import SegmentArrays
from inkbatch.data.labels.ink import INK_LABEL
from inkbatch.geometry import Box

BAND_ROWS = 512


@dataclass(frozen=True)
class BoxCounts:
    """Counts of boxes.

    Attributes:
        boxes: (n, 4) int64: y0, x0, y1, x1 in full-resolution pixels; may leave the segment.
        papyrus: (n,) pixels inside the segment mask.
        ink: (n,) ink pixels: label of `INK_LABEL` or more, on papyrus, not ignored.
        counted: (n,) pixels on papyrus that are not ignored.
    """

    boxes: NDArray[np.int64]
    papyrus: NDArray[np.int64]
    ink: NDArray[np.int64]
    counted: NDArray[np.int64]

    @property
    def areas(self) -> NDArray[np.int64]:
        """(n,) pixels of each box."""
        areas: NDArray[np.int64] = (self.boxes[:, 2] - self.boxes[:, 0]) * (self.boxes[:, 3] - self.boxes[:, 1])
        return areas

    @property
    def papyrus_share(self) -> NDArray[np.float64]:
        """(n,) 0 to 1."""
        return self.papyrus / self.areas

    @property
    def ink_share(self) -> NDArray[np.float64]:
        """(n,) 0 to 1."""
        return self.ink / self.areas

    @property
    def counted_share(self) -> NDArray[np.float64]:
        """(n,) 0 to 1."""
        return self.counted / self.areas

    def take(self, picks: NDArray[np.bool_] | NDArray[np.int64]) -> BoxCounts:
        """Select boxes by mask or by position."""
        return BoxCounts(self.boxes[picks], self.papyrus[picks], self.ink[picks], self.counted[picks])


def count_grid(
    arrays: SegmentArrays, rows: NDArray[np.int64], columns: NDArray[np.int64], shape_yx: tuple[int, int]
) -> BoxCounts:
    """Count all boxes of one shape whose origins are (rows x columns), row-major.

    Args:
        arrays: The segment.
        rows: Ascending y origins.
        columns: Ascending x origins.
        shape_yx: (height, width) of every box.
    """
    return count_crossings(arrays, rows, rows + shape_yx[0], columns, columns + shape_yx[1])


def count_crossings(
    arrays: SegmentArrays,
    top: NDArray[np.int64],
    bottom: NDArray[np.int64],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
) -> BoxCounts:
    """Count the boxes (top[i], left[j], bottom[i], right[j]) for all i, j, row-major; the segment is read once."""
    height, width = arrays.shape_yx
    cuts_y = np.unique(np.clip(np.concatenate([top, bottom]), 0, height))
    cuts_x = np.unique(np.clip(np.concatenate([left, right]), 0, width))
    table = np.zeros((3, len(cuts_y), len(cuts_x)), np.int64)
    sums = np.zeros((3, width), np.int64)
    next_cut = 1  # counts above the first cut cancel in every difference
    for bottom_row, flags in _bands(partial(_flags, arrays), width, cuts_y):
        sums += flags.sum(axis=1, dtype=np.int64)
        if bottom_row == cuts_y[next_cut]:
            running = np.concatenate([np.zeros((3, 1), np.int64), np.cumsum(sums, axis=1)], axis=1)
            table[:, next_cut] = running[:, cuts_x]
            next_cut += 1
    i0, i1 = (np.searchsorted(cuts_y, np.clip(edge, 0, height)) for edge in (top, bottom))
    j0, j1 = (np.searchsorted(cuts_x, np.clip(edge, 0, width)) for edge in (left, right))
    counts = table[:, i1][:, :, j1] - table[:, i0][:, :, j1] - table[:, i1][:, :, j0] + table[:, i0][:, :, j0]
    shape = len(top), len(left)
    boxes = np.stack(
        [
            np.broadcast_to(top[:, None], shape),
            np.broadcast_to(left[None], shape),
            np.broadcast_to(bottom[:, None], shape),
            np.broadcast_to(right[None], shape),
        ],
        axis=-1,
    ).reshape(-1, 4)
    return BoxCounts(boxes.astype(np.int64), *(kind.ravel() for kind in counts))


def count_boxes(arrays: SegmentArrays, boxes: list[Box]) -> BoxCounts:
    """Count boxes of any shapes, each read by itself."""
    counts = np.array([count_flags(arrays, box) for box in boxes], np.int64).reshape(-1, 3)
    corners = np.array([(box.y0, box.x0, box.y1, box.x1) for box in boxes], np.int64).reshape(-1, 4)
    return BoxCounts(corners, *counts.T)


def count_marked(
    read: Callable[[Box], NDArray[np.bool_]], shape_yx: tuple[int, int], boxes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Count marked pixels in boxes at any places, (n,); everything is read once.

    Args:
        read: Reads the marks of a box.
        shape_yx: (height, width); what boxes hold beyond it is not marked.
        boxes: (n, 4): y0, x0, y1, x1.
    """
    height, width = shape_yx
    y, x = np.clip(boxes[:, 0::2], 0, height), np.clip(boxes[:, 1::2], 0, width)
    cuts_y, cuts_x = np.unique(y), np.unique(x)
    if len(cuts_y) < 2:
        return np.zeros(len(boxes), np.int64)
    table = np.zeros((len(cuts_y), len(cuts_x)), np.int64)
    sums = np.zeros(width, np.int64)
    next_cut = 1
    for bottom_row, marks in _bands(read, width, cuts_y):
        sums += marks.sum(axis=0, dtype=np.int64)
        if bottom_row == cuts_y[next_cut]:
            table[next_cut] = np.concatenate([np.zeros(1, np.int64), np.cumsum(sums)])[cuts_x]
            next_cut += 1
    (i0, i1), (j0, j1) = np.searchsorted(cuts_y, y).T, np.searchsorted(cuts_x, x).T
    found: NDArray[np.int64] = table[i1, j1] - table[i0, j1] - table[i1, j0] + table[i0, j0]
    return found


def count_flags(arrays: SegmentArrays, box: Box) -> tuple[int, int, int]:
    """Count the pixels of one box: papyrus, ink, and those that count."""
    papyrus, ink, counted = (int(np.count_nonzero(flags)) for flags in _flags(arrays, box))
    return papyrus, ink, counted


def content_digest(arrays: SegmentArrays) -> str:
    """Return the SHA-256 of labels, masks and what is held out, whatever their storage; read in bands."""
    height, width = arrays.shape_yx
    found = hashlib.sha256(f"{height} {width}".encode())
    for y0 in range(0, height, BAND_ROWS):
        box = Box(y0, 0, min(height, y0 + BAND_ROWS), width)
        labels, ignore = arrays.read_flat(box)
        found.update(labels.tobytes())
        found.update(np.packbits(ignore != 0).tobytes())
        if arrays.holds_out:
            found.update(np.packbits(arrays.read_held_out(box)).tobytes())
    return found.hexdigest()


def _flags(arrays: SegmentArrays, box: Box) -> NDArray[np.bool_]:
    """Read papyrus, ink, and what counts, of a box, (3, Y, X)."""
    labels, ignore = arrays.read_flat(box)
    counted = ignore == 0
    return np.stack([arrays.read_mask(box), (labels >= INK_LABEL) & counted, counted])


def _bands(
    read: Callable[[Box], NDArray[np.bool_]], width: int, cuts: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Yield row bands (last row + 1, flags (…, Y, X)) from the first cut to the last, none across a cut."""
    last = int(cuts[-1])
    for y0 in range(int(cuts[0]), last, BAND_ROWS):
        y1 = min(last, y0 + BAND_ROWS)
        flags = read(Box(y0, 0, y1, width))
        inner = cuts[(cuts > y0) & (cuts < y1)]
        for start, stop in pairwise([y0, *(int(cut) for cut in inner), y1]):
            yield stop, flags[..., start - y0 : stop - y0, :]

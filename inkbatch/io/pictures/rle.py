"""Run-length encoding of masks as the Vesuvius Challenge – Ink Detection competition on Kaggle reads it.

Its page says: pixels are numbered from left to right, then from top to bottom, from 1; a run is a start and a length,
and all runs are one text of numbers with spaces between them. ``1 3 10 5`` means the pixels 1, 2, 3 and 10 to 14. Runs
ascend, are positive and share no pixel; a run may go on from the end of one row into the next. (The script that
made the competition's own files also reads row by row, but misses runs that touch the first or the last pixel.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import DataError

Bools = NDArray[np.bool_]


def runs(blocks: Iterable[Bools]) -> Iterator[NDArray[np.int64]]:
    """Find the runs of a mask that comes in consecutive blocks of whole rows.

    Args:
        blocks: (rows, width) each, from the top.

    Yields:
        (n, 2) starts (from 1) and lengths, ascending; a run that goes on in the next block comes with its last one.
    """
    first, open_since = 1, 0  # number of the block's first pixel; start of a run that is not over, or 0
    for block in blocks:
        flat = np.ascontiguousarray(block).ravel()
        if not flat.size:
            continue
        edges = np.flatnonzero(np.diff(flat, prepend=bool(open_since), append=False)) + first
        if flat[-1]:
            edges = edges[:-1]
        if open_since:
            edges = np.concatenate([[open_since], edges])
        open_since = int(edges[-1]) if len(edges) % 2 else 0
        pairs = edges[: len(edges) // 2 * 2].reshape(-1, 2)
        if len(pairs):
            yield np.stack([pairs[:, 0], pairs[:, 1] - pairs[:, 0]], axis=1)
        first += flat.size
    if open_since:
        yield np.array([[open_since, first - open_since]], np.int64)


def texts(blocks: Iterable[Bools]) -> Iterator[str]:
    """Write the text of a mask in consecutive parts; see `runs`."""
    between = ""
    for found in runs(blocks):
        yield between + " ".join(map(str, found.ravel().tolist()))
        between = " "


def encode(mask: Bools) -> str:
    """Write the text of a mask (height, width); empty where nothing is set."""
    return "".join(texts([mask]))


def decode(text: str, shape_yx: tuple[int, int], place: str = "run-length text") -> Bools:
    """Read the mask of a text.

    Args:
        text: Starts and lengths.
        shape_yx: (height, width) of the mask.
        place: Where the text comes from, for messages.

    Raises:
        DataError: No pairs of whole numbers, runs that are empty, descend, overlap, or leave the mask.
    """
    words = text.split()
    if len(words) % 2 or not all(word.isascii() and word.isdigit() for word in words):
        raise DataError(f"{place}: expected pairs of whole numbers (start, length), got {_excerpt(words)}")
    pairs = np.array([int(word) for word in words], np.int64).reshape(-1, 2)
    starts, stops = pairs[:, 0] - 1, pairs.sum(axis=1) - 1
    size = shape_yx[0] * shape_yx[1]
    if len(pairs) and (pairs[:, 1].min() < 1 or starts[0] < 0 or (starts[1:] < stops[:-1]).any()):
        raise DataError(f"{place}: expected positive runs that ascend from 1 and share no pixel; encode the mask again")
    if len(pairs) and stops[-1] > size:
        raise DataError(
            f"{place}: runs up to pixel {stops[-1]} for {shape_yx[0]} × {shape_yx[1]} px (height × width), which have "
            f"{size}; give the text of this very segment, or its right size"
        )
    steps = np.zeros(size + 1, np.int8)
    np.add.at(steps, starts, 1)
    np.add.at(steps, stops, -1)
    mask: Bools = np.cumsum(steps[:-1], dtype=np.int8).astype(bool).reshape(shape_yx)
    return mask


def _excerpt(words: list[str]) -> str:
    shown = " ".join(words[:4])
    return f"{len(words)} words, {shown[:60]!r} …"

"""Outlines and run-length masks as COCO states them, drawn exactly: a pixel counts if its centre lies inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.labels.components import Bools
from inkbatch.errors import DataError
from inkbatch.redaction import shown

FIRST_CODE, GROUP_BITS, SIGN, MORE = 48, 5, 16, 32  # of compressed run-length masks
LONGEST_SHIFT = 60
_FARTHEST_PX = 1e9  # beyond any picture; NaN is not below it, either


def filled_polygon(canvas: Bools, outline: Any, place: str) -> None:
    """Set the pixels of `canvas` whose centre lies inside a polygon (even-odd rule).

    The pixel at row y, column x covers [x, x + 1) x [y, y + 1), so its centre is (x + 0.5, y + 0.5). What lies outside
    the canvas is left out.

    Args:
        canvas: (height, width), changed in place.
        outline: ``[x, y, x, y, …]``, at least three points; closed by itself.
        place: Opens the message of a failure.

    Raises:
        DataError: No such outline.
    """
    points = _points(outline, place)
    height, width = canvas.shape
    first = max(0, int(np.ceil(points[:, 1].min() - 0.5)))
    stop = min(height, int(np.ceil(points[:, 1].max() - 0.5)))
    left = min(width, max(0, int(np.ceil(points[:, 0].min() - 0.5))))
    right = min(width, max(0, int(np.ceil(points[:, 0].max() - 0.5))))
    if stop <= first or right <= left:
        return
    toggles = np.zeros((stop - first, right - left + 1), np.uint8)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        low, high = sorted((np.ceil(y0 - 0.5), np.ceil(y1 - 0.5)))
        rows = np.arange(max(first, int(low)), min(stop, int(high)))
        if len(rows):
            crossing = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
            columns = np.clip(np.ceil(crossing - 0.5), left, right).astype(np.int64)
            toggles[rows - first, columns - left] ^= 1
    inside = np.bitwise_xor.accumulate(toggles, axis=1)[:, :-1] != 0
    canvas[first:stop, left:right] |= inside


def filled_runs(mask: Mapping[str, Any], shape_yx: tuple[int, int], place: str) -> Bools:
    """Decode a run-length mask: lengths of runs, column by column, bare first.

    Args:
        mask: ``{"counts": [run, run, …], "size": [height, width]}``; the runs may be packed into a text, see
            `unpacked_runs`.
        shape_yx: Size of the picture.
        place: Opens the message of a failure.

    Raises:
        DataError: The runs cannot be read, or do not fit the picture.
    """
    counts, size = mask.get("counts"), mask.get("size")
    if isinstance(counts, str):
        counts = unpacked_runs(counts, place)
    try:
        runs = np.array(counts, np.int64)
        fits = [int(value) for value in size or ()] == list(shape_yx) and runs.ndim == 1
    except (TypeError, ValueError, OverflowError):
        fits = False
        runs = np.zeros(0, np.int64)
    if not fits or (runs < 0).any() or runs.sum() != shape_yx[0] * shape_yx[1]:
        raise DataError(
            f"{place}: expected a run-length mask of {shape_yx} (height, width), got size {shown(size)} and runs that "
            "do not fill the picture; export it again"
        )
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(flat.reshape(shape_yx[1], shape_yx[0]).T)


def unpacked_runs(text: str, place: str) -> list[int]:
    """Unpack the runs of a compressed run-length mask, as COCO's tools write it.

    Each run is a signed number in groups of five bits, lowest first, one character (code 48 and on) per group; bit 5
    says that another group follows, and bit 4 of the last group is the sign. From the fourth run on, the number is the
    difference to the run before the last one.

    Args:
        text: The characters.
        place: Opens the message of a failure.

    Raises:
        DataError: Other characters, or a number that is cut off or far too long.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        group = ord(character) - FIRST_CODE
        if not 0 <= group < 2 * MORE or shift > LONGEST_SHIFT:
            raise DataError(f"{place}: unexpected character {shown(character)} in a compressed mask; export it again")
        value |= (group & (MORE - 1)) << shift
        shift += GROUP_BITS
        if group & MORE:
            continue
        if group & SIGN:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise DataError(f"{place}: its compressed mask ends in the middle of a number; export it again")
    return runs


def packed_runs(runs: Sequence[int]) -> str:
    """Pack the runs of a mask as `unpacked_runs` describes."""
    text: list[str] = []
    for number, run in enumerate(runs):
        value = run - runs[number - 2] if number > 2 else run
        while True:
            group, value = value & (MORE - 1), value >> GROUP_BITS
            more = value != (-1 if group & SIGN else 0)
            text.append(chr(FIRST_CODE + group + (MORE if more else 0)))
            if not more:
                break
    return "".join(text)


def _points(outline: Any, place: str) -> NDArray[np.float64]:
    try:
        points = np.array(outline, np.float64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError):
        points = np.zeros((0, 2))
    near = int(np.count_nonzero((np.abs(points) < _FARTHEST_PX).all(axis=1)))
    if len(points) < 3 or near < len(points):
        raise DataError(
            f"{place}: expected an outline of at least three points x, y, none farther than {_FARTHEST_PX:g} px, got "
            f"{len(points)} points, {near} of them so near; correct it in CVAT"
        )
    return points

"""Labels of a unit as runs of equal ones: the first pass keeps its basins so, and the next one need not find them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import CorruptDataError
from inkbatch.io.npz import read_npz
from inkbatch.io.store.location import Location

CURE = "run inkbatch instances with --replace"


@dataclass(frozen=True, eq=False)
class LabelRuns:
    """Labels (height, width) in row-major order, a run of equal ones after the other.

    Attributes:
        shape: (height, width).
        values: (n,) int32: the label of each run.
        lengths: (n,) int32: its pixels.
    """

    shape: tuple[int, int]
    values: NDArray[np.int32]
    lengths: NDArray[np.int32]

    @staticmethod
    def of(labels: NDArray[np.int32]) -> LabelRuns:
        """Take labels (height, width)."""
        flat = labels.ravel()
        starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
        lengths = np.diff(starts, append=flat.size).astype(np.int32)
        return LabelRuns((labels.shape[0], labels.shape[1]), flat[starts].astype(np.int32), lengths)

    def mapped(self, numbers: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Look up every pixel's label in `numbers`: (height, width)."""
        return np.repeat(numbers[self.values], self.lengths).reshape(self.shape)

    def at(self, pixels: Sequence[tuple[int, int]]) -> NDArray[np.int32]:
        """Return the labels of some pixels (y, x)."""
        places = np.array(pixels, np.int64).reshape(-1, 2) @ [self.shape[1], 1]
        return self.values[np.searchsorted(np.cumsum(self.lengths, dtype=np.int64), places, side="right")]

    def store(self, place: Location) -> int:
        """Write them, not compressed: runs are small already; returns bytes."""
        buffer = io.BytesIO()
        np.savez(buffer, shape=np.array(self.shape), values=self.values, lengths=self.lengths)
        place.write_bytes(buffer.getvalue())
        return buffer.tell()

    @staticmethod
    def read(place: Location) -> LabelRuns:
        """Read stored ones.

        Raises:
            CorruptDataError: They are damaged.
        """
        found = read_npz(place, "labels of a unit", CURE, ("shape", "values", "lengths"))
        shape, values, lengths = (found[name] for name in ("shape", "values", "lengths"))
        whole = all(one.dtype.kind in "iu" and one.ndim == 1 for one in (shape, values, lengths)) and shape.size == 2
        if not whole or len(values) != len(lengths):
            raise CorruptDataError(
                f"{place}: expected a whole number and a length for each run of labels, got {len(values):,} "
                f"{values.dtype} and {len(lengths):,} {lengths.dtype}; {CURE}"
            )
        covered, size = int(lengths.sum(dtype=np.int64)), int(shape.prod(dtype=np.int64))
        if covered != size:
            raise CorruptDataError(
                f"{place}: expected runs of labels that fill the {size:,} px of their unit, got {covered:,} px; {CURE}"
            )
        return LabelRuns((int(shape[0]), int(shape[1])), values, lengths)

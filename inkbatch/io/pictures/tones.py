"""Tables from stored probability to picture values: float16 has 15,361 values from 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import CorruptDataError

_ONE = 0x3C00  # bits of float16 1.0; the bits of 0 … 1 ascend with the value
_MINUS_ZERO = 0x8000
CODES = _ONE + 1  # stored values from 0 to 1


def half_codes(probability: NDArray[np.float16], place: str) -> NDArray[np.uint16]:
    """Return the bits of stored probabilities: whole numbers below `CODES` that ascend with the value.

    Args:
        probability: Any shape, float16.
        place: Where it was read, for the message.

    Returns:
        The same shape, uint16; perhaps a view.

    Raises:
        CorruptDataError: A value is not a number, or outside [0, 1].
    """
    bits = np.ascontiguousarray(probability).view(np.uint16)
    if bits.size and bits.max() > _ONE:
        bits = np.where(bits == _MINUS_ZERO, np.uint16(0), bits)
        if bits.max() > _ONE:
            wrong = bits[bits > _ONE][0].view(np.float16)
            raise CorruptDataError(
                f"{place}: expected a probability from 0 to 1, found {wrong}; make this prediction again"
            )
    return bits


@dataclass(frozen=True)
class ToneMap:
    """Rule that turns a probability p into a picture value.

    Without threshold the value is ``round(min(p * boost, 1) * top)``, to the nearest (halves to even), where top is 255
    for uint8, 65535 for uint16; floats keep ``min(p * boost, 1)``. With a threshold, where p as stored reaches it,
    the value is top, and 0 elsewhere.

    Attributes:
        dtype: uint8, uint16, float16 or float32.
        boost: Factor of the probability.
        threshold: Smallest probability that counts as ink, or None.
    """

    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.uint8))
    boost: float = 1.0
    threshold: float | None = None
    _table: NDArray[Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        probability = np.arange(CODES, dtype=np.uint16).view(np.float16).astype(np.float64)
        top = 1.0 if self.dtype.kind == "f" else float(np.iinfo(self.dtype).max)
        if self.threshold is not None:
            values = np.where(probability >= self.threshold, top, 0.0)
        else:
            values = np.minimum(probability * self.boost, 1.0) * top
        table = values if self.dtype.kind == "f" else np.rint(values)
        object.__setattr__(self, "_table", table.astype(self.dtype))

    def apply(self, probability: NDArray[np.float16], place: str) -> NDArray[Any]:
        """Compute the picture values of a block.

        Args:
            probability: Any shape, float16.
            place: Where it was read, for the message.

        Returns:
            The same shape, `dtype`.

        Raises:
            CorruptDataError: A value is not a number, or outside [0, 1].
        """
        return self._table[half_codes(probability, place)]

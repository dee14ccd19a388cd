"""Tables from stored probability to picture values: float16 has 15,361 values from 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from inkbatch.errors import CorruptDataError

_ONE = 0x3C00  # bits of float16 1.0; the bits of 0 … 1 ascend with the value
_MINUS_ZERO = 0x8000
Rounding = Literal["nearest", "truncate"]
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
                f"{place}: expected a probability from 0 to 1, got {wrong}; make this prediction again"
            )
    return bits


@dataclass(frozen=True)
class ToneMap:
    """Rule that turns a probability p into a picture value.

    Without threshold the value is ``round(q * top)``, to the nearest (halves to even) or truncated, where top is 255
    for uint8, 65535 for uint16, and q is p * boost from black to white, within 0 and 1; floats keep q. With a
    threshold, where p as stored reaches it, the value is top, and 0 elsewhere.

    Attributes:
        dtype: uint8, uint16, float16 or float32.
        boost: Factor of the probability.
        threshold: Smallest probability that counts as ink, or None.
        rounding: ``nearest`` or ``truncate``.
        display_range: What becomes black and what becomes white.
    """

    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.uint8))
    boost: float = 1.0
    threshold: float | None = None
    rounding: Rounding = "nearest"
    display_range: tuple[float, float] = (0.0, 1.0)
    _table: NDArray[Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        probability = np.arange(CODES, dtype=np.uint16).view(np.float16).astype(np.float64)
        top = 1.0 if self.dtype.kind == "f" else float(np.iinfo(self.dtype).max)
        if self.threshold is not None:
            values = np.where(probability >= self.threshold, top, 0.0)
        else:
            black, white = self.display_range
            values = np.clip((probability * self.boost - black) / (white - black), 0, 1) * top
        whole = np.rint if self.rounding == "nearest" else np.floor
        table = values if self.dtype.kind == "f" else whole(values)
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

"""Random numbers that never change: hashes, instead of a library's generator, whose streams may change."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")


def number(*words: Any) -> int:
    """Return a number of 64 bits that follows from `words` alone."""
    text = "\x1f".join(str(word) for word in words)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def shuffled(items: Sequence[Item], *words: Any) -> list[Item]:
    """Shuffle items into an order that follows from `words` and each item's text, not from the given order."""
    return sorted(items, key=lambda item: (number(*words, item), str(item)))


def keys(places: NDArray[np.int64], *words: Any) -> NDArray[np.uint64]:
    """Return a key of 64 bits for each row of numbers (splitmix64's finalizer, applied column by column).

    Args:
        places: (n, k) integers.
        words: Seed of the keys, beside the row itself.

    Returns:
        (n,) uint64; sorting by them shuffles the rows.
    """
    state = np.full(len(places), number(*words), np.uint64)
    with np.errstate(over="ignore"):
        for column in places.T:
            state = _mixed(state ^ column.astype(np.uint64))
    return state


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = state ^ (state >> np.uint64(31))
    return mixed

"""Memory for chunks on their way, used again and again: touching fresh memory costs more than filling it."""

from __future__ import annotations

import threading
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

KEPT_BYTES = 64 << 20  # that wait for their next use


class Scratch:
    """Byte arrays that are lent out and come back. Safe to use from several threads."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._lock = threading.Lock()
        self._free: dict[int, list[Bytes]] = {}
        self._held = 0

    def lend(self, size: int) -> Loan:
        """Lend an array of `size` bytes for the length of a ``with`` block; its contents are undefined."""
        return Loan(self, size)

    def take(self, size: int) -> Bytes:
        """Take an array out; prefer `lend`, which brings it back."""
        with self._lock:
            if self._free.get(size):
                self._held -= size
                return self._free[size].pop()
        return np.empty(size, np.uint8)

    def give(self, buffer: Bytes) -> None:
        """Bring an array back; it must not be used any more."""
        with self._lock:
            if self._held + len(buffer) <= self._kept_bytes:
                self._held += len(buffer)
                self._free.setdefault(len(buffer), []).append(buffer)


class Loan:
    """An array of a `Scratch`, which is brought back when the ``with`` block ends."""

    def __init__(self, scratch: Scratch, size: int) -> None:
        self._scratch = scratch
        self._size = size

    def __enter__(self) -> Bytes:
        self._buffer = self._scratch.take(self._size)
        return self._buffer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:  # a traceback may still hold views of it
            self._scratch.give(self._buffer)


scratch = Scratch()
"""The process's own, shared by everything that encodes or decodes our arrays."""

"""Counts the bytes that this process reads from storage and writes to it, as they are stored."""

from __future__ import annotations

import threading


class ByteMeter:
    """A sum that several threads may add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = 0

    @property
    def total(self) -> int:
        """Bytes so far."""
        return self._total

    def add(self, count: int) -> None:
        """Count some more bytes."""
        with self._lock:
            self._total += count


READ, WRITTEN = ByteMeter(), ByteMeter()

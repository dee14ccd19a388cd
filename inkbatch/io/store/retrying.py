"""Faults of a store that can pass are tried again; the last one is raised as one of ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from inkbatch.errors import StorageError
from inkbatch.io.store.faults import judge

Result = TypeVar("Result")

RETRY_DELAYS_S = (0.2, 1.0, 3.0)
READINGS = 4  # of what comes damaged from a remote store, until it is refused


def retried(place: str, action: Callable[[], Result], delays_s: Sequence[float] | None = None) -> Result:
    """Run `action`; retry faults that can pass, and give up with a `StorageError` that names `place`.

    A missing or forbidden object is not a passing fault: it is raised at once, as `faults.MissingObjectError` (a
    `FileNotFoundError`) or `ForbiddenError` (a `PermissionError`). Other errors go through unchanged.
    """
    waits = list(RETRY_DELAYS_S if delays_s is None else delays_s)
    while True:
        try:
            return action()
        except Exception as error:
            ours = judge(place, error)
            if ours is None or ours is error:
                raise
            if not isinstance(ours, StorageError) or not waits:
                raise ours from error
            time.sleep(waits.pop(0))

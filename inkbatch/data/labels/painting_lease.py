"""Lease of a label version: one program paints into it at a time, on a disk as on an object store.

The lease says who holds it and when that was last true. It is for people: they read the name of the other program. What
keeps two programs from overwriting each other is the journal, whose records are only ever created.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable
from typing import Any

from inkbatch.data.labels.painting_journal import TakenOverError
from inkbatch.errors import DataError
from inkbatch.io.store.location import Location

LASTS_S = 20.0
RENEWED_AFTER_S = 5.0


class Lease:
    """Lease at a place.

    Args:
        place: Its file.
        clock: Seconds since 1970, the same on all machines.
    """

    def __init__(self, place: Location, clock: Callable[[], float] = time.time) -> None:
        self._place, self._clock, self._key = place, clock, uuid.uuid4().hex
        self._renewed = 0.0

    def take(self) -> None:
        """Take the lease.

        Raises:
            DataError: Another program that is alive holds it.
        """
        if self._place.create_json(self._facts()):
            return
        other = self._read()
        if other is not None and self._lives(other):
            raise DataError(
                f"{self._place.parent.parent}: is open for painting in process {other.get('pid')} on "
                f"{other.get('host')}; end that one, or paint into another version"
            )
        self._place.write_json(self._facts())

    def renew(self) -> None:
        """Say from time to time that this program is still here.

        Raises:
            TakenOverError: Another program has the lease.
        """
        if self._clock() - self._renewed < RENEWED_AFTER_S:
            return
        other = self._read()
        if other is not None and other.get("key") != self._key:
            raise TakenOverError(
                f"{self._place.parent.parent}: process {other.get('pid')} on {other.get('host')} has taken this "
                "version over; end one of the two"
            )
        self._place.write_json(self._facts())

    def release(self) -> None:
        """Give the lease back, if it is still ours."""
        other = self._read()
        if other is not None and other.get("key") == self._key:
            self._place.delete()

    def _facts(self) -> dict[str, Any]:
        self._renewed = self._clock()
        return {"host": socket.gethostname(), "pid": os.getpid(), "key": self._key, "renewed": self._renewed}

    def _read(self) -> dict[str, Any] | None:
        """Read the stored lease; None where there is none, or a damaged one: a power cut may leave its name alone."""
        try:
            found = dict(self._place.read_mapping())
        except (FileNotFoundError, DataError):
            return None
        return found if isinstance(found.get("renewed"), int | float) and isinstance(found.get("pid"), int) else None

    def _lives(self, other: dict[str, Any]) -> bool:
        if self._clock() - other["renewed"] > LASTS_S:
            return False
        return other.get("host") != socket.gethostname() or _runs(other["pid"])


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True

"""Stopping at a safe point: SIGTERM, SIGINT and SIGUSR1 set a flag; nothing else happens in a handler."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from types import FrameType

from inkbatch.errors import EXIT_ABORTED, EXIT_TRY_AGAIN, Preempted

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopFlag:
    """A request to stop: set once, with a reason; read often.

    Attributes:
        reason: Who asked for the stop.
        watched: Whether a job stops at its safe points by now; see `watch`.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason = ""
        self.watched = False

    def set(self, reason: str) -> None:
        """Ask for a stop at the next safe point; later reasons are ignored."""
        if not self._event.is_set():
            self.reason = reason
            self._event.set()

    def watch(self) -> None:
        """Promise to stop at safe points from now on; until then a signal ends the process at once."""
        self.watched = True

    @property
    def is_set(self) -> bool:
        """True once a stop was asked for; reading it changes nothing."""
        return self._event.is_set()

    def check(self) -> None:
        """Watch the flag, and raise at this safe point if a stop was asked for.

        Raises:
            Preempted: It was.
        """
        self.watch()
        if self.is_set:
            raise Preempted(f"stopped by {self.reason}")


def install_handlers(flag: StopFlag) -> None:
    """Route the stop signals to `flag`; call it in the main thread, before torch is imported.

    A repeated SIGTERM or SIGUSR1 is harmless. A second SIGINT (Ctrl-C) ends the process there and then: threads that
    read, compute or write are not waited for. Nothing is half-written by that: objects appear whole, or not at all.
    While no job watches the flag (torch is being imported, a network built) a stop would stay unnoticed for long; the
    process then ends at once, with 75.
    """

    def handle(number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if not flag.watched:
            _say(f"inkbatch: {name} before the work began; run the same command again\n")
            os._exit(EXIT_TRY_AGAIN)
        if flag.is_set and number == signal.SIGINT:
            _end_now()
        if not flag.is_set:
            cure = "stopping; units in flight are finished or dropped"
            if number == signal.SIGINT:
                cure += ". Ctrl-C again stops at once"
            _say(f"\ninkbatch: {name}: {cure}\n")
        flag.set(name)

    for number in _STOP_SIGNALS:
        signal.signal(number, handle)


def _say(text: str) -> None:
    """Write to standard error, past Python's own buffer: the signal may have come while that was being written to."""
    with contextlib.suppress(OSError):  # standard error may be closed
        os.write(2, text.encode())


def _end_now() -> None:
    show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # a progress bar had hidden it
    _say(f"{show_cursor}\ninkbatch: stopped at once; what was stored is kept, run the same command again to go on\n")
    os._exit(EXIT_ABORTED)

"""The open connections of the viewer: bounded in number, and none of them can keep the others out."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class _State:
    connection: socket.socket
    since: float
    is_waiting: bool = True  # for a request, or for the rest of one


class Connections:
    """Connections that are open; of too many, the one that has waited longest for its client's words is closed.

    Args:
        most: Connections at once.
        patience_s: Seconds in which a client must send a whole request head; slow ones are closed by `close_late`.
        clock: Seconds that only grow.
    """

    def __init__(self, most: int, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self.patience_s, self._clock = most, patience_s, clock
        self._states: dict[int, _State] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._states)

    def admit(self, connection: socket.socket) -> None:
        """Take a new connection; above `most` the slowest one makes room, idle ones first."""
        with self._lock:
            if len(self._states) >= self._most:
                slowest = min(self._states.values(), key=lambda state: (not state.is_waiting, state.since))
                self._close(slowest)
            self._states[id(connection)] = _State(connection, self._clock())

    def wait(self, connection: socket.socket) -> None:
        """Note that a connection begins to wait for a request."""
        self._note(connection, is_waiting=True)

    def answer(self, connection: socket.socket) -> None:
        """Note that a connection's request is whole and is being answered."""
        self._note(connection, is_waiting=False)

    def leave(self, connection: socket.socket) -> None:
        """Forget a connection that has ended."""
        with self._lock:
            self._states.pop(id(connection), None)

    def close_late(self) -> None:
        """Close the connections whose clients do not finish a request in time."""
        before = self._clock() - self.patience_s
        with self._lock:
            for state in [state for state in self._states.values() if state.is_waiting and state.since < before]:
                self._close(state)

    def close_all(self) -> None:
        """Close all of them; their threads end by themselves."""
        with self._lock:
            for state in list(self._states.values()):
                self._close(state)

    def _note(self, connection: socket.socket, *, is_waiting: bool) -> None:
        with self._lock:
            state = self._states.get(id(connection))
            if state is not None:
                state.since, state.is_waiting = self._clock(), is_waiting

    def _close(self, state: _State) -> None:
        """Wake the thread that reads or writes this connection; it closes the socket."""
        del self._states[id(state.connection)]
        with contextlib.suppress(OSError):
            state.connection.shutdown(socket.SHUT_RDWR)

"""Clients that a web server fears, and a patient one that measures."""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Iterator
from typing import Literal

HEAD = b"GET /scene HTTP/1.1\r\nHost: localhost\r\n"
SlowKind = Literal["silent", "head", "reader"]


@contextlib.contextmanager
def slow_clients(port: int, count: int, kind: SlowKind) -> Iterator[list[socket.socket]]:
    """Hold connections open that get nowhere.

    Args:
        port: Port of a server on this machine.
        count: Connections.
        kind: ``silent`` sends nothing, ``head`` never ends its request, ``reader`` asks and never reads the answer.
    """
    words = {"silent": b"", "head": HEAD, "reader": (HEAD + b"\r\n") * 5}[kind]
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(10)
            client.connect(("127.0.0.1", port))
            with contextlib.suppress(OSError):
                client.sendall(words)
            clients.append(client)
        yield clients


def asked(port: int, path: str, timeout_s: float) -> int:
    """Ask for a path and read the whole answer; returns its status, 0 for none in time."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()

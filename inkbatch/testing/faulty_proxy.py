"""A proxy before an S3 server that spoils some of what passes: refusals, resets, lost answers and the like."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import Value
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import numpy as np

Fault = Literal["refused", "reset", "stalled", "lost", "portal", "short", "cut", "flipped", "stale"]
Choose = Callable[[str, bool], Fault | None]  # by method, and whether it is a listing

FAULTS: dict[str, tuple[Fault, ...]] = {
    "GET": ("refused", "reset", "stalled", "portal", "short", "cut", "flipped"),
    "LIST": ("refused", "reset", "stalled", "portal", "cut", "stale"),
    "HEAD": ("refused", "reset", "stalled", "portal"),
    "PUT": ("refused", "reset", "stalled", "portal", "lost", "flipped"),
    "POST": ("refused", "reset", "portal", "lost"),
    "DELETE": ("refused", "reset", "portal", "lost"),
}
"""By kind of request: ``short`` states the length of the whole body and ends before, ``cut`` states the shorter length,
``lost`` lets the store do it and drops the answer, ``stale`` shows a listing as it was before."""

STALL_S = 1.0
PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"
SLOW_DOWN = (
    b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'
)
_CONTENTS = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "expect"})


def by_chance(seed: int, rate: float, kinds: frozenset[Fault] | None = None) -> Choose:
    """Choose a fault for a share of the requests.

    Args:
        seed: Of the choice.
        rate: The share.
        kinds: Faults to choose from; None: all.
    """
    rng, lock = np.random.default_rng(seed), threading.Lock()

    def choose(method: str, listing: bool) -> Fault | None:
        possible = [one for one in FAULTS.get("LIST" if listing else method, ()) if kinds is None or one in kinds]
        with lock:
            if not possible or rng.random() >= rate:
                return None
            return possible[int(rng.integers(len(possible)))]

    return choose


class FaultyProxy:
    """Passes requests on to an S3 server and spoils those that `choose` names.

    Attributes:
        endpoint: ``http://127.0.0.1:{port}``.
        counts: Faults so far, as ``PUT lost``.
    """

    def __init__(self, upstream: str, choose: Choose) -> None:
        self.upstream, self.choose = urlsplit(upstream).netloc, choose
        self.counts: Counter[str] = Counter()
        self._held = Value("d", 0.0)  # shared with the forks of this process
        self.listings: dict[str, bytes] = {}
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread: threading.Thread | None = None

    @property
    def held_s(self) -> float:
        """Seconds for which requests were stalled so far, also in a fork of this process."""
        return float(self._held.value)

    def stall(self) -> None:
        """Hold a request back."""
        time.sleep(STALL_S)
        with self._held.get_lock():
            self._held.value += STALL_S

    def serve(self) -> None:
        """Serve for ever in this thread."""
        self._server.serve_forever(poll_interval=0.05)

    def __enter__(self) -> FaultyProxy:
        self._thread = threading.Thread(target=self.serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        if self._thread:
            self._thread.join()


@contextlib.contextmanager
def proxy_process(upstream: str, choose: Choose, told: Path) -> Iterator[FaultyProxy]:
    """Serve a `FaultyProxy` in a fork of this process, which stays free of threads.

    Args:
        upstream: Endpoint of the server.
        choose: The faults.
        told: File in which the counts of the faults stand when the block ends, one per line.

    Yields:
        The proxy: its endpoint, and for how long it held requests back.
    """
    proxy = FaultyProxy(upstream, choose)
    child = os.fork()
    if child == 0:

        def end(*_: object) -> None:
            told.write_text("".join(f"{count} {name}\n" for name, count in sorted(proxy.counts.items())))
            os._exit(0)

        signal.signal(signal.SIGTERM, end)
        with contextlib.suppress(BaseException):
            proxy.serve()
        os._exit(1)
    try:
        yield proxy
    finally:
        proxy._server.server_close()
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Pass over clients that hang up."""
        if not isinstance(sys.exc_info()[1], (OSError, http.client.HTTPException)):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def log_message(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):  # whatever the method is
            return self._pass_on
        raise AttributeError(name)

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        listing = self.command == "GET" and ("list-type" in query or "prefix" in query)
        fault = self.proxy.choose(self.command, listing)
        if fault:
            self.proxy.counts[f"{'LIST' if listing else self.command} {fault}"] += 1
        if fault == "refused":
            return self._send(503, {"Content-Type": "application/xml"}, SLOW_DOWN)
        if fault == "portal":
            return self._send(200, {"Content-Type": "text/html; charset=utf-8"}, PAGE)
        if fault == "reset":
            return self._reset()
        if fault == "stalled":
            self.proxy.stall()
        if fault == "flipped" and self.command == "PUT":
            body = _flipped(body)
        status, headers, answer = self._asked(body)
        if fault == "lost":
            return self._reset()
        if listing:
            self._list(fault, status, headers, answer)
        elif fault == "flipped" and self.command == "GET":
            self._send(status, headers, _flipped(answer))
        else:
            self._send(status, headers, answer, cut=fault if fault in ("short", "cut") else None)

    def _asked(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.proxy.upstream, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            return answer.status, kept, content
        finally:
            connection.close()

    def _list(self, fault: Fault | None, status: int, headers: dict[str, str], answer: bytes) -> None:
        """Answer with a listing: as it is, cut, as it was when it was asked for before, or without its last object."""
        before = self.proxy.listings.get(self.path)
        if status == 200:
            self.proxy.listings[self.path] = answer
        if fault == "stale" and status == 200:
            found = list(_CONTENTS.finditer(answer))
            without = answer[: found[-1].start()] + answer[found[-1].end() :] if found else answer
            answer = without if before is None or before == answer else before
        self._send(status, headers, answer, cut="cut" if fault == "cut" else None)

    def _send(self, status: int, headers: dict[str, str], body: bytes, cut: str | None = None) -> None:
        self.send_response(status)
        length = len(body)
        if cut and body:
            body = body[: len(body) // 2]
        if cut == "cut":
            length = len(body)
        if self.command == "HEAD" and "Content-Length" in headers:
            length = int(headers["Content-Length"])
        for name, value in headers.items():
            if name.lower() not in ("content-length", "date", "server"):
                self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        if cut == "short":
            self._reset()

    def _reset(self) -> None:
        """End the connection without a word."""
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.close()


def _flipped(body: bytes) -> bytes:
    """Flip one bit in the middle."""
    if not body:
        return body
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]

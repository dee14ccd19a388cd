"""Stores for tests: a real S3 server, a web server that counts what it serves, and no way to any other host."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import uuid
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import settings

from inkbatch.io.store.location import Location
from inkbatch.testing.s3 import S3Server

pytest.register_assert_rewrite("inkbatch.testing.stores")

# Workers side by side share the cores: with a thread per core in each, a third of the CPU time went into waiting.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Property tests run on shared machines: how long an example takes says nothing about it.
settings.register_profile("inkbatch", deadline=None)
settings.load_profile("inkbatch")

LOOPBACK = ("127.", "::1", "localhost")


@pytest.fixture(autouse=True, scope="session")
def only_loopback() -> Iterator[None]:
    """Refuse connections to other hosts: a test that needs the network is no test."""

    def guarded(name: str):
        original = getattr(socket.socket, name)

        def connect(self: socket.socket, address):
            if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOOPBACK):
                raise PermissionError(f"a test tried to reach {address[0]}")
            return original(self, address)

        return connect

    patch = pytest.MonkeyPatch()
    for name in ("connect", "connect_ex"):
        patch.setattr(socket.socket, name, guarded(name))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running S3 server; `s3_root` gives a test its own place there."""
    with S3Server(tmp_path_factory.mktemp("s3") / "buckets") as server:
        server.make_bucket("bucket")
        yield server


@pytest.fixture
def s3_root(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Location:
    """An empty place on the S3 server, with the environment that leads clients there."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_NO_SIGN_REQUEST"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return Location.parse(f"s3://bucket/{uuid.uuid4().hex}")


@pytest.fixture
def memory_root() -> Iterator[Location]:
    """An empty place in this process's memory."""
    root = Location.parse(f"memory://{uuid.uuid4().hex}")
    yield root
    root.delete_folder()


class WebServer:
    """Serves a folder on a loopback port with ranges and listings, counts what it serves, and can be made to fail.

    Attributes:
        url: Where the folder is.
        served_bytes: Bytes of all bodies since the last `reset`.
        requests: ``(method, path, range header)`` since the last `reset`.
        fail_next: Statuses that the next requests get instead of an answer.
        ignores_ranges: Send whole files whatever is asked.
        lists_folders: Answer for folders with a page of links, else 403.
        knows_head: Answer HEAD, else 405.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        self.fail_next: list[int] = []
        self.ignores_ranges, self.lists_folders, self.knows_head = False, True, True
        self.reset()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = _QuietServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def reset(self) -> None:
        self.served_bytes = 0
        self.requests: list[tuple[str, str, str | None]] = []

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: WebServer

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        if self.owner.knows_head:
            self._answer(with_body=False)
        else:
            self._send(405, b"", with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        wanted = self.headers.get("Range")
        with self.owner.lock:
            self.owner.requests.append((self.command, self.path, wanted))
            status = self.owner.fail_next.pop(0) if self.owner.fail_next else None
        if status is not None:
            return self._send(status, b"", with_body=with_body)
        target = self.owner.folder / self.path.lstrip("/")
        if target.is_dir():
            if not self.owner.lists_folders:
                return self._send(403, b"", with_body=with_body)
            names = sorted(f"{entry.name}{'/' if entry.is_dir() else ''}" for entry in target.iterdir())
            links = ["../", "?C=N;O=D", "/", *names]
            page = "<html>" + "".join(f'<a href="{link}">{link}</a>\n' for link in links)
            return self._send(200, page.encode(), with_body=with_body, kind="text/html")
        if not target.is_file():
            return self._send(404, b"", with_body=with_body)
        content = target.read_bytes()
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted or "")
        if match is None or self.owner.ignores_ranges:
            return self._send(200, content, with_body=with_body)
        size = len(content)
        start = int(match[1]) if match[1] else max(0, size - int(match[2]))
        stop = min(int(match[2]) + 1, size) if match[1] and match[2] else size
        if start >= size:
            return self._send(416, b"", with_body=with_body)
        return self._send(206, content[start:stop], with_body=with_body, span=f"bytes {start}-{stop - 1}/{size}")

    def _send(
        self, status: int, body: bytes, *, with_body: bool, kind: str = "application/octet-stream", span: str = ""
    ) -> None:
        with self.owner.lock:  # before the client can have them, so that a test sees them counted
            self.owner.served_bytes += len(body) if with_body else 0
        self.send_response(status, HTTPStatus(status).phrase)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if span:
            self.send_header("Content-Range", span)
        self.end_headers()
        if with_body:
            with contextlib.suppress(OSError):  # a client may hang up
                self.wfile.write(body)


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """A web server over ``tmp_path/web``."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "web"
    folder.mkdir()
    server = WebServer(folder)
    yield server
    server.stop()

"""The viewer's web server: one page, its files by name, and pictures made on the fly.

It answers GET alone; where labels are painted, also POST below ``/edit``.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import socket
import sys
import threading
import traceback
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

from inkbatch import __version__
from inkbatch.errors import ConfigError, InkbatchError
from inkbatch.redaction import redact
from inkbatch.view.connections import Connections
from inkbatch.view.edit import Editor, RequestRefusedError, refusal_of
from inkbatch.view.guard import HEADERS, allowed_names, is_loopback, refusal
from inkbatch.view.render import UnknownNameError
from inkbatch.view.viewer import Answer, Viewer

PAGE = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
FILES = {
    "/": "index.html",
    "/favicon.ico": "icon.svg",
    **{
        f"/page/{name}": name
        for name in (
            "viewer.css",
            "edit.css",
            "main.js",
            "state.js",
            "panel.js",
            "stage.js",
            "readout.js",
            "profile.js",
            "region.js",
            "objects.js",
            "edit.js",
            "tools.js",
            "codes.js",
            "overlay.js",
            "link.js",
            "versions.js",
            "icon.svg",
            "vendor/openseadragon.min.js",
        )
    },
}
IDLE_S = 60  # for one answer to be taken
PATIENCE_S = 30  # for one request to be sent
MOST_CONNECTIONS = 256  # one thread each
BACKLOG = 512  # connections that the system holds until they are taken
_TILE = re.compile(r"/tile/(\d{1,4})/(papyrus|map|outlines)/(\d{1,2})/(\d{1,6})_(\d{1,6})")
_GROUP = re.compile(r"/(value|profile|picture|range|object)/(\d{1,4})")


class ViewServer(ThreadingHTTPServer):
    """HTTP server of a `Viewer`.

    Args:
        viewer: Viewer to serve.
        host: Address to listen on.
        port: Port; 0 takes a free one.
        names: Host names beyond localhost and `host` that requests may use.
        editor: The label editor, or None.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = BACKLOG

    def __init__(
        self,
        viewer: Viewer,
        host: str = "127.0.0.1",
        port: int = 0,
        names: tuple[str, ...] = (),
        editor: Editor | None = None,
    ) -> None:
        self.viewer, self.editor = viewer, editor
        self.names = allowed_names(host, names)
        self.local_only = is_loopback(host)
        self.slots = threading.BoundedSemaphore(max(2, (os.cpu_count() or 2) + 1))
        self.connections = Connections(MOST_CONNECTIONS, PATIENCE_S)
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Take a connection; never waits, whatever the others do."""
        self.connections.admit(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        self.connections.leave(request)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Close slow connections; called between requests."""
        self.connections.close_late()

    def server_close(self) -> None:
        """Stop listening, and end every connection."""
        super().server_close()
        self.connections.close_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report errors, except a browser that hangs up."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Address of the page, for a browser on this machine; the editor's token never leaves that."""
        host = str(self.server_address[0])
        shown = "localhost" if host in ("127.0.0.1", "0.0.0.0", "::", "::1") else host
        token = f"#token={self.editor.token}" if self.editor else ""
        return f"http://{shown}:{self.server_address[1]}/{token}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = f"inkbatch/{__version__}"
    sys_version = ""
    timeout = IDLE_S
    disable_nagle_algorithm = True  # else the body waits 40 ms for the browser's word that the head arrived
    server: ViewServer
    _keeps = False  # the connection, after a body

    def log_message(self, *_: object) -> None:
        """Log nothing: an address may hold names of unpublished work."""

    def handle_one_request(self) -> None:
        """Wait for a request and answer it."""
        self.server.connections.wait(self.connection)
        super().handle_one_request()

    def parse_request(self) -> bool:
        """Read the request's head; from then on its answer is ours to give."""
        is_whole = super().parse_request()
        self.server.connections.answer(self.connection)
        return is_whole

    def do_GET(self) -> None:  # named by http.server
        """Answer."""
        self._respond(with_body=True)

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self._respond(with_body=False)

    def do_POST(self) -> None:
        """Answer the label editor; refuse any other."""
        if self.server.editor is None or not self.path.startswith("/edit"):
            return self.send_error(HTTPStatus.NOT_IMPLEMENTED)
        self._keeps, self.close_connection = not self.close_connection, True  # until its body was read
        self._respond(with_body=True)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no GET, or no HTTP; a body that came with it is not read."""
        self.close_connection = True
        if code == HTTPStatus.NOT_IMPLEMENTED:
            return self._fail(HTTPStatus.METHOD_NOT_ALLOWED, "this server only answers GET")
        self._fail(HTTPStatus(code), message or HTTPStatus(code).phrase)

    def _respond(self, *, with_body: bool) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        reason = refusal(path, cast("Any", self.headers), self.server.names, local_only=self.server.local_only)
        if reason is not None:
            return self._fail(HTTPStatus.FORBIDDEN, reason)
        try:
            if path in FILES:
                return self._send_file(FILES[path], with_body)
            if not with_body:
                return self._fail(HTTPStatus.METHOD_NOT_ALLOWED, "only the page's files answer HEAD")
            answer = self._edited(parts.path, parts.query)
            if answer is None:
                with self.server.slots:
                    answer = self._answer(path, parts.query)
            self._send(answer)
        except UnknownNameError as error:
            self._fail(HTTPStatus.NOT_FOUND, str(error.args[0]))
        except ConfigError as error:
            self._fail(HTTPStatus.BAD_REQUEST, str(error))
        except (InkbatchError, RequestRefusedError) as error:
            status, extra = refusal_of(error)
            self._fail(status, str(error), **extra)
        except OSError:
            self.close_connection = True  # the browser went away
        except Exception:
            sys.stderr.write(redact(traceback.format_exc()))
            self._fail(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; see the terminal")

    def _edited(self, path: str, query: str) -> Answer | None:
        """Answer the label editor; its paths are taken as they were sent."""
        if self.server.editor is None:
            return None
        command = self.command
        return self.server.editor.answer(command, path, query, cast("Any", self.headers), self._read_body)

    def _read_body(self, count: int) -> bytes:
        body = self.rfile.read(count)
        self.close_connection = not self._keeps
        return body

    def _answer(self, path: str, query: str) -> Answer:
        viewer = self.server.viewer
        if path == "/scene":
            return viewer.scene()
        tile = _TILE.fullmatch(path)
        if tile is not None:
            group, kind, level, column, row = tile.groups()
            return viewer.tile(int(group), kind, int(level), int(row), int(column), query)
        match = _GROUP.fullmatch(path)
        if match is not None:
            return viewer.about(match.group(1), int(match.group(2)), query)
        raise UnknownNameError("not found")

    def _send(self, answer: Answer) -> None:
        if answer.write is None:
            keep = f"private, max-age={answer.keep_s}" if answer.keep_s else "no-store"
            return self._send_bytes(answer.body, answer.kind, {"Cache-Control": keep, **answer.headers})
        self._begin(HTTPStatus.OK, answer.kind, {"Cache-Control": "no-store", "Transfer-Encoding": "chunked"})
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", answer.name)
        self.send_header("Content-Disposition", f'attachment; filename="{name}"')
        self.end_headers()
        try:
            chunked = _Chunked(cast("BinaryIO", self.wfile))
            answer.write(cast("BinaryIO", chunked))
            chunked.end()
        except InkbatchError as error:
            # The status is sent already; a body without its last chunk tells the browser that it is incomplete.
            sys.stderr.write(f"inkbatch view: the picture was not finished: {redact(str(error))}\n")
            self.close_connection = True

    def _send_file(self, name: str, with_body: bool) -> None:
        packed = "gzip" in (self.headers.get("Accept-Encoding") or "")
        body = _file(name, packed)
        headers = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if packed:
            headers["Content-Encoding"] = "gzip"
        self._send_bytes(body, KINDS[Path(name).suffix] + "; charset=utf-8", headers, with_body=with_body)

    def _send_bytes(self, body: bytes, kind: str, headers: dict[str, str], *, with_body: bool = True) -> None:
        self._begin(HTTPStatus.OK, kind, {**headers, "Content-Length": str(len(body))})
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _begin(self, status: HTTPStatus, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **HEADERS, **headers}.items():
            self.send_header(name, value)

    def _fail(self, status: HTTPStatus, text: str, **extra: object) -> None:
        body = json.dumps({"error": redact(text), **extra}, ensure_ascii=False).encode()
        headers = {"Content-Length": str(len(body)), "Cache-Control": "no-store"}
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = "GET"
        with contextlib.suppress(OSError):
            self._begin(status, "application/json; charset=utf-8", headers)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)


class _Chunked:
    """Body of unknown length, in HTTP/1.1's chunked coding."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle

    def write(self, data: bytes) -> int:
        if data:
            self._handle.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        return len(data)

    def end(self) -> None:
        self._handle.write(b"0\r\n\r\n")


@lru_cache(maxsize=64)
def _file(name: str, packed: bool) -> bytes:
    body = (PAGE / name).read_bytes()
    return gzip.compress(body, 6, mtime=0) if packed else body

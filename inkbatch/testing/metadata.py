"""A tiny instance metadata service on a loopback port: tokens as IMDSv2 has them, and a spot notice when told."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

NOTICE_PATH = "/latest/meta-data/spot/instance-action"


class MetadataServer:
    """Use as a context manager.

    Attributes:
        notice: Content of the notice, or None for 404.
        token: The one that is accepted; change it and the old one is refused with 401.
        failures_left: So many answers are 500 from now on.
        asked: ``METHOD path`` of each request.
    """

    def __init__(self) -> None:
        self.notice: dict[str, str] | None = None
        self.token = "token-1"
        self.failures_left = 0.0
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that lead the watch here."""
        return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.endpoint, "AWS_EC2_METADATA_DISABLED": "false"}

    def reclaim(self, action: str = "terminate") -> None:
        """Give the notice."""
        self.notice = {"action": action, "time": "2026-11-21T10:00:00Z"}

    def _answer(self, method: str, path: str, ttl: str | None, token: str | None) -> tuple[int, str]:
        self.asked.append(f"{method} {path}")
        if self.failures_left > 0:
            self.failures_left -= 1
            return 500, ""
        if method == "PUT":
            return (200, self.token) if path == "/latest/api/token" and ttl else (400, "")
        if token != self.token:
            return 401, ""
        if path != NOTICE_PATH or self.notice is None:
            return 404, ""
        return 200, json.dumps(self.notice)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # named by the standard library
                self._reply("GET")

            def do_PUT(self) -> None:
                self._reply("PUT")

            def _reply(self, method: str) -> None:
                ttl, token = "X-aws-ec2-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token"
                code, text = service._answer(method, self.path, self.headers.get(ttl), self.headers.get(token))
                self.send_response(code)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: object) -> None:
                """Log nothing."""

        return Handler

    def __enter__(self) -> MetadataServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

"""Answers of the label editor: versions, tiles, strokes and who else is there. No HTTP in here but its status codes."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import hmac
import json
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, BinaryIO, cast

from inkbatch.data.labels.painting import TILE_PX, Tile
from inkbatch.data.labels.painting_export import MEDIA, export_name, write_export
from inkbatch.data.labels.painting_journal import TakenOverError
from inkbatch.data.labels.painting_session import Applied, PaintSession, RefusedStrokeError, Sent
from inkbatch.data.labels.painting_version import labels_folder, require_author
from inkbatch.data.segments.catalog import check_segment_id
from inkbatch.data.segments.prepared import surface_content
from inkbatch.documents import parse_json
from inkbatch.errors import ConfigError, StorageError
from inkbatch.view.edit_ops import Carry, ExportMessage, OpMessage, SeenMessage, VersionMessage, parsed
from inkbatch.view.edit_segment import SegmentEditor
from inkbatch.view.look import query_values
from inkbatch.view.render import UnknownNameError
from inkbatch.view.viewer import Answer, Viewer, json_answer

MOST_BODY_BYTES = 1 << 20
LISTED_TILES = 512  # of a stroke that changed more, the box is told
TOKEN_HEADER = "X-Inkbatch-Token"
_EDIT = re.compile(r"/edit/(\d{1,4})(?:/(op|version|seen|compare|export|tile/(\d{1,2})/(\d{1,6})_(\d{1,6})))?")


class RequestRefusedError(Exception):
    """A request that is refused before it is understood.

    Attributes:
        status: HTTP's status.
    """

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class Editor:
    """The label editor of a viewer.

    Args:
        viewer: Viewer, whose segments and maps they are.
        root: ROOT.
        author: Who paints.
        version: Version to open first; None: each segment's newest, or a new one.

    Attributes:
        token: Secret that requests carry; handed out with the address.
        started: Name of the version that each segment opened, and what must be known about it.
    """

    def __init__(self, viewer: Viewer, root: str, author: str, version: str | None = None) -> None:
        require_author(author)
        self.token = secrets.token_urlsafe(24)
        self._editors: list[SegmentEditor] = []
        self.started: list[str] = []
        try:
            for number, group in enumerate(viewer.groups):
                folder = labels_folder(root, check_segment_id(group.segment))
                made = surface_content(root, group.segment)
                editor = SegmentEditor(group, folder, author, partial(viewer.map_reader, number), made)
                self._editors.append(editor)
                name = editor.start(version)
                self.started += [f"painting into {name}", *filter(None, [editor.outdated(name)])]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Store what waits, and give the versions back; see `SegmentEditor.close`."""
        with contextlib.ExitStack() as closing:
            for editor in self._editors:
                closing.callback(editor.close)

    def answer(
        self, method: str, path: str, query: str, headers: Mapping[str, str], read: Callable[[int], bytes]
    ) -> Answer | None:
        """Answer a request below ``/edit``; None for any other.

        Args:
            method: ``GET`` or ``POST``.
            path: Its path.
            query: Its query.
            headers: Its headers.
            read: Reads so many bytes of its body.

        Raises:
            RequestRefusedError: No token, another content type, too large, …
            RefusedStrokeError: A stroke does not fit what is there now.
            ConfigError: A message or value is not valid.
            UnknownNameError: There is no such segment or request.
            InkbatchError: Something cannot be read or stored.
        """
        if not path.startswith("/edit"):
            return None
        self._require_token(headers)
        match = _EDIT.fullmatch(path)
        if match is None or int(match[1]) >= len(self._editors):
            raise UnknownNameError("not found")
        editor, what = self._editors[int(match[1])], match[2] or ""
        if what in ("op", "version", "seen"):
            if method != "POST":
                raise RequestRefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "this address only answers POST")
            document = parse_json(_body(headers, read), "edit")
            return {"op": _op, "version": _version, "seen": _seen}[what](editor, document)
        if method != "GET":
            raise RequestRefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "this address only answers GET")
        values = query_values(query)
        name = str(values["version"]) if "version" in values else None
        if match[3] is not None:
            place = int(match[3]), int(match[5]), int(match[4])
            return _tile(editor, name, place, "gzip" in headers.get("Accept-Encoding", ""))
        if what == "compare":
            return json_answer(editor.compare(str(values.get("one", "")), str(values.get("other", ""))))
        if what == "export":
            return _export(editor, name, values)
        return json_answer(editor.describe(name, str(values.get("tab", ""))))

    def _require_token(self, headers: Mapping[str, str]) -> None:
        given = headers.get(TOKEN_HEADER) or ""
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            raise RequestRefusedError(
                HTTPStatus.FORBIDDEN, "editing needs the token of the address that inkbatch view printed; open that"
            )
        if headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise RequestRefusedError(HTTPStatus.FORBIDDEN, "requests from pages of another origin are refused")


def _body(headers: Mapping[str, str], read: Callable[[int], bytes]) -> bytes:
    """Read a body of JSON, after its head has been found fit."""
    kind = (headers.get("Content-Type") or "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestRefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json")
    length = headers.get("Content-Length") or ""
    if headers.get("Transfer-Encoding") or not length.isascii() or not length.isdecimal():
        raise RequestRefusedError(HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length")
    if len(length) > 9 or int(length) > MOST_BODY_BYTES:
        raise RequestRefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {MOST_BODY_BYTES} bytes")
    body = read(int(length))
    if len(body) != int(length):
        raise RequestRefusedError(HTTPStatus.BAD_REQUEST, "the body ended early")
    return body


def _tile(editor: SegmentEditor, name: str | None, place: tuple[int, int, int], packed: bool) -> Answer:
    level, row, column = place
    if level > 24:
        raise ConfigError(f"edit: expected a level up to 24, got {level}")
    version = editor.session(name).version
    revision = version.revision  # before the tile: it may be newer than this, never older
    body = version.tiles.level_tile(level, row, column).tobytes()
    headers = {"X-Revision": str(revision), "Vary": "Accept-Encoding"}
    if packed:
        body = gzip.compress(body, 1, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Answer(body, "application/octet-stream", headers=headers)


def _export(editor: SegmentEditor, name: str | None, values: Mapping[str, object]) -> Answer:
    asked: ExportMessage = parsed(ExportMessage, {key: value for key, value in values.items() if key != "version"})
    version = editor.opened(name)

    def write(handle: BinaryIO) -> None:
        with tempfile.NamedTemporaryFile(prefix="inkbatch-") as scratch:  # a TIFF is not written front to back
            write_export(version, asked.layer, asked.kind, cast("BinaryIO", scratch.file))
            scratch.seek(0)
            shutil.copyfileobj(scratch, handle, 1 << 20)

    file = export_name(version, asked.layer, asked.kind)
    return Answer(kind=MEDIA[asked.kind], write=write, name=file)


def _op(editor: SegmentEditor, document: Any) -> Answer:
    message: OpMessage = parsed(OpMessage, document)
    session = editor.session(message.version)
    canonical = json.dumps({"version": message.version, "op": message.op.model_dump(mode="json")}, sort_keys=True)
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    op = message.op
    sent = Sent(message.tab, message.seq, digest, message.base, op.kind)
    if isinstance(op, Carry):
        applied = session.undo(sent) if op.kind == "undo" else session.redo(sent)
    else:
        applied = session.paint(sent, lambda: op.draw(editor.ground(session)))
    return json_answer(_told(applied, message, session))


def _told(applied: Applied, message: OpMessage, session: PaintSession) -> dict[str, Any]:
    found: dict[str, Any] = {
        "revision": applied.revision,
        "seq": message.seq,
        "saved": applied.saved,
        "undo": applied.can_undo,
        "redo": applied.can_redo,
        "others": session.others(message.tab),
        "trouble": session.trouble,
    }
    return found | _changed(applied.tiles)


def _changed(tiles: list[Tile]) -> dict[str, Any]:
    """List tiles as [column, row], or the box of many in pixels: y0, x0, y1, x1."""
    if len(tiles) <= LISTED_TILES:
        return {"tiles": [[x, y] for y, x in tiles]}
    rows, columns = [y for y, _ in tiles], [x for _, x in tiles]
    return {"box": [edge * TILE_PX for edge in (min(rows), min(columns), max(rows) + 1, max(columns) + 1)]}


def _version(editor: SegmentEditor, document: Any) -> Answer:
    message: VersionMessage = parsed(VersionMessage, document)
    name = message.source
    if message.action == "branch":
        name = editor.branch(name, message.author)
    editor.switch(name)
    return json_answer(editor.describe(name, message.tab))


def _seen(editor: SegmentEditor, document: Any) -> Answer:
    message: SeenMessage = parsed(SeenMessage, document)
    session = editor.session(message.version)
    tabs, tiles = session.see(message.tab, message.author, message.revision)
    found = {"tabs": tabs, "revision": session.version.revision, "saved": session.saved, "trouble": session.trouble}
    listed = _changed(tiles)
    return json_answer(
        {**found, "changed": listed.get("tiles", []), **({"box": listed["box"]} if "box" in listed else {})}
    )


def refusal_of(error: Exception) -> tuple[HTTPStatus, dict[str, Any]]:
    """Return the status for an error, and what stands beside its text."""
    if isinstance(error, RequestRefusedError):
        return error.status, {}
    if isinstance(error, RefusedStrokeError):
        return HTTPStatus.CONFLICT, {"tiles": [[x, y] for y, x in error.tiles[:LISTED_TILES]]}
    if isinstance(error, TakenOverError):
        return HTTPStatus.CONFLICT, {"tiles": []}
    if isinstance(error, StorageError):
        return HTTPStatus.SERVICE_UNAVAILABLE, {}
    return HTTPStatus.UNPROCESSABLE_ENTITY, {}

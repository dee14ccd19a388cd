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
import threading
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, BinaryIO, cast

from inkbatch.data.labels.painting import LAYERS, TILE_PX, Tile
from inkbatch.data.labels.painting_compare import compare
from inkbatch.data.labels.painting_export import MEDIA, export_name, write_export
from inkbatch.data.labels.painting_journal import TakenOverError
from inkbatch.data.labels.painting_session import Applied, PaintSession, RefusedStrokeError, Sent
from inkbatch.data.labels.painting_tools import ReadMap
from inkbatch.data.labels.painting_version import (
    PaintedVersion,
    create_version,
    labels_folder,
    outdated,
    read_counts,
    read_facts,
    require_author,
    require_shape,
    version_folder,
    version_names,
)
from inkbatch.data.segments.catalog import check_segment_id
from inkbatch.data.segments.prepared import surface_content
from inkbatch.documents import parse_json
from inkbatch.errors import ConfigError, StorageError
from inkbatch.io.store.location import Location
from inkbatch.view.edit_ops import (
    Carry,
    ExportMessage,
    Ground,
    MapNames,
    OpMessage,
    SeenMessage,
    VersionMessage,
    parsed,
)
from inkbatch.view.look import MapLook, query_values
from inkbatch.view.render import UnknownNameError
from inkbatch.view.scene import Group
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


class SegmentEditor:
    """Label versions of one segment: one session per version that is open.

    Args:
        group: The segment.
        folder: Folder of its label versions.
        author: Who paints.
        maps: Opens a map, or a combination of several.
        surface: Content digest of the prepared segment; None where it is not known.
    """

    def __init__(
        self,
        group: Group,
        folder: Location,
        author: str,
        maps: Callable[[MapLook], ReadMap],
        surface: str | None = None,
    ) -> None:
        if group.voxel_size_um is None or (group.surface is None and not group.maps):
            raise ConfigError(f"view: expected segments to paint on, got the picture {group.segment}; leave --edit out")
        self.pixel_um = group.voxel_size_um
        self.group, self._folder, self.author, self._maps, self._surface = group, folder, author, maps, surface
        self._sessions: dict[str, PaintSession] = {}
        self._lock = threading.RLock()
        self._current = ""

    def start(self, name: str | None) -> str:
        """Open a version, else the newest one, else a new one; return its name.

        Raises:
            DataError: It is not there, is of another size, or another program paints into it.
        """
        names = version_names(self._folder)
        chosen = name or (names[-1] if names else None)
        if chosen is None:
            chosen = self._create("nothing").name
        self.session(chosen)
        self._current = chosen
        return chosen

    def _create(self, started_from: str) -> Location:
        group = self.group
        return create_version(
            self._folder,
            group.segment,
            group.shape_yx,
            self.pixel_um,
            author=self.author,
            started_from=started_from,
            surface=self._surface,
        )

    def branch(self, source: str, author: str) -> str:
        """Make a version that starts with what another one holds now; return its name."""
        return self.session(source).branch(author or self.author, self._surface)

    def outdated(self, name: str | None = None) -> str:
        """Say that a version was begun on another surface; empty where it was not."""
        return outdated(self.session(name).version.facts, self._surface)

    def session(self, name: str | None = None) -> PaintSession:
        """Return the session of a version, opened when it is first asked for; None: of the current one."""
        with self._lock:
            name = name or self._current
            if name not in self._sessions:
                folder = version_folder(self._folder, name)
                require_shape(read_facts(folder), self.group.shape_yx, folder)
                self._sessions[name] = PaintSession(folder)
            return self._sessions[name]

    def switch(self, name: str) -> None:
        """Make a version the current one."""
        with self._lock:
            self.session(name)
            self._current = name

    def ground(self, session: PaintSession) -> Ground:
        """Return what strokes of a session are drawn on."""
        tiles = session.version.tiles
        return Ground(tiles.shape_yx, tiles.read, lambda layer: tiles.marked_tiles(LAYERS[layer].bit), self._open_map)

    def _open_map(self, choice: str | MapNames) -> ReadMap:
        if isinstance(choice, str):
            return self._maps(MapLook(maps=(choice,)))
        return self._maps(MapLook(maps=choice.maps, combine=choice.combine, invert=choice.invert))

    def opened(self, name: str | None) -> PaintedVersion:
        """Return a version to read: as it is painted now, where it is open here."""
        with self._lock:
            name = name or self._current
            if name in self._sessions:
                return self._sessions[name].version
        return PaintedVersion.open(version_folder(self._folder, name))

    def compare(self, one: str, other: str) -> dict[str, Any]:
        """Compare two versions."""
        surface = self.group.surface
        found = compare(self.opened(one), self.opened(other), None if surface is None else surface.read_mask)
        return {
            "one": one,
            "other": other,
            "cm2": found.cm2,
            "added_px": found.added,
            "removed_px": found.removed,
            "changed_tiles": [[x, y] for y, x in found.tiles],
        }

    def describe(self, name: str | None, tab: str) -> dict[str, Any]:
        """Describe a version, and list all of them."""
        session = self.session(name)
        version = session.version
        state = version.tabs.get(tab)
        return {
            "segment": self.group.segment,
            "version": version.name,
            **{key: version.facts.get(key) for key in ("parent", "started_from", "author")},
            "revision": version.revision,
            "saved": session.saved,
            "trouble": session.trouble,
            "outdated": self.outdated(version.name),
            "seq": state.seq if state else 0,
            "undo": bool(state and state.undo),
            "redo": bool(state and state.redo),
            "versions": [self._summary(one) for one in version_names(self._folder)],
            "tabs": session.others(),
            "maps": list(self.group.maps),
        }

    def _summary(self, name: str) -> dict[str, Any]:
        folder = self._folder / name
        facts = read_facts(folder)
        open_one = self._sessions.get(name)
        counts = open_one.version.counts if open_one else read_counts(folder)
        cm2 = (self.pixel_um / 1e4) ** 2
        areas = {layer: round(counts[layer] * cm2, 6) for layer in LAYERS}
        return {**{key: facts.get(key) for key in ("name", "author", "time", "parent", "started_from")}, "cm2": areas}

    def close(self) -> None:
        """Store what waits, and give the versions back: all of them, also where one cannot be stored."""
        with contextlib.ExitStack() as closing:
            for session in self._sessions.values():
                closing.callback(session.close)


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

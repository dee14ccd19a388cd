"""The label editor of one segment: its versions, the one that is painted into, and who paints."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from inkbatch.data.labels.painting import LAYERS
from inkbatch.data.labels.painting_compare import compare
from inkbatch.data.labels.painting_session import PaintSession
from inkbatch.data.labels.painting_tools import ReadMap
from inkbatch.data.labels.painting_version import (
    PaintedVersion,
    create_version,
    outdated,
    read_counts,
    read_facts,
    require_shape,
    version_folder,
    version_names,
)
from inkbatch.errors import ConfigError
from inkbatch.io.store.location import Location
from inkbatch.view.edit_ops import Ground, MapNames
from inkbatch.view.look import MapLook
from inkbatch.view.scene import Group


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

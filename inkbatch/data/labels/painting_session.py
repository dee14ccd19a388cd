"""Painting into one label version: strokes in order, each stored before it is answered (on S3: within a second)."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from inkbatch.data.labels.painting import Codes, Marks, Tile, exclusion_broken, paint
from inkbatch.data.labels.painting_journal import Change, Record, TakenOverError
from inkbatch.data.labels.painting_lease import Lease
from inkbatch.data.labels.painting_packing import packed, unpacked
from inkbatch.data.labels.painting_version import STATE, PaintedVersion, TabState, branch
from inkbatch.errors import DataError, InkbatchError, StorageError
from inkbatch.io.store.ledger import make_durable, recording
from inkbatch.io.store.location import Location

FLUSH_S = 0.5  # between two writes of what waits
MOST_WAITING = 4096  # tiles in memory, packed; a stroke that finds more writes them first
MOST_UNSAVED_S = 30.0  # that a store may fail before strokes are refused
TAB_LIVES_S = 15.0


class RefusedStrokeError(DataError):
    """A stroke does not fit what is there now.

    Attributes:
        tiles: Tiles that others changed, as far as that is the reason.
    """

    def __init__(self, message: str, tiles: Iterable[Tile] = ()) -> None:
        super().__init__(message)
        self.tiles = sorted(tiles)


@dataclass(frozen=True)
class Sent:
    """A stroke's envelope.

    Attributes:
        tab: Tab that sent it.
        seq: The tab's number for it, one more than the last.
        digest: Digest of its content.
        base: Revision that the tab showed.
        kind: Kind of stroke.
    """

    tab: str
    seq: int
    digest: str
    base: int
    kind: str


@dataclass(frozen=True)
class Applied:
    """Answer to a stroke.

    Attributes:
        revision: Its number.
        tiles: Tiles that it changed.
        can_undo: The tab can undo.
        can_redo: The tab can redo.
        saved: Newest revision that is stored for good.
    """

    revision: int
    tiles: list[Tile]
    can_undo: bool
    can_redo: bool
    saved: int


@dataclass
class _Seen:
    author: str
    at: float
    revision: int


class PaintSession:
    """The one program that paints into a version. Safe to use from several threads.

    Args:
        folder: The version's folder.
        clock: Seconds that only grow.

    Raises:
        DataError: There is no such version, or another program paints into it.
    """

    def __init__(self, folder: Location, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease = Lease(folder / "journal/lease.json")
        self._lease.take()
        try:
            self.version = PaintedVersion.open(folder)
        except BaseException:
            self._lease.release()
            raise
        self._clock = clock
        self._unsaved: list[Record] = []
        self._unsaved_since: float | None = None
        self._lost: InkbatchError | None = None
        self._seen: dict[str, _Seen] = {}
        self._written = self.version.revision if not self.version.tiles.waiting else -1
        self._lock = threading.RLock()
        self._flushing = threading.Lock()
        self._ended = threading.Event()
        self.trouble = ""
        self._thread = threading.Thread(target=self._keep_flushing, name="labels", daemon=True)
        self._thread.start()

    @property
    def saved(self) -> int:
        """Newest revision that is stored for good."""
        return self.version.journal.last

    def paint(self, sent: Sent, draw: Callable[[], Iterable[Marks]]) -> Applied:
        """Apply a stroke, whole or not at all.

        Args:
            sent: Its envelope.
            draw: Makes its marks; called while nothing else changes.

        Raises:
            RefusedStrokeError: A number out of turn, or tiles that another tab changed after `sent.base`.
            StorageError: It cannot be stored.
        """
        self._make_room()
        with self._lock:
            again = self._answered(sent)
            if again is not None:
                return again
            return self._store(sent, _changes(draw(), self.version.tiles.read_tile))

    def undo(self, sent: Sent) -> Applied:
        """Undo the tab's last stroke that is not undone; see `paint`."""
        return self._carry(sent, forward=False)

    def redo(self, sent: Sent) -> Applied:
        """Do again what the tab undid last; see `paint`."""
        return self._carry(sent, forward=True)

    def _carry(self, sent: Sent, *, forward: bool) -> Applied:
        self._make_room()
        with self._lock:
            again = self._answered(sent)
            if again is not None:
                return again
            tab = self.version.tabs.get(sent.tab) or TabState(0)
            top = tab.redo if forward else tab.undo
            if not top:
                return self._store(sent, [])
            record = self._record(top)
            changes = [self._turned(change, forward=forward) for change in record.changes]
            if forward:  # an undo's record names what it undid, and what could be redone before it
                return self._store(sent, changes, of=record.of, below=tab.undo, redo=record.below)
            return self._store(sent, changes, of=top, below=tab.redo, undo=record.below)

    def _turned(self, change: Change, *, forward: bool) -> Change:
        """Flip a stroke's bits back, whatever else was painted into the tile since.

        An undo's record holds the tile before the undo, so that a redo flips the same bits the same way.
        """
        now, flipped = self.version.tiles.read_tile(change.tile), unpacked(change.flipped)
        left = unpacked(change.before) ^ flipped
        if ((now ^ left) & flipped).any() or exclusion_broken(now ^ flipped):
            what = "redone" if forward else "undone"
            raise RefusedStrokeError(
                f"{self.version.folder}: this stroke cannot be {what}, because its pixels were painted over since",
                [change.tile],
            )
        return Change(change.tile, packed(now), change.flipped)

    def _record(self, revision: int) -> Record:
        for record in self._unsaved:
            if record.revision == revision:
                return record
        return self.version.journal.read(revision)

    def _answered(self, sent: Sent) -> Applied | None:
        """Answer a stroke that is known already; refuse one out of turn."""
        if self._lost is not None:
            raise self._lost
        tab = self.version.tabs.get(sent.tab)
        if tab is None or sent.seq == tab.seq + 1:
            return None
        if sent.seq > tab.seq:
            raise RefusedStrokeError(
                f"stroke {sent.seq}: expected number {tab.seq + 1} of this tab; load the page again"
            )
        digest, revision = tab.digests.get(sent.seq, ("", 0))
        if digest != sent.digest:
            raise RefusedStrokeError(
                f"stroke {sent.seq}: expected what was sent under this number before, got something else; load the "
                "page again"
            )
        return self._applied(self._record(revision), tab)

    def _applied(self, record: Record, tab: TabState) -> Applied:
        tiles = [change.tile for change in record.changes]
        return Applied(record.revision, tiles, bool(tab.undo), bool(tab.redo), self.saved)

    def _store(
        self, sent: Sent, changes: list[Change], of: int = 0, below: int = 0, undo: int = 0, redo: int = 0
    ) -> Applied:
        tab = self.version.tabs.get(sent.tab) or TabState(0)
        self._require_unchanged(sent, changes)
        revision = self.version.revision + 1
        record = Record(revision, sent.tab, sent.seq, sent.digest, sent.kind, of, below, undo, redo, tuple(changes))
        if not of:  # a new stroke, or one that changes nothing
            record = replace(
                record,
                below=tab.undo,
                undo=revision if changes else tab.undo,
                redo=0 if changes else tab.redo,
            )
        elif sent.kind == "undo":
            record = replace(record, redo=revision)
        else:
            record = replace(record, undo=revision)
        if self.version.folder.is_local:
            self._append([record])
        else:
            self._unsaved.append(record)
            self._unsaved_since = self._unsaved_since or self._clock()
        self.version.lay(record)
        return self._applied(record, self.version.tabs[sent.tab])

    def _make_room(self) -> None:
        if self._unsaved_since is not None and self._clock() - self._unsaved_since > MOST_UNSAVED_S:
            raise StorageError(f"{self.version.folder}: strokes cannot be stored, so no more are taken; {self.trouble}")
        if self.version.tiles.waiting > MOST_WAITING:
            self.flush()

    def _require_unchanged(self, sent: Sent, changes: list[Change]) -> None:
        touched = {change.tile for change in changes}
        others = self.version.changed_since(sent.base, sent.tab)
        clash = touched if others is None else touched & others
        if clash:
            raise RefusedStrokeError(
                f"{self.version.folder}: another tab painted on {len(clash)} of these tiles since; look at them, then "
                "paint again",
                clash,
            )

    def _append(self, records: list[Record]) -> None:
        try:
            self.version.journal.append(records)
        except TakenOverError as error:
            self._lost = error
            raise

    def flush(self) -> None:
        """Store what waits: strokes, then tiles, then the state that says so.

        Raises:
            StorageError: The store gave up; all of it waits on.
            TakenOverError: Another program has this version.
        """
        with self._flushing:
            self._lease.renew()
            with self._lock:
                unsaved = list(self._unsaved)
            if unsaved:
                self._append(unsaved)
                with self._lock:
                    del self._unsaved[: len(unsaved)]
                    self._unsaved_since = self._clock() if self._unsaved else None
            with self._lock:
                revision = self.version.revision
                if revision == self._written or self._unsaved:
                    return
                waiting, overview = self.version.tiles.snapshot()
                state = self.version.state(overview)
            self.version.tiles.write(waiting, overview)
            with recording() as ledger:
                (self.version.folder / STATE).write_bytes(state)
            make_durable(ledger)
            self._written = revision

    def _keep_flushing(self) -> None:
        while not self._ended.wait(FLUSH_S):
            try:
                self.flush()
                self.trouble = ""
            except TakenOverError as error:
                self._lost = error
                return
            except InkbatchError as error:
                self.trouble = str(error)

    def branch(self, author: str, surface: str | None = None) -> str:
        """Make a new version that starts with what this one holds now; return its name. See `create_version`."""
        with self._lock:
            return branch(self.version, author, surface).name

    def close(self) -> None:
        """Store what waits and give the version back."""
        self._ended.set()
        self._thread.join()
        if self._lost is None:
            self.flush()
            with contextlib.suppress(InkbatchError):
                self._lease.release()

    def see(self, tab: str, author: str, revision: int | None = None) -> tuple[list[dict[str, object]], list[Tile]]:
        """Note that a tab is there.

        Args:
            tab: The tab.
            author: Who paints there.
            revision: Newest revision that it shows; None: the one that it was told last.

        Returns:
            The tabs that are there, and the tiles that others changed since that revision.
        """
        with self._lock:
            now = self._clock()
            known = self._seen.get(tab)
            since = revision if revision is not None else known.revision if known else self.version.revision
            changed = self.version.changed_since(since, tab)
            if changed is None:
                changed = frozenset(self.version.tiles.marked_tiles())
            self._seen[tab] = _Seen(author, now, self.version.revision)
            for old in [key for key, seen in self._seen.items() if now - seen.at > TAB_LIVES_S]:
                del self._seen[old]
            return self.others(), sorted(changed)

    def others(self, than: str = "") -> list[dict[str, object]]:
        """List the tabs that are there, but one."""
        now = self._clock()
        with self._lock:
            return [
                {"tab": tab, "author": seen.author, "seen_s": round(now - seen.at, 1)}
                for tab, seen in self._seen.items()
                if tab != than and now - seen.at <= TAB_LIVES_S
            ]


def _changes(strokes: Iterable[Marks], read: Callable[[Tile], Codes]) -> list[Change]:
    """Paint strokes onto copies of tiles; list the tiles that differ afterwards, in order of their places."""
    done: dict[Tile, tuple[bytes, bytes]] = {}
    for marks in strokes:
        for tile, place, mask in marks.tiles():
            if tile in done:
                before = unpacked(done[tile][0])
                codes = before ^ unpacked(done[tile][1])
            else:
                before = read(tile)
                codes = before.copy()
            paint(codes[place], mask, marks.layer, erase=marks.erase)
            done[tile] = packed(before), packed(before ^ codes)
    return [Change(tile, *done[tile]) for tile in sorted(done) if done[tile][1]]

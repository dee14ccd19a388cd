"""Label versions ``ROOT/labels/{segment}/v003``: made, opened, listed, branched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from inkbatch import __version__
from inkbatch.data.labels.painting import LAYERS, Codes, LayerName, Tile, count_marks
from inkbatch.data.labels.painting_journal import Journal, Record, framed, frames
from inkbatch.data.labels.painting_packing import packed, unpacked
from inkbatch.data.labels.painting_tiles import PaintedTiles
from inkbatch.errors import ConfigError, CorruptDataError, DataError, MismatchError
from inkbatch.io.store.ledger import make_durable, recording
from inkbatch.io.store.location import Location

FACTS, CLAIM = "version.json", "claim.json"
STATE = "journal/state"
NAME = re.compile(r"v[0-9]{3,6}")
STATED: Mapping[str, type | tuple[type, ...]] = {
    "segment": str,
    "voxel_size_um": (int, float),
    "author": str,
    "time": str,
    "started_from": str,
}
KEPT_TABS = 64
LONGEST_AUTHOR = 80
AUTHOR = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*$"  # one line in its own order: lists print it
KEPT_CHANGES = 256
STORED_AT_ONCE = 1024  # tiles of a new version that wait in memory


@dataclass
class TabState:
    """State of one tab of a browser.

    Attributes:
        seq: Its last number.
        digests: Digest and revision by number, of its last strokes.
        undo: Revision that it would undo next; 0: none.
        redo: Revision that it would redo next; 0: none.
    """

    seq: int
    digests: dict[int, tuple[str, int]] = field(default_factory=dict)
    undo: int = 0
    redo: int = 0


@dataclass(frozen=True)
class Touched:
    """Tiles that a revision changed, and the tab that did it."""

    revision: int
    tab: str
    tiles: frozenset[Tile]


@dataclass
class PaintedVersion:
    """A label version, opened: what is stored, and strokes on top that wait to be written into the tiles.

    Attributes:
        folder: Its folder.
        facts: ``version.json``.
        tiles: Its tiles.
        journal: Its strokes.
        revision: Number of the newest stroke.
        counts: Pixels per layer.
        tabs: Tabs that painted, the last one at the end.
        changes: Tiles of the newest revisions.
        forgotten: Newest revision by tab that is no longer in `changes`.
    """

    folder: Location
    facts: Mapping[str, Any]
    tiles: PaintedTiles
    journal: Journal
    revision: int
    counts: dict[LayerName, int]
    tabs: dict[str, TabState]
    changes: list[Touched]
    forgotten: dict[str, int]

    @property
    def name(self) -> str:
        """Its name, for example ``v003``."""
        return self.folder.name

    @property
    def shape_yx(self) -> tuple[int, int]:
        """(height, width) of the segment."""
        return self.tiles.shape_yx

    @staticmethod
    def open(folder: Location) -> PaintedVersion:
        """Open a version; strokes that were not written into its tiles yet are laid over them.

        Raises:
            DataError: There is none.
            CorruptDataError: It is damaged.
        """
        return PaintedVersion.opened(folder, read_facts(folder))

    @staticmethod
    def opened(folder: Location, facts: Mapping[str, Any]) -> PaintedVersion:
        """Open a version whose facts are known; see `open`."""
        shape = tuple(facts["shape_yx"])
        state, body = read_state(folder)
        if body is None and any(facts.get("starts_with", {}).values()):
            raise CorruptDataError(
                f"{folder / STATE}: expected the labels that it starts with, got none; restore the file"
            )
        overview = unpacked(body, tuple(state["overview"])) if body is not None else None
        tabs = {
            tab: TabState(
                seq, {int(key): (digest, revision) for key, (digest, revision) in digests.items()}, undo, redo
            )
            for tab, (seq, digests, undo, redo) in state["tabs"].items()
        }
        changes = [Touched(revision, tab, frozenset(map(tuple, tiles))) for revision, tab, tiles in state["changes"]]
        tiles = PaintedTiles(folder, (shape[0], shape[1]), overview)
        journal = Journal(folder)
        found = PaintedVersion(
            folder, facts, tiles, journal, state["revision"], state["counts"], tabs, changes, state.get("forgotten", {})
        )
        for record in journal.after(found.revision):
            found.lay(record)
        return found

    def lay(self, record: Record) -> None:
        """Lay a stored stroke over the tiles."""
        for change in record.changes:
            before = unpacked(change.before)
            after = before ^ unpacked(change.flipped)
            self.tiles.put(change.tile, packed(after))
            old, new = count_marks(before), count_marks(after)
            for name in self.counts:
                self.counts[name] += new[name] - old[name]
        self.revision = record.revision
        tab = self.tabs.pop(record.tab, None) or TabState(0)
        tab.seq, tab.undo, tab.redo = record.seq, record.undo, record.redo
        tab.digests[record.seq] = record.digest, record.revision
        for old_seq in list(tab.digests)[:-KEPT_TABS]:
            del tab.digests[old_seq]
        self.tabs[record.tab] = tab
        for old_tab in list(self.tabs)[:-KEPT_TABS]:
            del self.tabs[old_tab]
        if record.changes:
            self.changes.append(Touched(record.revision, record.tab, frozenset(c.tile for c in record.changes)))
        for dropped in self.changes[:-KEPT_CHANGES]:
            self.forgotten[dropped.tab] = dropped.revision
        del self.changes[:-KEPT_CHANGES]

    def changed_since(self, revision: int, tab: str) -> frozenset[Tile] | None:
        """Return the tiles that other tabs changed after a revision; None where that is too long ago to know."""
        if any(last > revision for other, last in self.forgotten.items() if other != tab):
            return None
        parts = [row.tiles for row in self.changes if row.revision > revision and row.tab != tab]
        return frozenset().union(*parts)

    def state(self, overview: Codes) -> bytes:
        """Encode what the tiles hold once they are written, for the next opening."""
        facts = {
            "revision": self.revision,
            "counts": self.counts,
            "tabs": {tab: [state.seq, state.digests, state.undo, state.redo] for tab, state in self.tabs.items()},
            "changes": [[row.revision, row.tab, sorted(row.tiles)] for row in self.changes],
            "forgotten": self.forgotten,
            "overview": list(overview.shape),
        }
        return framed(facts, [packed(overview)])


def read_facts(folder: Location) -> Mapping[str, Any]:
    """Read ``version.json``.

    Raises:
        DataError: There is none.
        CorruptDataError: It lacks what every version states.
    """
    try:
        found = (folder / FACTS).read_mapping()
    except FileNotFoundError as error:
        raise DataError(f"{folder}: expected a label version, got no {FACTS} there; name one that exists") from error
    shape = found.get("shape_yx")
    if not (isinstance(shape, list) and len(shape) == 2 and all(isinstance(side, int) and side > 0 for side in shape)):
        raise CorruptDataError(f"{folder / FACTS}: expected shape_yx, a height and a width, got {shape!r}; restore it")
    for key, kind in STATED.items():
        value = found.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            name = "a number" if kind is not str else "a text"
            raise CorruptDataError(f"{folder / FACTS}: expected {key}, {name}, got {value!r}; restore it")
    return found


def read_state(folder: Location) -> tuple[dict[str, Any], bytes | None]:
    """Read what a version's tiles held when they were written last, and their packed overview; None of a new one."""
    place = folder / STATE
    try:
        found = list(frames(place.read_bytes(), place))
    except FileNotFoundError:
        return {"revision": 0, "counts": dict.fromkeys(LAYERS, 0), "tabs": {}, "changes": [], "forgotten": {}}, None
    if len(found) != 1:
        raise CorruptDataError(f"{place}: expected one state of the tiles, got {len(found)}; restore the file")
    return found[0]


def read_counts(folder: Location) -> Mapping[LayerName, int]:
    """Count the pixels per layer of a stored version, with strokes that no server wrote into its tiles yet."""
    state, _ = read_state(folder)
    if Journal(folder).last == state["revision"]:
        counts: Mapping[LayerName, int] = state["counts"]
        return counts
    return PaintedVersion.open(folder).counts


def labels_folder(root: str | Location, segment: str) -> Location:
    """Return the folder of a segment's label versions."""
    place = root if isinstance(root, Location) else Location.parse(root)
    return place / "labels" / segment


def version_names(folder: Location) -> list[str]:
    """List the versions in a segment's folder, oldest first."""
    names = [name for name in folder.names() if NAME.fullmatch(name)]
    return sorted((name for name in names if (folder / name / FACTS).exists()), key=lambda name: int(name[1:]))


def version_folder(folder: Location, name: str) -> Location:
    """Return the folder of a version.

    Raises:
        DataError: There is none of that name.
    """
    names = version_names(folder)
    if name not in names:
        raise DataError(
            f"{folder}: expected one of the label versions {', '.join(names) or '(none)'}, got {name!r}; name one of "
            "them"
        )
    return folder / name


def require_author(author: str) -> None:
    """Refuse a name that does not fit into a line.

    Raises:
        ConfigError: It is too long, or has a line break or another control character.
    """
    if len(author) > LONGEST_AUTHOR or not re.fullmatch(AUTHOR, author):
        raise ConfigError(f"author: expected one line of at most {LONGEST_AUTHOR} characters, got {author[:100]!r}")


def create_version(
    folder: Location,
    segment: str,
    shape_yx: tuple[int, int],
    voxel_size_um: float,
    *,
    author: str,
    started_from: str,
    parent: str | None = None,
    surface: str | None = None,
    tiles: Iterable[tuple[Tile, Codes]] = (),
    goes_on: bool = False,
) -> Location:
    """Make a version under the next free name; ``version.json`` is written last, so that a killed process leaves none.

    Args:
        folder: Folder of the segment's versions.
        segment: Segment id.
        shape_yx: (height, width) of the segment.
        voxel_size_um: Edge of a pixel.
        author: Who paints.
        started_from: What it starts with, for people.
        parent: Version that it comes from.
        surface: Content digest of the prepared segment; None where it is not known.
        tiles: Its first tiles, at revision 0.
        goes_on: Take the name of one that was begun from the same and killed; the tiles follow from `started_from`.

    Returns:
        Its folder.

    Raises:
        ConfigError: The author's name does not fit into a line.
    """
    require_author(author)
    facts = {
        "segment": segment,
        "shape_yx": list(shape_yx),
        "voxel_size_um": voxel_size_um,
        "author": author,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "parent": parent,
        "started_from": started_from,
        "surface": surface,
        "inkbatch": __version__,
    }
    names = version_names(folder)
    number = int(names[-1][1:]) + 1 if names else 1
    while True:
        place = folder / f"v{number:03d}"
        if (place / CLAIM).create_json({"time": facts["time"], "started_from": started_from}):
            break
        if goes_on and _was_begun(place, started_from):
            (place / STATE).delete()
            break
        number += 1
    facts = {"name": place.name, **facts}
    with recording() as ledger:
        PaintedTiles.create(place, shape_yx, voxel_size_um, {"segment": segment, "version": place.name})
        version = PaintedVersion.opened(place, facts)
        _fill(version, tiles)
    make_durable(ledger)
    with recording() as ledger:
        (place / FACTS).write_json({**facts, "starts_with": version.counts})
    make_durable(ledger)
    return place


def _was_begun(place: Location, started_from: str) -> bool:
    """Tell if a process that was killed began a version of the same here."""
    if (place / FACTS).exists():
        return False
    try:
        return bool((place / CLAIM).read_mapping().get("started_from") == started_from)
    except DataError:
        return False


def require_shape(facts: Mapping[str, Any], shape_yx: Sequence[int], place: Location) -> None:
    """Refuse a version of another surface.

    Raises:
        MismatchError: Its size is another one.
    """
    if list(facts["shape_yx"]) != list(shape_yx):
        raise MismatchError(
            f"{place}: expected labels of {tuple(shape_yx)} px (height, width) like the segment, got "
            f"{tuple(facts['shape_yx'])}; they were painted on another surface"
        )


def outdated(facts: Mapping[str, Any], surface: str | None) -> str:
    """Say that a segment was prepared again, with other content, since a version was begun; empty where it was not.

    Args:
        facts: The version's.
        surface: Content digest of the prepared segment as it is now; None where it is not known.
    """
    if surface is None or facts.get("surface") in (None, surface):
        return ""
    return (
        f"labels {facts['name']} of segment {facts['segment']} were begun before the segment was prepared again, with "
        "other content: check that they still lie on its letters; a new version from them is of the new surface"
    )


def _fill(version: PaintedVersion, tiles: Iterable[tuple[Tile, Codes]]) -> None:
    for tile, codes in tiles:
        version.tiles.put(tile, packed(codes))
        for name, count in count_marks(codes).items():
            version.counts[name] += count
        if version.tiles.waiting >= STORED_AT_ONCE:
            version.tiles.write(*version.tiles.snapshot())
    waiting, overview = version.tiles.snapshot()
    version.tiles.write(waiting, overview)
    (version.folder / STATE).write_bytes(version.state(overview))


def branch(source: PaintedVersion, author: str, surface: str | None = None) -> Location:
    """Make a new version that starts with what another one holds now; return its folder. See `create_version`."""
    facts, tiles = source.facts, source.tiles
    at = f"{source.name} at stroke {source.revision}"
    return create_version(
        source.folder.parent,
        facts["segment"],
        source.shape_yx,
        facts["voxel_size_um"],
        author=author,
        started_from=at,
        parent=source.name,
        surface=surface,
        tiles=((tile, tiles.read_tile(tile)) for tile in tiles.marked_tiles()),
    )

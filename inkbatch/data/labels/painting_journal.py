"""Journal of a label version: each stroke whole, with the tiles as they were before, in objects that are only added.

A stroke counts from the moment its record is stored. Records carry what undoes them (tiles before, and which bits
flipped), so that undo needs no memory and a stroke that was not yet written into the tiles is written after a crash.
Record N is created under its number, never replaced: of two servers on one version only one can store it.
"""

from __future__ import annotations

import json
import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inkbatch.data.labels.painting import Tile
from inkbatch.documents import parse_json
from inkbatch.errors import CorruptDataError, DataError
from inkbatch.io.store.ledger import whole_checksum
from inkbatch.io.store.location import Location

_FRAME = struct.Struct("<4sII8s")  # magic, bytes of the header, bytes of the body, checksum of both
_MAGIC = b"ibp1"
ENDING = ".strokes"


class TakenOverError(DataError):
    """Another server has written to this version since."""


@dataclass(frozen=True)
class Change:
    """Change of one tile.

    Attributes:
        tile: The tile.
        before: Its packed codes before.
        flipped: Packed bits that the stroke flipped.
    """

    tile: Tile
    before: bytes
    flipped: bytes


@dataclass(frozen=True)
class Record:
    """One stroke as it is kept.

    Attributes:
        revision: Its number, from 1 without gaps.
        tab: Tab of the browser that sent it.
        seq: The tab's number for it.
        digest: Digest of what the tab sent.
        kind: Kind of stroke, ``undo`` or ``redo``.
        of: Revision that an undo or redo carries over; 0 for others.
        below: What the tab undoes next once this is undone; of an undo: redoes next once it is redone. 0: nothing.
        undo: What the tab would undo next, after this.
        redo: What the tab would redo next, after this.
        changes: Tiles that changed.
    """

    revision: int
    tab: str
    seq: int
    digest: str
    kind: str
    of: int = 0
    below: int = 0
    undo: int = 0
    redo: int = 0
    changes: Sequence[Change] = field(default=())

    def encode(self) -> bytes:
        """Encode the record with its checksum."""
        facts = {key: value for key, value in vars(self).items() if key != "changes"}
        facts["tiles"] = [[*change.tile, len(change.before), len(change.flipped)] for change in self.changes]
        return framed(facts, [part for change in self.changes for part in (change.before, change.flipped)])

    @staticmethod
    def decode(facts: Mapping[str, Any], body: bytes) -> Record:
        """Undo `encode`."""
        changes, start = [], 0
        for y, x, *lengths in facts["tiles"]:
            parts = []
            for length in lengths:
                parts.append(body[start : start + length])
                start += length
            changes.append(Change((y, x), *parts))
        return Record(**{key: value for key, value in facts.items() if key != "tiles"}, changes=tuple(changes))


def framed(facts: Mapping[str, Any], parts: Sequence[bytes]) -> bytes:
    """Join facts and bytes into one checksummed frame."""
    head = json.dumps(facts, separators=(",", ":"), ensure_ascii=False).encode()
    content = b"".join([head, *parts])
    return _FRAME.pack(_MAGIC, len(head), len(content) - len(head), _sum(content)) + content


def frames(data: bytes, place: object) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Cut frames apart: facts and bytes of each.

    Raises:
        CorruptDataError: A checksum fails, the end is missing, or lengths do not fit the facts.
    """
    start = 0
    while start < len(data):
        damaged = CorruptDataError(f"{place}: expected whole strokes, got damaged bytes from {start}; restore the file")
        if len(data) - start < _FRAME.size:
            raise damaged
        magic, head, body, checksum = _FRAME.unpack_from(data, start)
        content = data[start + _FRAME.size : start + _FRAME.size + head + body]
        if magic != _MAGIC or len(content) != head + body or _sum(content) != checksum:
            raise damaged
        yield parse_json(content[:head], f"{place}: facts of a stroke", CorruptDataError), content[head:]
        start += _FRAME.size + head + body


def _sum(content: bytes) -> bytes:
    return whole_checksum(content)[-8:].encode()


class Journal:
    """Records of one version in ``journal/``, in objects that are named by their first record.

    Args:
        folder: The version's folder.

    Attributes:
        last: Revision of the newest stored record; 0: none.
    """

    def __init__(self, folder: Location) -> None:
        self.folder = folder / "journal"
        names = [name.removesuffix(ENDING) for name in self.folder.names() if name.endswith(ENDING)]
        self._firsts = sorted(int(name) for name in names if name.isdecimal())
        self.last = max((record.revision for record in self._records(len(self._firsts) - 1)), default=0)

    def append(self, records: Sequence[Record]) -> None:
        """Store records that follow the last one, as one object, durably.

        Raises:
            TakenOverError: Another server stored one of that number.
            StorageError: The store gave up; nothing is stored.
        """
        first = records[0].revision
        if first != self.last + 1:
            raise ValueError(f"{self.folder}: record {first} does not follow {self.last}")
        place, data = self._place(first), b"".join(record.encode() for record in records)
        if not place.create_bytes(data) and place.read_bytes() != data:  # a put whose answer was lost is ours
            raise TakenOverError(
                f"{self.folder.parent}: expected to be the only program that paints here, got strokes of another one; "
                "load the page again"
            )
        self._firsts.append(first)
        self.last = records[-1].revision

    def _place(self, first: int) -> Location:
        return self.folder / f"{first:08d}{ENDING}"

    def read(self, revision: int) -> Record:
        """Read a record.

        Raises:
            CorruptDataError: It is damaged or missing.
        """
        for record in self._records(bisect_right(self._firsts, revision) - 1):
            if record.revision == revision:
                return record
        raise CorruptDataError(f"{self.folder}: expected stroke {revision}, got none; restore the folder")

    def after(self, revision: int) -> Iterator[Record]:
        """Read all records after one, in order.

        Raises:
            CorruptDataError: One is damaged or missing.
        """
        last = revision
        for number in range(max(0, bisect_right(self._firsts, revision) - 1), len(self._firsts)):
            for record in self._records(number):
                if record.revision > revision:
                    self._require_next(record.revision, last)
                    last = record.revision
                    yield record
        if self.last < revision:  # a state of the tiles is written after the strokes in it
            self._require_next(self.last, revision)

    def _require_next(self, found: int, last: int) -> None:
        if found != last + 1:
            raise CorruptDataError(
                f"{self.folder}: expected strokes without gaps, got {found} beside {last}; restore the folder"
            )

    def _records(self, number: int) -> Iterator[Record]:
        if number < 0:
            return
        place = self._place(self._firsts[number])
        data = place.read_bytes()
        if not data:
            raise CorruptDataError(f"{place}: expected strokes, got an empty file; restore the file")
        for facts, body in frames(data, place):
            yield Record.decode(facts, body)

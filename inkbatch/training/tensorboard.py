"""TensorBoard's event files: whole objects through storage, without a writer thread and without a dependency.

An event file is a row of records: length (little-endian uint64), its masked crc32c, the message, its masked crc32c.
A message is an ``Event`` of TensorBoard's protocol buffers, of which scalars and pictures need a dozen fields; they are
encoded here by the wire format (a field is its number and kind, then a varint, eight bytes, four bytes, or a length and
as many bytes). Each flush makes one file, named by the first step in it: TensorBoard reads the files of a folder in the
order of their names.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import google_crc32c

from inkbatch.io.store.location import Location

FILE_VERSION = b"brain.Event:2"
PREFIX, SUFFIX = "events.out.tfevents.", ".inkbatch"
VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5  # kinds of fields
RGB = 3
PNG_SIZE = slice(16, 24)  # width and height in a PNG's header


@dataclass
class TensorBoardLog:
    """Log that writes curves and pictures of one run into a folder.

    Attributes:
        folder: Folder of event files.
        clock: Gives the seconds that TensorBoard shows.
    """

    folder: Location
    clock: Callable[[], float] = time.time
    name: str = "TensorBoard"
    _events: list[bytes] = field(default_factory=list)
    _first_step: int = 0

    def start(self, step: int) -> None:
        """Remove what a process that died had written from this step on: it comes again."""
        for name in self.folder.names():
            number = name.removeprefix(PREFIX).removesuffix(SUFFIX)
            if name.startswith(PREFIX) and name.endswith(SUFFIX) and number.isdecimal() and int(number) >= step:
                (self.folder / name).delete()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add values under their tags."""
        self._add(step, b"".join(_scalar(tag, value) for tag, value in values.items()))

    def picture(self, step: int, tag: str, png: bytes) -> None:
        """Add a PNG."""
        self._add(step, _picture(tag, png))

    def flush(self) -> None:
        """Store what was added since the last flush."""
        if self._events:
            head = _bytes_field(3, FILE_VERSION)
            messages = [_double_field(1, self.clock()) + head, *self._events]
            place = self.folder / f"{PREFIX}{self._first_step:010d}{SUFFIX}"
            place.write_bytes(b"".join(_record(message) for message in messages))
            self._events.clear()

    def close(self, ended: str) -> None:
        """Store what is left."""
        self.flush()

    def _add(self, step: int, summary: bytes) -> None:
        if not self._events:
            self._first_step = step
        self._events.append(_double_field(1, self.clock()) + _varint_field(2, step) + _bytes_field(5, summary))


def _scalar(tag: str, value: float) -> bytes:
    """Encode a ``Summary.Value`` inside its ``Summary``."""
    return _bytes_field(1, _bytes_field(1, tag.encode()) + _key(2, FOUR_BYTES) + struct.pack("<f", value))


def _picture(tag: str, png: bytes) -> bytes:
    width, height = struct.unpack(">II", png[PNG_SIZE])
    sizes = _varint_field(1, height) + _varint_field(2, width) + _varint_field(3, RGB)
    return _bytes_field(1, _bytes_field(1, tag.encode()) + _bytes_field(4, sizes + _bytes_field(4, png)))


def _record(message: bytes) -> bytes:
    length = struct.pack("<Q", len(message))
    return length + _masked_crc(length) + message + _masked_crc(message)


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint_field(number: int, value: int) -> bytes:
    return _key(number, VARINT) + _varint(value)


def _double_field(number: int, value: float) -> bytes:
    return _key(number, EIGHT_BYTES) + struct.pack("<d", value)


def _bytes_field(number: int, data: bytes) -> bytes:
    return _key(number, LENGTH) + _varint(len(data)) + data

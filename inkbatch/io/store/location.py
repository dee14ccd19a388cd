"""Object access through fsspec: one `Location` for local folders, ``s3://``, ``http(s)://`` and ``memory://``.

Writes are atomic: on a local disk a temporary name, then a rename; on object stores a put is atomic by itself. A killed
process never leaves half an object. A unit's objects are on the disk before its marker (`io.store.ledger`).
Passing faults are retried (`io.store.retrying`); what still fails is a `StorageError` (exit 75). Other faults are told
apart in `io.store.faults`: what is missing is a `FileNotFoundError` and a `DataError`, what is forbidden a
`ConfigError`.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from inkbatch.documents import Document, parse_json
from inkbatch.errors import ConfigError, CorruptDataError, DataError, StorageError
from inkbatch.io.store.address import checked_uri
from inkbatch.io.store.clients import S3_PROTOCOLS, filesystem
from inkbatch.io.store.faults import ForeignAnswerError, OtherBytesError, WrongKindError, s3_code
from inkbatch.io.store.ledger import RunningChecksum, note, note_bytes, note_parts, unrecorded
from inkbatch.io.store.local_files import create_atomically, local_sizes, write_atomically
from inkbatch.io.store.meter import READ, WRITTEN
from inkbatch.io.store.ranges import read_ranges
from inkbatch.io.store.retrying import READINGS, retried

EQUAL_READINGS = 3  # are believed where a store's entity tags are no digests


@dataclass(frozen=True)
class Location:
    """A place that fsspec understands; a folder or an object, told apart by use.

    Attributes:
        uri: ``s3://bucket/key``, ``https://…``, ``memory://…`` or a local path; no trailing slash, no credentials.
    """

    uri: str

    @staticmethod
    def parse(text: str | os.PathLike[str]) -> Location:
        """Make a location from a user's text; a local path becomes absolute.

        Raises:
            ConfigError: Empty text, or credentials inside the URI (they would end up in logs and manifests).
        """
        return Location(checked_uri(os.fspath(text)))

    @property
    def protocol(self) -> str:
        """Name of the kind of store: ``file``, ``s3``, ``https``, ``memory``."""
        return self.uri.split("://", 1)[0] if "://" in self.uri else "file"

    @property
    def is_local(self) -> bool:
        """True for a path on a local disk."""
        return self.protocol == "file"

    @property
    def fs(self) -> AbstractFileSystem:
        """The fsspec file system that serves this location; a new one after a fork or a change of the environment."""
        return filesystem(self.protocol)

    @property
    def path(self) -> str:
        """The path in the file system's own form."""
        return self.uri if self.is_local else str(self.fs._strip_protocol(self.uri))

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.uri.rsplit("/", 1)[-1]

    @property
    def parent(self) -> Location:
        """The folder that holds this location; the root is its own parent."""
        if self.is_local:
            return Location(os.path.dirname(self.uri))
        protocol, rest = self.uri.split("://", 1)
        return Location(f"{protocol}://{rest.rpartition('/')[0]}") if rest.strip("/").count("/") else self

    def __truediv__(self, relative: str) -> Location:
        """Join a relative path; it must not leave this location."""
        parts = [part for part in relative.split("/") if part not in ("", ".")]
        if ".." in parts or relative.startswith("/"):
            raise ConfigError(f"storage: {relative!r} would leave {self.uri}")
        return Location("/".join([self.uri.rstrip("/"), *parts]))

    def __str__(self) -> str:
        return self.uri

    def exists(self) -> bool:
        """Tell whether an object or folder is there."""
        return bool(retried(self.uri, lambda: self.fs.exists(self.path)))

    def is_folder(self) -> bool:
        """Tell whether this is a folder (on object stores: a prefix of keys)."""
        return bool(retried(self.uri, lambda: self.fs.isdir(self.path)))

    def size(self) -> int:
        """Return the bytes of the object.

        Raises:
            FileNotFoundError: It is not there.
            DataError: It is a folder, or a web server does not state its size.
        """
        info = retried(self.uri, lambda: self.fs.info(self.path))
        if info["type"] == "directory":
            raise WrongKindError(f"{self.uri}: expected a file, got a folder; name the file")
        if info["size"] is None:
            raise DataError(
                f"{self.uri}: the server does not state the size of the file; copy it to a local folder first"
            )
        return int(info["size"])

    def names(self) -> list[str]:
        """List the names of the entries in this folder, sorted; none where the folder is not there."""
        if self.is_local:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                return sorted(retried(self.uri, lambda: os.listdir(self.path)))
            return []
        return sorted({name for name, _ in self._listed()})

    def sizes(self) -> dict[str, int | None]:
        """Return the bytes of each object directly in this folder by name, from one listing; None where unknown."""
        if self.is_local:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                return retried(self.uri, lambda: local_sizes(self.path))
            return {}
        return {name: entry.get("size") for name, entry in self._listed() if entry["type"] != "directory"}

    def _listed(self) -> list[tuple[str, dict[str, Any]]]:
        """List name and fsspec's description of each entry directly in this remote folder.

        Left out: the folder's own marker object, the object itself where this is no folder, and links of a web page
        that lead elsewhere or only sort its table.
        """
        try:
            found = retried(self.uri, lambda: self.fs.ls(self.path, detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return []
        prefix = f"{self.path.rstrip('/')}/"
        listed = []
        for entry in found:
            path = str(entry["name"])
            name = path.removeprefix(prefix).removeprefix("./").rstrip("/")
            web_page_control = self.protocol in ("http", "https") and ("?" in name or "#" in name)
            if path.startswith(prefix) and name not in ("", "..") and "/" not in name and not web_page_control:
                listed.append((name, entry))
        return listed

    def read_bytes(self, *, carries_checksum: bool = False) -> bytes:
        """Read the whole object. On S3 its bytes are compared with the digest that the store states.

        Args:
            carries_checksum: The caller compares a checksum of its own, and reads again what fails.

        Raises:
            FileNotFoundError: It is not there.
            StorageError: The bytes change on the way.
        """
        if self.protocol in S3_PROTOCOLS and not carries_checksum:
            data = self._read_compared()
        else:
            data = bytes(retried(self.uri, lambda: self.fs.cat_file(self.path)))
        READ.add(len(data))
        return data

    def _read_compared(self) -> bytes:
        """Read a whole object of S3, again where its MD5 is another than the store states.

        Tags of some stores are something else: three equal readings are believed, but never in a bucket in which a tag
        was an MD5, for whatever damages a body may do so in the same way each time.
        """
        seen: list[bytes] = []
        for _ in range(READINGS):
            data, as_stated = retried(self.uri, lambda: self.fs.cat_compared(self.path))
            if as_stated is not False:
                return bytes(data)
            seen.append(bytes(data))
            if len(seen) == EQUAL_READINGS and len(set(seen)) == 1 and not self.fs.states_digests(self.path):
                return seen[0]
        raise StorageError(
            f"{self.uri}: was read {READINGS} times, and its bytes were never those whose digest the store states; "
            "check the connection, then run the same command again"
        )

    def read_range(self, start: int, stop: int) -> bytes:
        """Read bytes ``[start, stop)`` of the object.

        Raises:
            CorruptDataError: The object is shorter than that.
        """
        return read_ranges([(self, start, stop)])[0]

    def write_bytes(self, data: bytes | bytearray | memoryview) -> None:
        """Write the object as a whole; readers see the old one or the new one, never a part."""
        if self.is_local:
            retried(self.uri, lambda: write_atomically(self.path, [data]))
        else:
            retried(self.uri, lambda: self._put(bytes(data)))
        WRITTEN.add(memoryview(data).nbytes)
        note_bytes(self.uri, data)

    def _put(self, data: bytes) -> None:
        self.fs.pipe_file(self.path, data)
        if self.protocol not in S3_PROTOCOLS and self.fs.info(self.path)["size"] != len(data):
            raise ForeignAnswerError(f"a put of {len(data)} bytes left an object of another size")

    def create_bytes(self, data: bytes) -> bool:
        """Write the object unless it is there; of several processes that try at once one succeeds.

        Local disks decide by themselves, S3 by a conditional put. A store that knows neither is asked before and read
        after: two processes may then both succeed for a moment, and must read again before they trust it.

        Returns:
            False if another object is there.
        """
        if self.is_local:
            return retried(self.uri, lambda: create_atomically(self.path, data))
        if self.exists():
            return False
        if self.protocol in S3_PROTOCOLS:
            created = self._put_if_absent(data)
            if created is not None:
                return created and self.read_bytes() == data
        with unrecorded():
            self.write_bytes(data)
        return self.read_bytes() == data

    def _put_if_absent(self, data: bytes) -> bool | None:
        """Put by S3's condition; None where the store does not know it."""

        def put() -> bool | None:
            try:
                self.fs.pipe_file(self.path, data, mode="create")
            except OtherBytesError:
                self._put(data)  # this process created it; its condition would not hold again
            except Exception as error:
                if isinstance(error, FileExistsError) or s3_code(error) in ("PreconditionFailed", "412"):
                    return False
                if s3_code(error) in ("NotImplemented", "501", "InvalidArgument", "InvalidRequest"):
                    return None
                raise
            return True

        return retried(self.uri, put)

    def write_parts(self, parts: Sequence[bytes | memoryview]) -> None:
        """Write the object from consecutive parts, without joining them first where the store allows it."""
        if self.is_local:
            retried(self.uri, lambda: write_atomically(self.path, parts))
            WRITTEN.add(sum(memoryview(part).nbytes for part in parts))
            note_parts(self.uri, parts)
        else:
            self.write_bytes(b"".join(parts))

    def write_stream(self, parts: Callable[[], Iterable[bytes]]) -> int:
        """Write the object part by part, so that a local disk never has it whole in memory; returns its bytes.

        Args:
            parts: Makes the parts, again for every try.
        """
        if not self.is_local:
            data = b"".join(parts())
            self.write_bytes(data)
            return len(data)
        sums = RunningChecksum()

        def write() -> None:
            sums.start()
            write_atomically(self.path, (sums.seen(part) for part in parts()))

        retried(self.uri, write)
        WRITTEN.add(sums.bytes)
        note(self.uri, sums.bytes, sums.checksum)
        return sums.bytes

    def read_json(self) -> Any:
        """Read the object and parse it as JSON; what a network brought damaged is read once more.

        Raises:
            CorruptDataError: It is not JSON; see `documents.parse_json`.
        """
        try:
            return parse_json(self.read_bytes(), self.uri, CorruptDataError)
        except CorruptDataError:
            if self.is_local:
                raise
        return parse_json(self.read_bytes(), self.uri, CorruptDataError)

    def read_mapping(self) -> Document:
        """Read the object, a JSON mapping. A key that is asked for and missing is a `CorruptDataError`, too.

        Raises:
            CorruptDataError: It is not JSON, or no mapping.
        """
        found = self.read_json()
        if not isinstance(found, dict):
            kind = type(found).__name__
            raise CorruptDataError(f"{self.uri}: expected a mapping, got a {kind}; it was damaged or is another file")
        return Document(found, self.uri)

    def find_mapping(self) -> dict[str, Any] | None:
        """Read the object, a JSON mapping; None if there is no object, or something else in it.

        Raises:
            CorruptDataError: It is not JSON.
        """
        try:
            found = self.read_json()
        except FileNotFoundError:
            return None
        return found if isinstance(found, dict) else None

    def write_json(self, value: Any) -> None:
        """Write `value` as JSON with sorted keys, so that equal values are equal bytes."""
        self.write_bytes(_json_bytes(value))

    def create_json(self, value: Any) -> bool:
        """Write `value` as `write_json` does, unless an object is there; see `create_bytes`."""
        return self.create_bytes(_json_bytes(value))

    def delete(self) -> None:
        """Remove the object, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            retried(self.uri, lambda: self.fs.rm_file(self.path))

    def delete_folder(self) -> None:
        """Remove the folder with all that is in it, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            if not isinstance(self.fs, AsyncFileSystem):
                retried(self.uri, lambda: self.fs.rm(self.path, recursive=True))
                return
            # fsspec's recursive rm would also ask for keys named like the folders, which are not objects of ours.
            found = [
                key for key in retried(self.uri, lambda: self.fs.find(self.path)) if key.startswith(f"{self.path}/")
            ]
            if found:
                retried(self.uri, lambda: self.fs.rm(found))


def _json_bytes(value: Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"

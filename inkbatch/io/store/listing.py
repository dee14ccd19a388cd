"""Everything that is stored below a folder, from one listing: paths, sizes, and what tells one version from another."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from inkbatch.io.store.location import Location
from inkbatch.io.store.retrying import retried

_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class StoredObject:
    """One object below a folder.

    Attributes:
        path: Relative to the folder.
        bytes: Size.
        version: Changes when the object does: an entity tag or a time stamp; empty where the store gives none.
        md5: Digest of the content where the store states one (S3, objects that were put in one piece), else None.
    """

    path: str
    bytes: int
    version: str
    md5: str | None = None


def objects_below(folder: Location) -> list[StoredObject]:
    """List all objects below `folder`, sorted by path; none where it is not there."""
    try:
        found = retried(folder.uri, lambda: folder.fs.find(folder.path, detail=True))
    except FileNotFoundError:
        return []
    prefix = f"{folder.path.rstrip('/')}/"
    rows = []
    for key, entry in found.items():
        if key.startswith(prefix) and entry["type"] != "directory" and not key.endswith("/"):
            rows.append(_row(key.removeprefix(prefix), entry, folder.protocol))
    return sorted(rows, key=lambda row: row.path)


def stored_object(folder: Location, path: str) -> StoredObject:
    """Ask for one object below `folder` by its name, for where a listing lags behind.

    Raises:
        FileNotFoundError: It is not there.
    """
    place = folder / path
    return _row(path, retried(place.uri, lambda: place.fs.info(place.path)), folder.protocol)


def _row(path: str, entry: dict[str, Any], protocol: str) -> StoredObject:
    tag = str(entry.get("ETag") or "").strip('"')
    encrypted_otherwise = entry.get("ServerSideEncryption") == "aws:kms"
    md5 = tag if protocol == "s3" and _MD5.fullmatch(tag) and not encrypted_otherwise else None
    version = tag or str(entry.get("mtime") or entry.get("LastModified") or entry.get("created") or "")
    return StoredObject(path, int(entry["size"] or 0), version, md5)

"""Local disks without detours: listing, ranges, and writes that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Sequence


def write_atomically(path: str, parts: Sequence[bytes | bytearray | memoryview]) -> None:
    """Write a file from consecutive parts under a temporary name, then rename it; makes folders that are missing."""
    temporary = f"{path}.{os.getpid()}.{uuid.uuid4().hex[:8]}.partial"
    try:
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            for part in parts:
                view = memoryview(part).cast("B")
                while view:
                    view = view[os.write(handle, view) :]
        finally:
            os.close(handle)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def read_local(path: str, start: int, stop: int) -> bytes:
    """Bytes ``[start, stop)``; fewer where the file ends before. The kernel hands out at most 2 GiB at once."""
    parts = []
    handle = os.open(path, os.O_RDONLY)
    try:
        while start < stop:
            part = os.pread(handle, stop - start, start)
            if not part:
                break
            parts.append(part)
            start += len(part)
    finally:
        os.close(handle)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def local_sizes(folder: str) -> dict[str, int | None]:
    """Bytes by name; a file that vanishes while we look (another process's temporary name) is left out."""
    sizes: dict[str, int | None] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.is_file():
                    sizes[entry.name] = entry.stat().st_size
    return sizes

"""Local disks without detours: listing, ranges, and writes that are whole or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
import uuid
from collections.abc import Iterable

LEFTOVER_AGE_S = 3600.0  # no single object takes longer to write
TEMPORARY = re.compile(r"\.\d+\.[0-9a-f]{8}\.partial$")


class NewFile:
    """A file that appears when it is whole; makes folders that are missing.

    Where the file system can (ext4, XFS, tmpfs; not NFS) it has no name until then, so that a process that is killed
    leaves nothing behind. Elsewhere it has a temporary one beside it, ending in ``.partial``.

    Args:
        path: Its place; what lies there is replaced when the new file is whole.
        disks: Tells if the file system can.
    """

    def __init__(self, path: str, disks: Disks | None = None) -> None:
        self._path, self._disks = path, disks or DISKS
        self._temporary = _temporary_name(path)
        self._named_in = [os.path.dirname(path) or "."]  # folders that hold a name which is new
        try:
            self._open()
        except FileNotFoundError:
            self._named_in = _missing_and_parent(self._named_in[0])
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self._open()

    def _open(self) -> None:
        folder = os.path.dirname(self._path) or "."
        self._nameless = self._disks.hold_nameless(folder)
        self.handle = _nameless(folder) if self._nameless else _named(self._temporary)

    def write(self, part: memoryview) -> None:
        """Add bytes at the end."""
        view = part.cast("B")
        while view:
            view = view[os.write(self.handle, view) :]

    def publish(self) -> None:
        """Give the file its name; it is whole."""
        if self._nameless:
            try:
                _give_name(self.handle, self._path)
                self._close()
                return
            except FileExistsError:
                _give_name(self.handle, self._temporary)
                self._nameless = False
        self._close()
        os.replace(self._temporary, self._path)

    def publish_new(self) -> bool:
        """Give the file its name unless another file has it; content, name and new folders are on the disk then.

        Returns:
            False if another one has it; this one leaves no trace.
        """
        os.fsync(self.handle)
        try:
            if self._nameless:
                _give_name(self.handle, self._path)
            else:
                os.link(self._temporary, self._path)
        except FileExistsError:
            return False
        finally:
            self.abandon()
        for folder in self._named_in:
            force(folder)
        return True

    def abandon(self) -> None:
        """Leave no trace; also after a failed `publish`."""
        self._close()
        if not self._nameless:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)

    def _close(self) -> None:
        handle, self.handle = self.handle, -1
        if handle >= 0:
            os.close(handle)


def write_atomically(path: str, parts: Iterable[bytes | bytearray | memoryview], disks: Disks | None = None) -> None:
    """Write a whole file from consecutive parts, or none; makes folders that are missing; `disks` as of `NewFile`."""
    new = NewFile(path, disks)
    try:
        for part in parts:
            new.write(memoryview(part))
        new.publish()
    except BaseException:
        new.abandon()
        raise


def remove_leftovers(folder: str, older_than_s: float = LEFTOVER_AGE_S) -> int:
    """Remove temporary files below a folder that a process left when it was killed.

    Args:
        folder: The folder.
        older_than_s: Age from which a file is a leftover; younger ones another process may be writing.

    Returns:
        Files removed.
    """
    removed, before = 0, time.time() - older_than_s
    for place, _, names in os.walk(folder):
        for name in names:
            if not TEMPORARY.search(name):
                continue
            with contextlib.suppress(OSError):
                path = os.path.join(place, name)
                if os.stat(path).st_mtime < before:
                    os.unlink(path)
                    removed += 1
    return removed


def create_atomically(path: str, data: bytes) -> bool:
    """Write a whole file unless one is there; makes folders that are missing.

    Returns:
        False if a file is there: it stays as it is.
    """
    new = NewFile(path)
    try:
        new.write(memoryview(data))
        return new.publish_new()
    except BaseException:
        new.abandon()
        raise


def force(path: str) -> None:
    """Force a file's content, or the names in a folder, onto the disk; what has vanished is passed over."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems do so for folders
            raise
    finally:
        os.close(handle)


def _missing_and_parent(folder: str) -> list[str]:
    """List a folder and those above it that are not there, and the first one that is."""
    found = [folder]
    while not os.path.isdir(found[-1]) and os.path.dirname(found[-1]) != found[-1]:
        found.append(os.path.dirname(found[-1]) or ".")
    return found


def _temporary_name(path: str) -> str:
    return f"{path}.{os.getpid()}.{uuid.uuid4().hex[:8]}.partial"


def _named(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)


def _nameless(folder: str) -> int:
    return os.open(folder, os.O_WRONLY | os.O_TMPFILE, 0o644)


def _give_name(handle: int, path: str) -> None:
    # Only with a folder's handle does Python follow the link to the open file; with an absolute path it plays no part.
    os.link(f"/proc/self/fd/{handle}", path, src_dir_fd=handle, follow_symlinks=True)


class Disks:
    """Memory of the disks on which a file can get its name later; each is tried once, as many support half of it."""

    def __init__(self) -> None:
        self._known: dict[int, bool] = {}

    def hold_nameless(self, folder: str) -> bool:
        """Tell if files in a folder can get their name later."""
        device = os.stat(folder).st_dev
        if device not in self._known:
            self._known[device] = hasattr(os, "O_TMPFILE") and _try_nameless(folder)
        return self._known[device]


DISKS = Disks()


def _try_nameless(folder: str) -> bool:
    name = _temporary_name(os.path.join(folder, "test"))
    try:
        handle = _nameless(folder)
    except OSError:
        return False
    try:
        _give_name(handle, name)
        os.unlink(name)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def read_local(path: str, start: int, stop: int) -> bytes:
    """Read bytes ``[start, stop)``, fewer where the file ends before; the kernel gives at most 2 GiB at once."""
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
    """Return bytes by name, without files that vanish meanwhile (temporary names of other processes)."""
    sizes: dict[str, int | None] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.is_file():
                    sizes[entry.name] = entry.stat().st_size
    return sizes

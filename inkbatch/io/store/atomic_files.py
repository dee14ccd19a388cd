"""Large files that are written front to back and appear at their place whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from typing import BinaryIO

from inkbatch.errors import ConfigError, InkbatchError
from inkbatch.io.store.faults import WrongKindError, judge
from inkbatch.io.store.location import Location
from inkbatch.io.store.retrying import retried


@contextlib.contextmanager
def delivered(place: Location, scratch: str | None = None) -> Iterator[BinaryIO]:
    """Open a local file for writing and seeking; when the block ends well, it is put to `place`.

    For a local place the file lies beside it under a temporary name and is renamed; for an object store it lies in
    `scratch` and is uploaded, which shows the object when the last part has come. When the block raises, nothing stays.

    Args:
        place: The file to make; one that is there is replaced.
        scratch: Local folder for files on their way to an object store; None takes the system's.

    Raises:
        ConfigError: `place` cannot be written to.
        DataError: A folder lies at `place`.
        StorageError: Writing failed (no space, the store gave up); what was at `place` is still there.
    """
    if place.protocol in ("http", "https"):
        raise ConfigError(f"{place}: a web server takes no files; give a local path or s3://bucket/key")
    if place.is_local and os.path.isdir(place.path):
        raise WrongKindError(f"{place}: expected a file or nothing, got a folder; name a file in it")
    try:
        if place.is_local:
            with _beside(place.path) as handle:
                yield handle
        else:
            with tempfile.NamedTemporaryFile(dir=scratch, prefix="inkbatch-", suffix=f"-{place.name}") as temporary:
                yield temporary.file  # type: ignore[misc]  # a BufferedRandom, not only an IO[bytes]
                temporary.flush()
                retried(place.uri, lambda: place.fs.put_file(temporary.name, place.path))
    except InkbatchError:
        raise
    except OSError as error:
        raise judge(place.uri, error) or error from error


@contextlib.contextmanager
def _beside(path: str) -> Iterator[BinaryIO]:
    temporary = f"{path}.{os.getpid()}.{uuid.uuid4().hex[:8]}.partial"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        with open(temporary, "xb") as handle:
            yield handle
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise

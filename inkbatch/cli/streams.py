"""Standard streams that cannot fail: closed, full or broken ones never change a result or its exit code."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any, TextIO


def guard_streams() -> None:
    """Give this process streams that swallow what cannot be written; called once, before a command runs.

    Numbers 0 to 2 that the caller closed are opened on the null device, so that no file of ours gets one of them and
    then what some library prints. Streams that a program or a test put in place stay as they are.
    """
    _open_standard_numbers()
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None or stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, _guarded(number, stream))


class _Forgiving(io.RawIOBase):
    """A file descriptor whose writes succeed; what could not be written is dropped, which is said once."""

    def __init__(self, number: int) -> None:
        self._number, self._broken = number, False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def write(self, data: Any) -> int:
        view = memoryview(data)
        if not self._broken:
            try:
                return os.write(self._number, view)
            except OSError as error:
                self._broken = True
                self._tell(error)
        return view.nbytes

    def _tell(self, error: OSError) -> None:
        if self._number != 2 and not isinstance(error, BrokenPipeError):  # `| head` is no fault
            with contextlib.suppress(OSError):
                os.write(2, f"inkbatch: standard output cannot be written: {error.strerror}; go on without\n".encode())


def _guarded(number: int, stream: TextIO | None) -> TextIO:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    by_line = number == 2 or os.isatty(number)
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    buffered = io.BufferedWriter(_Forgiving(number))
    return io.TextIOWrapper(buffered, encoding, errors="backslashreplace", line_buffering=by_line)


def _open_standard_numbers() -> None:
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the smallest free number, which is this one
            os.set_inheritable(opened, True)

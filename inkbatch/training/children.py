"""Processes that our first process started: when one fails, all end, with the failing one's exit code.

Lightning ends the first process by SIGKILL then, so that the reason is lost; and a process that waits for a dead one in
a collective operation cannot be woken by an exception.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from inkbatch.errors import EXIT_TRY_AGAIN, InkbatchError

LOOK_S = 0.2
GRACE_S = 5.0  # for the first process to notice the loss by itself


class ChildFailed(InkbatchError):  # noqa: N818  # what happened, not what it is
    """A process of this run failed; its own message says why, its exit code is ours."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextlib.contextmanager
def watched_children(fabric: Any, grace_s: float = GRACE_S) -> Iterator[None]:
    """Watch the processes that `fabric` started while the block runs; does nothing where it started none.

    Args:
        fabric: A launched `Fabric`.
        grace_s: Seconds that the block may go on after a child has failed; then this process ends at once.

    Raises:
        ChildFailed: A child failed, and the block failed because of it.
    """
    children = _taken_over(fabric)
    if not children:
        yield
        return
    watch = _Watch(children, grace_s)
    watch.start()
    try:
        yield
    except InkbatchError:
        watch.end_all()
        raise
    except Exception as error:
        failure = watch.failure_within(grace_s)
        watch.end_all()
        if failure is not None:
            raise failure from error
        raise
    except BaseException:
        watch.end_all()
        raise
    finally:
        watch.done.set()


def _taken_over(fabric: Any) -> list[subprocess.Popen[bytes]]:
    """Take the children from Lightning's launcher; its observer, which reads the same list, then ends by itself."""
    listed: list[subprocess.Popen[bytes]] = getattr(getattr(fabric.strategy, "launcher", None), "procs", [])
    children = list(listed)
    listed.clear()
    return children


class _Watch(threading.Thread):
    def __init__(self, children: Sequence[subprocess.Popen[bytes]], grace_s: float) -> None:
        super().__init__(daemon=True, name="inkbatch-children")
        self.children, self.grace_s = children, grace_s
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(LOOK_S):
            failure = self._failure()
            if failure is None:
                continue
            if self.done.wait(self.grace_s):
                return
            sys.stderr.write(f"inkbatch: {failure}\n")
            sys.stderr.flush()
            self.end_all()
            os._exit(failure.exit_code)  # the main thread waits in a collective and cannot be interrupted

    def failure_within(self, seconds: float) -> ChildFailed | None:
        """Wait for the failure of a child; None if there is none in time."""
        deadline = time.monotonic() + seconds
        while (failure := self._failure()) is None and time.monotonic() < deadline:
            time.sleep(LOOK_S)
        return failure

    def end_all(self) -> None:
        """Kill the children that are left: they wait for partners that are gone."""
        for child in self.children:
            if child.poll() is None:
                child.kill()

    def _failure(self) -> ChildFailed | None:
        for rank, child in enumerate(self.children, start=1):
            code = child.poll()
            if code:
                who = f"process {rank} of this run (pid {child.pid})"
                if code > 0:
                    return ChildFailed(f"{who} failed with exit code {code}; see its message above", code)
                cure = "lack of memory is the usual reason; what is stored is kept, run the same command again"
                return ChildFailed(f"{who} was killed by signal {-code}; {cure}", EXIT_TRY_AGAIN)
        return None

"""Thread pools of the process, and the rule that keeps them from waiting for each other in a circle.

Each pool does one kind of work and names the pools that its tasks may wait for. A task that starts work in any other
pool is refused at once: with every thread of that pool waiting likewise, nothing would ever finish.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
MOST_CODEC_THREADS = 16  # more of them wait for memory, and each holds a few MiB
CODEC_THREADS = max(2, min(MOST_CODEC_THREADS, CORES))
OPENING_THREADS = 16  # they mostly wait for the network

_here = threading.local()  # `.pool` is the WorkerPool whose task runs in this thread


class CircularWaitError(RuntimeError):
    """A task started work in a pool that it must not wait for; a bug of ours."""


class WorkerPool:
    """Threads for one kind of work, made when they are first used.

    A forked process makes its own, since threads do not survive a fork.

    Args:
        name: Kind of work; part of the threads' names.
        threads: Number of threads.
        waits_for: Pools that a task of this one may start work in and wait for.
    """

    def __init__(self, name: str, threads: int, waits_for: Collection[WorkerPool] = ()) -> None:
        self.name = name
        self.threads = threads
        self.waits_for = tuple(waits_for)

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start a task; tasks begin in the order in which they are started.

        Raises:
            CircularWaitError: Called by a task of a pool that may not wait for this one.
        """
        self._require_allowed()
        return _executor(os.getpid(), self).submit(function, *args, **kwargs)

    def map(self, function: Callable[[Item], T], items: Iterable[Item]) -> list[T]:
        """Call a function for each item side by side, and return the results in order.

        Raises:
            CircularWaitError: As `submit`.
        """
        self._require_allowed()
        return list(_executor(os.getpid(), self).map(function, items))

    def _require_allowed(self) -> None:
        caller: WorkerPool | None = getattr(_here, "pool", None)
        if caller is not None and self not in caller.waits_for:
            raise CircularWaitError(f"a task of the pool {caller.name!r} must not wait for the pool {self.name!r}")

    def _enter_thread(self) -> None:
        _here.pool = self


@lru_cache(maxsize=32)
def _executor(process: int, pool: WorkerPool) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(pool.threads, f"inkbatch-{pool.name}", pool._enter_thread)


chunk_pool = WorkerPool("chunk", CORES)
"""Reads chunks of a scroll volume on a local disk."""

remote_chunk_pool = WorkerPool("remote-chunk", OPENING_THREADS)
"""Reads chunks of a scroll volume over the network."""

decode_pool = WorkerPool("decode", CORES, waits_for=[chunk_pool, remote_chunk_pool])
"""Decodes strips and chunks of foreign files, and renders tiles of a surface."""

layer_pool = WorkerPool("layer", CORES, waits_for=[decode_pool])
"""Loads whole layers."""

codec_pool = WorkerPool("codec", CODEC_THREADS, waits_for=[layer_pool, decode_pool])
"""Encodes and decodes chunks of our own arrays, and converts the layers that go into them."""

opening_pool = WorkerPool("open", OPENING_THREADS)
"""Opens the files of a remote stack."""


class Tasks:
    """Tasks of one pool that are started and awaited together.

    Leaving the ``with`` block waits until none of them runs. After a failure those that have not begun are cancelled,
    and the first failure is raised.

    Args:
        pool: Pool that runs them.
    """

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._running: list[Future[Any]] = []

    def __len__(self) -> int:
        return len(self._running)

    def start(self, function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Start one more task."""
        self._running.append(self._pool.submit(function, *args, **kwargs))

    def finish(self, newest: int = 0) -> None:
        """Wait for all tasks but the newest ones, and raise the first failure among them."""
        count = len(self._running) - newest
        while count > 0:
            self._running[0].result()
            del self._running[0]
            count -= 1

    def __enter__(self) -> Tasks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.finish()
        finally:
            cancel(self._running)
            self._running.clear()  # a failure's traceback holds this object: no circle that keeps files open


def cancel(futures: Sequence[Future[Any]]) -> None:
    """Cancel what has not begun, and wait until nothing runs."""
    for future in futures:
        future.cancel()
    wait(futures)

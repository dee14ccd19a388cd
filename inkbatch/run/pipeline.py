"""The one loop that drives every big job: read, compute and write units, overlapped, bounded and resumable."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from inkbatch.errors import Preempted
from inkbatch.geometry import Unit
from inkbatch.io.store.ledger import make_durable, recording
from inkbatch.run.record import LEDGER
from inkbatch.run.signals import StopFlag

Loaded = TypeVar("Loaded")
Computed = TypeVar("Computed")


@dataclass
class StageSeconds:
    """Busy seconds per stage, summed over threads, and seconds that the computing thread waited."""

    load: float = 0.0
    compute: float = 0.0
    store: float = 0.0
    waited: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, stage: str, seconds: float) -> None:
        """Add busy seconds to a stage."""
        with self._lock:
            setattr(self, stage, getattr(self, stage) + seconds)

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - start)

    def waiting_for(self, items: Iterable[Loaded]) -> Iterator[Loaded]:
        """Pass items on; count the seconds until each one comes as seconds waited."""
        coming = iter(items)
        while True:
            with self.timed("waited"):
                try:
                    item = next(coming)
                except StopIteration:
                    return
            yield item


@dataclass(frozen=True)
class Overlap:
    """Units in flight beside the one being computed; 0 means no overlap.

    Attributes:
        ahead: Units loaded ahead.
        behind: Units that may wait to be stored.
    """

    ahead: int = 1
    behind: int = 1


@dataclass(frozen=True)
class UnitWork(Generic[Loaded, Computed]):
    """The functions of a job.

    Attributes:
        load: I/O only, but for a job without `compute`; runs in reader threads.
        compute: CPU or GPU only; runs in the calling thread, one unit at a time. None hands over what was loaded: a job
            that needs no device converts as it reads or writes, while the data is in the cache.
        store: As `load`, in writer threads; returns the facts of the unit's marker.
        mark: Writes the marker; called after `store` came back.
        device: Asked once after the last unit: what `compute` ran on, for the run file. None: no device but the CPU is
            ever used, and progress speaks of none.
        overlap: Units in flight beside the one being computed.
    """

    load: Callable[[Unit], Loaded]
    compute: Callable[[Unit, Loaded], Computed] | None
    store: Callable[[Unit, Computed], Mapping[str, Any]]
    mark: Callable[[Unit, Mapping[str, Any]], None]
    device: Callable[[], Mapping[str, Any]] | None = None
    overlap: Overlap = field(default_factory=Overlap)


def run_units(
    units: Sequence[Unit],
    work: UnitWork[Loaded, Computed],
    *,
    stop: StopFlag,
    on_done: Callable[[Unit, Mapping[str, Any]], None] = lambda unit, facts: None,
    seconds: StageSeconds | None = None,
) -> int:
    """Carry out `units` in order.

    At most ``work.overlap.ahead`` units are loaded before they are computed and at most ``work.overlap.behind`` wait to
    be stored, so memory is bounded by ``(ahead + 1 + behind) x unit`` whatever the number of units. The first error of
    any stage stops the loop, lets stores in flight finish, and is raised. A stop signal does the same and raises
    `Preempted`. `on_done` is called after each marker, one call at a time, in a writer thread.

    Returns:
        Units that were stored and marked.
    """
    stages = seconds or StageSeconds()
    ahead, behind = work.overlap.ahead, work.overlap.behind
    marked: list[Unit] = []
    marking = threading.Lock()

    def timed(stage: str, action: Callable[..., Any], *arguments: Any) -> Any:
        with stages.timed(stage):
            return action(*arguments)

    def store_and_mark(unit: Unit, computed: Computed) -> None:
        with recording() as ledger:
            facts = work.store(unit, computed)
        make_durable(ledger)
        work.mark(unit, {**facts, LEDGER: ledger})
        with marking:
            marked.append(unit)
            on_done(unit, facts)

    def raise_failures(ready: set[Future[Any]]) -> None:
        for future in ready:
            future.result()

    def refill(limit: int) -> None:
        while waiting and len(loading) < limit:
            unit = waiting.popleft()
            loading.append((unit, readers.submit(timed, "load", work.load, unit)))

    waiting = deque(units)
    loading: deque[tuple[Unit, Future[Any]]] = deque()
    storing: set[Future[Any]] = set()
    readers = ThreadPoolExecutor(max(1, ahead), thread_name_prefix="inkbatch-read")
    writers = ThreadPoolExecutor(max(1, behind), thread_name_prefix="inkbatch-write")
    try:
        while waiting or loading:
            stop.check()
            refill(max(1, ahead))
            unit, future = loading.popleft()
            start = time.perf_counter()
            loaded = _result_or_stop(future, stop)
            stages.add("waited", time.perf_counter() - start)
            del future
            refill(ahead)
            computed = timed("compute", work.compute, unit, loaded) if work.compute else loaded
            del loaded
            start = time.perf_counter()
            while len(storing) >= max(1, behind):
                ready, storing = wait(storing, return_when=FIRST_COMPLETED)
                raise_failures(ready)
            storing.add(writers.submit(timed, "store", store_and_mark, unit, computed))
            del computed
            ready, storing = wait(storing, timeout=None if behind == 0 else 0)
            raise_failures(ready)
            stages.add("waited", time.perf_counter() - start)
        raise_failures(storing)
    finally:
        for _, pending in loading:
            pending.cancel()
        readers.shutdown(wait=True, cancel_futures=True)
        writers.shutdown(wait=True)
    return len(marked)


def _result_or_stop(future: Future[Any], stop: StopFlag) -> Any:
    """Wait for a load; give up within half a second of a stop signal."""
    while True:
        done, _ = wait([future], timeout=0.5)
        if done:
            return future.result()
        if stop.is_set:
            raise Preempted(f"stopped by {stop.reason}")

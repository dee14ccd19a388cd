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
    loads, stores = _Loads(units, work, stages), _Stores(work, stages, on_done)
    try:
        while loads:
            stop.check()
            unit, loaded = loads.take(stop)
            computed = loaded
            if work.compute is not None:
                with stages.timed("compute"):
                    computed = work.compute(unit, loaded)
            del loaded
            stores.put(unit, computed)
            del computed
        stores.finish()
    finally:
        loads.close()
        stores.close()
    return stores.marked


class _Loads:
    """Units that reader threads load ahead, in order."""

    def __init__(self, units: Sequence[Unit], work: UnitWork[Any, Any], stages: StageSeconds) -> None:
        self._load, self._ahead, self._stages = work.load, work.overlap.ahead, stages
        self._waiting = deque(units)
        self._loading: deque[tuple[Unit, Future[Any]]] = deque()
        self._readers = ThreadPoolExecutor(max(1, self._ahead), thread_name_prefix="inkbatch-read")

    def __bool__(self) -> bool:
        return bool(self._waiting or self._loading)

    def take(self, stop: StopFlag) -> tuple[Unit, Any]:
        """Wait for the next unit, and let those after it be loaded meanwhile.

        Raises:
            Preempted: A stop signal came; at most half a second later.
        """
        self._refill(max(1, self._ahead))
        unit, future = self._loading.popleft()
        with self._stages.timed("waited"):
            loaded = _result_or_stop(future, stop)
        self._refill(self._ahead)
        return unit, loaded

    def close(self) -> None:
        """Drop what was not taken."""
        for _, pending in self._loading:
            pending.cancel()
        self._readers.shutdown(wait=True, cancel_futures=True)

    def _refill(self, limit: int) -> None:
        while self._waiting and len(self._loading) < limit:
            unit = self._waiting.popleft()
            self._loading.append((unit, self._readers.submit(self._timed, unit)))

    def _timed(self, unit: Unit) -> Any:
        with self._stages.timed("load"):
            return self._load(unit)


class _Stores:
    """Units that writer threads store and mark; the first error is raised in the computing thread."""

    def __init__(
        self, work: UnitWork[Any, Any], stages: StageSeconds, on_done: Callable[[Unit, Mapping[str, Any]], None]
    ) -> None:
        self.marked = 0
        self._work, self._behind, self._stages, self._on_done = work, work.overlap.behind, stages, on_done
        self._marking = threading.Lock()
        self._storing: set[Future[Any]] = set()
        self._writers = ThreadPoolExecutor(max(1, self._behind), thread_name_prefix="inkbatch-write")

    def put(self, unit: Unit, computed: Any) -> None:
        """Store a unit as soon as there is a place for it; without overlap, wait until it is stored."""
        with self._stages.timed("waited"):
            while len(self._storing) >= max(1, self._behind):
                self._settle(wait(self._storing, return_when=FIRST_COMPLETED))
            self._storing.add(self._writers.submit(self._store, unit, computed))
            self._settle(wait(self._storing, timeout=None if self._behind == 0 else 0))

    def finish(self) -> None:
        """Wait for all that are being stored."""
        self._settle(wait(self._storing))

    def close(self) -> None:
        """Let stores in flight finish, whatever their end."""
        self._writers.shutdown(wait=True)

    def _settle(self, found: tuple[set[Future[Any]], set[Future[Any]]]) -> None:
        done, self._storing = found
        for future in done:
            future.result()

    def _store(self, unit: Unit, computed: Any) -> None:
        with self._stages.timed("store"):
            with recording() as ledger:
                facts = self._work.store(unit, computed)
            make_durable(ledger)
            self._work.mark(unit, {**facts, LEDGER: ledger})
            with self._marking:
                self.marked += 1
                self._on_done(unit, facts)


def _result_or_stop(future: Future[Any], stop: StopFlag) -> Any:
    """Wait for a load; give up within half a second of a stop signal."""
    while True:
        done, _ = wait([future], timeout=0.5)
        if done:
            return future.result()
        if stop.is_set:
            raise Preempted(f"stopped by {stop.reason}")

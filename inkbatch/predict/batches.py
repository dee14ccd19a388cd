"""Filling input batches with tiles: one on a device, several in turn on a CPU, by a thread that runs ahead.

On a CPU gathering tiles costs as much as a small network. A thread of its own gathers while the network computes what
was gathered before; it copies without further threads, for a barrier per copy would cost more than it saves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import torch
from torch import Tensor

from inkbatch.predict.tiles import TileRun, gather

PlacedRun = tuple[TileRun, Tensor, tuple[int, int]]  # tiles, the band of layers that holds them, the band's origin


class Batch:
    """An input tensor (size, 1, Z, tile, tile) that is filled run by run.

    Attributes:
        tensor: float32, or the stored dtype where tiles are normalised one by one. Slots not in use hold what was
            there before.
        used: Slots up to the last one in use.
        runs: First slot and tiles of each run.
    """

    def __init__(
        self, size: int, depth: int, edge: int, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self.tensor = torch.zeros((size, 1, depth, edge, edge), dtype=dtype, device=device)
        self.size = size
        self.used = 0
        self.runs: list[tuple[int, TileRun]] = []

    def add(self, run: TileRun, slot: int, band: Tensor, origin_yx: tuple[int, int]) -> None:
        """Gather a run of tiles into the slots from `slot` on."""
        gather(run, band, origin_yx, self.tensor.shape[-1], self.tensor[slot : slot + run.count, 0])
        self.used = slot + run.count
        self.runs.append((slot, run))

    def clear(self) -> None:
        """Make all slots free again."""
        self.used = 0
        self.runs = []


def filled(runs: Iterator[PlacedRun], batches: Sequence[Batch], *, aligned: bool, held: int = 1) -> Generator[Batch]:
    """Fill batches with runs of tiles, in order.

    Args:
        runs: The tiles.
        batches: Batches of one size, used in turn; where there are several, a thread gathers while one is in use.
        aligned: Give a tile the slot that follows from its column: vectorised functions may round an element by its
            place in the tensor, and so a tile's bits do not depend on how units are cut. Else batches are packed.
        held: Batches that the caller still uses: those that it got last. With several batches, fewer than these.

    Yields:
        A batch that holds a tile at least; it may be filled again when as many as `held` were asked for after it.
    """
    for batch in batches:
        batch.clear()
    if len(batches) == 1:
        for batch in _fill(runs, lambda: batches[0], aligned):
            yield batch
            batch.clear()
        return
    free: SimpleQueue[Batch | None] = SimpleQueue()
    ready: SimpleQueue[Batch | None] = SimpleQueue()
    in_use: deque[Batch] = deque()
    for batch in batches:
        free.put(batch)

    def produce() -> None:
        try:
            for batch in _fill(runs, free.get, aligned):
                ready.put(batch)
        finally:
            ready.put(None)

    with ThreadPoolExecutor(1, thread_name_prefix="inkbatch-gather") as thread:
        producing = thread.submit(produce)
        try:
            while (gathered := ready.get()) is not None:
                yield gathered
                in_use.append(gathered)
                if len(in_use) == held:
                    done = in_use.popleft()
                    done.clear()
                    free.put(done)
        finally:
            free.put(None)  # the consumer stopped: the rest is not gathered
        producing.result()


def _fill(runs: Iterator[PlacedRun], take: Callable[[], Batch | None], aligned: bool) -> Iterator[Batch]:
    batch: Batch | None = None
    for run, band, origin in runs:
        rest = run
        while rest.count:
            if batch is None and (batch := take()) is None:
                return
            slot = rest.column % batch.size if aligned else batch.used
            if slot < batch.used:
                yield batch
                batch = None
                continue
            taken = min(rest.count, batch.size - slot)
            batch.add(rest.head(taken), slot, band, origin)
            rest = rest.tail(taken)
            if batch.used == batch.size:
                yield batch
                batch = None
    if batch is not None:
        yield batch

"""Forward passes: one after the other on a device; side by side on a CPU, each by a thread of its own.

A CPU's library cuts one pass among the cores, with a barrier per operation, and rounds by how it cut. A pass that one
thread makes alone rounds the same on any number of cores, and as many passes as there are cores keep them all busy:
measured on 2 cores (torch 2.15, float32), tiles per second, cut among two threads and side by side: the demo's U-Net
145 and 330, TimeSformer 4.8 and 6.8, I3D 9 and 12, UNETR-SegFormer 1.3 and 1.6.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
import torch.nn.functional as functional
from torch import Tensor

from inkbatch.errors import ConfigError
from inkbatch.models.base import InkModel
from inkbatch.models.bundle import Contract
from inkbatch.predict.device import autocast, ran_out_of_memory, synchronize
from inkbatch.predict.normalise import normalise_tiles
from inkbatch.predict.variants import AS_IS, Combine, View, combined
from inkbatch.run.signals import StopFlag

CPU_BATCH_BYTES = 4 << 20  # of float32 input: a batch that stays in the cache
CPU_MAX_BATCH = 8
MAX_BATCH = 512
PROBE_GAIN = 1.04  # a doubled batch must be faster by this factor to be taken


@dataclass
class Passes:
    """Runs a network over tensors of tiles, in batches of one size.

    Attributes:
        model: The network, in eval mode on `device`.
        contract: Its activation, tile and per-tile normaliser are taken from here.
        device: Where it computes.
        dtype: Dtype of the forward pass.
        stop: Checked between batches.
        batch_tiles: Tiles per forward pass; 0 finds it. It shrinks when memory runs out.
        workers: Passes side by side; 1 where a device does that by itself.
        threads: Threads that a pass on a CPU may use.
        views: How each tile is looked at; every one is a pass of its own, right after the other.
        combine: How the maps of a tile's views, turned back, become one.
    """

    model: InkModel
    contract: Contract
    device: torch.device
    dtype: torch.dtype
    stop: StopFlag
    batch_tiles: int = 0
    workers: int = 1
    threads: int = 1
    views: tuple[View, ...] = (AS_IS,)
    combine: Combine = "mean"
    _pool: ThreadPoolExecutor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.batch_tiles < 1:
            self.batch_tiles = self._found_batch()

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        """Hold the threads that compute; those that have not begun a batch when it ends drop it."""
        if self.workers == 1:
            yield
            return
        with ThreadPoolExecutor(self.workers, "inkbatch-pass", torch.set_num_threads, (self.threads,)) as pool:
            self._pool = pool
            try:
                yield
            finally:
                self._pool = None
                pool.shutdown(wait=True, cancel_futures=True)

    def start(self, subvolumes: Tensor) -> Callable[[], Tensor]:
        """Begin to compute tiles.

        Args:
            subvolumes: (B, 1, Z, T, T) of `input_dtype`, a whole number of batches; not to be changed until the
                result was asked for.

        Returns:
            What waits for the result: (B, T, T) float32 maps at full tile resolution, (B, 3, T, T) of classes. It
            raises Preempted on a stop, and ConfigError where one tile alone does not fit the device's memory.
        """
        if self._pool is None:
            with cpu_threads(self.threads):
                maps = self.maps(subvolumes)
            return lambda: maps
        share = -(-len(subvolumes) // (self.batch_tiles * self.workers)) * self.batch_tiles
        computing: list[Future[Tensor]] = [
            self._pool.submit(self.maps, part) for part in torch.split(subvolumes, share)
        ]
        return lambda: _joined([future.result() for future in computing])

    @torch.inference_mode()
    def maps(self, subvolumes: Tensor) -> Tensor:
        """Compute tiles in the calling thread; see `start`.

        When the device runs out of memory the batch is halved, for good, and the same tiles are computed again.
        """
        while True:
            size = self.batch_tiles
            try:
                return _joined([self._seen(part) for part in torch.split(subvolumes, size)])
            except RuntimeError as error:
                if not ran_out_of_memory(error):
                    raise
                if size == 1:
                    raise ConfigError(
                        f"device {self.device}: one tile of {tuple(subvolumes.shape[1:])} does not fit its memory; "
                        "end what else runs there, or use a larger device"
                    ) from error
            self.batch_tiles = min(self.batch_tiles, max(1, size // 2))
            if self.device.type == "cuda":
                torch.cuda.empty_cache()  # behind the handler: the error held the failed pass's tensors

    @property
    def input_dtype(self) -> torch.dtype:
        """float32, normalised; or the stored dtype where each tile is normalised by itself, in a pass of its own."""
        if not self.contract.normaliser.per_tile:
            return torch.float32
        return {"uint8": torch.uint8, "uint16": torch.uint16}[self.contract.dtype]

    def _seen(self, subvolumes: Tensor) -> Tensor:
        if self.contract.normaliser.per_tile:
            subvolumes = normalise_tiles(subvolumes, self.contract)
        return combined((view.turn_back(self._pass(view.turn(subvolumes))) for view in self.views), self.combine)

    def _pass(self, subvolumes: Tensor) -> Tensor:
        self.stop.check()
        edge = self.contract.tile_px
        with autocast(self.device, self.dtype):
            raw = self.model(subvolumes)
        maps: Tensor = raw.float()
        if self.contract.activation == "sigmoid":
            maps = probabilities(maps)
        if maps.shape[-1] != edge:
            maps = functional.interpolate(maps, size=(edge, edge), mode="bilinear", align_corners=False)
        return maps[:, 0] if maps.shape[1] == 1 else maps

    def _found_batch(self) -> int:
        """Find a batch size for this device.

        On a CPU it follows from the tile's size alone, so that every machine computes the same bits. On other devices
        the batch is doubled while that is faster and fits.
        """
        depth, edge = self.contract.layers.count, self.contract.tile_px
        if self.device.type == "cpu":
            return max(1, min(CPU_MAX_BATCH, CPU_BATCH_BYTES // (depth * edge * edge * 4)))
        best, best_rate, size = 1, 0.0, 1
        while size <= MAX_BATCH:
            self.batch_tiles = size
            try:
                tiles = torch.zeros((size, 1, depth, edge, edge), dtype=self.input_dtype, device=self.device)
                self.maps(tiles)
            except RuntimeError as error:  # the tiles themselves do not fit
                if not ran_out_of_memory(error):
                    raise
                break
            if self.batch_tiles < size:
                break
            rate = size / self._seconds(tiles)
            del tiles  # makes room for twice as many
            if rate < best_rate * PROBE_GAIN:
                break
            best, best_rate, size = size, rate, size * 2
        return best

    def _seconds(self, tiles: Tensor) -> float:
        """Measure the seconds of one forward pass, the better of two."""
        best = float("inf")
        for _ in range(2):
            synchronize(self.device)
            start = time.perf_counter()
            self.maps(tiles)
            synchronize(self.device)
            best = min(best, time.perf_counter() - start)
        return best


def probabilities(logits: Tensor) -> Tensor:
    """Turn logits (B, C, Y, X) into float32 probabilities: by the sigmoid for ink, by the softmax for classes."""
    return logits.float().sigmoid() if logits.shape[1] == 1 else logits.float().softmax(1)


@contextlib.contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let operations on a CPU use so many threads, in this thread and those that begin meanwhile.

    Small copies and sums are done by one: threads that wait for the next operation would spin on cores that others use.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)

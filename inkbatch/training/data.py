"""From a dataset to batches: tiles out of its index or pack, in a fixed order, read ahead by threads or in place.

Threads, not worker processes: reading and decoding release the interpreter lock, clients of object stores do not
survive a fork, and what one thread has decoded the others need not. A sample depends on nothing but the seed, the
epoch and its place in the epoch, so neither threads nor devices nor a resume change what the network sees.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inkbatch.data.datasets.index import DatasetIndex, Sample
from inkbatch.data.datasets.sample_reader import SampleReader
from inkbatch.data.datasets.segment_arrays import StoredArrays
from inkbatch.errors import ConfigError, DataError
from inkbatch.geometry import Box
from inkbatch.run.pipeline import StageSeconds
from inkbatch.run.run_file import core_count
from inkbatch.training.augment import arrange
from inkbatch.training.augment_settings import AugmentConfig, Changes, draw_changes
from inkbatch.training.losses import OF_CLASSES, ROUNDING, LossConfig
from inkbatch.training.mixing import Tile, mix_into
from inkbatch.training.order import Drawn, EpochPlan

READING_THREADS = 4
FEW_CORES = 4  # with at most so many cores that also compute, nothing is read ahead; measured on two
LOOK_STEPS, AHEAD_STEPS = 16, 256  # steps read in place before each look at the waiting time; steps then read ahead


@dataclass(frozen=True)
class Batch:
    """Samples of one forward pass.

    Attributes:
        layers: (B, Z, Y, X), stored dtype.
        labels: (B, 1, Y, X) uint8, 0 to 255.
        counted: (B, 1, Y, X) boolean.
        changes: One per sample.
        sample_ids: One per sample.
    """

    layers: Tensor
    labels: Tensor
    counted: Tensor
    changes: tuple[Changes, ...]
    sample_ids: tuple[str, ...]

    def to(self, device: torch.device) -> Batch:
        """Move to `device`, in the stored dtypes."""
        pinned = device.type == "cuda"
        arrays = [self.layers, self.labels, self.counted]
        moved = [(array.pin_memory() if pinned else array).to(device, non_blocking=pinned) for array in arrays]
        return Batch(moved[0], moved[1], moved[2], self.changes, self.sample_ids)


class TrainingTiles:
    """Random tiles of training samples, named by their place in the run.

    Args:
        reader: The dataset.
        samples: The training samples.
        augment: Rules of augmentation.
        seed: Seed of the run.
        tile_px: Edge of a tile.
        tile_layers: Layers that the network takes.
    """

    def __init__(
        self,
        reader: SampleReader,
        samples: Sequence[Sample],
        augment: AugmentConfig,
        seed: int,
        tile_px: int,
        tile_layers: int,
    ) -> None:
        self.reader, self.samples, self.augment, self.seed = reader, samples, augment, seed
        self.tile_px, self.tile_layers = tile_px, tile_layers

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, drawn: Sequence[Drawn]) -> Batch:
        """Read tiles, each cropped, flipped and turned straight into its place in the batch.

        By NumPy and OpenCV, for a thread that calls torch gets a team of threads of its own.
        """
        edge, count = self.tile_px, len(drawn)
        layers = np.empty((count, self.tile_layers, edge, edge), np.dtype(self.reader.index.contract.dtype))
        labels, ignore = np.empty((2, count, edge, edge), np.uint8)
        changes = []
        for number, one in enumerate(drawn):
            tile = Tile(layers[number], labels[number], ignore[number])
            change = self._fill(tile, one)
            if change.mix is not None:
                other = Tile(*(np.empty_like(array) for array in (tile.layers, tile.labels, tile.ignore)))
                self._fill(other, one.follower)
                mix_into(tile, other, change.mix)
            changes.append(change)
        return Batch(
            torch.from_numpy(layers),
            torch.from_numpy(labels[:, None]),
            torch.from_numpy((ignore == 0)[:, None]),
            tuple(changes),
            tuple(self.samples[one.index].id for one in drawn),
        )

    def _fill(self, tile: Tile, drawn: Drawn) -> Changes:
        """Read a tile, cropped, flipped and turned; returns the changes of its place."""
        change, edge = self._drawn_changes(drawn), self.tile_px
        stored = self._stored(self.samples[drawn.index], change)
        arrange(stored.layers, change, edge, out=tile.layers)
        arrange(stored.labels, change, edge, out=tile.labels)
        arrange(stored.ignore, change, edge, fill=1, out=tile.ignore)
        return change

    def _drawn_changes(self, drawn: Drawn) -> Changes:
        rng = np.random.default_rng([self.seed, drawn.epoch, 1, drawn.position])
        depth, shape_yx = self.reader.index.contract.layer_count, self.samples[drawn.index].shape_yx
        return draw_changes(self.augment, rng, shape_yx, self.tile_px, depth, self.tile_layers)

    def _stored(self, sample: Sample, changes: Changes) -> StoredArrays:
        y, x = changes.crop_yx
        box = Box(y, x, y + self.tile_px, x + self.tile_px).intersect(Box(0, 0, *sample.shape_yx))
        layers = range(changes.first_layer, changes.first_layer + self.tile_layers)
        return self.reader.read_part(sample, box, layers)


@dataclass(frozen=True)
class Step:
    """Batches of one optimiser step on this device.

    Attributes:
        epoch: From 0.
        step: Step of the epoch, from 0.
        batches: One per micro batch.
    """

    epoch: int
    step: int
    batches: tuple[Batch, ...]


_Drawing = tuple[int, int, Sequence[Sequence[Drawn]]]  # epoch, step of it, and what each micro batch takes


class StepStream:
    """The steps of a run from a given one to the end, across the borders of epochs.

    How they are read changes nothing but the time that it takes.

    Args:
        tiles: Source of tiles.
        plan: Division of epochs into steps.
        epochs: Number of epochs.
        device: Rank of this process.
        threads: Batches read at the same time, each by one thread, which also puts its tiles together: waking a thread
            for every tile costs the cores that compute on a CPU more than the tile.
        ahead: Steps read ahead.
        seconds: Gets the seconds of reading.
        in_place: Read a step when it is needed, in the calling thread. Where the few cores that read also compute,
            a core that reads keeps the others waiting at the end of every operation, so that reading ahead costs
            twice what it takes. Where reading is found to wait more than it works (a slow disk, a file system at the
            other end of a network), steps are read ahead all the same.
    """

    def __init__(
        self,
        tiles: TrainingTiles,
        plan: EpochPlan,
        epochs: int,
        device: int = 0,
        threads: int = READING_THREADS,
        ahead: int = 3,
        seconds: StageSeconds | None = None,
        *,
        in_place: bool = False,
    ) -> None:
        self.tiles, self.plan, self.epochs, self.device = tiles, plan, epochs, device
        self.threads, self.ahead, self.in_place = threads, ahead, in_place
        self.seconds = seconds or StageSeconds()

    def run(self, epoch: int, step: int) -> Iterator[Step]:
        """Yield all steps from this one on.

        Args:
            epoch: From 0.
            step: From 0; the number of steps of the epoch means the first one of the next.
        """
        coming = self._drawn(epoch, step)
        if not self.in_place:
            yield from self._ahead(coming)
            return
        for one in coming:
            yield from self._in_place(itertools.chain([one], coming))
            yield from self._ahead(itertools.islice(coming, AHEAD_STEPS))

    def _ahead(self, coming: Iterable[_Drawing]) -> Iterator[Step]:
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="inkbatch-tile")
        waiting: deque[tuple[int, int, list[Future[Batch]]]] = deque()
        try:
            for epoch, number, micro in coming:
                waiting.append((epoch, number, [pool.submit(self._read, drawn) for drawn in micro]))
                if len(waiting) > self.ahead:
                    yield _gathered(*waiting.popleft())
            while waiting:
                yield _gathered(*waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _in_place(self, coming: Iterator[_Drawing]) -> Iterator[Step]:
        """Yield steps until reading waits more than it works, or to the end."""
        while group := list(itertools.islice(coming, LOOK_STEPS)):
            passed = worked = 0.0
            for epoch, number, micro in group:
                passed, worked = passed - time.perf_counter(), worked - time.thread_time()
                batches = tuple(self._read(drawn) for drawn in micro)
                passed, worked = passed + time.perf_counter(), worked + time.thread_time()
                yield Step(epoch, number, batches)
            if passed > 2 * worked:
                return

    def _read(self, drawn: Sequence[Drawn]) -> Batch:
        with self.seconds.timed("load"):
            return self.tiles.batch(drawn)

    def _drawn(self, epoch: int, step: int) -> Iterator[_Drawing]:
        for where in range(epoch, self.epochs):
            order = self.plan.order(where)
            for number in range(step if where == epoch else 0, self.plan.steps):
                yield where, number, self.plan.step(order, where, number, self.device)


def _gathered(epoch: int, step: int, batches: Sequence[Future[Batch]]) -> Step:
    return Step(epoch, step, tuple(batch.result() for batch in batches))


def read_ahead(
    items: Sequence[Any], read: Callable[[Any], Any], threads: int = 2, ahead: int = 4
) -> Iterator[tuple[Any, Any]]:
    """Yield (item, result of reading it) in order, with `ahead` of them in flight."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="inkbatch-read")
    waiting: deque[tuple[Any, Future[Any]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(read, item)))
            if len(waiting) > ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def reading_threads(*, is_shared: bool) -> int:
    """Choose the number of threads that read batches, where the configuration states none.

    Args:
        is_shared: True if the cores that compute also read; threads that read from elsewhere mostly wait.
    """
    return min(READING_THREADS, core_count()) if is_shared else READING_THREADS


def require_samples(dataset: str, train: Sequence[Sample], validation: Sequence[Sample]) -> None:
    """Refuse what nothing can be learned from.

    Raises:
        DataError: A split is empty, or holds no ink at all.
    """
    for split, samples in (("train", train), ("validation", validation)):
        if not samples:
            raise DataError(
                f"dataset {dataset}: split {split!r} holds no sample; choose another fold, or build the dataset with "
                "other splits"
            )
        if not any(sample.ink_share > 0 for sample in samples):
            raise DataError(
                f"dataset {dataset}: none of the {len(samples)} samples of split {split!r} holds ink; check the ink "
                "labels (a label file may be blank or inverted), or build the dataset with other splits"
            )


def require_fitting_loss(index: DatasetIndex, loss: LossConfig) -> None:
    """Refuse terms that would round soft labels to yes or no, and those of another number of classes.

    Raises:
        ConfigError: A term does, or is.
    """
    wanted = {OF_CLASSES} if index.has_classes else {term.name for term in loss.terms} - {OF_CLASSES}
    other = sorted({term.name for term in loss.terms} - wanted)
    if other:
        labels = "objects in three classes" if index.has_classes else "ink"
        takes = OF_CLASSES if index.has_classes else "bce, dice and others"
        raise ConfigError(
            f"dataset {index.name}: its labels tell {labels}; expected loss terms {takes}, got {other[0]}"
        )
    rounding = sorted({term.name for term in loss.terms} & ROUNDING)
    if index.has_soft_labels and rounding:
        raise ConfigError(
            f"dataset {index.name}: its labels are probabilities, and loss term {rounding[0]} takes yes or no; choose "
            "bce, soft-dice or another one"
        )

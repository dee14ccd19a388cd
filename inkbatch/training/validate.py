"""Validation on stitched areas: tiles are blended to a map per segment, and the map's pixels are counted once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from inkbatch.data.datasets.index import Sample
from inkbatch.data.datasets.sample_reader import SampleReader
from inkbatch.data.datasets.segment_arrays import StoredArrays
from inkbatch.data.labels.ink import INK_SHARE, LABEL_MAX
from inkbatch.data.labels.objects import CLASS_GREYS, OBJECT_CLASS
from inkbatch.data.maps.scoring import BINS, ScoreHistogram
from inkbatch.errors import NonFiniteError
from inkbatch.geometry import Box, TileGrid
from inkbatch.predict.blend import add_tile, divided
from inkbatch.predict.coverage import grid_of
from inkbatch.predict.passes import probabilities
from inkbatch.predict.windows import divisor_of, window_of
from inkbatch.run.pipeline import StageSeconds
from inkbatch.run.signals import StopFlag
from inkbatch.training.augment import arrange
from inkbatch.training.augment_settings import Changes
from inkbatch.training.data import read_ahead
from inkbatch.training.losses import ink_loss
from inkbatch.training.module import InkModule
from inkbatch.training.overview import Overview
from inkbatch.training.stitching import Rows, RowStitcher
from inkbatch.training.targets import coarse_targets, label_targets


def area_of(sample: Sample) -> str:
    """Name the area of a sample: its segment's; a stitched pair is an area of its own."""
    return sample.segment if sample.parts is None else sample.id


@dataclass
class Validation:
    """Scores and loss of one validation.

    Attributes:
        histograms: Per segment; all devices' areas.
        loss: Mean loss over forward passes.
        pictures: Overviews of this device's areas, by segment.
    """

    histograms: dict[str, ScoreHistogram]
    loss: float
    pictures: dict[str, Overview] = field(default_factory=dict)


def added_up(values: Tensor) -> Tensor:
    """Add a tensor up over all devices that train together; each gets the sum, on the CPU."""
    on_device = values.cuda() if torch.distributed.get_backend() == "nccl" else values
    torch.distributed.all_reduce(on_device)
    return on_device.cpu()


@dataclass(frozen=True)
class Validator:
    """Validation of a module on the validation samples; areas are divided among devices.

    Attributes:
        reader: The dataset.
        samples: The validation samples.
        batch: Tiles per forward pass on this device.
        stop: Stop flag, checked between forward passes.
        rank: Number of this device.
        devices: Devices that train together.
        threads: Samples read at the same time.
        add_up: Adds a tensor up over all devices.
    """

    reader: SampleReader
    samples: Sequence[Sample]
    batch: int
    stop: StopFlag
    rank: int = 0
    devices: int = 1
    threads: int = 2
    add_up: Callable[[Tensor], Tensor] = added_up

    def run(
        self,
        module: InkModule,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[Any]],
        seconds: StageSeconds | None = None,
    ) -> Validation:
        """Validate; the network is in evaluation mode meanwhile.

        Args:
            module: The module itself, not wrapped for several devices.
            device: Its device.
            autocast: Context of a forward pass.
            seconds: Gets the seconds of reading, of forward passes, and of waiting.

        Raises:
            NonFiniteError: The network returned NaN or infinity.
            Preempted: A stop was asked for.
        """
        areas = self._areas()
        found = Validation({name: ScoreHistogram() for name in areas}, 0.0)
        losses: list[tuple[float, int]] = []
        forward = _Forward(module, device, autocast, self.batch)
        module.eval()
        try:
            with torch.inference_mode():
                for name in list(areas)[self.rank :: self.devices]:
                    losses += self.validate_area(forward, areas[name], found, seconds or StageSeconds())
        finally:
            module.train()
        counted = np.array([sum(loss * count for loss, count in losses), sum(count for _, count in losses)])
        total, tiles = self._together(torch.from_numpy(counted)).tolist()
        found.loss = total / max(tiles, 1)
        for histogram in found.histograms.values():
            both = self._together(torch.from_numpy(np.stack([histogram.ink, histogram.bare])))
            histogram.ink, histogram.bare = both.numpy().reshape(2, BINS)
        return found

    def _areas(self) -> dict[str, list[Sample]]:
        """Group samples by area, from top to bottom."""
        areas: dict[str, list[Sample]] = {}
        for sample in self.samples:
            areas.setdefault(area_of(sample), []).append(sample)
        return {name: sorted(areas[name], key=lambda sample: sample.box[:2]) for name in sorted(areas)}

    def _together(self, values: Tensor) -> Tensor:
        return self.add_up(values) if self.devices > 1 else values

    def validate_area(
        self, forward: _Forward, samples: list[Sample], found: Validation, seconds: StageSeconds
    ) -> list[tuple[float, int]]:
        """Predict one area's samples, and count them against their labels.

        Returns:
            Loss and number of counted pixels of each sample.
        """
        name = area_of(samples[0])
        histogram = found.histograms[name]
        bounds = Box(
            min(sample.box[0] for sample in samples),
            min(sample.box[1] for sample in samples),
            max(sample.box[2] for sample in samples),
            max(sample.box[3] for sample in samples),
        )
        picture = found.pictures[name] = Overview.of(bounds)

        def count(rows: Rows) -> None:
            histogram.add(rows.probability, rows.labels >= INK_SHARE, rows.counted)
            picture.add(rows)

        stitcher = RowStitcher(bounds.x0, bounds.x1, count)
        losses = []

        def read(sample: Sample) -> StoredArrays:
            with seconds.timed("load"):
                return self.reader.read_stored(sample)

        for sample, stored in seconds.waiting_for(read_ahead(samples, read, self.threads)):
            self.stop.check()
            with seconds.timed("compute"):
                probability, weight, loss = forward.sample(sample, stored)
            labels = stored.labels.astype(np.float32) / LABEL_MAX
            if forward.module.net.classes > 1:
                labels = (stored.labels == CLASS_GREYS[OBJECT_CLASS]).astype(np.float32)
            stitcher.add(sample.area, probability, weight, labels, stored.ignore == 0)
            losses.append(loss)
        stitcher.close()
        return losses


@dataclass(frozen=True)
class _Forward:
    """Forward passes of the network over one sample, tile by tile."""

    module: InkModule
    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]
    batch: int

    def sample(
        self, sample: Sample, stored: StoredArrays
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[float, int]]:
        """Return (stitched probability, its divisor, (mean loss, tiles)) of one sample."""
        contract = self.module.contract
        edge, depth = contract.tile_px, contract.layers.count
        first = (len(stored.layers) - depth) // 2
        shape = sample.shape_yx
        padded = max(edge, shape[0]), max(edge, shape[1])
        window = window_of(contract)
        divisor = divisor_of(window, contract.stitching)
        grid = grid_of(contract, padded)
        sums = np.zeros((2, *padded), np.float32)
        losses = []
        for boxes in _batches(grid, self.batch):
            cut = [Changes(crop_yx=(box.y0, box.x0)) for box in boxes]
            layers = np.stack([arrange(stored.layers[first : first + depth], one, edge) for one in cut])
            labels = np.stack([arrange(stored.labels, one, edge) for one in cut])
            counted = np.stack([arrange(stored.ignore, one, edge, fill=1) == 0 for one in cut])
            maps, loss = self._maps(layers, labels, counted, sample.id)
            if not np.isfinite(maps).all():
                raise NonFiniteError(
                    f"validation sample {sample.id}: the network returned NaN or infinity; lower optimiser.rate, set "
                    "clip_gradient, or train with precision fp32"
                )
            losses.append(loss * len(boxes))
            for box, tile in zip(boxes, maps, strict=True):
                add_tile(sums, box.slices, tile, window.full, divisor.full)
        count = grid.rows.count * grid.columns.count
        inside = sums[:, : shape[0], : shape[1]]
        return divided(inside), inside[1], (sum(losses) / count, count)

    def _maps(
        self, layers: NDArray[Any], labels: NDArray[np.uint8], counted: NDArray[np.bool_], sample_id: str
    ) -> tuple[NDArray[np.float32], float]:
        stored = torch.from_numpy(layers).to(self.device)
        subvolume = self.module.normalised(stored, [sample_id] * len(stored))
        truth = label_targets(torch.from_numpy(labels).to(self.device)[:, None], self.module.net.classes)
        target, weight = coarse_targets(
            truth, torch.from_numpy(counted).to(self.device)[:, None], self.module.net.output_scale
        )
        with self.autocast():
            logits = self.module(subvolume)
        loss = ink_loss(logits, target, weight, self.module.loss)
        maps = probabilities(logits)
        if maps.shape[-1] != layers.shape[-1]:
            maps = functional.interpolate(maps, size=layers.shape[-2:], mode="bilinear", align_corners=False)
        shown = maps[:, OBJECT_CLASS] if maps.shape[1] > 1 else maps[:, 0]
        probability: NDArray[np.float32] = shown.cpu().numpy()
        return probability, float(loss)


def _batches(grid: TileGrid, size: int) -> Iterator[list[Box]]:
    """Yield the tiles of a sample, row-major, in groups."""
    edge = grid.tile_px
    rows, columns = grid.rows, grid.columns
    origins = [(rows.origin(r), columns.origin(c)) for r in range(rows.count) for c in range(columns.count)]
    boxes = [Box(y, x, y + edge, x + edge) for y, x in origins]
    for start in range(0, len(boxes), size):
        yield boxes[start : start + size]

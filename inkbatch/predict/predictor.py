"""From a unit's layers to its ink probability: the only busy part of `infer`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from inkbatch.errors import ConfigError, InkbatchError, NonFiniteError
from inkbatch.geometry import Box, TileGrid, Unit
from inkbatch.models.base import InkModel
from inkbatch.models.bundle import Contract
from inkbatch.predict.blend import Blender
from inkbatch.predict.device import autocast, synchronize
from inkbatch.predict.tiles import TileRun, UnitTiles, gather
from inkbatch.run.signals import StopFlag

CPU_BATCH_BYTES = 4 << 20  # of float32 input: a batch that stays in the cache
CPU_MAX_BATCH = 8
CPU_BAND_BYTES = 32 << 20  # of normalised float32 layers at a time
DEVICE_BAND_BYTES = 1 << 30
MAX_BATCH = 512
PROBE_GAIN = 1.04  # a doubled batch must be faster by this factor to be taken


@dataclass(frozen=True)
class SubVolume:
    """What `infer` loads for one unit.

    Attributes:
        layers: (Z, height, width) of the unit's read box, depth order as the network wants it, stored dtype.
        mask: Boolean (height, width) of the read box.
        tiles: The tiles to compute.
    """

    layers: NDArray[Any]
    mask: NDArray[np.bool_]
    tiles: UnitTiles


@dataclass
class Predictor:
    """Runs a network over units; fixed batch shapes, everything between load and store on the device.

    Attributes:
        model: The network, in eval mode on `device`.
        contract: What it must be fed.
        device: Where it computes.
        dtype: Dtype of the forward pass.
        batch_tiles: Tiles per forward pass; 0 finds it.
        stop: Checked between batches.
        tiles_done: Tiles computed so far.
    """

    model: InkModel
    contract: Contract
    device: torch.device
    dtype: torch.dtype = torch.float32
    batch_tiles: int = 0
    stop: StopFlag = field(default_factory=StopFlag)
    tiles_done: int = 0

    def __post_init__(self) -> None:
        multiple = getattr(self.model, "tile_multiple", 1)
        scale = self.model.output_scale
        tile = self.contract.tile_px
        if tile % multiple or tile % scale:
            raise ConfigError(
                f"tile_px {tile}: {self.model.name} needs a multiple of {max(multiple, scale)}; "
                "override tile_px or take another bundle"
            )
        if self.batch_tiles < 1:
            self.batch_tiles = self._found_batch()

    def grid(self, shape_yx: tuple[int, int]) -> TileGrid:
        """The global tile grid of a surface."""
        return TileGrid(shape_yx, self.contract.tile_px, self.contract.stride_px)

    def blend(self, unit: Unit, loaded: SubVolume) -> NDArray[np.float32]:
        """Compute the probability in the unit's write box.

        Returns:
            float32 (height, width); 0 outside the mask.

        Raises:
            NonFiniteError: The model handed back NaN or infinity.
            Preempted: A stop was asked for; the unit is dropped.
        """
        blender = Blender(loaded.tiles, unit.read_box, self.contract.window, self.device)
        for row, weighted in self._rows(unit, loaded, blender.window):
            blender.add_row(row, weighted)
        probability = blender.result(unit.write_box)
        if self.contract.activation == "sigmoid":
            probability = probability.clamp(0, 1)
        result: NDArray[np.float32] = probability.cpu().numpy()
        if not np.isfinite(result).all():
            raise NonFiniteError(
                f"unit {unit.name}: the model returned NaN or infinity; "
                "check the bundle's divisor and clip, and try --precision fp32"
            )
        result[~loaded.mask[unit.write_box.within(unit.read_box)]] = 0
        return result

    def _rows(self, unit: Unit, loaded: SubVolume, window: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Weighted outputs of each tile row that holds a wanted tile, from top to bottom.

        On a CPU a tile's slot in the batch follows from its column: vectorised functions may round an element by its
        place in the tensor, and so a tile's bits do not depend on how units are cut. Elsewhere batches are packed.
        """
        tiles, edge = loaded.tiles, self.contract.tile_px
        batch = _Batch(self.batch_tiles, loaded.layers.shape[0], edge, self.device)
        aligned = self.device.type == "cpu"
        rows: dict[int, Tensor] = {}
        for run, band, origin in self._runs(unit, loaded):
            rest = run
            while rest.count:
                slot = rest.column % batch.size if aligned else batch.used
                if slot < batch.used:
                    yield from self._flush(batch, tiles, rows, window)
                taken = min(rest.count, batch.size - slot)
                batch.add(rest.head(taken), slot, band, origin)
                rest = rest.tail(taken)
                if batch.used == batch.size:
                    yield from self._flush(batch, tiles, rows, window)
        yield from self._flush(batch, tiles, rows, window)
        yield from sorted(rows.items())

    def _runs(self, unit: Unit, loaded: SubVolume) -> Iterator[tuple[TileRun, Tensor, tuple[int, int]]]:
        """Every run of wanted tiles with the normalised band of layers that holds it."""
        tiles, edge = loaded.tiles, self.contract.tile_px
        axis = tiles.grid.rows
        budget = CPU_BAND_BYTES if self.device.type == "cpu" else DEVICE_BAND_BYTES
        row_bytes = loaded.layers.shape[0] * unit.read_box.width * 4
        rows_per_band = max(1, (budget // row_bytes - edge) // tiles.grid.stride_px + 1)
        resident = None if self.device.type == "cpu" else torch.from_numpy(loaded.layers).to(self.device)
        for first in range(0, len(tiles.rows), rows_per_band):
            rows = tiles.rows[first : first + rows_per_band]
            runs = [run for row in rows for run in tiles.runs(row)]
            if not runs:
                continue
            y0, y1 = axis.origin(rows[0]), axis.origin(rows[-1]) + edge
            part = slice(y0 - unit.read_box.y0, y1 - unit.read_box.y0)
            stored = torch.from_numpy(loaded.layers[:, part]) if resident is None else resident[:, part]
            band = normalise(stored, self.contract)
            for run in runs:
                yield run, band, (y0, unit.read_box.x0)

    def _flush(
        self, batch: _Batch, tiles: UnitTiles, rows: dict[int, Tensor], window: Tensor
    ) -> Iterator[tuple[int, Tensor]]:
        """Run the network over the batch, sort its outputs into rows, and hand out the rows that are finished."""
        if not batch.runs:
            return
        self.stop.check()
        maps = self._forward(batch.tensor)
        edge = self.contract.tile_px
        for slot, run in batch.runs:
            self.tiles_done += run.count
            if run.row not in rows:
                rows[run.row] = torch.zeros((len(tiles.columns), edge, edge), device=self.device)
            first = run.column - tiles.columns.start
            torch.mul(maps[slot : slot + run.count], window, out=rows[run.row][first : first + run.count])
        current = batch.runs[-1][1].row
        batch.clear()
        for row in sorted(row for row in rows if row < current):
            yield row, rows.pop(row)

    @torch.inference_mode()
    def _forward(self, subvolumes: Tensor) -> Tensor:
        """(B, 1, Z, T, T) normalised -> (B, T, T) float32 maps at full tile resolution.

        When the device runs out of memory the batch is halved, for good, and the same tiles are computed again.
        """
        while True:
            try:
                parts = [self._maps(part) for part in torch.split(subvolumes, self.batch_tiles)]
                return parts[0] if len(parts) == 1 else torch.cat(parts)
            except torch.OutOfMemoryError as error:
                if self.batch_tiles == 1:
                    raise InkbatchError(
                        f"device {self.device}: one tile of {tuple(subvolumes.shape[1:])} does not fit its memory; "
                        "use a larger device"
                    ) from error
                self.batch_tiles = max(1, self.batch_tiles // 2)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()

    def _maps(self, subvolumes: Tensor) -> Tensor:
        edge = self.contract.tile_px
        with autocast(self.device, self.dtype):
            raw = self.model(subvolumes)
        maps: Tensor = raw.float()
        if self.contract.activation == "sigmoid":
            maps = maps.sigmoid()
        if maps.shape[-1] != edge:
            maps = functional.interpolate(maps, size=(edge, edge), mode="bilinear", align_corners=False)
        return maps[:, 0]

    def _found_batch(self) -> int:
        """A batch size for this device.

        On a CPU it follows from the tile's size alone, so that every machine computes the same bits. On other devices
        the batch is doubled while that is faster and fits.
        """
        depth, edge = self.contract.layers.count, self.contract.tile_px
        if self.device.type == "cpu":
            return max(1, min(CPU_MAX_BATCH, CPU_BATCH_BYTES // (depth * edge * edge * 4)))
        best, best_rate, size = 1, 0.0, 1
        while size <= MAX_BATCH:
            self.batch_tiles = size
            tile = torch.zeros((size, 1, depth, edge, edge), device=self.device)
            self._forward(tile)
            if self.batch_tiles < size:
                break
            rate = size / _seconds(self, tile)
            if rate < best_rate * PROBE_GAIN:
                break
            best, best_rate, size = size, rate, size * 2
        return best


class _Batch:
    """A fixed input tensor that is filled run by run."""

    def __init__(self, size: int, depth: int, edge: int, device: torch.device) -> None:
        self.tensor = torch.zeros((size, 1, depth, edge, edge), dtype=torch.float32, device=device)
        self.size = size
        self.used = 0
        self.runs: list[tuple[int, TileRun]] = []

    def add(self, run: TileRun, slot: int, band: Tensor, origin_yx: tuple[int, int]) -> None:
        gather(run, band, origin_yx, self.tensor.shape[-1], self.tensor[slot : slot + run.count, 0])
        self.used = slot + run.count
        self.runs.append((slot, run))

    def clear(self) -> None:
        self.used = 0
        self.runs = []


def normalise(stored: Tensor, contract: Contract) -> Tensor:
    """Apply the contract's clip, divisor, mean and std.

    Args:
        stored: (Z, Y, X) in the stored dtype.
        contract: The bundle's contract.

    Returns:
        Contiguous float32 (Z, Y, X): ``(clip(x) / divisor - mean) / std``.
    """
    values = stored.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    if not values.is_contiguous():
        values = values.contiguous()
    if contract.clip is not None:
        values.clamp_(contract.clip[0], contract.clip[1])
    values.div_(contract.divisor)
    if contract.mean != 0.0:
        values.sub_(contract.mean)
    if contract.std != 1.0:
        values.div_(contract.std)
    return values


def _seconds(predictor: Predictor, tile: Tensor) -> float:
    """Seconds of one forward pass, the better of two."""
    import time

    best = float("inf")
    for _ in range(2):
        synchronize(predictor.device)
        start = time.perf_counter()
        predictor._forward(tile)
        synchronize(predictor.device)
        best = min(best, time.perf_counter() - start)
    return best


def read_box_of(box: Box, grid: TileGrid) -> Box:
    """The box that holds every tile touching `box`."""
    return grid.hull(*grid.touching(box))

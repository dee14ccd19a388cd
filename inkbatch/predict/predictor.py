"""From a unit's layers to its ink probability: the only busy part of `infer`."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inkbatch.errors import DataError, NonFiniteError
from inkbatch.geometry import TileGrid, Unit
from inkbatch.models.base import InkModel
from inkbatch.models.bundle import Contract
from inkbatch.models.inputs import require_tile
from inkbatch.predict.batches import Batch, PlacedRun, filled
from inkbatch.predict.blend import Blender, map_of
from inkbatch.predict.compiling import compiled, require_like_eager
from inkbatch.predict.coverage import grid_of
from inkbatch.predict.memory_format import arrange, channels_last_pays
from inkbatch.predict.normalise import Statistics, normalise
from inkbatch.predict.passes import Passes, cpu_threads
from inkbatch.predict.tiles import UnitTiles
from inkbatch.predict.variants import AS_IS, Combine, View, ordered
from inkbatch.predict.windows import window_of
from inkbatch.run.signals import StopFlag

CPU_BAND_BYTES = 32 << 20  # of normalised float32 layers at a time
CPU_GATHER_BYTES = 8 << 20  # of float32 input that are handed over at a time: batches, one at least
DEVICE_BAND_BYTES = 1 << 30
LEEWAY = 2.0**-12  # half of the smallest step of a float16 below 1
IN_FLIGHT = 2  # gathers that passes are made of or wait for, while the next one is filled


@dataclass(frozen=True)
class SubVolume:
    """Input of one unit of `infer`.

    Attributes:
        layers: (Z, height, width) of the unit's read box, depth order as the network expects it, stored dtype. For
            `Predictor.blend` as many as the network takes; for `Predictor.blend_windows` all that its windows take.
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
        batch_tiles: Tiles per forward pass; 0 finds it. It shrinks when memory runs out.
        stop: Checked between batches.
        compile: Compile the network for the fixed batch shape.
        views: How each tile is looked at: a forward pass each.
        combine: How the maps of a tile's views, turned back, become one.
        statistics: Of the segment, for a contract that normalises by them.
        on_tiles: Called with the number of tiles of each run that was computed.
        tiles_done: Tiles computed so far, once per window of layers, whatever the number of views.
        passes: What makes the forward passes; on a CPU as many side by side as torch may use threads.
    """

    model: InkModel
    contract: Contract
    device: torch.device
    dtype: torch.dtype = torch.float32
    batch_tiles: int = 0
    stop: StopFlag = field(default_factory=StopFlag)
    compile: bool = False
    views: tuple[View, ...] = (AS_IS,)
    combine: Combine = "mean"
    statistics: Statistics | None = None
    on_tiles: Callable[[int], None] = lambda count: None
    tiles_done: int = 0
    passes: Passes = field(init=False, repr=False)
    _pass_tiles: int = field(init=False, repr=False)
    _batches: list[Batch] = field(default_factory=list, repr=False)
    _band: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        require_tile(self.model, self.contract.tile_px, self.contract.tile_px)
        arrange(self.model, channels_last=channels_last_pays(self.device, self.dtype))
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # batches have one fixed shape
        self.passes = Passes(
            self.model,
            self.contract,
            self.device,
            self.dtype,
            self.stop,
            self.batch_tiles,
            views=self.views,
            combine=self.combine,
        )
        if self._on_cpu:
            threads = torch.get_num_threads()
            self.passes.workers, self.passes.threads = (1, threads) if self.compile else (threads, 1)
        self._pass_tiles = self.passes.batch_tiles
        if self.compile:
            compiled(self.model, self.device)
            edge = self.contract.tile_px
            shape = (self._pass_tiles, 1, self.model.config.depth_layers, edge, edge)
            require_like_eager(self.model, shape, self.device, self.dtype)

    @property
    def _on_cpu(self) -> bool:
        return self.device.type == "cpu"

    def grid(self, shape_yx: tuple[int, int]) -> TileGrid:
        """Lay the global tile grid over a surface."""
        return grid_of(self.contract, shape_yx)

    def blend(self, unit: Unit, loaded: SubVolume) -> NDArray[np.float32]:
        """Compute the probability in the unit's write box.

        Returns:
            float32 (height, width), of classes (classes, height, width); outside the mask 0, unless the contract keeps
            what tiles say there.

        Raises:
            NonFiniteError: The model handed back NaN or infinity.
            Preempted: A stop was asked for; the unit is dropped.
        """
        return next(self.blend_windows(unit, loaded, (np.arange(len(loaded.layers)),)))

    def blend_windows(
        self, unit: Unit, loaded: SubVolume, windows: Sequence[NDArray[np.intp]]
    ) -> Iterator[NDArray[np.float32]]:
        """Compute one map per window of the loaded layers; a device gets the layers once for all of them.

        Args:
            unit: The unit.
            loaded: Its layers: all that any window takes.
            windows: Places of the loaded layers in the order in which the network is given them.

        Yields:
            What `blend` returns for a `SubVolume` of this window alone, to the bit on a CPU.

        Raises:
            NonFiniteError: See `blend`.
            Preempted: See `blend`.
        """
        layers = torch.from_numpy(loaded.layers).to(self.device)  # on a CPU the same memory
        for window in windows:
            yield self._blend(unit, loaded, ordered(layers, window))

    def sums(self, unit: Unit, tiles: UnitTiles, layers: Tensor) -> tuple[Tensor, Tensor]:
        """Sum weighted tiles, and their weights, in the unit's write box; nothing leaves the device.

        Args:
            unit: The unit, in pixels of the tiles' grid.
            tiles: Its tiles.
            layers: (Z, height, width) of the unit's read box on the device, in the order that the network expects.

        Returns:
            Two float32 (height, width), of classes (classes, height, width). `inkbatch.predict.blend.map_of` makes the
            map of them, as `blend` does.
        """
        with cpu_threads(1), self.passes.started():
            rules = window_of(self.contract), self.device, self.contract.stitching
            blenders = [Blender(tiles, unit.read_box, *rules) for _ in range(self.model.classes)]
            for row, weighted in self._rows(unit, tiles, layers, blenders[0].window):
                for blender, plane in zip(blenders, weighted, strict=True):
                    blender.add_row(row, plane)
            sums = [blender.sums(unit.write_box) for blender in blenders]
            if len(sums) == 1:
                return sums[0]
            return torch.stack([total for total, _ in sums]), torch.stack([weight for _, weight in sums])

    def _blend(self, unit: Unit, loaded: SubVolume, layers: Tensor) -> NDArray[np.float32]:
        with cpu_threads(1):
            probability = map_of(*self.sums(unit, loaded.tiles, layers))
            if self.contract.activation == "sigmoid":
                probability = probability.clamp_(0, 1)
            result: NDArray[np.float32] = probability.cpu().numpy()
        require_finite(bool(np.isfinite(result).all()), f"unit {unit.name}")
        if self.contract.stitching.outside == "zero":
            result[..., ~loaded.mask[unit.write_box.within(unit.read_box)]] = 0
        return result

    def _rows(self, unit: Unit, tiles: UnitTiles, layers: Tensor, window: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield the weighted outputs (classes, columns, T, T) of each tile row with tiles to compute, top to bottom."""
        columns, edge, planes = tiles.columns, self.contract.tile_px, self.model.classes
        inputs = self._inputs(len(layers))
        batches = filled(
            self._runs(unit, tiles, layers), inputs, aligned=self._on_cpu, held=min(IN_FLIGHT, len(inputs))
        )
        rows: dict[int, Tensor] = {}
        with contextlib.closing(batches):
            for batch, first_slot, maps in self._computed(batches):
                for slot, run in batch.runs:
                    self.tiles_done += run.count
                    self.on_tiles(run.count)
                    if run.row not in rows:
                        rows[run.row] = torch.zeros((planes, len(columns), edge, edge), device=self.device)
                    first = run.column - columns.start
                    part = maps[slot - first_slot :][: run.count]
                    placed = part[None] if planes == 1 else part.transpose(0, 1)
                    torch.mul(placed, window, out=rows[run.row][:, first : first + run.count])
                current = batch.runs[-1][1].row
                for row in sorted(row for row in rows if row < current):
                    yield row, rows.pop(row)
        yield from sorted(rows.items())

    def _computed(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, int, Tensor]]:
        """Yield gathered tiles with the slot where their maps begin; the next start before these are waited for."""
        size = self._pass_tiles
        begun: deque[tuple[Batch, int, Callable[[], Tensor]]] = deque()
        for batch in batches:
            self.stop.check()
            first_slot = batch.runs[0][0] // size * size
            begun.append(
                (batch, first_slot, self.passes.start(batch.tensor[first_slot : -(-batch.used // size) * size]))
            )
            if not self._on_cpu or len(begun) == IN_FLIGHT:
                before, slot, result = begun.popleft()
                yield before, slot, result()
        for last, slot, result in begun:
            yield last, slot, result()

    def _inputs(self, depth: int) -> list[Batch]:
        """Return input tensors for `filled`, the same ones for all units.

        On a CPU each of several batches, one for each worker at least: fewer hand-overs between the threads.
        """
        shape = (depth, self.contract.tile_px)
        size, on_cpu, dtype = self._pass_tiles, self._on_cpu, self.passes.input_dtype
        if on_cpu:
            size *= max(self.passes.workers, CPU_GATHER_BYTES // (size * depth * self.contract.tile_px**2 * 4))
        if not self._batches or self._batches[0].tensor.shape[0] != size or self._batches[0].tensor.shape[2] != depth:
            self._batches = [Batch(size, *shape, self.device, dtype) for _ in range(IN_FLIGHT + 1 if on_cpu else 1)]
        return self._batches

    def _runs(self, unit: Unit, tiles: UnitTiles, layers: Tensor) -> Iterator[PlacedRun]:
        """Yield every run of tiles to compute with its band of layers: normalised, unless each tile is alone."""
        edge = self.contract.tile_px
        axis = tiles.grid.rows
        budget = CPU_BAND_BYTES if self.device.type == "cpu" else DEVICE_BAND_BYTES
        row_bytes = len(layers) * unit.read_box.width * 4
        rows_per_band = max(1, (budget // row_bytes - edge) // tiles.grid.stride_px + 1)
        for first in range(0, len(tiles.rows), rows_per_band):
            rows = tiles.rows[first : first + rows_per_band]
            runs = [run for row in rows for run in tiles.runs(row)]
            if not runs:
                continue
            y0, y1 = axis.origin(rows[0]), axis.origin(rows[-1]) + edge
            part = slice(y0 - unit.read_box.y0, y1 - unit.read_box.y0)
            stored = layers[:, part]
            if self.contract.normaliser.per_tile:
                band = stored.contiguous()
                for run in runs:
                    yield run, band, (y0, unit.read_box.x0)
                continue
            if self.device.type == "cpu" and (self._band is None or self._band.numel() < stored.numel()):
                self._band = torch.empty(stored.numel())
            room = None if self._band is None else self._band[: stored.numel()].view(stored.shape)
            band = normalise(stored, self.contract, room, self.statistics)
            for run in runs:
                yield run, band, (y0, unit.read_box.x0)


def require_finite(is_finite: bool, place: str) -> None:
    """Refuse maps with NaN or infinity.

    Args:
        is_finite: False if a map holds one.
        place: Opens the message.

    Raises:
        NonFiniteError: One does.
    """
    if not is_finite:
        raise NonFiniteError(
            f"{place}: the model returned NaN or infinity; check the bundle's divisor and clip, and try --precision "
            "fp32"
        )


def require_probabilities(low: float, high: float, unit: Unit) -> None:
    """Refuse values of a network without activation that leave 0 to 1 by more than float16 rounding.

    Raises:
        DataError: They do.
    """
    if low < -LEEWAY or high > 1 + LEEWAY:
        raise DataError(
            f"unit {unit.name}: expected a map from 0 to 1, got {low:.4g} to {high:.4g} from the network; "
            "check the bundle's divisor, clip and activation"
        )

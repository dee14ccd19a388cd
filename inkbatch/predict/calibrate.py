"""A short measurement of how many tiles per second a bundle makes on the device at hand."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from inkbatch.geometry import Box, Unit
from inkbatch.models.bundle import Bundle
from inkbatch.models.contract import Contract
from inkbatch.predict.coverage import grid_of
from inkbatch.predict.device import (
    DeviceName,
    PrecisionName,
    choose_device,
    choose_precision,
    device_facts,
    synchronize,
)
from inkbatch.predict.predictor import Predictor, SubVolume
from inkbatch.predict.segment_statistics import array_statistics
from inkbatch.predict.tiles import tiles_of

ROUNDS = 4
LARGEST_PX = 4096


@dataclass(frozen=True)
class Calibration:
    """Measured rate of a bundle on a device.

    Attributes:
        tiles_per_s: Tiles per second: normalising, cutting, forward passes and blending; reading and writing overlap.
        tiles: Tiles of the last round.
        seconds: Its seconds.
        facts: Device and precision, see `device_facts`.
        start_s: Seconds until the network stood on the device and had computed its first tile.
    """

    tiles_per_s: float
    tiles: int
    seconds: float
    facts: dict[str, object]
    start_s: float


def calibrate(
    bundle: Bundle,
    contract: Contract,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
    budget_s: float = 6.0,
) -> Calibration:
    """Run the network over random grey values, more and more of them, until a round takes most of `budget_s`.

    Args:
        bundle: The model; its weights are read.
        contract: The bundle's, with the choices of the run.
        device: Where it computes.
        precision: Of the forward passes.
        budget_s: Seconds that the last round may take; the first ones warm up and take less.

    Raises:
        DataError: The device cannot be used.
    """
    begun = time.perf_counter()
    chosen = choose_device(device)
    predictor = Predictor(bundle.build(chosen), contract, chosen, choose_precision(precision, chosen))
    most = max(1, (LARGEST_PX - contract.tile_px) // contract.stride_px + 1)
    side, seconds = 1, _seconds(predictor, 1)  # the first pass also prepares the device
    start_s = time.perf_counter() - begun
    for _ in range(ROUNDS):
        seconds = _seconds(predictor, side)
        if side == most or seconds > budget_s / 3:
            break
        side = min(most, max(side + 1, int(side * math.sqrt(budget_s / 2 / max(seconds, 1e-3)))))
    seconds = min(seconds, _seconds(predictor, side))  # a stall of the machine is no property of the network
    return Calibration(side**2 / seconds, side**2, seconds, device_facts(chosen, predictor.dtype), start_s)


def _seconds(predictor: Predictor, side: int) -> float:
    """Measure the seconds of a unit of ``side x side`` tiles."""
    contract = predictor.contract
    edge = contract.tile_px + contract.stride_px * (side - 1)
    box = Box(0, 0, edge, edge)
    mask = np.ones(box.shape, bool)
    layers = np.random.default_rng(0).integers(0, 256, (contract.layers.count, edge, edge), dtype=np.uint8)
    tiles = tiles_of(grid_of(contract, box.shape), box, mask, box)
    predictor.statistics = array_statistics(contract, layers, predictor.device)
    start = time.perf_counter()
    predictor.blend(Unit(0, box, box), SubVolume(layers, mask, tiles))
    synchronize(predictor.device)
    return time.perf_counter() - start

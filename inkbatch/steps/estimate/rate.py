"""Seconds per tile of a bundle on a machine: measured now, stored, or the data sheet's share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from inkbatch.errors import ConfigError
from inkbatch.models.bundle import Bundle
from inkbatch.run.cost import EFFICIENCY, Machine, Range
from inkbatch.steps.estimate.settings import EstimateConfig
from inkbatch.steps.estimate.throughput import (
    Throughput,
    add_throughput,
    device_of_gpu,
    device_of_row,
    is_same_device,
    stored_throughputs,
)

CALIBRATED_SPREAD = (0.95, 1.15)  # of seconds: whole jobs took 1.01 to 1.12 of their forward passes (benchmarks)
STORED_SPREAD = (0.85, 1.30)  # another machine of the kind, another load


@dataclass(frozen=True)
class Rate:
    """Seconds per pass of a tile as a range, their source, and seconds of start-up where they were measured."""

    seconds_per_tile: Range
    source: str
    start_s: float | None = None

    def seconds(self, passes: int) -> Range:
        """Return the seconds for so many passes of a tile."""
        low, high = self.seconds_per_tile
        return low * passes, high * passes


def find_rate(config: EstimateConfig, bundle: Bundle, rented: Machine | None) -> tuple[Rate, str]:
    """Find the rate of a bundle on a rented machine or the device at hand, and the device's name.

    Raises:
        ConfigError: Nothing is known of this bundle on this device, or another device is to be measured.
    """
    device = device_of_gpu(rented.gpu) if rented is not None else _device_here(config)
    if config.calibrate:
        here = _device_here(config)
        if not is_same_device(device, here):
            raise ConfigError(
                f"--calibrate: measures the device at hand ({here}), the estimate is for {config.machine} "
                f"({device}); leave --machine out, or calibrate there with --save FILE and bring the file back"
            )
        return _measured(config, bundle, here), here
    document = bundle.document
    for known in stored_throughputs():
        if is_same_device(device, known.device) and known.is_of(document.architecture, document.flops_per_tile):
            seen = f"{known.tiles_per_s:g} tiles/s in {known.precision} seen on {known.device}"
            return _spread(STORED_SPREAD, known.tiles_per_s, f"{seen} ({known.source}; {known.as_of})"), device
    flops = document.flops_per_tile
    if rented is not None and flops is not None:
        share = f"{EFFICIENCY[0]:.0%} to {EFFICIENCY[1]:.0%} of the data sheet's bf16 rate"
        return Rate(rented.seconds(flops), f"{flops / 1e9:,.2f} GFLOP at {share}; not measured"), device
    raise ConfigError(
        f"estimate: no stored throughput of {document.name} on {device}; give --calibrate (some seconds on the device "
        "at hand), or --machine with a kind of the price table"
    )


def _measured(config: EstimateConfig, bundle: Bundle, here: str) -> Rate:
    """Measure now, and save the throughput if asked to."""
    from inkbatch.predict.calibrate import calibrate

    found = calibrate(bundle, config.device, config.precision, config.calibrate_s)
    document, precision = bundle.document, str(found.facts["precision"])
    if config.save:
        if document.flops_per_tile is None:
            raise ConfigError(f"--save: bundle {document.name} does not state its FLOPs per tile; import it again")
        measured = Throughput(
            device=here,
            architecture=document.architecture,
            flops_per_tile=document.flops_per_tile,
            precision=precision,
            tiles_per_s=float(f"{found.tiles_per_s:.4g}"),
            as_of=datetime.now(UTC).date().isoformat(),
            source=f"inkbatch estimate --calibrate with {document.name}: {found.tiles} tiles in {found.seconds:.2f} s",
        )
        add_throughput(Path(config.save), measured)
    text = f"{found.tiles_per_s:.4g} tiles/s in {precision} measured now ({found.tiles} tiles)"
    return _spread(CALIBRATED_SPREAD, found.tiles_per_s, text, found.start_s)


def _spread(spread: Range, tiles_per_s: float, source: str, start_s: float | None = None) -> Rate:
    return Rate((spread[0] / tiles_per_s, spread[1] / tiles_per_s), source, start_s)


def _device_here(config: EstimateConfig) -> str:
    from inkbatch.predict.device import choose_device, device_facts
    from inkbatch.run.run_file import core_count, processor_name

    facts = {"processor": processor_name(), "cores": core_count(), **device_facts(choose_device(config.device))}
    return device_of_row(facts) or str(facts["device"])

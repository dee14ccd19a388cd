"""`inkbatch estimate`: units, tiles, seconds and money of infer jobs, before anything is rented."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from inkbatch.data.segments.catalog import Catalog
from inkbatch.errors import ConfigError, InkbatchError
from inkbatch.io.store.location import Location
from inkbatch.models.bundle import Bundle, bundle_location
from inkbatch.predict.calibrate import calibrate
from inkbatch.predict.device import choose_device, device_facts
from inkbatch.run.prices import EFFICIENCY, Machine, Price, machine_named, price_here
from inkbatch.run.run_file import core_count, processor_name
from inkbatch.steps.estimate.real_runs import real_runs
from inkbatch.steps.estimate.result import Estimate, SegmentEstimate
from inkbatch.steps.estimate.throughput import (
    CALIBRATED_SPREAD,
    Rate,
    Throughput,
    add_throughput,
    device_of_row,
    is_same_device,
    stored_rate,
)
from inkbatch.steps.infer.settings import InferConfig
from inkbatch.steps.infer.workload import workload

HERE = "here"


class EstimateConfig(InferConfig):
    """Settings of `inkbatch estimate`: what an infer job takes, so that its own file can be given, and these.

    Attributes:
        segment: Segment id; empty with `all`.
        all: Every segment of the catalog.
        machine: A kind of the price table, or ``here``: the device at hand.
        calibrate: Measure the bundle on the device at hand for some seconds.
        save: File that gets the measured throughput, for ``INKBATCH_FIGURES`` elsewhere.
        calibrate_s: Seconds of its longest round.
    """

    job: ClassVar[str] = "estimate"

    segment: str = ""
    all: bool = False
    machine: str = HERE
    calibrate: bool = False
    save: str | None = None
    calibrate_s: float = Field(6.0, gt=0)

    @model_validator(mode="after")
    def _one_or_all(self) -> EstimateConfig:
        if bool(self.segment) == self.all:
            raise ValueError("give a segment, or --all for every segment of the catalog, one of them")
        if self.save and not self.calibrate:
            raise ValueError("save keeps what was measured; give --calibrate with it")
        return self


def run(config: EstimateConfig) -> Estimate:
    """Estimate one segment, or every one of the catalog; nothing is written but what `save` asks for.

    Raises:
        ConfigError: An unknown machine, or no throughput known for the device at hand.
        DataError: The one segment that was asked for cannot be inferred with this bundle.
    """
    bundle = Bundle.open(bundle_location(config.bundle), config.override)
    rented = None if config.machine == HERE else machine_named(config.machine)
    here = _device_here(config) if rented is None or config.calibrate else ""
    device = rented.device if rented else here
    if config.calibrate and not is_same_device(device, here):
        raise ConfigError(
            f"--calibrate: measures the device at hand ({here}), the estimate is for {config.machine} ({device}); "
            "leave --machine out, or calibrate there with --save FILE and bring the file back"
        )
    rate = _measured_rate(config, bundle, here) if config.calibrate else _known_rate(bundle, rented, device)
    price = Price(config.machine, row=rented) if rented else price_here()
    segments = sorted(Catalog.load(config.catalog).entries) if config.all else [config.segment]
    return Estimate(
        bundle=bundle.document.name,
        machine=f"{config.machine} ({rented.gpu})" if rented else f"this machine ({device})",
        rate=rate,
        price=price,
        segments=tuple(_estimate(config, segment, bundle, rate, device) for segment in segments),
    )


def _estimate(config: EstimateConfig, segment: str, bundle: Bundle, rate: Rate, device: str) -> SegmentEstimate:
    """Estimate one segment; one of a whole catalog may be refused without ending the others."""
    layers = None if config.layers == "auto" else config.layers  # those that a probe found cost as much
    try:
        work = workload(config.model_copy(update={"segment": segment, "layers": layers}), config.catalog)
    except InkbatchError as error:
        if not config.all:
            raise
        return SegmentEstimate(segment, refusal=str(error))
    runs = real_runs(Location.parse(config.root), segment, bundle.document.weights_sha256, device, rate)
    return SegmentEstimate(segment, work, rate.seconds(work.passes), tuple(runs))


def _known_rate(bundle: Bundle, rented: Machine | None, device: str) -> Rate:
    """Find the rate of a bundle on a device: stored, or the data sheet's share."""
    document = bundle.document
    flops = document.flops_per_tile
    if stored := stored_rate(device, document.architecture, flops):
        return stored
    if rented is not None and flops is not None:
        share = f"{EFFICIENCY[0]:.0%} to {EFFICIENCY[1]:.0%} of the data sheet's bf16 rate"
        return Rate(rented.seconds(flops), f"{flops / 1e9:,.2f} GFLOP at {share}; not measured")
    raise ConfigError(
        f"estimate: no stored throughput of {document.name} on {device}; give --calibrate (some seconds on the device "
        "at hand), or --machine with a kind of the price table"
    )


def _measured_rate(config: EstimateConfig, bundle: Bundle, here: str) -> Rate:
    """Measure now, and save the throughput if asked to."""
    contract = config.choices.applied(bundle.contract)
    found = calibrate(bundle, contract, config.device, config.precision, config.calibrate_s)
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
    return Rate.measured(found.tiles_per_s, CALIBRATED_SPREAD, text, found.start_s)


def _device_here(config: EstimateConfig) -> str:
    facts = {"processor": processor_name(), "cores": core_count(), **device_facts(choose_device(config.device))}
    return device_of_row(facts) or str(facts["device"])

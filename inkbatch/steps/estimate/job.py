"""`inkbatch estimate`: units, tiles, seconds and money of infer jobs, before anything is rented."""

from __future__ import annotations

from inkbatch.data.segments.catalog import Catalog
from inkbatch.errors import InkbatchError
from inkbatch.io.store.location import Location
from inkbatch.models.bundle import Bundle, bundle_location
from inkbatch.run.cost import Price, machine_named, price_here
from inkbatch.steps.estimate.rate import Rate, find_rate
from inkbatch.steps.estimate.real_runs import real_runs
from inkbatch.steps.estimate.report import EstimateReport, SegmentEstimate
from inkbatch.steps.estimate.settings import HERE, EstimateConfig
from inkbatch.steps.infer.workload import workload


def run(config: EstimateConfig) -> EstimateReport:
    """Estimate one segment, or every one of the catalog; nothing is written but what `save` asks for.

    Raises:
        ConfigError: An unknown machine, or no throughput known for the device at hand.
        DataError: The one segment that was asked for cannot be inferred with this bundle.
    """
    bundle = Bundle.open(bundle_location(config.bundle), config.overrides)
    rented = None if config.machine == HERE else machine_named(config.machine)
    rate, device = find_rate(config, bundle, rented)
    segments = sorted(Catalog.load(config.catalog).entries) if config.all else [config.segment]
    return EstimateReport(
        bundle=bundle.document.name,
        machine=f"{config.machine} ({rented.gpu})" if rented else f"this machine ({device})",
        rate=rate,
        price=Price(config.machine, None, rented) if rented else price_here() or Price(),
        segments=tuple(_estimate(config, segment, bundle, rate, device) for segment in segments),
    )


def _estimate(config: EstimateConfig, segment: str, bundle: Bundle, rate: Rate, device: str) -> SegmentEstimate:
    """Estimate one segment; one of a whole catalog may be refused without ending the others."""
    try:
        work = workload(config.of_segment(segment), config.catalog)
    except InkbatchError as error:
        if not config.all:
            raise
        return SegmentEstimate(segment, refusal=str(error))
    runs = real_runs(Location.parse(config.root), segment, bundle.document.weights_sha256, device, rate.seconds)
    return SegmentEstimate(segment, work, rate.seconds(work.passes), tuple(runs))

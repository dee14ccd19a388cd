"""`inkbatch estimate`: units, tiles, seconds and money of infer jobs, before anything is rented."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from inkbatch.config import JobConfig
from inkbatch.data.segments.catalog import Catalog
from inkbatch.errors import ConfigError, InkbatchError
from inkbatch.io.store.location import Location
from inkbatch.models.bundle import Bundle, bundle_location
from inkbatch.predict.device import DeviceName, PrecisionName
from inkbatch.predict.variants import ViewName
from inkbatch.run.estimate import EFFICIENCY, Machine, machine_named, price_here
from inkbatch.steps.estimate.real_runs import Range, RealRun, real_runs
from inkbatch.steps.estimate.throughput import Device, Figure, add_figure, stored_figures
from inkbatch.steps.infer.job import InferConfig
from inkbatch.steps.infer.workload import Workload, workload
from inkbatch.text import rough_seconds_text

HERE = "here"
CALIBRATED_SPREAD = (0.95, 1.15)  # of seconds: whole jobs took 1.01 to 1.12 of their forward passes (benchmarks)
STORED_SPREAD = (0.85, 1.30)  # another machine of the kind, another load
SHORT_S = 5.0


class EstimateConfig(JobConfig):
    """Settings of `inkbatch estimate`.

    Attributes:
        segment: Segment id; or else `all`.
        all: Every segment of the catalog.
        bundle: Folder or URI of the bundle.
        machine: A kind of the price table, or ``here``: the device at hand.
        root: ROOT: prepared segments are counted exactly, and real runs are compared.
        catalog: The user's catalog file.
        calibrate: Measure the bundle on the device at hand for some seconds.
        save: File that gets the measured figure, for ``INKBATCH_FIGURES`` elsewhere.
        stride_px: Step between tiles; None is what the bundle says.
        unit_px: Edge of a unit; None follows from the tile.
        layers: As `InferConfig.layers`, without ``auto``: the probe's layers cost no more than the bundle's own.
        layer_starts: See `InferConfig`; every window is one more pass per tile.
        layer_groups: See `InferConfig`.
        tta: See `InferConfig`; every view is one more pass per tile.
        override: Contract values that are to be replaced.
        device: Of the calibration: ``auto``, ``cuda``, ``mps`` or ``cpu``.
        precision: Of the calibration.
        calibrate_s: Seconds of its longest round.
    """

    job: ClassVar[str] = "estimate"

    segment: str | None = None
    all: bool = False
    bundle: str
    machine: str = HERE
    root: str = "root"
    catalog: str | None = None
    calibrate: bool = False
    save: str | None = None
    stride_px: int | None = Field(None, ge=1)
    unit_px: int | None = None
    layers: tuple[int, int] | None = None
    layer_starts: tuple[int, int] | tuple[int, int, int] | None = None
    layer_groups: tuple[tuple[int, int], ...] | None = Field(None, min_length=1)
    tta: tuple[ViewName, ...] = ()
    override: dict[str, Any] = Field(default_factory=dict)
    device: DeviceName = "auto"
    precision: PrecisionName = "auto"
    calibrate_s: float = Field(6.0, gt=0)

    @model_validator(mode="after")
    def _one_or_all(self) -> EstimateConfig:
        if (self.segment is None) != self.all:
            raise ValueError("give a segment, or --all for every segment of the catalog, one of them")
        if self.save and not self.calibrate:
            raise ValueError("save keeps what was measured; give --calibrate with it")
        return self


@dataclass(frozen=True)
class Rate:
    """Seconds per pass of a tile as a range, their source, and seconds of start-up where they were measured."""

    seconds_per_tile: Range
    source: str
    start_s: float | None = None


@dataclass(frozen=True)
class SegmentEstimate:
    """One segment: its work, seconds and money, real runs; or why it was refused."""

    segment: str
    work: Workload | None
    seconds: Range
    runs: tuple[RealRun, ...]
    refusal: str = ""


@dataclass(frozen=True)
class EstimateReport:
    """Everything that was estimated.

    Attributes:
        bundle: The bundle's name.
        machine: Kind of machine, or the device at hand.
        rate: What seconds follow from.
        price: Row of the price table, or None.
        hourly: USD per hour that was stated for this machine, or None.
        segments: One per segment.
    """

    bundle: str
    machine: str
    rate: Rate
    price: Machine | None
    hourly: float | None
    segments: tuple[SegmentEstimate, ...]

    @property
    def seconds(self) -> Range:
        """Of all segments together."""
        return sum(one.seconds[0] for one in self.segments), sum(one.seconds[1] for one in self.segments)

    def usd(self, seconds: Range) -> dict[str, Range]:
        """Money by kind of price; empty where no price is known."""
        low, high = (value / 3600 for value in seconds)
        found: dict[str, Range] = {}
        if self.hourly is not None:
            found["stated"] = low * self.hourly, high * self.hourly
        if self.price is not None:
            found["on demand"] = low * self.price.on_demand, high * self.price.on_demand
            found["spot"] = low * self.price.spot[0], high * self.price.spot[1]
        return found

    @property
    def document(self) -> dict[str, Any]:
        """As JSON."""
        rows = []
        for one in self.segments:
            row: dict[str, Any] = {"segment": one.segment, "seconds": one.seconds, "usd": self.usd(one.seconds)}
            row |= {"work": asdict(one.work) if one.work else None, "refusal": one.refusal or None}
            row["real_runs"] = [{**asdict(run), "error": run.error} for run in one.runs]
            rows.append(row)
        total = {"seconds": self.seconds, "usd": self.usd(self.seconds)}
        price = self.price.model_dump(mode="json") if self.price else None
        head = {"bundle": self.bundle, "machine": self.machine, "rate": asdict(self.rate), "price": price}
        return {**head, "segments": rows, "total": total}

    def __str__(self) -> str:
        per_tile = " to ".join(f"{value:.3g}" for value in self.rate.seconds_per_tile)
        lines = [
            f"estimate of infer with {self.bundle} on {self.machine}",
            f"  rate          {per_tile} s per tile: {self.rate.source}",
        ]
        for one in self.segments:
            lines += [f"  {line}" for line in self._segment_lines(one)]
        if len(self.segments) > 1:
            tiles = sum(one.work.tiles for one in self.segments if one.work)
            variants = next((_variants(one.work) for one in self.segments if one.work), "")
            refused = sum(not one.work for one in self.segments)
            text = f"{len(self.segments) - refused} segments, {tiles:,} tiles{variants}, {self._cost(self.seconds)}"
            lines.append(f"  together      {text}{f'; {refused} refused' if refused else ''}")
        if self.price is not None:
            lines.append(f"  prices        of {self.price.as_of} ({self.price.source}); never a bill")
        start = f"; loading the network took {rough_seconds_text(self.rate.start_s)} here" if self.rate.start_s else ""
        lines.append(f"  without       start-up (boot, image, reading weights) and preparing{start}")
        return "\n".join(lines)

    def _segment_lines(self, one: SegmentEstimate) -> list[str]:
        if one.work is None:
            return [f"{one.segment}: refused: {one.refusal}"]
        work = one.work
        bound = "" if work.exact else "at most "
        needed = work.read_bytes / max(one.seconds[0], 1e-9) / 1e6
        lines = [
            f"{one.segment}: {work.units} {'unit' if work.units == 1 else 'units'}, {bound}{work.tiles:,} tiles"
            f"{_variants(work)}, {self._cost(one.seconds)}",
            f"  reads {work.read_bytes / 2**30:,.2f} GiB; storage that gives under {needed:,.0f} MB/s makes it longer",
        ]
        if not work.exact:
            lines.append("  not prepared: its mask is not known yet, every tile is counted")
        if one.seconds[1] < SHORT_S:
            lines.append("  a short job: first passes and batches that are not full weigh more than rates say")
        for run in one.runs:
            text = f"  real run {run.name}: {run.tiles:,} tiles in {rough_seconds_text(run.seconds)} on {run.device}"
            text += run.circumstances
            if run.estimated is None or run.error is None:
                lines.append(f"{text}; another device, not compared")
            else:
                low, high = (rough_seconds_text(value) for value in run.estimated)
                way = "long" if run.error > 0 else "short"
                lines.append(f"{text}; the estimate says {low} to {high}, {abs(run.error):.0%} too {way}")
        return lines

    def _cost(self, seconds: Range) -> str:
        parts = [f"{rough_seconds_text(seconds[0])} to {rough_seconds_text(seconds[1])}"]
        parts += [f"{_money(low)} to {_money(high)} USD {kind}" for kind, (low, high) in self.usd(seconds).items()]
        if len(parts) == 1:
            parts.append("money unknown (INKBATCH_MACHINE or INKBATCH_USD_PER_HOUR states a price)")
        return ", ".join(parts)


def run(config: EstimateConfig) -> EstimateReport:
    """Estimate one segment, or every one of the catalog; nothing is written but what `save` asks for.

    Raises:
        ConfigError: An unknown machine, or no figure for the device at hand.
        DataError: The one segment that was asked for cannot be inferred with this bundle.
    """
    bundle = Bundle.open(bundle_location(config.bundle), _overrides(config))
    price = None if config.machine == HERE else machine_named(config.machine)
    stated = price_here() if price is None else None
    rate, device = _rate(config, bundle, price)
    segments = sorted(Catalog.load(config.catalog).entries) if config.all else [str(config.segment)]
    rows = []
    for segment in segments:
        try:
            work = workload(_infer_config(config, segment), config.catalog)
        except InkbatchError as error:
            if not config.all:
                raise
            rows.append(SegmentEstimate(segment, None, (0.0, 0.0), (), str(error)))
            continue
        runs = real_runs(
            Location.parse(config.root), segment, bundle.document.weights_sha256, device, partial(_times, rate)
        )
        rows.append(SegmentEstimate(segment, work, _times(rate, work.passes), tuple(runs)))
    where = f"{config.machine} ({price.gpu})" if price else f"this machine ({device.name})"
    return EstimateReport(
        bundle.document.name,
        where,
        rate,
        price or (stated.row if stated else None),
        stated.hourly if stated else None,
        tuple(rows),
    )


def _rate(config: EstimateConfig, bundle: Bundle, price: Machine | None) -> tuple[Rate, Device]:
    """Seconds per tile on the machine: measured now, stored, or the data sheet's share."""
    device = Device.of_gpu(price.gpu) if price is not None else _device_here(config)
    if config.calibrate:
        here = _device_here(config)
        if not device.is_that_of(here.name):
            raise ConfigError(
                f"--calibrate: measures the device at hand ({here.name}), the estimate is for {config.machine} "
                f"({device.name}); leave --machine out, or calibrate there with --save FILE and bring the file back"
            )
        return _measured(config, bundle, here), here
    document = bundle.document
    for figure in stored_figures():
        if device.is_that_of(figure.device) and figure.is_of(document.architecture, document.flops_per_tile):
            low, high = (spread / figure.tiles_per_s for spread in STORED_SPREAD)
            seen = f"{figure.tiles_per_s:g} tiles/s in {figure.precision} seen on {figure.device}"
            return Rate((low, high), f"{seen} ({figure.source}; {figure.as_of})"), device
    if price is not None and document.flops_per_tile is not None:
        slow, fast = (document.flops_per_tile / (price.bf16_tflops * 1e12 * share) for share in EFFICIENCY)
        shares = f"{EFFICIENCY[0]:.0%} to {EFFICIENCY[1]:.0%}"
        text = (
            f"{document.flops_per_tile / 1e9:,.2f} GFLOP at {shares} of the data sheet's bf16 rate; nobody measured it"
        )
        return Rate((fast, slow), text), device
    raise ConfigError(
        f"estimate: no stored figure of {document.name} on {device.name}, and nothing to reckon with; give --calibrate "
        "(some seconds on the device at hand), or --machine with a kind of the price table"
    )


def _measured(config: EstimateConfig, bundle: Bundle, here: Device) -> Rate:
    from inkbatch.predict.calibrate import calibrate

    found = calibrate(bundle, config.device, config.precision, config.calibrate_s)
    document = bundle.document
    if config.save:
        if document.flops_per_tile is None:
            raise ConfigError(f"--save: bundle {document.name} does not state its FLOPs per tile, which a figure needs")
        figure = Figure(
            device=here.name,
            architecture=document.architecture,
            flops_per_tile=document.flops_per_tile,
            precision=str(found.facts["precision"]),
            tiles_per_s=float(f"{found.tiles_per_s:.4g}"),
            as_of=datetime.now(UTC).date().isoformat(),
            source=f"inkbatch estimate --calibrate with {document.name}: {found.tiles} tiles in {found.seconds:.2f} s",
        )
        add_figure(Path(config.save), figure)
    low, high = (spread / found.tiles_per_s for spread in CALIBRATED_SPREAD)
    text = f"{found.tiles_per_s:.4g} tiles/s in {found.facts['precision']} measured now ({found.tiles} tiles)"
    return Rate((low, high), text, found.start_s)


def _device_here(config: EstimateConfig) -> Device:
    from inkbatch.predict.device import choose_device, device_facts
    from inkbatch.run.run_file import core_count, processor_name

    facts = {"processor": processor_name(), "cores": core_count(), **device_facts(choose_device(config.device))}
    return Device.of_row(facts) or Device(str(facts["device"]))


def _variants(work: Workload) -> str:
    return f" x {work.passes_per_tile} passes" if work.passes_per_tile > 1 else ""


def _money(usd: float) -> str:
    return f"{usd:.2f}" if usd >= 0.1 else f"{usd:.2g}"


def _times(rate: Rate, passes: int) -> Range:
    low, high = rate.seconds_per_tile
    return low * passes, high * passes


def _overrides(config: EstimateConfig) -> dict[str, Any]:
    return {**config.override, **({"stride_px": config.stride_px} if config.stride_px else {})}


def _infer_config(config: EstimateConfig, segment: str) -> InferConfig:
    keys = ("bundle", "root", "stride_px", "unit_px", "override", "layers", "layer_starts", "layer_groups", "tta")
    values = {key: getattr(config, key) for key in keys}
    return InferConfig.checked({"segment": segment, **values}, "estimate")

"""An estimate of infer jobs beside the real runs that there are, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from inkbatch.io.store.location import Location
from inkbatch.run.cost.prices import SHORTEST_S, Price, Range
from inkbatch.run.cost.throughput import Rate, device_of_row, is_same_device
from inkbatch.run.run_file import run_rows
from inkbatch.text import bytes_text, count_text, rough_range_text, rough_seconds_text

IDLE_CORES = 0.8  # of the cores; less means that others used them, too


@dataclass(frozen=True)
class Workload:
    """Work of one segment."""

    segment: str
    units: int
    tiles: int
    read_bytes: int  # grey values, before compression
    exact: bool  # the segment mask was counted; else every tile of the rectangle is, an upper bound
    passes_per_tile: int = 1  # layer windows times views

    @property
    def passes(self) -> int:
        """Forward passes of a tile, all together."""
        return self.tiles * self.passes_per_tile

    @property
    def passes_text(self) -> str:
        """The factor behind a number of tiles, where each takes more than one pass."""
        return f" x {self.passes_per_tile} passes" if self.passes_per_tile > 1 else ""


@dataclass(frozen=True)
class RealRun:
    """A real run beside its estimate; start-up is in neither of them."""

    name: str
    tiles: int
    passes: int
    seconds: float
    device: str
    estimated: Range | None  # for its passes; None for another device
    start_s: float  # until the first unit, of the mean process
    cores: tuple[float, int] | None  # busy on the average, and all; None if that was not recorded

    @property
    def error(self) -> float | None:
        """Middle of the estimate over the real seconds, less 1; positive is too long."""
        return None if self.estimated is None else sum(self.estimated) / 2 / self.seconds - 1

    def __str__(self) -> str:
        words = [f"{self.passes:,} passes"] if self.passes != self.tiles else []
        if self.start_s:
            words.append(f"after {rough_seconds_text(self.start_s)} of start-up")
        if self.cores is not None and self.cores[0] < IDLE_CORES * self.cores[1]:
            words.append(f"with {self.cores[0]:.1f} of {self.cores[1]} cores to itself")
        run = f"real run {self.name}: {self.tiles:,} tiles in {rough_seconds_text(self.seconds)} on {self.device}"
        run += f" ({', '.join(words)})" if words else ""
        if self.estimated is None or self.error is None:
            return f"{run}; another device, not compared"
        if self.estimated[1] < SHORTEST_S:  # start and first batches outweigh rates
            return f"{run}; the estimate says under a minute"
        way = "long" if self.error > 0 else "short"
        return f"{run}; the estimate says {rough_range_text(self.estimated)}, {abs(self.error):.0%} too {way}"


def real_runs(root: Location, segment: str, weights: str, device: str, rate: Rate) -> Iterator[RealRun]:
    """Find the runs of these weights (SHA-256) on a segment, finished or not, and estimate those on `device`."""
    folder = root / "predictions" / segment
    for name in folder.names():
        try:
            manifest = (folder / name / "manifest.json").read_mapping()
        except FileNotFoundError:
            continue
        if manifest.get("job") != "infer" or manifest.get("inputs", {}).get("weights_sha256") != weights:
            continue
        rows = [row for row in run_rows(folder / name, manifest["digest"]) if row.get("tiles")]
        if rows and rows[0].get("made_together", [name])[0] == name:  # of layer windows stored together one is enough
            yield _real_run(name, rows, device, rate)


def _real_run(name: str, rows: list[dict[str, Any]], device: str, rate: Rate) -> RealRun:
    passes = sum(row.get("tile_passes", row["tiles"]) for row in rows)
    seconds = sum(row.get("loop_s", row["seconds"]) for row in rows)
    devices = {known for row in rows if (known := device_of_row(row))}
    same = bool(devices) and all(is_same_device(device, known) for known in devices)
    on_cpu = all(row.get("device") == "cpu" and "cpu_s" in row for row in rows)
    busy = sum(row.get("cpu_s", 0.0) for row in rows) / max(seconds, 1e-9)
    return RealRun(
        name,
        tiles=sum(row["tiles"] for row in rows),
        passes=passes,
        seconds=seconds,
        device=", ".join(sorted(devices)) or "an unknown device",
        estimated=rate.seconds(passes) if same else None,
        start_s=sum(row.get("setup_s", 0.0) for row in rows) / len(rows),
        cores=(busy, max(row["cores"] for row in rows)) if on_cpu else None,
    )


@dataclass(frozen=True)
class SegmentEstimate:
    """One segment: its work, seconds and real runs; or why it was refused."""

    segment: str
    work: Workload | None = None
    seconds: Range = (0.0, 0.0)
    runs: tuple[RealRun, ...] = ()
    refusal: str = ""


@dataclass(frozen=True)
class Estimate:
    """Estimates of all segments, with the rate and the price that they follow from."""

    bundle: str
    machine: str
    rate: Rate
    price: Price
    segments: tuple[SegmentEstimate, ...]

    @property
    def seconds(self) -> Range:
        """Seconds of all segments together."""
        return sum(one.seconds[0] for one in self.segments), sum(one.seconds[1] for one in self.segments)

    @property
    def document(self) -> dict[str, Any]:
        """The estimate as JSON."""
        rows = []
        for one in self.segments:
            row: dict[str, Any] = {"segment": one.segment, "seconds": one.seconds, "usd": self.price.usd(one.seconds)}
            row |= {"work": asdict(one.work) if one.work else None, "refusal": one.refusal or None}
            rows.append({**row, "real_runs": [{**asdict(run), "error": run.error} for run in one.runs]})
        price = self.price.row.model_dump(mode="json") if self.price.row else None
        head = {"bundle": self.bundle, "machine": self.machine, "rate": asdict(self.rate), "price": price}
        return {**head, "segments": rows, "total": {"seconds": self.seconds, "usd": self.price.usd(self.seconds)}}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        per_tile = " to ".join(f"{value:.3g}" for value in self.rate.seconds_per_tile)
        yield f"estimate of infer with {self.bundle} on {self.machine}"
        yield f"  rate          {per_tile} s per tile: {self.rate.source}"
        for one in self.segments:
            yield from (f"  {line}" for line in self._segment_lines(one))
        works = [one.work for one in self.segments if one.work]
        if len(self.segments) > 1:
            refused = len(self.segments) - len(works)
            tiles = f"{sum(work.tiles for work in works):,} tiles{works[0].passes_text if works else ''}"
            text = f"{count_text(len(works), 'segment')}, {tiles}, {self._cost(self.seconds)}"
            yield f"  together      {text}{f'; {refused} refused' if refused else ''}"
        if self.price.row is not None:
            yield f"  prices        of {self.price.row.as_of} ({self.price.row.source}); never a bill"
        start = f"; loading the network took {rough_seconds_text(self.rate.start_s)} here" if self.rate.start_s else ""
        yield f"  without       start-up (boot, image, reading weights) and preparing{start}"

    def _segment_lines(self, one: SegmentEstimate) -> Iterator[str]:
        work = one.work
        if work is None:
            yield f"{one.segment}: refused: {one.refusal}"
            return
        tiles = f"{'' if work.exact else 'at most '}{work.tiles:,} tiles{work.passes_text}"
        yield f"{one.segment}: {count_text(work.units, 'unit')}, {tiles}, {self._cost(one.seconds)}"
        if one.seconds[1] >= SHORTEST_S:
            needed = work.read_bytes / one.seconds[0] / 1e6
            yield f"  reads {bytes_text(work.read_bytes)}; storage that gives under {needed:,.0f} MB/s makes it longer"
        if not work.exact:
            yield "  not prepared: its mask is not known yet, every tile is counted"
        if one.seconds[1] < SHORTEST_S:
            yield "  a short job: start, first passes and batches that are not full weigh more than rates say"
        yield from (f"  {run}" for run in one.runs)

    def _cost(self, seconds: Range) -> str:
        usd = self.price.usd(seconds)
        unknown = ["money unknown (INKBATCH_MACHINE or INKBATCH_USD_PER_HOUR states a price)"]
        if seconds[1] < SHORTEST_S:  # start and first batches outweigh rates: digits would be off by half
            most = max((high for _, high in self.price.usd((SHORTEST_S, SHORTEST_S)).values()), default=0.0)
            return ", ".join(["under a minute", *([f"under {most:.2g} USD"] if usd else unknown)])
        money = [f"{_money(low)} to {_money(high)} USD {kind}" for kind, (low, high) in usd.items()]
        return ", ".join([rough_range_text(seconds), *(money or unknown)])


def _money(usd: float) -> str:
    return f"{usd:.2f}" if usd >= 0.1 else f"{usd:.2g}"

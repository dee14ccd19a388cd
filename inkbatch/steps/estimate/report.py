"""An estimate, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from inkbatch.run.cost import Price, Range
from inkbatch.steps.estimate.rate import Rate
from inkbatch.steps.estimate.real_runs import RealRun
from inkbatch.steps.infer.workload import Workload
from inkbatch.text import count_text, rough_range_text, rough_seconds_text

SHORT_S = 5.0


@dataclass(frozen=True)
class SegmentEstimate:
    """One segment: its work, seconds and real runs; or why it was refused."""

    segment: str
    work: Workload | None = None
    seconds: Range = (0.0, 0.0)
    runs: tuple[RealRun, ...] = ()
    refusal: str = ""


@dataclass(frozen=True)
class EstimateReport:
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
        rows = [
            {
                "segment": one.segment,
                "seconds": one.seconds,
                "usd": self.price.usd(one.seconds),
                "work": asdict(one.work) if one.work else None,
                "refusal": one.refusal or None,
                "real_runs": [{**asdict(run), "error": run.error} for run in one.runs],
            }
            for one in self.segments
        ]
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
            for line in self._segment_lines(one):
                yield f"  {line}"
        if len(self.segments) > 1:
            works = [one.work for one in self.segments if one.work]
            variants = _variants(works[0]) if works else ""
            refused = len(self.segments) - len(works)
            text = f"{count_text(len(works), 'segment')}, {sum(work.tiles for work in works):,} tiles{variants}"
            yield f"  together      {text}, {self._cost(self.seconds)}{f'; {refused} refused' if refused else ''}"
        if self.price.row is not None:
            yield f"  prices        of {self.price.row.as_of} ({self.price.row.source}); never a bill"
        start = f"; loading the network took {rough_seconds_text(self.rate.start_s)} here" if self.rate.start_s else ""
        yield f"  without       start-up (boot, image, reading weights) and preparing{start}"

    def _segment_lines(self, one: SegmentEstimate) -> Iterator[str]:
        work = one.work
        if work is None:
            yield f"{one.segment}: refused: {one.refusal}"
            return
        units = count_text(work.units, "unit")
        tiles = f"{'' if work.exact else 'at most '}{work.tiles:,} tiles{_variants(work)}"
        needed = work.read_bytes / max(one.seconds[0], 1e-9) / 1e6
        yield f"{one.segment}: {units}, {tiles}, {self._cost(one.seconds)}"
        yield f"  reads {work.read_bytes / 2**30:,.2f} GiB; storage that gives under {needed:,.0f} MB/s makes it longer"
        if not work.exact:
            yield "  not prepared: its mask is not known yet, every tile is counted"
        if one.seconds[1] < SHORT_S:
            yield "  a short job: first passes and batches that are not full weigh more than rates say"
        for run in one.runs:
            yield f"  {run}"

    def _cost(self, seconds: Range) -> str:
        usd = [f"{_money(low)} to {_money(high)} USD {kind}" for kind, (low, high) in self.price.usd(seconds).items()]
        unknown = ["money unknown (INKBATCH_MACHINE or INKBATCH_USD_PER_HOUR states a price)"]
        return ", ".join([rough_range_text(seconds), *(usd or unknown)])


def _variants(work: Workload) -> str:
    return f" x {work.passes_per_tile} passes" if work.passes_per_tile > 1 else ""


def _money(usd: float) -> str:
    return f"{usd:.2f}" if usd >= 0.1 else f"{usd:.2g}"

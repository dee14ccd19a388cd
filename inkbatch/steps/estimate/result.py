"""An estimate of infer jobs beside the real runs that there are, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from inkbatch.run.prices import SHORTEST_S, Price, Range, estimate_text
from inkbatch.steps.estimate.real_runs import RealRun
from inkbatch.steps.estimate.throughput import Rate
from inkbatch.steps.infer.workload import Workload
from inkbatch.text import bytes_text, count_text, rough_seconds_text


@dataclass(frozen=True)
class SegmentEstimate:
    """One segment: its work, seconds and real runs; or why it was refused."""

    segment: str
    work: Workload | None = None
    seconds: Range = (0.0, 0.0)
    real_runs: tuple[RealRun, ...] = ()
    refusal: str | None = None


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
        price = self.price.row.model_dump(mode="json") if self.price.row else None
        segments = [{**asdict(one), "usd": self.price.usd(one.seconds)} for one in self.segments]
        total = {"seconds": self.seconds, "usd": self.price.usd(self.seconds)}
        return {**asdict(self), "price": price, "segments": segments, "total": total}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        per_tile = " to ".join(f"{value:.3g}" for value in self.rate.seconds_per_tile)
        yield f"estimate of infer with {self.bundle} on {self.machine}"
        yield f"  rate          {per_tile} s per tile: {self.rate.source}"
        for one in self.segments:
            yield from (f"  {line}" for line in _segment_lines(one, self.price))
        works = [one.work for one in self.segments if one.work]
        if len(self.segments) > 1:
            refused = len(self.segments) - len(works)
            tiles = f"{sum(work.tiles for work in works):,} tiles{works[0].passes_text if works else ''}"
            text = f"{count_text(len(works), 'segment')}, {tiles}, {_cost_text(self.seconds, self.price)}"
            yield f"  together      {text}{f'; {refused} refused' if refused else ''}"
        if self.price.row is not None:
            yield f"  prices        of {self.price.row.as_of} ({self.price.row.source}); never a bill"
        start = f"; loading the network took {rough_seconds_text(self.rate.start_s)} here" if self.rate.start_s else ""
        yield f"  without       start-up (boot, image, reading weights) and preparing{start}"


def _segment_lines(one: SegmentEstimate, price: Price) -> Iterator[str]:
    work = one.work
    if work is None:
        yield f"{one.segment}: refused: {one.refusal}"
        return
    tiles = f"{'' if work.exact else 'at most '}{work.tiles:,} tiles{work.passes_text}"
    yield f"{one.segment}: {count_text(work.units, 'unit')}, {tiles}, {_cost_text(one.seconds, price)}"
    if one.seconds[1] >= SHORTEST_S:
        needed = work.read_bytes / one.seconds[0] / 1e6
        yield f"  reads {bytes_text(work.read_bytes)}; storage that gives under {needed:,.0f} MB/s makes it longer"
    if not work.exact:
        yield "  not prepared: its mask is not known yet, every tile is counted"
    if one.seconds[1] < SHORTEST_S:
        yield "  a short job: start, first passes and batches that are not full weigh more than rates say"
    yield from (f"  {run}" for run in one.real_runs)


def _cost_text(seconds: Range, price: Price) -> str:
    short = seconds[1] < SHORTEST_S
    usd = price.usd((SHORTEST_S, SHORTEST_S) if short else seconds)
    money = [f"{_money_text(low)} to {_money_text(high)} USD {kind}" for kind, (low, high) in usd.items()]
    if not usd:
        money = ["money unknown (INKBATCH_MACHINE or INKBATCH_USD_PER_HOUR states a price)"]
    elif short:
        money = [f"under {max(high for _, high in usd.values()):.2g} USD"]
    return ", ".join([estimate_text(seconds), *money])


def _money_text(usd: float) -> str:
    return f"{usd:.2f}" if usd >= 0.1 else f"{usd:.2g}"

"""Prices of rented machines and of this one, and the seconds that their data sheets promise; never a bill."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from inkbatch.config import JobConfig, read_yaml
from inkbatch.errors import ConfigError
from inkbatch.text import near_matches, rough_range_text

PRICES_VARIABLE = "INKBATCH_PRICES"
MACHINE_VARIABLE, RATE_VARIABLE = "INKBATCH_MACHINE", "INKBATCH_USD_PER_HOUR"
EFFICIENCY = (0.15, 0.40)  # share of the data sheet's matrix rate that convolutions and attention reach
SHORTEST_S = 60.0  # first passes and batches that are not full outweigh rates in shorter jobs

Range = tuple[float, float]  # lowest, highest


class Machine(BaseModel):
    """Row of the price table: a kind of rented machine, USD per hour on demand and (lowest, highest) on the spot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu: str  # count and name: 1 x H100
    bf16_tflops: float  # dense matrix rate of the data sheet
    on_demand: float
    spot: Range
    as_of: str
    source: str

    @property
    def device(self) -> str:
        """Name of the GPU, without the count."""
        return self.gpu.rpartition(" x ")[2]

    def seconds(self, flops: float) -> Range:
        """Estimate the seconds of forward passes: FLOPs over 40 % to 15 % of the data sheet's rate."""
        slow, fast = (flops / (self.bf16_tflops * 1e12 * share) for share in EFFICIENCY)
        return fast, slow


class PriceTable(JobConfig):
    """The file of prices, by kind of machine."""

    machines: dict[str, Machine]


@dataclass(frozen=True)
class Price:
    """Price of a machine: USD per hour as stated, and its row of the price table; unknown without both."""

    machine: str = ""
    hourly: float | None = None
    row: Machine | None = None

    def usd(self, seconds: Range) -> dict[str, Range]:
        """Turn seconds into USD by kind of price: ``stated``, ``on demand``, ``spot``; empty if unknown."""
        rates = {} if self.hourly is None else {"stated": (self.hourly, self.hourly)}
        if self.row is not None:
            rates |= {"on demand": (self.row.on_demand, self.row.on_demand), "spot": self.row.spot}
        return {kind: (seconds[0] / 3600 * low, seconds[1] / 3600 * high) for kind, (low, high) in rates.items()}

    def run_facts(self, seconds: float) -> dict[str, Any]:
        """Turn seconds into money, as ``run.json`` keeps it: stated, on demand, spot, in USD; empty if unknown."""
        usd = {kind: [round(value, 4) for value in range_] for kind, range_ in self.usd((seconds, seconds)).items()}
        found: dict[str, Any] = {"usd_stated": usd["stated"][0]} if "stated" in usd else {}
        if self.row is not None:
            found |= {"machine": self.machine, "usd_on_demand": usd["on demand"][0], "usd_spot": usd["spot"]}
            found["prices_as_of"] = self.row.as_of
        return found


def machines() -> dict[str, Machine]:
    """Read the price table: the package's, or the file that ``INKBATCH_PRICES`` names.

    Raises:
        ConfigError: It cannot be read.
    """
    file = os.environ.get(PRICES_VARIABLE) or str(Path(__file__).with_name("prices.yaml"))
    return PriceTable.checked(read_yaml(file), file).machines


def machine_named(name: str, place: str = "--machine ") -> Machine:
    """Look up a row of the price table, and refuse a machine that is not listed."""
    table = machines()
    if name not in table:
        hint = near_matches(name, sorted(table)) or f"; it lists {', '.join(sorted(table))}"
        raise ConfigError(
            f"{place}{name!r}: not in the price table{hint} ({PRICES_VARIABLE} names a YAML file that replaces it)"
        )
    return table[name]


def price_here() -> Price:
    """Read this machine's price: ``INKBATCH_USD_PER_HOUR`` and ``INKBATCH_MACHINE``; unknown if neither is set.

    Raises:
        ConfigError: Not a number, or a machine that the price table does not list.
    """
    text, name = os.environ.get(RATE_VARIABLE), os.environ.get(MACHINE_VARIABLE) or ""
    try:
        hourly = float(text) if text else None
    except ValueError:
        hourly = math.nan
    if hourly is not None and not (math.isfinite(hourly) and hourly >= 0):
        raise ConfigError(f"{RATE_VARIABLE}: expected USD per hour, for example 1.21, got {text!r}")
    return Price(name, hourly, machine_named(name, f"{MACHINE_VARIABLE}=") if name else None)


def hourly_usd() -> float | None:
    """Find USD per hour for the progress bar: as stated, else the machine's price on demand, else None."""
    price = price_here()
    return price.hourly if price.hourly is not None else price.row.on_demand if price.row else None


def estimate_text(seconds: Range) -> str:
    """Say estimated seconds: ``15 min to 40 min``, or ``under a minute``."""
    return rough_range_text(seconds) if seconds[1] >= SHORTEST_S else "under a minute"


def price_text(name: str, machine: Machine, flops: float) -> str:
    """Estimate forward passes on a machine in words; start-up is not in it.

    Money runs from the lowest spot price of the short end to the price on demand of the long end.
    """
    seconds = machine.seconds(flops)
    usd = Price(row=machine).usd(seconds)
    low, high = usd["spot"][0], usd["on demand"][1]
    money = f"{low:.2f} to {high:.2f} USD" if high >= 0.01 else "under 0.01 USD"
    return f"{name} ({machine.gpu}): {estimate_text(seconds)}, {money}"


def price_lines(flops: float | None) -> list[str]:
    """Estimate forward passes on every machine of the price table, in lines of a plan; None is a number not stated."""
    if flops is None:
        return ["  time, cost    unknown: the bundle does not state its FLOPs per tile"]
    head = f"  work          {flops / 1e12:,.2f} TFLOP; estimates, never a bill, without start-up:"
    rows = machines().items()
    return [head, *(f"    {price_text(name, row, flops)} (prices of {row.as_of})" for name, row in rows)]

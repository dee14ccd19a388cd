"""Prices of rented machines and of this one, and the seconds that their data sheets promise; never a bill."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from inkbatch.config import near_matches
from inkbatch.documents import read_yaml_file
from inkbatch.errors import ConfigError
from inkbatch.redaction import redact
from inkbatch.text import rough_range_text

PRICES_VARIABLE = "INKBATCH_PRICES"
MACHINE_VARIABLE, RATE_VARIABLE = "INKBATCH_MACHINE", "INKBATCH_USD_PER_HOUR"
EFFICIENCY = (0.15, 0.40)  # share of the data sheet's matrix rate that convolutions and attention reach
SHORTEST_S = 60.0  # first passes and batches that are not full outweigh rates in shorter jobs

Range = tuple[float, float]  # lowest, highest
Rows = TypeVar("Rows")


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


@dataclass(frozen=True)
class Price:
    """Price of a machine: `hourly` is USD per hour as stated, `row` its row of the price table, if there is one."""

    machine: str = ""
    hourly: float | None = None
    row: Machine | None = None

    def usd(self, seconds: Range) -> dict[str, Range]:
        """Turn seconds into USD by kind of price: ``stated``, ``on demand``, ``spot``; empty if unknown."""
        rates = {"stated": (self.hourly, self.hourly)} if self.hourly is not None else {}
        if self.row is not None:
            rates |= {"on demand": (self.row.on_demand, self.row.on_demand), "spot": self.row.spot}
        return {kind: (seconds[0] / 3600 * low, seconds[1] / 3600 * high) for kind, (low, high) in rates.items()}

    def of(self, seconds: float) -> dict[str, Any]:
        """Turn seconds into money, as ``run.json`` keeps it: as stated, on demand and spot, in USD."""
        usd = {kind: [round(value, 4) for value in range_] for kind, range_ in self.usd((seconds, seconds)).items()}
        found: dict[str, Any] = {"usd_stated": usd["stated"][0]} if "stated" in usd else {}
        if self.row is not None:
            found |= {"machine": self.machine, "usd_on_demand": usd["on demand"][0], "usd_spot": usd["spot"]}
            found["prices_as_of"] = self.row.as_of
        return found


def read_table(title: str, file: str | Path, key: str, kind: TypeAdapter[Rows]) -> Rows:
    """Read the rows that stand under the `key` of a YAML table.

    Raises:
        ConfigError: It cannot be read; `title` and `file` open the message.
    """
    try:
        return kind.validate_python(read_yaml_file(file)[key])
    except (KeyError, TypeError, ValidationError) as error:
        problem = redact(str(error))[:300]
        raise ConfigError(f"{title} {file}: expected a mapping with {key} ({problem}); correct it") from error


def machines() -> dict[str, Machine]:
    """Read the price table: the package's, or the file that ``INKBATCH_PRICES`` names."""
    file = os.environ.get(PRICES_VARIABLE) or Path(__file__).with_name("prices.yaml")
    return read_table("price table", file, "machines", TypeAdapter(dict[str, Machine]))


def machine_named(name: str, place: str = "--machine ") -> Machine:
    """Look up a row of the price table, and refuse a machine that is not listed."""
    table = machines()
    if name not in table:
        hint = near_matches(name, sorted(table)) or f"; it lists {', '.join(sorted(table))}"
        raise ConfigError(
            f"{place}{name!r}: not in the price table{hint} ({PRICES_VARIABLE} names a YAML file that replaces it)"
        )
    return table[name]


def price_text(name: str, machine: Machine, flops: float) -> str:
    """Estimate forward passes on a machine in words; start-up is not in it.

    Money runs from the lowest spot price of the short end to the price on demand of the long end.
    """
    seconds = machine.seconds(flops)
    usd = Price(row=machine).usd(seconds)
    low, high = usd["spot"][0], usd["on demand"][1]
    time = rough_range_text(seconds) if seconds[1] >= SHORTEST_S else "under a minute"
    money = f"{low:.2f} to {high:.2f} USD" if high >= 0.01 else "under 0.01 USD"
    return f"{name} ({machine.gpu}): {time}, {money}"


def price_lines(flops: float | None) -> list[str]:
    """Estimate forward passes on every machine of the price table, in lines of a plan; None is a number not stated."""
    if flops is None:
        return ["  time, cost    unknown: the bundle does not state its FLOPs per tile"]
    head = f"  work          {flops / 1e12:,.2f} TFLOP; estimates, never a bill, without start-up:"
    table = machines().items()
    return [head, *(f"    {price_text(name, row, flops)} (prices of {row.as_of})" for name, row in table)]


def price_here() -> Price | None:
    """Read this machine's price: ``INKBATCH_USD_PER_HOUR`` and ``INKBATCH_MACHINE``; None if neither is set.

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
    row = machine_named(name, f"{MACHINE_VARIABLE}=") if name else None
    return None if hourly is None and row is None else Price(name, hourly, row)


def hourly_usd() -> float | None:
    """Find USD per hour for the progress bar: as stated, else the machine's price on demand, else None."""
    price = price_here() or Price()
    return price.hourly if price.hourly is not None else price.row.on_demand if price.row else None

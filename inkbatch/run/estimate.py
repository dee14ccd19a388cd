"""What a job will probably take on a rented machine: FLOPs over an assumed share of the data sheet's rate."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from inkbatch.config import near_matches
from inkbatch.errors import ConfigError
from inkbatch.text import rough_seconds_text

PRICES_VARIABLE = "INKBATCH_PRICES"
MACHINE_VARIABLE, RATE_VARIABLE = "INKBATCH_MACHINE", "INKBATCH_USD_PER_HOUR"
EFFICIENCY = (0.15, 0.40)  # share of the data sheet's matrix rate that convolutions and attention reach


class Machine(BaseModel):
    """One kind of rented machine.

    Attributes:
        gpu: What it holds.
        bf16_tflops: Dense matrix rate of the data sheet, in TFLOP/s.
        on_demand: USD per hour.
        spot: Lowest and highest spot price seen, USD per hour.
        as_of: When the prices were read.
        source: Where.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu: str
    bf16_tflops: float
    on_demand: float
    spot: tuple[float, float]
    as_of: str
    source: str


@dataclass(frozen=True)
class Estimate:
    """Seconds and money for one machine, as ranges."""

    machine: str
    gpu: str
    seconds: tuple[float, float]
    usd: tuple[float, float]
    as_of: str

    def __str__(self) -> str:
        low, high = (rough_seconds_text(value) for value in self.seconds)
        return f"{self.machine} ({self.gpu}): {low} to {high}, {self.usd[0]:.2f} to {self.usd[1]:.2f} USD"


def machines() -> dict[str, Machine]:
    """The price table: the package's, or the file that ``INKBATCH_PRICES`` names.

    Raises:
        ConfigError: It cannot be read.
    """
    path = Path(os.environ.get(PRICES_VARIABLE) or Path(__file__).with_name("prices.yaml"))
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8"))["machines"]
        return {name: Machine.model_validate(row) for name, row in rows.items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise ConfigError(f"price table {path}: cannot be read: {error}") from error


def estimate(flops: float) -> list[Estimate]:
    """Estimates of a forward-only job on every machine of the price table.

    Seconds are FLOPs over 40 % to 15 % of the data sheet's bf16 rate; money runs from the lowest spot price of the
    short end to the on-demand price of the long end. Start-up (boot and image pull, some minutes) is not in it.
    """
    found = []
    for name, machine in machines().items():
        slow, fast = (flops / (machine.bf16_tflops * 1e12 * share) for share in EFFICIENCY)
        usd = (fast / 3600 * machine.spot[0], slow / 3600 * machine.on_demand)
        found.append(Estimate(name, machine.gpu, (fast, slow), usd, machine.as_of))
    return found


@dataclass(frozen=True)
class Price:
    """What this machine costs, as its environment states it.

    Attributes:
        machine: Name in the price table; empty where only a price was stated.
        hourly: USD per hour that was stated, or None.
        row: The machine's row of the price table, or None.
    """

    machine: str
    hourly: float | None
    row: Machine | None

    def of(self, seconds: float) -> dict[str, Any]:
        """Money for so many seconds: as stated, on demand and spot (lowest, highest), in USD."""
        hours = seconds / 3600
        found: dict[str, Any] = {}
        if self.hourly is not None:
            found["usd_stated"] = round(hours * self.hourly, 4)
        if self.row is not None:
            found |= {"machine": self.machine, "usd_on_demand": round(hours * self.row.on_demand, 4)}
            found |= {"usd_spot": [round(hours * rate, 4) for rate in self.row.spot], "prices_as_of": self.row.as_of}
        return found


def price_here() -> Price | None:
    """What this machine costs: ``INKBATCH_USD_PER_HOUR`` and ``INKBATCH_MACHINE``; None where neither is set.

    Raises:
        ConfigError: Not a number, or a machine that the price table does not list.
    """
    text, name = os.environ.get(RATE_VARIABLE), os.environ.get(MACHINE_VARIABLE) or ""
    rate = None
    if text:
        try:
            rate = float(text)
        except ValueError:
            rate = math.nan
        if not (math.isfinite(rate) and rate >= 0):
            raise ConfigError(f"{RATE_VARIABLE}={text!r}: wanted USD per hour, for example 1.21")
    row = machine_named(name, f"{MACHINE_VARIABLE}=") if name else None
    return None if rate is None and row is None else Price(name, rate, row)


def machine_named(name: str, place: str = "--machine ") -> Machine:
    """A row of the price table.

    Raises:
        ConfigError: It is not listed.
    """
    table = machines()
    if name not in table:
        hint = near_matches(name, sorted(table)) or f"; it lists {', '.join(sorted(table))}"
        raise ConfigError(
            f"{place}{name!r}: not in the price table{hint} ({PRICES_VARIABLE} names a YAML file that replaces it)"
        )
    return table[name]


def hourly_usd() -> float | None:
    """USD per hour for the progress bar: what was stated, else the machine's on-demand price, else None."""
    price = price_here()
    if price is None:
        return None
    return price.hourly if price.hourly is not None else price.row.on_demand if price.row else None

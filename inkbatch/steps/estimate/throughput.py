"""Measured rates: how many tiles per second a network made on a device, and who saw that."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from inkbatch.config import JobConfig, read_yaml
from inkbatch.errors import ConfigError
from inkbatch.run.prices import Range

FIGURES_VARIABLE = "INKBATCH_FIGURES"
SAME_FLOPS = 0.01  # networks whose FLOPs per tile differ by less are taken for one
CALIBRATED_SPREAD = (0.95, 1.15)  # of seconds: whole jobs took 1.01 to 1.12 of their forward passes (benchmarks)
STORED_SPREAD = (0.85, 1.30)  # another machine of the kind, another load


@dataclass(frozen=True)
class Rate:
    """Seconds per pass of a tile as a range, their source, and seconds of start-up where they were measured."""

    seconds_per_tile: Range
    source: str
    start_s: float | None = None

    @classmethod
    def measured(cls, tiles_per_s: float, spread: Range, source: str, start_s: float | None = None) -> Rate:
        """Make the rate of a measurement; its seconds times `spread` are the range."""
        return cls((spread[0] / tiles_per_s, spread[1] / tiles_per_s), source, start_s)

    def seconds(self, passes: int) -> Range:
        """Return the seconds for so many passes of a tile."""
        low, high = self.seconds_per_tile
        return low * passes, high * passes


class Throughput(BaseModel):
    """Measured rate of a network on a device: tiles per second of a whole job, reading and writing overlapped."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str  # a GPU's name as its driver states it, or a processor and its cores: AMD EPYC, 2 cores
    architecture: str
    flops_per_tile: float = Field(gt=0)  # tells sizes of one architecture apart
    precision: str
    tiles_per_s: float = Field(gt=0)
    as_of: str
    source: str


class ThroughputTable(JobConfig):
    """A file of measured rates, the newest last."""

    figures: list[Throughput]


def stored_throughputs() -> list[Throughput]:
    """Read the package's rates and those of the file that ``INKBATCH_FIGURES`` names; the one to take first is last."""
    files = (Path(__file__).with_name("throughput.yaml"), os.environ.get(FIGURES_VARIABLE))
    return [found for file in files if file for found in read_throughputs(Path(file))]


def read_throughputs(path: Path) -> list[Throughput]:
    """Read the rates of one file, the newest last.

    Raises:
        ConfigError: It cannot be read.
    """
    return ThroughputTable.checked(read_yaml(str(path)), str(path)).figures


def add_throughput(path: Path, measured: Throughput) -> None:
    """Append a rate to a file, which is created if missing.

    Raises:
        ConfigError: The file holds something else, or cannot be written.
    """
    table = ThroughputTable(figures=[*(read_throughputs(path) if path.exists() else ()), measured])
    try:
        path.write_text(yaml.safe_dump(table.model_dump(), sort_keys=False, allow_unicode=True), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"figures {path}: cannot be written: {error.strerror}") from error


def stored_rate(device: str, architecture: str, flops_per_tile: float | None) -> Rate | None:
    """Find the newest stored rate of a network on a device; None if there is none, or its FLOPs are unknown."""
    if flops_per_tile is None:
        return None
    for known in reversed(stored_throughputs()):
        same_size = abs(flops_per_tile / known.flops_per_tile - 1) <= SAME_FLOPS
        if same_size and architecture == known.architecture and is_same_device(device, known.device):
            seen = f"{known.tiles_per_s:g} tiles/s in {known.precision} seen on {known.device}"
            return Rate.measured(known.tiles_per_s, STORED_SPREAD, f"{seen} ({known.source}; {known.as_of})")
    return None


def is_same_device(one: str, other: str) -> bool:
    """Compare devices by whole words, all of one among the other's: ``L4`` and ``NVIDIA L4``, not ``NVIDIA L40S``."""
    mine, theirs = (set(re.findall(r"[\w.-]+", name.lower())) for name in (one, other))
    return bool(mine and theirs) and (mine <= theirs or theirs <= mine)


def device_of_row(row: Mapping[str, Any]) -> str | None:
    """Name the device that a run file states: a GPU, or a processor and its cores; None if it states none."""
    if row.get("device") == "cpu" and row.get("processor"):
        return f"{row['processor']}, {row.get('cores')} cores"
    return str(row["device_name"]) if row.get("device_name") else None

"""Stored rates: how many tiles per second a network made on a device, and who saw that."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inkbatch.config import read_yaml
from inkbatch.errors import ConfigError

FIGURES_VARIABLE = "INKBATCH_FIGURES"
SAME_FLOPS = 0.01  # networks whose FLOPs per tile differ by less are taken for one


class Throughput(BaseModel):
    """Measured rate of a network on a device.

    Attributes:
        device: A GPU's name as its driver states it, or a processor and its cores: ``AMD EPYC, 2 cores``.
        flops_per_tile: Tells sizes of one architecture apart.
        tiles_per_s: Tiles per second of a whole job, reading and writing overlapped.
        as_of: Date of the measurement; `source` says who measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    architecture: str
    flops_per_tile: float = Field(gt=0)
    precision: str
    tiles_per_s: float = Field(gt=0)
    as_of: str
    source: str

    def is_of(self, architecture: str, flops_per_tile: float | None) -> bool:
        """Compare networks; an unknown size is no match."""
        same = flops_per_tile is not None and abs(flops_per_tile / self.flops_per_tile - 1) <= SAME_FLOPS
        return same and architecture == self.architecture


def is_same_device(one: str, other: str) -> bool:
    """Compare devices by whole words, all of one among the other's: ``L4`` and ``NVIDIA L4``, not ``NVIDIA L40S``."""
    mine, theirs = (set(re.findall(r"[\w.-]+", name.lower())) for name in (one, other))
    return bool(mine and theirs) and (mine <= theirs or theirs <= mine)


def device_of_gpu(text: str) -> str:
    """Name the device of a price table's row, for example ``1 x H100``."""
    return text.rpartition(" x ")[2]


def device_of_row(row: Mapping[str, Any]) -> str | None:
    """Name the device that a run file states: a GPU, or a processor and its cores; None if it states none."""
    if row.get("device") == "cpu" and row.get("processor"):
        return f"{row['processor']}, {row.get('cores')} cores"
    return str(row["device_name"]) if row.get("device_name") else None


def stored_throughputs() -> list[Throughput]:
    """Read the package's rates, and before them those of the file that ``INKBATCH_FIGURES`` names.

    Raises:
        ConfigError: A file cannot be read.
    """
    files = (os.environ.get(FIGURES_VARIABLE), Path(__file__).with_name("throughput.yaml"))
    return [found for file in files if file for found in read_throughputs(Path(file))]


def read_throughputs(path: Path) -> list[Throughput]:
    """Read the rates of one file; the newest (last) first.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return [Throughput.model_validate(row) for row in reversed(read_yaml(str(path))["figures"])]
    except (KeyError, TypeError, ValidationError) as error:
        raise ConfigError(f"figures {path}: cannot be read: {error}") from error


def add_throughput(path: Path, measured: Throughput) -> None:
    """Append a rate to a file, which is created if missing.

    Raises:
        ConfigError: The file holds something else, or cannot be written.
    """
    found = read_throughputs(path)[::-1] if path.exists() else []
    document = {"figures": [one.model_dump() for one in (*found, measured)]}
    try:
        path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"figures {path}: cannot be written: {error.strerror}") from error

"""Stored rates: how many tiles per second a network made on a device, and who saw that."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inkbatch.errors import ConfigError

FIGURES_VARIABLE = "INKBATCH_FIGURES"
SAME_FLOPS = 0.01  # networks whose FLOPs per tile differ by less are taken for one


class Figure(BaseModel):
    """A rate that was measured.

    Attributes:
        device: A GPU's name as its driver states it, or a processor and its cores: ``AMD EPYC, 2 cores``.
        architecture: The network's.
        flops_per_tile: Tells sizes of one architecture apart.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        tiles_per_s: Tiles per second of a whole job, reading and writing overlapped.
        as_of: When it was seen.
        source: By whom, or where it is written.
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
        """Whether it was measured with this network."""
        same = flops_per_tile is not None and abs(flops_per_tile / self.flops_per_tile - 1) <= SAME_FLOPS
        return same and architecture == self.architecture


@dataclass(frozen=True)
class Device:
    """A device that rates and runs are looked up for.

    Attributes:
        name: A GPU (``H100``, ``NVIDIA L4``), or a processor and its cores.
    """

    name: str

    def is_that_of(self, measured: str) -> bool:
        """Whether `measured` (as `Figure.device`) is such a device: the words of one are all among the other's."""
        mine, theirs = _words(self.name), _words(measured)
        return bool(mine and theirs) and (mine <= theirs or theirs <= mine)

    @staticmethod
    def of_gpu(text: str) -> Device:
        """The device of a price table's row, for example ``1 x H100``."""
        return Device(text.rpartition(" x ")[2])

    @staticmethod
    def of_row(row: dict[str, Any]) -> Device | None:
        """The device that a run file names; None where it names none."""
        if row.get("device") == "cpu" and row.get("processor"):
            return Device(f"{row['processor']}, {row.get('cores')} cores")
        return Device(str(row["device_name"])) if row.get("device_name") else None


def stored_figures() -> list[Figure]:
    """The package's figures, and before them those of the file that ``INKBATCH_FIGURES`` names.

    Raises:
        ConfigError: A file cannot be read.
    """
    own = os.environ.get(FIGURES_VARIABLE)
    files = [Path(own)] if own else []
    return [figure for path in [*files, Path(__file__).with_name("throughput.yaml")] for figure in read_figures(path)]


def read_figures(path: Path) -> list[Figure]:
    """The figures of one file; the newest (last) first.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8"))["figures"]
        return [Figure.model_validate(row) for row in reversed(rows)]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValidationError) as error:
        raise ConfigError(f"figures {path}: cannot be read: {error}") from error


def add_figure(path: Path, figure: Figure) -> None:
    """Append a figure to a file, which is made where it is missing.

    Raises:
        ConfigError: The file holds something else, or cannot be written.
    """
    found = list(reversed(read_figures(path))) if path.exists() else []
    document = {"figures": [one.model_dump() for one in [*found, figure]]}
    try:
        path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"figures {path}: cannot be written: {error.strerror}") from error


def _words(text: str) -> set[str]:
    return set(re.findall(r"[\w.-]+", text.lower()))

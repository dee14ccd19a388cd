"""`inkbatch vessels`: any number of generated vessel drawings with masks, in train, val and test folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from inkbatch.data.synthetic.vessels import VesselConfig, write_vessels
from inkbatch.io.store.location import Location


class VesselsConfig(VesselConfig):
    """Settings of `inkbatch vessels`.

    Attributes:
        output: Folder that gets ``train/``, ``train_annotations/``, … and, last, ``vessels.json``.
    """

    job: ClassVar[str] = "vessels"

    output: str


@dataclass(frozen=True)
class VesselsReport:
    """Report of what was written.

    Attributes:
        location: The folder.
        drawings: Number per split.
    """

    location: Location
    drawings: Mapping[str, int]

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {split}" for split, count in self.drawings.items())
        return f"vessels: {counts} · {self.location}"


def run(config: VesselsConfig) -> VesselsReport:
    """Write the drawings; the same settings write the same bytes.

    Raises:
        StorageError: Writing failed again after retries.
    """
    folder = Location.parse(config.output)
    looks = config.model_dump(exclude={"output"})
    return VesselsReport(folder, write_vessels(folder, VesselConfig(**looks)))

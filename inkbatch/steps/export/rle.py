"""`inkbatch export-rle`: predictions of several segments as one CSV of run lengths, as on Kaggle."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from inkbatch.config import JobConfig
from inkbatch.data.maps.scoring import threshold_of
from inkbatch.data.maps.stored import StoredMap, open_map
from inkbatch.errors import ConfigError, MismatchError
from inkbatch.io.pictures.bands import MapView
from inkbatch.io.pictures.rle import texts
from inkbatch.io.pictures.tones import ToneMap
from inkbatch.io.store.atomic_files import delivered
from inkbatch.io.store.location import Location
from inkbatch.text import seconds_text

HEADER = "Id,Predicted\n"


class ExportRunsConfig(JobConfig):
    """Settings of `inkbatch export-rle`.

    Attributes:
        segments: Segment ids; the rows of the file, in this order.
        name: Name of the prediction, the same one in every segment; None takes each segment's only one.
        to: The CSV file.
        threshold: Probability from which (inclusive) a pixel is ink; None is each prediction's own, or 0.5 where it has
            none.
        root: ROOT: a folder or ``s3://bucket/prefix``.
        scratch: Local folder for a file on its way to an object store; None takes the system's.
    """

    segments: tuple[str, ...] = Field(min_length=1)
    name: str | None = None
    to: str
    threshold: float | None = Field(None, gt=0, le=1)
    root: str = "root"
    scratch: str | None = None

    @field_validator("segments")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({segment for segment in value if value.count(segment) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is named twice; expected one row per segment")
        return value


@dataclass(frozen=True)
class ExportRunsReport:
    """Report of what was written.

    Attributes:
        location: The file.
        rows: Segments.
        ink_px: Ink pixels of all segments.
        seconds: Wall-clock seconds.
    """

    location: Location
    rows: int
    ink_px: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"export-rle: {self.rows} rows, {self.ink_px:,} ink pixels · {seconds_text(self.seconds)} · {self.location}"
        )


def run(config: ExportRunsConfig) -> ExportRunsReport:
    """Write the file; it is there whole, or not at all.

    Raises:
        ConfigError: No name is given where there are several predictions, or `to` cannot be written to.
        DataError: A prediction is not there, not complete, or damaged.
        MismatchError: A prediction holds ranks, and no threshold is given.
        StorageError: Reading or writing failed again after retries.
    """
    started = time.perf_counter()
    if not config.to.lower().endswith(".csv"):
        raise ConfigError(f"export-rle: to: expected a CSV file, got {config.to!r}; end its name in .csv")
    maps = [open_map(config.root, segment, config.name) for segment in config.segments]
    thresholds = [_threshold(config, found) for found in maps]
    place, ink = Location.parse(config.to), 0
    with delivered(place, config.scratch) as handle:
        handle.write(HEADER.encode())
        for found, threshold in zip(maps, thresholds, strict=True):
            handle.write(f"{found.segment},".encode())
            counter = _Counter(found, threshold)
            for part in texts(counter.blocks()):
                handle.write(part.encode())
            handle.write(b"\n")
            ink += counter.ink_px
    return ExportRunsReport(place, len(maps), ink, time.perf_counter() - started)


class _Counter:
    """The mask of a map in bands from the top, counted on the way."""

    def __init__(self, found: StoredMap, threshold: float) -> None:
        self.view = MapView.of(found.prediction.pyramid)
        self.tones = ToneMap(np.dtype(np.uint8), threshold=threshold)
        self.ink_px = 0

    def blocks(self) -> Iterator[NDArray[np.bool_]]:
        rows = self.view.chunk_rows if self.view.array.location.is_local else self.view.shard_rows
        for band in self.view.bands(rows):
            ink = self.tones.apply(band, str(self.view.array.location)) != 0
            self.ink_px += int(np.count_nonzero(ink))
            yield ink


def _threshold(config: ExportRunsConfig, found: StoredMap) -> float:
    if config.threshold is not None:
        return config.threshold
    if found.holds_ranks and found.threshold is None:
        raise MismatchError(
            f"prediction {found.segment}/{found.name}: holds ranks or z-scores, for which 0.5 does not mean ink; give "
            "--threshold"
        )
    return threshold_of(found.threshold)

"""Statistics of the segments that samples come from, for runs that normalise by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from inkbatch.data.datasets.index import DatasetIndex, Sample, resolve
from inkbatch.errors import ConfigError
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.models.bundle import Contract
from inkbatch.predict.normalise import Statistics
from inkbatch.predict.segment_statistics import needs_segment, stored_statistics

FOLDER_NAME = "statistics"


@dataclass(frozen=True)
class SampleStatistics:
    """Statistics by which each sample is normalised.

    Attributes:
        segments: Segment of each sample, by the sample's id.
        found: Statistics by segment, each of shape (1,) on the CPU.
    """

    segments: Mapping[str, str]
    found: Mapping[str, Statistics]

    def of(self, sample_ids: Sequence[str], device: torch.device) -> Statistics:
        """Return statistics of shape (len(sample_ids),)."""
        rows = [torch.stack(self.found[self.segments[name]]) for name in sample_ids]
        return Statistics(*torch.cat(rows, dim=1).to(device).unbind())


def sample_statistics(
    contract: Contract,
    index: DatasetIndex,
    samples: Sequence[Sample],
    root: Location,
    folder: Location,
    check: Callable[[], None],
) -> SampleStatistics | None:
    """Count the segments' values, or read what this run has counted before; None where the contract needs none.

    Args:
        contract: The run's contract.
        index: The dataset.
        samples: Its samples of training and validation.
        root: The dataset's ROOT.
        folder: The run's folder.
        check: Called between windows; raises on a stop.

    Raises:
        ConfigError: Samples of pictures, or of two segments side by side.
    """
    if not needs_segment(contract.normaliser):
        return None
    kinds = {segment.id: segment.kind for segment in index.segments}
    for sample in samples:
        if sample.parts is not None or kinds[sample.segment] != "surface":
            raise ConfigError(
                f"sample {sample.id}: expected a sample of one prepared segment for input.normaliser with statistics "
                "per segment, got a picture or a stitched pair; set input.normaliser.statistics to tile"
            )
    segments = {sample.id: sample.segment for sample in samples}
    found = {}
    for segment in index.segments:
        if segment.id in segments.values():
            volume = SurfaceVolume.open(resolve(segment.surface, root))
            place, cpu = folder / FOLDER_NAME / segment.id, torch.device("cpu")
            if (counted := stored_statistics(contract, volume, place, cpu, check)) is not None:
                found[segment.id] = counted
    return SampleStatistics(segments, found)

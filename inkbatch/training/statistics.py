"""Statistics of the segments that samples come from, for runs that normalise by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from inkbatch.data.datasets.index import DatasetIndex, DatasetSegment, Sample, resolve
from inkbatch.data.datasets.picture_layers import picture_layers
from inkbatch.errors import ConfigError
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.models.bundle import Contract
from inkbatch.predict.normalise import Statistics, statistics_of
from inkbatch.predict.segment_statistics import kept_statistics, needs_segment, segment_statistics

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
        check: Called between squares; raises on a stop.

    Raises:
        ConfigError: Samples of two segments side by side: no one statistic is theirs.
        DataError: A picture or a surface is missing.
    """
    if not needs_segment(contract.normaliser):
        return None
    if pairs := [sample.id for sample in samples if sample.parts is not None]:
        raise ConfigError(
            f"sample {pairs[0]}: expected a sample of one segment for input.normaliser with statistics per segment, "
            "got a stitched pair; set input.normaliser.statistics to tile"
        )
    segments = {sample.id: sample.segment for sample in samples}
    used = set(segments.values())
    found = {
        segment.id: kept_statistics(
            folder / FOLDER_NAME / segment.id, torch.device("cpu"), _counting(contract, segment, root, check)
        )
        for segment in index.segments
        if segment.id in used
    }
    return SampleStatistics(segments, found)


def _counting(
    contract: Contract, segment: DatasetSegment, root: Location, check: Callable[[], None]
) -> Callable[[], Statistics]:
    """Return what counts a segment as inference does: all prepared layers, or the whole picture."""
    place = resolve(segment.surface, root)
    if segment.kind == "surface":
        return lambda: segment_statistics(SurfaceVolume.open(place), contract.normaliser, check)

    def of_picture() -> Statistics:
        check()
        layers = picture_layers(place, in_colour=segment.kind == "image", clahe=segment.clahe)
        return statistics_of(torch.from_numpy(layers)[None], contract.normaliser)

    return of_picture

"""Datasets as training sees them: the index (`data.datasets.index`) and the reader (`data.datasets.reading`)."""

from __future__ import annotations

from inkbatch.data.datasets.index import DatasetIndex, DatasetPart, DatasetSegment, Sample, SplitName, SurfaceContract
from inkbatch.data.datasets.reading import SampleArrays, SampleReader, StoredArrays

__all__ = [
    "DatasetIndex",
    "DatasetPart",
    "DatasetSegment",
    "Sample",
    "SampleArrays",
    "SampleReader",
    "SplitName",
    "StoredArrays",
    "SurfaceContract",
]

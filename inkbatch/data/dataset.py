"""Datasets, as training sees them: the index (`inkbatch.data.index`) and the reader (`inkbatch.data.reading`)."""

from __future__ import annotations

from inkbatch.data.index import DatasetIndex, DatasetPart, DatasetSegment, Sample, SplitName, SurfaceContract
from inkbatch.data.reading import SampleArrays, SampleReader, StoredArrays

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

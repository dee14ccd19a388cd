"""Pack a dataset: its samples cut out into sharded zarr arrays, unit by unit, for others to pull and use at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.index import DatasetIndex, largest_shape
from inkbatch.data.datasets.sample_reader import IGNORE_NAME, LABELS_NAME, SAMPLES_NAME, SampleReader
from inkbatch.data.datasets.segment_arrays import StoredArrays
from inkbatch.geometry import Box, Unit
from inkbatch.io.shards.array import ArrayLayout, ShardedArray
from inkbatch.io.shards.layout import MASK_CODEC
from inkbatch.io.store.location import Location
from inkbatch.run.pipeline import UnitWork
from inkbatch.run.record import RunFolder

CHUNK_PX = 256
UNIT_BYTES = 64 << 20
LAYERS_CODEC = "lz4"  # papyrus hardly shrinks (benchmarks/README.md), and training decodes it in every epoch


@dataclass(frozen=True)
class PackLayout:
    """Layout of a pack.

    Attributes:
        count: Samples.
        layers: Layers of each.
        shape_yx: (height, width) that holds every sample; smaller ones are filled up with zeros.
        dtype: Dtype of the layers.
        unit_samples: Samples per unit; each unit is one zarr shard of each array.
    """

    count: int
    layers: int
    shape_yx: tuple[int, int]
    dtype: str
    unit_samples: int

    @staticmethod
    def of(index: DatasetIndex, unit_samples: int | None = None) -> PackLayout:
        """Lay out a dataset's pack; units hold about 64 MiB of layers if `unit_samples` is None."""
        shape = largest_shape(index.samples)
        contract = index.contract
        each = contract.layer_count * shape[0] * shape[1] * np.dtype(contract.dtype).itemsize
        fitting = unit_samples or max(1, UNIT_BYTES // each)
        count = len(index.samples)
        return PackLayout(count, contract.layer_count, shape, contract.dtype, min(fitting, count))

    def units(self) -> list[Unit]:
        """List the units, one per zarr shard; the rows of its box are samples."""
        starts = range(0, self.count, self.unit_samples)
        boxes = [Box(start, 0, min(self.count, start + self.unit_samples), 1) for start in starts]
        return [Unit(number, box, box) for number, box in enumerate(boxes)]

    def arrays(self) -> dict[str, ArrayLayout]:
        """Return the layouts of the three arrays; a chunk belongs to one sample."""
        chunk = tuple(min(CHUNK_PX, edge) for edge in self.shape_yx)
        edges = tuple(-(-edge // part) * part for edge, part in zip(self.shape_yx, chunk, strict=True))
        n, count = self.unit_samples, self.count
        deep = ArrayLayout(
            (count, self.layers, *self.shape_yx),
            (1, self.layers, *chunk),
            (n, self.layers, *edges),
            self.dtype,
            LAYERS_CODEC,
            ("sample", "z", "y", "x"),
        )
        flat = ArrayLayout((count, *self.shape_yx), (1, *chunk), (n, *edges), "uint8", MASK_CODEC, ("sample", "y", "x"))
        return {SAMPLES_NAME: deep, LABELS_NAME: flat, IGNORE_NAME: flat}


def pack_work(
    index: DatasetIndex, location: Location, layout: PackLayout, record: RunFolder, root: Location
) -> UnitWork[Any, Any]:
    """Create the arrays, and return the functions that fill them.

    Args:
        index: The dataset in its form ``index``: samples are read from their segments.
        location: The dataset's folder.
        layout: Layout of the pack.
        record: Run that markers belong to.
        root: ROOT of the segments.

    Raises:
        MismatchError: The folder holds another pack.
    """
    reader = SampleReader(index, location, root=root)
    arrays = {name: ShardedArray.create(location / name, found) for name, found in layout.arrays().items()}

    def load(unit: Unit) -> StoredArrays:
        rows = unit.write_box
        deep = np.zeros((rows.height, layout.layers, *layout.shape_yx), layout.dtype)
        labels = np.zeros((rows.height, *layout.shape_yx), np.uint8)
        ignore = np.ones_like(labels)
        samples = index.samples[rows.y0 : rows.y1]
        for place, (sample, found) in enumerate(zip(samples, reader.read_together(samples), strict=True)):
            used = (slice(0, sample.shape_yx[0]), slice(0, sample.shape_yx[1]))
            deep[(place, slice(None), *used)] = found.layers
            labels[(place, *used)] = found.labels
            ignore[(place, *used)] = found.ignore
        return StoredArrays(deep, labels, ignore)

    def store(unit: Unit, found: StoredArrays) -> Mapping[str, Any]:
        number = unit.write_box.y0 // layout.unit_samples
        blocks: dict[str, NDArray[Any]] = {
            SAMPLES_NAME: found.layers,
            LABELS_NAME: found.labels,
            IGNORE_NAME: found.ignore,
        }
        written = 0
        for name, block in blocks.items():
            written += arrays[name].write_shard((number,) + (0,) * (block.ndim - 1), block)
        return {"bytes_written": written, "samples": len(found.layers)}

    return UnitWork(load=load, compute=None, store=store, mark=record.mark)

"""Read the samples of a dataset, from their segments or from a pack."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.index import DatasetIndex, DatasetPart, Sample, resolve, root_of
from inkbatch.data.datasets.patch_packs import PatchPack, PatchReader
from inkbatch.data.datasets.segment_arrays import SampleArrays, SegmentArrays, StoredArrays, open_segment
from inkbatch.geometry import Box
from inkbatch.io.shards.array import ShardedArray
from inkbatch.io.shards.chunk_cache import CachedArray, ChunkCache
from inkbatch.io.store.location import Location

SAMPLES_NAME, LABELS_NAME, IGNORE_NAME = "samples.zarr", "labels.zarr", "ignore.zarr"


class SampleReader:
    """Reader of one dataset's samples. Safe to use from several threads; a pickled copy opens its own files.

    Args:
        index: The dataset.
        location: Its folder, ``ROOT/datasets/{name}``.
        cache_bytes: Decoded chunks that are kept for the next read, at most so many bytes; 0 keeps none.
        root: ROOT of its segments; None is the one that the folder lies in.
    """

    def __init__(
        self, index: DatasetIndex, location: Location, cache_bytes: int = 0, root: Location | None = None
    ) -> None:
        self.index = index
        self.location = location
        self.cache_bytes = cache_bytes
        self.root = root or root_of(location)
        self._forget()

    @staticmethod
    def open(location: Location) -> SampleReader:
        """Open the dataset in a folder.

        Raises:
            DataError: There is none, or it is damaged.
        """
        return SampleReader(DatasetIndex.open(location), location)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._cache = ChunkCache(self.cache_bytes)
        self._segments: dict[str, SegmentArrays] = {}
        self._pack: _Pack | None = None
        self._patches: PatchReader | None = None
        self._row = {sample.id: row for row, sample in enumerate(self.index.samples)}
        self._known = {segment.id: segment for segment in self.index.segments}

    def __getstate__(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in ("index", "location", "cache_bytes", "root")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def read(self, sample: Sample) -> SampleArrays:
        """Read one sample.

        Args:
            sample: One of `index.samples`.

        Returns:
            Its layers, labels and ignore mask, all of `sample.shape_yx`.

        Raises:
            DataError: A segment or the pack is not there, is damaged, or is not the one that the dataset was built on.
        """
        return self.read_stored(sample).ready()

    def read_stored(self, sample: Sample) -> StoredArrays:
        """Read one sample as it is stored: a quarter of the bytes of `read` for labels; for packing and for queues."""
        if self.index.form == "pack":
            return self._packed().read(self._row[sample.id], Box(0, 0, *sample.shape_yx))
        if self.index.form == "patches":
            return self._patched().read(sample, Box(0, 0, *sample.shape_yx))
        if sample.parts is None:
            return self._read(sample, sample.area)
        return stitch([_turned(self.segment_arrays(part.segment).read(part.area), part) for part in sample.parts])

    def read_part(self, sample: Sample, box: Box, layers: range) -> StoredArrays:
        """Read a box of one sample, without decoding the rest of it: what a network that crops needs.

        Args:
            sample: One of `index.samples`.
            box: Inside the sample, counted from its upper left corner.
            layers: Indices into the sample's layers.

        Returns:
            As `read_stored`, of the box's shape and with these layers alone.
        """
        if self.index.form == "pack":
            return self._packed().read(self._row[sample.id], box, layers)
        if self.index.form == "patches":
            return self._patched().read(sample, box, layers)
        if sample.parts is None:
            inside = box.shift(sample.area.y0, sample.area.x0)
            return self._read(sample, inside, layers)
        return stitch(
            [
                _turned(self.segment_arrays(part.segment).read(inside, layers), part)
                for part, inside in _inside_parts(sample.parts, box)
            ]
        )

    def read_together(self, samples: Sequence[Sample]) -> Iterator[StoredArrays]:
        """Read samples in order; neighbours that overlap are read as one box, so that no pixel is decoded twice.

        Memory is at most twice that of the samples.
        """
        for run in _runs(samples, joined=self.index.form == "index"):
            if len(run) == 1:
                yield self.read_stored(run[0])
                continue
            hull = _hull(run)
            found = self.segment_arrays(run[0].segment).read(hull)
            for sample in run:
                inside = (..., *sample.area.within(hull))
                own = StoredArrays(found.layers[inside], found.labels[inside], found.ignore[inside])
                yield self._as_scored(sample, sample.area, own)

    def _read(self, sample: Sample, box: Box, layers: range | None = None) -> StoredArrays:
        return self._as_scored(sample, box, self.segment_arrays(sample.segment).read(box, layers))

    def _as_scored(self, sample: Sample, box: Box, found: StoredArrays) -> StoredArrays:
        """Ignore what is not held out in a sample that validates."""
        return self.segment_arrays(sample.segment).scored(box, found) if sample.split == "validation" else found

    def segment_arrays(self, segment_id: str) -> SegmentArrays:
        """Open a segment's arrays; once, for all threads."""
        with self._lock:
            found = self._segments.get(segment_id)
            if found is None:
                found = open_segment(self._known[segment_id], self.root, self._cache)
                self._segments[segment_id] = found
            return found

    def _patched(self) -> PatchReader:
        with self._lock:
            if self._patches is None:
                stated = PatchPack.checked(self.index.config["patches"], f"dataset {self.index.name}")
                place = resolve(self.index.segments[0].surface, self.root)
                self._patches = PatchReader(stated.model_copy(update={"folder": place.uri}))
            return self._patches

    def _packed(self) -> _Pack:
        with self._lock:
            if self._pack is None:
                self._pack = _Pack(self.location, self._cache)
            return self._pack


def _runs(samples: Sequence[Sample], *, joined: bool) -> Iterator[list[Sample]]:
    """Group consecutive samples of one segment whose hull holds no more pixels than they do together."""
    run: list[Sample] = []
    for sample in samples:
        fits = joined and run and sample.parts is None and run[0].parts is None and run[0].segment == sample.segment
        if fits and _hull([*run, sample]).area <= sum(s.area.area for s in (*run, sample)):
            run.append(sample)
            continue
        if run:
            yield run
        run = [sample]
    if run:
        yield run


def _hull(samples: Sequence[Sample]) -> Box:
    boxes = [sample.box for sample in samples]
    return Box(min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[2] for b in boxes), max(b[3] for b in boxes))


def stitch(halves: list[StoredArrays]) -> StoredArrays:
    """Set samples of equal height side by side; layers, labels and ignore masks alike."""
    layers, labels, ignore = (np.concatenate(arrays, axis=-1) for arrays in zip(*halves, strict=True))
    return StoredArrays(layers, labels, ignore)


def _turned(arrays: StoredArrays, part: DatasetPart) -> StoredArrays:
    def move(array: NDArray[Any]) -> NDArray[Any]:
        flipped = array[..., ::-1] if part.flip else array
        return np.rot90(flipped, axes=(-2, -1)) if part.turn else flipped

    return StoredArrays(move(arrays.layers), move(arrays.labels), move(arrays.ignore))


def _inside_parts(parts: Sequence[DatasetPart], box: Box) -> Iterator[tuple[DatasetPart, Box]]:
    """Yield the halves of a stitched pair that a box shows, each with the box of its segment that is shown."""
    left = 0
    for part in parts:
        area = part.area
        seen = box.intersect(Box(0, left, area.height, left + area.width)).shift(0, -left)
        left += area.width
        if seen.area:
            y0, x0, y1, x1 = seen.y0, seen.x0, seen.y1, seen.x1
            if part.turn:
                y0, x0, y1, x1 = x0, area.width - y1, x1, area.width - y0
            if part.flip:
                x0, x1 = area.width - x1, area.width - x0
            yield part, Box(y0, x0, y1, x1).shift(area.y0, area.x0)


class _Pack:
    """The three arrays of a packed dataset."""

    def __init__(self, location: Location, cache: ChunkCache) -> None:
        names = (SAMPLES_NAME, LABELS_NAME, IGNORE_NAME)
        self.samples, self.labels, self.ignore = (CachedArray(ShardedArray.open(location / n), cache) for n in names)

    def read(self, row: int, box: Box, layers: range | None = None) -> StoredArrays:
        flat = (slice(row, row + 1), *box.slices)
        wanted = layers or range(self.samples.array.layout.shape[1])
        deep = (flat[0], slice(wanted.start, wanted.stop), *flat[1:])
        return StoredArrays(self.samples.read(deep)[0], self.labels.read(flat)[0], self.ignore.read(flat)[0])

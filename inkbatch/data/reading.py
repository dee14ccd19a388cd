"""Read the samples of a dataset, from their segments or from a pack."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inkbatch.config import digest
from inkbatch.data.index import DatasetIndex, DatasetPart, DatasetSegment, Sample, resolve, root_of
from inkbatch.data.pictures import cut_out, picture_layers
from inkbatch.errors import MismatchError
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.shards import ShardedArray
from inkbatch.io.storage import Location
from inkbatch.io.surface import ClaheSettings, SurfaceVolume

LABEL_MAX = 255  # stored value of certain ink
PICTURES_KEPT = 8
SAMPLES_NAME, LABELS_NAME, IGNORE_NAME = "samples.zarr", "labels.zarr", "ignore.zarr"


class SampleArrays(NamedTuple):
    """One sample.

    Attributes:
        layers: (Z, Y, X) in depth order, stored dtype; 0 outside the surface.
        labels: (Y, X) float32, 0 (no ink) to 1 (ink).
        ignore: (Y, X) bool, True where a pixel counts in no loss and no metric: ignore mask, or no papyrus.
    """

    layers: NDArray[Any]
    labels: NDArray[np.float32]
    ignore: NDArray[np.bool_]


class StoredArrays(NamedTuple):
    """One sample as it is stored: labels uint8 0 to 255, ignore uint8 0 or 1; else as `SampleArrays`."""

    layers: NDArray[Any]
    labels: NDArray[np.uint8]
    ignore: NDArray[np.uint8]

    def ready(self) -> SampleArrays:
        """The sample as a network wants it."""
        labels = self.labels.astype(np.float32) / np.float32(LABEL_MAX)
        return SampleArrays(self.layers, labels, self.ignore.astype(bool))


class SampleReader:
    """Reads samples of one dataset. Safe to use from several threads; a pickled copy opens its files anew.

    Args:
        index: The dataset.
        location: Its folder, ``ROOT/datasets/{name}``.
    """

    def __init__(self, index: DatasetIndex, location: Location) -> None:
        self.index = index
        self.location = location
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
        self._segments: dict[str, SegmentArrays] = {}
        self._pack: _Pack | None = None
        self._row = {sample.id: row for row, sample in enumerate(self.index.samples)}
        self._known = {segment.id: segment for segment in self.index.segments}

    def __getstate__(self) -> dict[str, Any]:
        return {"index": self.index, "location": self.location}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.index, self.location = state["index"], state["location"]
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

    def read_stored(self, sample: Sample, window: Box | None = None) -> StoredArrays:
        """Read one sample as it is stored: a quarter of the bytes of `read` for labels; for packing and for queues.

        Args:
            sample: One of `index.samples`.
            window: The part of it that is wanted, measured from its upper left corner and inside it; None: all of it.
                Nothing else is read: a tile of a large crop costs what the tile costs.
        """
        inside = window or Box(0, 0, *sample.shape_yx)
        if self.index.form == "pack":
            return self._packed().read(self._row[sample.id], inside)
        if sample.parts is None:
            return self._segment(sample.segment).read(inside.shifted(sample.area.y0, sample.area.x0))
        return stitch([self._part(part, place) for part, place in _halves(sample.parts, inside)])

    def _part(self, part: DatasetPart, place: Box) -> StoredArrays:
        """`place` of a part as the pair shows it: read from where it came from, then flipped and turned."""
        edge = part.area.width
        if part.turn:
            place = Box(place.x0, edge - place.y1, place.x1, edge - place.y0)
        if part.flip:
            place = Box(place.y0, edge - place.x1, place.y1, edge - place.x0)
        found = self._segment(part.segment).read(place.shifted(part.area.y0, part.area.x0))
        return _turned(found, part)

    def read_together(self, samples: Sequence[Sample]) -> Iterator[StoredArrays]:
        """Read samples in order; neighbours that overlap are read as one window, so that no pixel is decoded twice.

        Memory is at most twice that of the samples.
        """
        for run in _runs(samples, joined=self.index.form == "index"):
            if len(run) == 1:
                yield self.read_stored(run[0])
                continue
            hull = _hull(run)
            found = self._segment(run[0].segment).read(hull)
            for sample in run:
                window = (..., *sample.area.within(hull))
                yield StoredArrays(found.layers[window], found.labels[window], found.ignore[window])

    def _segment(self, segment_id: str) -> SegmentArrays:
        with self._lock:
            found = self._segments.get(segment_id)
            if found is None:
                found = open_segment(self._known[segment_id], root_of(self.location))
                self._segments[segment_id] = found
            return found

    def _packed(self) -> _Pack:
        with self._lock:
            if self._pack is None:
                self._pack = _Pack(self.location)
            return self._pack


def open_segment(segment: DatasetSegment, root: Location) -> SegmentArrays:
    """Open a segment of a dataset and check that its parts fit each other.

    Raises:
        DataError: A part is missing or damaged.
        MismatchError: Labels or ignore mask are of another size than the surface, or are not those of the dataset.
    """
    return _SurfaceArrays(segment, root) if segment.kind == "surface" else _ImageArrays(segment, root)


def _runs(samples: Sequence[Sample], *, joined: bool) -> Iterator[list[Sample]]:
    """Consecutive samples of one segment whose hull holds no more pixels than they do together."""
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


def _halves(parts: Sequence[DatasetPart], window: Box) -> Iterator[tuple[DatasetPart, Box]]:
    """The parts of a pair that a window of it touches, each with its own share of the window."""
    left = 0
    for part in parts:
        edge = part.area.width
        share = window.shifted(0, -left).intersect(Box(0, 0, edge, edge))
        if share.area:
            yield part, share
        left += edge


def stitch(halves: list[StoredArrays]) -> StoredArrays:
    """Set samples of equal height side by side; layers, labels and ignore masks alike."""
    layers, labels, ignore = (np.concatenate(arrays, axis=-1) for arrays in zip(*halves, strict=True))
    return StoredArrays(layers, labels, ignore)


def _turned(arrays: StoredArrays, part: DatasetPart) -> StoredArrays:
    def move(array: NDArray[Any]) -> NDArray[Any]:
        flipped = array[..., ::-1] if part.flip else array
        return np.rot90(flipped, axes=(-2, -1)) if part.turn else flipped

    return StoredArrays(move(arrays.layers), move(arrays.labels), move(arrays.ignore))


class SegmentArrays(ABC):
    """What one segment offers: windows that may leave it, zero-filled and ignored outside.

    Attributes:
        shape_yx: (height, width) in pixels.
        digest: What its parts say of themselves, see `DatasetSegment.digest`.
    """

    shape_yx: tuple[int, int]
    digest: str

    def read(self, box: Box) -> StoredArrays:
        """Layers, labels and ignore mask in a window."""
        labels, ignore = self.read_flat(box)
        return StoredArrays(self.read_layers(box), labels, ignore)

    @abstractmethod
    def read_layers(self, box: Box) -> NDArray[Any]:
        """(Z, Y, X), stored dtype."""

    @abstractmethod
    def read_flat(self, box: Box) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Labels 0 to 255 and ignore mask 0 or 1, (Y, X) each."""

    @abstractmethod
    def read_mask(self, box: Box) -> NDArray[np.bool_]:
        """True where there is papyrus."""


class _SurfaceArrays(SegmentArrays):
    """A prepared surface."""

    def __init__(self, segment: DatasetSegment, root: Location) -> None:
        self.surface = SurfaceVolume.open(resolve(segment.surface, root))
        self.labels = Multiscale.open(resolve(segment.ink_labels, root))
        self.ignore = Multiscale.open(resolve(segment.ignore_mask, root)) if segment.ignore_mask else None
        self.shape_yx = self.surface.shape_yx
        provenance = self.surface.provenance
        self.layers = provenance.index_range(segment.layers or provenance.source_layers)
        for array in (self.labels, self.ignore):
            if array is not None and array.shape != self.shape_yx:
                raise MismatchError(
                    f"segment {segment.id}: {array.location} is {array.shape}, the surface is {self.shape_yx} "
                    "(height, width); give the labels of this very surface"
                )
        parts = [array for array in (self.surface.volume, self.labels, self.ignore) if array is not None]
        self.digest = digest([array.attributes["inkbatch"] for array in parts])
        if segment.digest not in ("", self.digest):
            raise MismatchError(
                f"segment {segment.id}: its surface or labels were made anew since the dataset was built; build the "
                "dataset again (under another name, or after removing it)"
            )

    def read_layers(self, box: Box) -> NDArray[Any]:
        return self.surface.read(self.layers, box)

    def read_flat(self, box: Box) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        ignore = (~self.surface.read_mask(box)).astype(np.uint8)
        if self.ignore is not None:
            ignore |= read_window(self.ignore, box) != 0
        return read_window(self.labels, box), ignore

    def read_mask(self, box: Box) -> NDArray[np.bool_]:
        return self.surface.read_mask(box)


class _ImageArrays(SegmentArrays):
    """A picture with its annotation; the last few pictures are kept decoded."""

    _kept: ClassVar[OrderedDict[tuple[str, str], NDArray[Any]]] = OrderedDict()
    _keeping: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, segment: DatasetSegment, root: Location) -> None:
        self.segment = segment
        self.image, self.annotation = resolve(segment.surface, root), resolve(segment.ink_labels, root)
        self.shape_yx, self.digest = segment.shape_yx, segment.digest

    def read_layers(self, box: Box) -> NDArray[Any]:
        first, last = self.segment.layers or self.segment.source_layers
        picture = self._decoded(self.image, in_colour=self.segment.kind == "image", clahe=self.segment.clahe)
        return cut_out(picture[first:last], box)

    def read_flat(self, box: Box) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        labels = self._decoded(self.annotation, in_colour=False)[0]
        if self.segment.label_above is not None:
            labels = (labels > self.segment.label_above).astype(np.uint8) * np.uint8(LABEL_MAX)
        return cut_out(labels, box), (~self.read_mask(box)).astype(np.uint8)

    def read_mask(self, box: Box) -> NDArray[np.bool_]:
        return cut_out(np.ones(self.shape_yx, bool), box)

    def _decoded(self, place: Location, *, in_colour: bool, clahe: ClaheSettings | None = None) -> NDArray[Any]:
        key = f"{place.uri} {in_colour} {clahe}", self.segment.digest
        with self._keeping:
            found = self._kept.get(key)
        if found is None:
            found = picture_layers(place, in_colour=in_colour, clahe=clahe)
            if found.shape[-2:] != self.shape_yx:
                raise MismatchError(
                    f"segment {self.segment.id}: {place} is {found.shape[-2:]}, {self.shape_yx} (height, width) was "
                    "wanted; picture and annotation must be of one size"
                )
            with self._keeping:
                self._kept[key] = found
                while len(self._kept) > PICTURES_KEPT:
                    self._kept.popitem(last=False)
        return found


class _Pack:
    """The three arrays of a packed dataset."""

    def __init__(self, location: Location) -> None:
        names = (SAMPLES_NAME, LABELS_NAME, IGNORE_NAME)
        self.samples, self.labels, self.ignore = (ShardedArray.open(location / name) for name in names)

    def read(self, row: int, window: Box) -> StoredArrays:
        flat = (slice(row, row + 1), *window.slices)
        deep = (flat[0], slice(0, self.samples.layout.shape[1]), *flat[1:])
        return StoredArrays(self.samples.read(deep)[0], self.labels.read(flat)[0], self.ignore.read(flat)[0])


def read_window(array: Multiscale, box: Box) -> NDArray[Any]:
    """A window of a flat pyramid's full resolution, zero-filled outside its borders."""
    inside = box.intersect(Box(0, 0, *array.shape))
    if inside == box:
        return array.levels[0].read(box.slices)
    out = np.zeros(box.shape, array.levels[0].layout.dtype)
    if inside.area:
        out[inside.within(box)] = array.levels[0].read(inside.slices)
    return out

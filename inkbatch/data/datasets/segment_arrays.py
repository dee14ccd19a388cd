"""The arrays of one segment, as samples are cut from them: a prepared surface with its labels, or a picture."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inkbatch.config import digest
from inkbatch.data.datasets.index import DatasetSegment, resolve
from inkbatch.data.datasets.picture_layers import cut_out, decode_objects, picture_layers
from inkbatch.data.labels.ink import LABEL_MAX
from inkbatch.errors import MismatchError
from inkbatch.geometry import Box
from inkbatch.io.multiscale import Multiscale
from inkbatch.io.shards.chunk_cache import CachedArray, ChunkCache
from inkbatch.io.store.location import Location
from inkbatch.io.surface import ClaheSettings, SurfaceVolume

PICTURES_KEPT = 8


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
        """Convert to the labels and masks that training uses."""
        labels = self.labels.astype(np.float32) / np.float32(LABEL_MAX)
        return SampleArrays(self.layers, labels, self.ignore.astype(bool))


def open_segment(segment: DatasetSegment, root: Location, cache: ChunkCache | None = None) -> SegmentArrays:
    """Open a segment of a dataset and check that its parts fit each other.

    Args:
        segment: The segment.
        root: The dataset's ROOT.
        cache: Keeps decoded chunks; None keeps none.

    Raises:
        DataError: A part is missing or damaged.
        MismatchError: Labels or ignore mask are of another size than the surface, or are not those of the dataset.
    """
    return (
        _SurfaceArrays(segment, root, cache or ChunkCache(0))
        if segment.kind == "surface"
        else _ImageArrays(segment, root)
    )


class SegmentArrays(ABC):
    """Arrays of one segment, read by box; outside the segment they are zero and ignored.

    Attributes:
        shape_yx: (height, width) in pixels.
        digest: Digest of its parts' attributes, see `DatasetSegment.digest`.
        holds_out: True if a validation mask marks pixels that are held out.
    """

    shape_yx: tuple[int, int]
    digest: str
    holds_out: bool = False

    def read(self, box: Box, layers: range | None = None) -> StoredArrays:
        """Read layers, labels and ignore mask in a box."""
        labels, ignore = self.read_flat(box)
        return StoredArrays(self.read_layers(box, layers), labels, ignore)

    @abstractmethod
    def read_layers(self, box: Box, layers: range | None = None) -> NDArray[Any]:
        """Read (Z, Y, X), stored dtype; `layers` are indices into the samples' layers, None takes all."""

    @abstractmethod
    def read_flat(self, box: Box) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read labels 0 to 255 and ignore mask 0 or 1, (Y, X) each."""

    @abstractmethod
    def read_mask(self, box: Box) -> NDArray[np.bool_]:
        """Read the segment mask, True where there is papyrus."""

    def read_held_out(self, box: Box) -> NDArray[np.bool_]:
        """Read the validation mask, True where a pixel is held out; nowhere without one."""
        return np.zeros(box.shape, bool)

    def scored(self, box: Box, found: StoredArrays) -> StoredArrays:
        """Ignore all but the held-out pixels of a box, as validation does; all of it counts without such a mask."""
        if not self.holds_out:
            return found
        return found._replace(ignore=found.ignore | ~self.read_held_out(box))


class _SurfaceArrays(SegmentArrays):
    """A prepared surface."""

    def __init__(self, segment: DatasetSegment, root: Location, cache: ChunkCache) -> None:
        self.surface = SurfaceVolume.open(resolve(segment.surface, root))
        self.labels = Multiscale.open(resolve(segment.ink_labels, root))
        self.ignore, self.held_out = (
            Multiscale.open(resolve(uri, root)) if uri else None
            for uri in (segment.ignore_mask, segment.validation_mask)
        )
        self.shape_yx = self.surface.shape_yx
        provenance = self.surface.provenance
        self.layers = provenance.index_range(segment.layers or provenance.source_layers)
        for array in (self.labels, self.ignore, self.held_out):
            if array is not None and array.shape != self.shape_yx:
                raise MismatchError(
                    f"segment {segment.id}: expected {array.location} to be {self.shape_yx} (height, width) like the "
                    f"surface, got {array.shape}; give the labels of this surface"
                )
        parts = [array for array in (self.surface.volume, self.labels, self.ignore, self.held_out) if array is not None]
        self.digest = digest([array.attributes["inkbatch"] for array in parts])
        if segment.digest not in ("", self.digest):
            raise MismatchError(
                f"segment {segment.id}: its surface or labels changed since the dataset was built; build the "
                "dataset again: inkbatch build-dataset with --replace"
            )

        self._volume, self._mask, self._labels = (
            CachedArray(array.levels[0], cache) for array in (self.surface.volume, self.surface.mask, self.labels)
        )
        self._ignore, self._held_out = (
            CachedArray(array.levels[0], cache) if array is not None else None for array in (self.ignore, self.held_out)
        )
        self.holds_out = self._held_out is not None

    def read_layers(self, box: Box, layers: range | None = None) -> NDArray[Any]:
        wanted = self.layers if layers is None else self.layers[layers.start : layers.stop]
        return read_box(self._volume, box, (slice(wanted.start, wanted.stop),))

    def read_flat(self, box: Box) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        ignore = (~self.read_mask(box)).astype(np.uint8)
        if self._ignore is not None:
            ignore |= read_box(self._ignore, box) != 0
        return read_box(self._labels, box), ignore

    def read_mask(self, box: Box) -> NDArray[np.bool_]:
        papyrus: NDArray[np.bool_] = read_box(self._mask, box) != 0
        return papyrus

    def read_held_out(self, box: Box) -> NDArray[np.bool_]:
        if self._held_out is None:
            return super().read_held_out(box)
        marked: NDArray[np.bool_] = read_box(self._held_out, box) != 0
        return marked


class _ImageArrays(SegmentArrays):
    """A picture with its annotation; the last few pictures are kept decoded."""

    _kept: ClassVar[OrderedDict[tuple[str, str], NDArray[Any]]] = OrderedDict()
    _keeping: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, segment: DatasetSegment, root: Location) -> None:
        self.segment = segment
        self.image, self.annotation = resolve(segment.surface, root), resolve(segment.ink_labels, root)
        self.shape_yx, self.digest = segment.shape_yx, segment.digest

    def read_layers(self, box: Box, layers: range | None = None) -> NDArray[Any]:
        first, last = self.segment.layers or self.segment.source_layers
        picture = self._decoded(self.image, in_colour=self.segment.kind == "image", clahe=self.segment.clahe)
        chosen = picture[first:last]
        return cut_out(chosen if layers is None else chosen[layers.start : layers.stop], box)

    def read_flat(self, box: Box) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        labels = self._labels()
        if self.segment.label_above is not None and self.segment.objects is None:
            labels = (labels > self.segment.label_above).astype(np.uint8) * np.uint8(LABEL_MAX)
        return cut_out(labels, box), (~self.read_mask(box)).astype(np.uint8)

    def read_mask(self, box: Box) -> NDArray[np.bool_]:
        return cut_out(np.ones(self.shape_yx, bool), box)

    def _labels(self) -> NDArray[np.uint8]:
        objects = self.segment.objects
        if objects is None:
            found = self._decoded(self.annotation, in_colour=False)
        else:
            found = self._keep(self.annotation, f"{objects}", lambda: decode_objects(self.annotation, objects)[None])
        labels: NDArray[np.uint8] = found[0]
        return labels

    def _decoded(self, place: Location, *, in_colour: bool, clahe: ClaheSettings | None = None) -> NDArray[Any]:
        return self._keep(
            place, f"{in_colour} {clahe}", lambda: picture_layers(place, in_colour=in_colour, clahe=clahe)
        )

    def _keep(self, place: Location, rule: str, read: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        key = f"{place.uri} {rule}", self.segment.digest
        with self._keeping:
            found = self._kept.get(key)
        if found is None:
            found = read()
            if found.shape[-2:] != self.shape_yx:
                raise MismatchError(
                    f"segment {self.segment.id}: expected {place} to be {self.shape_yx} (height, width), got "
                    f"{found.shape[-2:]}; picture and annotation must have the same size"
                )
            with self._keeping:
                self._kept[key] = found
                while len(self._kept) > PICTURES_KEPT:
                    self._kept.popitem(last=False)
        return found


def read_box(array: CachedArray, box: Box, lead: tuple[slice, ...] = ()) -> NDArray[Any]:
    """Read a box of an array (…, Y, X), zero-filled outside its borders; `lead` selects along the axes before."""
    shape, dtype = array.array.layout.shape, array.array.layout.dtype
    inside = box.intersect(Box(0, 0, *shape[-2:]))
    if inside == box:
        return array.read((*lead, *box.slices))
    out = np.zeros((*(part.stop - part.start for part in lead), *box.shape), dtype)
    if inside.area:
        out[(..., *inside.within(box))] = array.read((*lead, *inside.slices))
    return out
